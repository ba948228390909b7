//! What an acknowledged event survives on this server, as the server tells it: asked whenever a connection is made
//! and by every probe. It changes no setting, and what the server keeps to itself is said to be unknown.

use std::collections::HashMap;
use std::io;

use redis::{FromRedisValue, Pipeline, Value};
use shared::ports::StoreError;
use shared::process::config::DurabilityOptions;

use super::STORE;

/// What one server says of itself. `None`: it does not tell.
#[derive(Debug, Default)]
pub(super) struct Profile {
    appends_to_file: Option<bool>,
    fsync: Option<String>,
    /// `maxmemory-policy`.
    eviction: Option<String>,
    /// Why nobody may use it now.
    away: Option<&'static str>,
    /// Connected now.
    replicas: Option<u64>,
}

impl Profile {
    /// INFO tells all but the fsync. A hosted Redis may refuse CONFIG, so each command has an answer of its own.
    pub(super) fn question() -> Pipeline {
        let mut question = redis::pipe();
        question.cmd("INFO").arg("persistence").arg("memory").arg("replication");
        question.cmd("CONFIG").arg("GET").arg("appendfsync");
        question
    }

    pub(super) fn of(answers: Vec<Value>) -> Self {
        let mut answers = answers.into_iter();
        let info: String = told(answers.next());
        let mut config: HashMap<String, String> = told(answers.next());
        let field = |name: &str| field(&info, name).map(str::to_owned);
        // While it loads its data it says that there is no append-only file.
        let is = |name: &str, value: &str| field(name).as_deref() == Some(value);
        let loads = is("loading", "1").then_some("it is loading its data");
        let follows = is("role", "slave").then_some("it is a replica");
        Self {
            away: loads.or(follows),
            appends_to_file: field("aof_enabled").map(|enabled| enabled == "1"),
            fsync: config.remove("appendfsync"),
            eviction: field("maxmemory_policy"),
            replicas: field("connected_slaves").and_then(|count| count.parse().ok()),
        }
    }

