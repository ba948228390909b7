//! Events that wait in the log before a drain begins: messages in no order over many conversations. Which they are
//! follows from two numbers, so what must be in the views at the end is known without asking anybody.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use shared::event::{Event, MessageSent};
use shared::ids::Conversation;
use shared::limits::{BACKOFF_MIN, IDEMPOTENCY_WINDOW};
use shared::ports::{Append, AppendError, EventLog, StoreError};
use shared::{Clock, Username};
use storage::embedded::{self, Embedded};
use storage::redis::{self, Options};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sends::{Random, content, name};

/// Of each user: there are a fifth as many users as conversations.
const CONVERSATIONS_PER_USER: u64 = 5;
/// Below what the queue of the log takes.
const APPENDS_IN_FLIGHT: usize = 2_000;
/// An append is not late here: nobody waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) events: u64,
    pub(crate) conversations: u64,
    pub(crate) spread: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    Even,
    /// Half of the events are of one conversation.
    HalfInOne,
}

impl Backlog {
    /// Appends them all, through the port; as fast as that goes, or so many per second.
    pub(crate) async fn put(&self, redis_url: &str, key_prefix: &str, rate: Option<f64>) -> Result<()> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let _stop_when_dropped = stop.clone().drop_guard();
        let options = Options {
            prefix: key_prefix.to_owned(),
            answer_timeout: ANSWER_TIMEOUT,
            ..Options::new(redis_url)
        };
        let clock = Clock::system();
        let log = redis::connect(&options, clock.clone(), &tasks, stop)?.log();
        self.append_to(&log, &clock, rate).await
    }

    /// Appends them all to the log in a directory, before a service opens it.
    pub(crate) async fn put_into(&self, dir: &Path) -> Result<()> {
        let options = embedded::Options { dir: dir.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW };
        let clock = Clock::system();
        let store = Embedded::open(&options, clock.clone()).context("making the directory")?;
        self.append_to(&store, &clock, None).await
    }

    async fn append_to(&self, log: &impl EventLog, clock: &Clock, rate: Option<f64>) -> Result<()> {
        let mut messages = self.messages();
        let new_append = |message| Append {
            id: clock.new_id(),
            event: Event::MessageSent(message),
            once: None,
            trace: None,
        };
        // The first shows when the connection is there.
        if let Some(first) = messages.next() {
            append_when_connected(log, new_append(first)).await?;
        }
        let begun = Instant::now();
        let due = |nth: u32| rate.map(|rate| begun + Duration::from_secs_f64(f64::from(nth) / rate));
        let messages = stream::iter((0..).zip(messages)).then(|(nth, message)| async move {
            if let Some(due) = due(nth) {
                tokio::time::sleep_until(due).await;
            }
            message
        });
        let appends = messages.map(|message| log.append(new_append(message)));
        let appended = appends.buffer_unordered(APPENDS_IN_FLIGHT).try_for_each(async |_| Ok(())).await;
        appended.context("filling the log")
    }

    /// How many messages each conversation holds, by its key in the views.
    pub(crate) fn heads(&self) -> BTreeMap<String, u64> {
        let mut heads = BTreeMap::new();
        for message in self.messages() {
            *heads.entry(message.conversation().to_string()).or_default() += 1;
        }
        heads
    }

    fn messages(&self) -> impl Iterator<Item = MessageSent> + use<> {
        let Self { events, conversations, spread } = *self;
        let mut random = Random::new(0);
        (0..events).map(move |_| {
            let drawn = random.next();
            let nth = match spread {
                Spread::HalfInOne if drawn >> 62 & 1 == 1 => 0,
                Spread::HalfInOne | Spread::Even => drawn % conversations,
            };
            let pair = pair(nth, conversations);
            let (sender, recipient) =
                if drawn >> 63 == 0 { (pair.low(), pair.high()) } else { (pair.high(), pair.low()) };
            MessageSent { sender: sender.clone(), recipient: recipient.clone(), content: content() }
        })
    }
}

async fn append_when_connected(log: &impl EventLog, append: Append) -> Result<()> {
    let deadline = Instant::now() + CONNECT_TIME_MAX;
    loop {
        match log.append(append.clone()).await {
            Err(AppendError::Store(StoreError::Unavailable { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(BACKOFF_MIN).await;
            }
            appended => return appended.map(drop).context("the first append"),
        }
    }
}

/// Another one for each `nth` below `conversations`; every user is in twice [`CONVERSATIONS_PER_USER`] of them.
fn pair(nth: u64, conversations: u64) -> Conversation {
    let users = conversations / CONVERSATIONS_PER_USER;
    let one = nth % users;
    let other = (one + 1 + nth / users) % users;
    let username = |user| Username::new(&name(user)).expect("a letter and digits are a name");
    Conversation::between(&username(one), &username(other)).expect("two users")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn conversations_are_as_many_as_said() {
        for conversations in [100, 1_000, 100_000] {
            let pairs: BTreeSet<String> =
                (0..conversations).map(|nth| pair(nth, conversations).to_string()).collect();
            assert_eq!(pairs.len() as u64, conversations);
        }
    }

    #[test]
    fn every_event_counts_once_and_in_no_order() {
        let backlog = Backlog { events: 10_000, conversations: 1_000, spread: Spread::Even };
        let heads = backlog.heads();
        assert_eq!(heads.values().sum::<u64>(), backlog.events);
        assert_eq!(heads.len(), 1_000);
        assert!(heads.values().all(|head| (1..=40).contains(head)), "{heads:?}");
        let senders: BTreeSet<String> = backlog
            .messages()
            .filter(|sent| sent.conversation() == pair(7, 1_000))
            .map(|sent| sent.sender.into())
            .collect();
        assert_eq!(senders.len(), 2, "both sides send");
    }

    #[test]
    fn half_of_all_may_be_one_conversation() {
        let backlog = Backlog { events: 10_000, conversations: 1_000, spread: Spread::HalfInOne };
        let heads = backlog.heads();
        let longest = heads.values().max().copied().unwrap();
        assert!((4_800..5_200).contains(&longest), "{longest}");
        assert!((980..=1_000).contains(&heads.len()), "{}", heads.len());
    }
}
