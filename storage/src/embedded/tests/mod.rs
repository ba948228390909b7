//! What the contract suite cannot see: a directory that is opened again, one that is damaged, and what is written behind.

mod damage;
mod restart;
mod unwritten;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::clock::Clock;
use shared::event::{ConversationRead, Event, MessageSent, UserRegistered};
use shared::ids::{Conversation, Username};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::message::Message;
use shared::ports::{Append, Delivery, EventFeed, EventLog, StoreError, ViewWriter};
use shared::view::{InboxChange, TimelineChange, ViewChange};

use super::{Embedded, Options};

fn open(dir: &Path) -> Result<Embedded, StoreError> {
    open_at(dir, Clock::system())
}

fn open_at(dir: &Path, clock: Clock) -> Result<Embedded, StoreError> {
    Embedded::open(&Options { dir: dir.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW }, clock)
}

fn name(text: &str) -> Username {
    text.parse().unwrap()
}

fn pair(one: &str, other: &str) -> Conversation {
    Conversation::between(&name(one), &name(other)).unwrap()
}

fn message(sender: &str, recipient: &str, content: &str) -> Append {
    let (sender, recipient, content) = (name(sender), name(recipient), content.to_owned());
    Append {
        id: Clock::system().new_id(),
        event: Event::MessageSent(MessageSent { sender, recipient, content }),
        once: None,
        trace: None,
    }
}

fn registration(user: &str) -> Append {
    let event = UserRegistered { username: name(user), password_hash: format!("hash of {user}") };
    Append { id: Clock::system().new_id(), event: Event::UserRegistered(event), once: None, trace: None }
}

fn mark(reader: &str, peer: &str, seq: u64) -> Append {
    let event = ConversationRead { reader: name(reader), peer: name(peer), seq };
    Append { id: Clock::system().new_id(), event: Event::ConversationRead(event), once: None, trace: None }
}

/// Messages of a few pairs, one after the other.
async fn send(store: &Embedded, messages: u64) {
    for number in 0..messages {
        let peer = format!("peer{}", number % 3);
        store.append(message("samer", &peer, &format!("message {number}"))).await.unwrap();
    }
}

async fn next(feed: &mut impl EventFeed, events_max: usize) -> Vec<Delivery> {
    tokio::time::timeout(Duration::from_secs(10), feed.next_batch(events_max))
        .await
        .expect("in time")
        .unwrap()
}

/// As a projector does, up to the acknowledgement.
async fn project(store: &Embedded, batch: &[Delivery]) {
    let mut changes = Vec::new();
    for recorded in batch.iter().filter_map(|delivery| delivery.content.as_ref().ok()) {
        if let Event::MessageSent(sent) = &recorded.event {
            let message = Message::new(recorded, sent);
            let to = |owner: &Username| {
                ViewChange::Inbox(InboxChange::PutMessage { owner: owner.clone(), message: message.clone() })
            };
            changes.extend([to(&sent.sender), to(&sent.recipient)]);
            changes.push(ViewChange::Timeline(TimelineChange::PutMessage(message)));
        }
    }
    store.apply(changes, batch).await.unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let (dirs, mut all): (Vec<_>, Vec<_>) = files(dir).into_iter().partition(|path| path.is_dir());
    all.extend(dirs.iter().flat_map(|dir| all_files(dir)));
    all
}

/// A directory as it is now: what a kill at this moment leaves.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in all_files(dir) {
        let to = copy.path().join(file.strip_prefix(dir).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    copy
}
