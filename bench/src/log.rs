//! The log that one drain empties: a copy of a backlog within Redis, under key names of its own. So every drain finds
//! the same entries, untouched, and how its groups begin is its own business.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use redis::Commands;
use redis::streams::StreamInfoGroupsReply;

/// How the name of each stream of events ends.
const STREAM: &str = ":events";

pub(crate) struct Log {
    connection: redis::Connection,
    key_prefix: String,
    /// Each stream, and the id of its last entry.
    streams: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drained {
    Nothing,
    Some,
    /// Every event is delivered and acknowledged.
    All,
}

impl Log {
    /// Of all keys that begin with `from`.
    pub(crate) fn copy(redis_url: &str, from: &str, to: &str) -> Result<Self> {
        let mut connection =
            redis::Client::open(redis_url)?.get_connection().context("connecting to Redis")?;
        let mut streams = Vec::new();
        for key in connection.keys::<_, Vec<String>>(format!("{from}*"))? {
            let copy = format!("{to}{}", &key[from.len()..]);
            let copied: bool = redis::cmd("COPY").arg(&key).arg(&copy).query(&mut connection)?;
            ensure!(copied, "{copy} was there already");
            if copy.ends_with(STREAM) {
                let last: Vec<(String, redis::Value)> = redis::cmd("XREVRANGE")
                    .arg(&copy)
                    .arg("+")
                    .arg("-")
                    .arg("COUNT")
                    .arg(1)
                    .query(&mut connection)?;
                let (id, _) = last.into_iter().next().with_context(|| format!("{copy} is empty"))?;
                streams.push((copy, id));
            }
        }
        ensure!(!streams.is_empty(), "there is no log under {from}");
        Ok(Self { connection, key_prefix: to.to_owned(), streams })
    }

    pub(crate) fn drained(&mut self) -> Result<Drained> {
        let mut pipeline = redis::pipe();
        for (stream, _) in &self.streams {
            pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
        }
        let replies: Vec<StreamInfoGroupsReply> = pipeline.query(&mut self.connection)?;
        // Whose group it is makes no difference: there is but one.
        let (mut begun, mut ended) = (false, true);
        for ((_, last), reply) in self.streams.iter().zip(replies) {
            let group = reply.groups.first();
            begun |= group.is_some_and(|group| group.last_delivered_id != "0-0");
            ended &= group.is_some_and(|group| group.last_delivered_id == *last && group.pending == 0);
        }
        Ok(match (begun, ended) {
            (_, true) => Drained::All,
            (true, false) => Drained::Some,
            (false, false) => Drained::Nothing,
        })
    }

    /// How many groups have been given something.
    pub(crate) fn groups_begun(&mut self) -> Result<usize> {
        let mut begun = BTreeSet::new();
        for (stream, _) in &self.streams {
            let reply: StreamInfoGroupsReply = self.connection.xinfo_groups(stream)?;
            let given = reply.groups.into_iter().filter(|group| group.last_delivered_id != "0-0");
            begun.extend(given.map(|group| group.name));
        }
        Ok(begun.len())
    }

    /// What was made beside the copy goes too.
    pub(crate) fn remove(mut self) -> Result<()> {
        let keys: Vec<String> = self.connection.keys(format!("{}*", self.key_prefix))?;
        Ok(self.connection.unlink(keys)?)
    }
}