    /// # Errors
    /// [`StoreError::Unavailable`] while it loads, when nothing it says can be relied on, and for a replica: its
    /// heads may be old, and it takes no append; the next connection may find the master. [`StoreError::Unfit`] when this process acknowledges events (`options`) and the server
    /// may lose them. A server that does not tell is believed.
    pub(super) fn check(&self, options: Option<DurabilityOptions>) -> Result<(), StoreError> {
        if let Some(why) = self.away {
            return Err(StoreError::unavailable(STORE, io::Error::other(why)));
        }
        match (self.danger(), options) {
            (Some(danger), Some(DurabilityOptions { allow_data_loss: false, .. })) => {
                let what = format!("{danger}, or allow it with --allow-data-loss");
                Err(StoreError::Unfit { store: STORE, what })
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// How acknowledged events may be lost, and what to set against it.
    pub(super) fn danger(&self) -> Option<String> {
        let no_file = (self.appends_to_file == Some(false)).then(|| {
            "it has no append-only file, so a restart loses acknowledged events: set appendonly yes"
                .to_owned()
        });
        let evicts = self.evicting().map(|policy| {
            format!(
                "maxmemory-policy {policy} may evict acknowledged events: set maxmemory-policy noeviction"
            )
        });
        let dangers: Vec<_> = no_file.into_iter().chain(evicts).collect();
        (!dangers.is_empty()).then(|| dangers.join("; "))
    }

    /// The policy by which it may evict what was acknowledged.
    fn evicting(&self) -> Option<&str> {
        self.eviction.as_deref().filter(|policy| *policy != "noeviction")
    }

    /// For `/readyz` and the log. `replicas` must have an event before it is acknowledged.
    pub(super) fn text(&self, replicas: u8) -> String {
        let mut text = format!("{STORE}: {}", self.kept());
        if let Some(policy) = self.evicting() {
            text += &format!("; maxmemory-policy {policy} may evict acknowledged data: set noeviction");
        }
        if replicas > 0 {
            let plural = if replicas == 1 { "" } else { "s" };
            let connected = self.replicas.map_or("unknown".to_owned(), |count| count.to_string());
            text += &format!("; acknowledged by at least {replicas} replica{plural} ({connected} connected)");
        }
        text
    }

    fn kept(&self) -> &'static str {
        match (self.appends_to_file, self.fsync.as_deref()) {
            (None, _) => "unknown (it does not tell its settings)",
            (Some(false), _) => {
                "no append-only file (an acknowledged event does not survive a restart of Redis)"
            }
            (Some(true), Some("always")) => {
                "append-only file, fsync always (an acknowledged event survives a power cut)"
            }
            (Some(true), Some("everysec")) => {
                "append-only file, fsync every second (an acknowledged event survives a crash of Redis; a power \
                 cut loses the last seconds)"
            }
            (Some(true), Some(_)) => {
                "append-only file, fsync left to the system (an acknowledged event survives a crash of Redis; a \
                 power cut loses what the system had not written)"
            }
            (Some(true), None) => {
                "append-only file, fsync unknown (an acknowledged event survives a crash of Redis; it does not \
                 tell what a power cut loses)"
            }
        }
    }
}

/// Of an answer to INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim())
}

/// A refusal tells nothing.
pub(super) fn told<T: FromRedisValue + Default>(answer: Option<Value>) -> T {
    answer.and_then(|value| redis::from_redis_value(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(aof: &str, fsync: &str, policy: &str) -> Profile {
        of("loading:0", aof, fsync, policy, "role:master")
    }

    /// As Redis answers.
    fn of(loading: &str, aof: &str, fsync: &str, policy: &str, role: &str) -> Profile {
        let info = format!(
            "# Persistence\r\n{loading}\r\naof_enabled:{aof}\r\n\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n\
             \r\n# Replication\r\n{role}\r\nconnected_slaves:2\r\n"
        );
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Profile::of(vec![bulk(&info), Value::Array(vec![bulk("appendfsync"), bulk(fsync)])])
    }

    fn refusal(profile: &Profile, allow_data_loss: bool) -> Option<String> {
        let options = DurabilityOptions { allow_data_loss, log_replicas: 0 };
        profile.check(Some(options)).err().map(|error| error.to_string())
    }

    #[test]
    fn what_survives() {
        let text = |aof, fsync, policy| profile(aof, fsync, policy).text(0);
        assert_eq!(
            text("1", "always", "noeviction"),
            "redis: append-only file, fsync always (an acknowledged event survives a power cut)"
        );
        assert!(text("1", "everysec", "noeviction").contains("loses the last seconds)"));
        assert!(text("1", "no", "noeviction").contains("had not written)"));
        assert!(text("0", "always", "noeviction").starts_with("redis: no append-only file"));
        assert!(text("1", "always", "allkeys-lru").ends_with("set noeviction"));
        let told = |replicas| profile("1", "always", "noeviction").text(replicas);
        assert!(told(1).ends_with("; acknowledged by at least 1 replica (2 connected)"), "{}", told(1));
        assert!(told(3).ends_with("; acknowledged by at least 3 replicas (2 connected)"), "{}", told(3));
    }

    #[test]
    fn what_may_lose_events_is_refused_unless_allowed() {
        for (aof, policy, expected) in [
            ("1", "noeviction", None),
            ("0", "noeviction", Some("no append-only file")),
            ("1", "volatile-ttl", Some("maxmemory-policy volatile-ttl may evict")),
            ("0", "allkeys-lru", Some("set appendonly yes; maxmemory-policy allkeys-lru")),
        ] {
            let profile = profile(aof, "always", policy);
            let refused = refusal(&profile, false);
            assert_eq!(refused.is_some(), expected.is_some(), "{aof} {policy}");
            if let (Some(text), Some(expected)) = (refused, expected) {
                assert!(
                    text.contains(expected) && text.ends_with("allow it with --allow-data-loss"),
                    "{text}"
                );
                assert!(!text.contains('\n'), "one line: {text}");
            }
            assert_eq!(refusal(&profile, true), None, "allowed: {aof} {policy}");
            assert!(profile.check(None).is_ok(), "it acknowledges nothing: {aof} {policy}");
        }
    }

    #[test]
    fn what_is_not_told_is_unknown_and_believed() {
        for answers in [vec![], vec![Value::Nil, Value::Nil], vec![Value::Okay]] {
            let profile = Profile::of(answers);
            assert_eq!(profile.text(0), "redis: unknown (it does not tell its settings)");
            assert!(profile.text(1).ends_with("(unknown connected)"));
            assert_eq!(refusal(&profile, false), None);
        }
        let closed = Profile { fsync: None, ..profile("1", "always", "noeviction") };
        assert!(closed.text(0).contains("fsync unknown"));
        assert_eq!(refusal(&closed, false), None);
    }

    #[test]
    fn who_loads_or_follows_is_away_for_everyone() {
        for profile in [
            of("loading:1", "0", "always", "noeviction", "role:master"),
            of("loading:0", "1", "always", "noeviction", "role:slave"),
        ] {
            for options in [None, Some(DurabilityOptions::default())] {
                assert!(profile.check(options).is_err_and(|error| error.is_retryable()), "{profile:?}");
            }
        }
    }
}
