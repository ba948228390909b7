//! Tells readers that views have moved, by publish and subscribe: projectors publish after each ack, this
//! subscriber passes it on. Notices may be lost (whenever the connection is); whoever waits for one has a
//! deadline.
//!
//! A notice is text, one line per conversation: `low:high seq`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use shared::Seq;
use shared::event::Event;
use shared::ids::Conversation;
use shared::limits::{LOG_TIMEOUT, NOTICES_PER_PUBLISH_MAX, NOTICES_PING_INTERVAL, NOTICES_QUEUED_MAX};
use shared::ports::{self, Applied, Chain, Delivery, StoreError};
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::STORE;
use super::link::Pauses;
use super::server::{Server, unavailable};

/// One subscription for the whole process. Clones share it.
#[derive(Clone)]
pub struct Notices {
    applied: broadcast::Sender<Applied>,
}

impl Notices {
    pub(super) fn start(server: Arc<Server>, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (applied, _) = broadcast::channel(NOTICES_QUEUED_MAX);
        let notices = Self { applied: applied.clone() };
        tasks.spawn(async move {
            stop.run_until_cancelled(subscribe(&server, &applied)).await;
        });
        notices
    }
}

impl ports::Notices for Notices {
    fn subscribe(&self) -> broadcast::Receiver<Applied> {
        self.applied.subscribe()
    }
}

async fn subscribe(server: &Server, applied: &broadcast::Sender<Applied>) {
    let mut pauses = Pauses::new(server.clock.clone());
    loop {
        let Err(error) = listen(server, applied, &mut pauses).await;
        tracing::debug!(error = %Chain(&error), "no subscription to Redis; trying again");
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn listen(
    server: &Server,
    applied: &broadcast::Sender<Applied>,
    pauses: &mut Pauses,
) -> Result<std::convert::Infallible, StoreError> {
    let (mut commands, mut messages) = server.subscriber().await?.split();
    commands.subscribe(server.keys.notices()).await.map_err(unavailable)?;
    pauses.reset();
    let mut pings = interval(NOTICES_PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return Err(closed("the subscription was closed")) };
                for notice in String::from_utf8_lossy(message.get_payload_bytes()).lines().filter_map(read) {
                    // An error only says that no one waits.
                    let _ = applied.send(notice);
                }
            }
            // A connection that died without a word looks like one on which nothing happens.
            _ = pings.tick() => match timeout(LOG_TIMEOUT, commands.ping::<redis::Value>()).await {
                Ok(pong) => { pong.map_err(unavailable)?; }
                Err(_) => return Err(closed("the subscription does not answer")),
            },
        }
    }
}

fn closed(why: &'static str) -> StoreError {
    StoreError::unavailable(STORE, std::io::Error::new(std::io::ErrorKind::NotConnected, why))
}

fn read(line: &str) -> Option<Applied> {
    let (conversation, seq) = line.split_once(' ')?;
    Some(Applied { conversation: conversation.parse().ok()?, seq: seq.parse().ok()? })
}

/// What readers are told about a batch: the highest number per conversation, a bounded number of lines each.
pub(super) fn texts(batch: &[Delivery]) -> Vec<String> {
    let mut highest: BTreeMap<Conversation, Seq> = BTreeMap::new();
    for (conversation, seq) in batch.iter().filter_map(place) {
        let known = highest.entry(conversation).or_default();
        *known = seq.max(*known);
    }
    let lines: Vec<String> =
        highest.into_iter().map(|(conversation, seq)| format!("{conversation} {seq}")).collect();
    lines.chunks(NOTICES_PER_PUBLISH_MAX).map(|lines| lines.join("\n")).collect()
}

/// A parked event's marker counts as well: readers pass over it.
fn place(delivery: &Delivery) -> Option<(Conversation, Seq)> {
    match &delivery.content {
        Ok(recorded) => match &recorded.event {
            Event::MessageSent(message) => Some((message.conversation(), recorded.seq)),
            Event::UserRegistered(_) | Event::ConversationRead(_) => None,
        },
        Err(unreadable) => unreadable.place.clone(),
    }
}

#[cfg(test)]
mod tests {
    use shared::event::Malformed;
    use shared::ids::Position;
    use shared::ports::Unreadable;

    use super::*;

    #[test]
    fn the_highest_of_each_conversation() {
        let parked = |text: &str, seq| {
            let place = Some((text.parse().unwrap(), seq));
            let unreadable =
                Unreadable { cause: Malformed::Field("id"), place, bytes: Vec::new(), length: 0 };
            let position = Position { partition: 0, ms: 1, counter: seq };
            Delivery { position, content: Err(unreadable) }
        };
        let batch = [parked("anna:ben", 3), parked("anna:carl", 1), parked("anna:ben", 2)];
        assert_eq!(texts(&batch), ["anna:ben 3\nanna:carl 1"]);
        assert!(texts(&[]).is_empty());

        let many: Vec<Delivery> = (0..600).map(|number| parked(&format!("anna:n{number}"), 1)).collect();
        let sizes: Vec<usize> = texts(&many).iter().map(|text| text.lines().count()).collect();
        assert_eq!(sizes, [256, 256, 88]);
    }

    #[test]
    fn lines() {
        let applied = read("anna:ben 42").unwrap();
        assert_eq!((applied.conversation.to_string().as_str(), applied.seq), ("anna:ben", 42));
        for line in ["", "anna:ben", "anna:ben x", "ben:anna 1", "anna 1", "anna:ben -1"] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }
}
