//! A message as clients see it: the body of a send's answer and the item of a page.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::event::{MessageSent, RecordedEvent};
use crate::ids::{Conversation, EventId, Seq, Username};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Message {
    /// A ULID.
    #[schema(value_type = String, example = "01KAQ3V6B4Y6V3Z9T8S7R6Q5P4")]
    pub id: EventId,
    /// Its position in the conversation: 1, 2, 3, … without holes.
    #[schema(minimum = 1, example = 42)]
    pub seq: Seq,
    #[schema(value_type = String, example = "samer")]
    pub sender: Username,
    #[schema(value_type = String, example = "lena")]
    pub recipient: Username,
    #[schema(example = "hi")]
    pub content: String,
    /// When the log took it.
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T09:30:00.125Z")]
    pub timestamp: Timestamp,
}

impl Message {
    #[must_use]
    pub fn new(recorded: &RecordedEvent, sent: &MessageSent) -> Self {
        Self {
            id: recorded.id,
            seq: recorded.seq,
            sender: sent.sender.clone(),
            recipient: sent.recipient.clone(),
            content: sent.content.clone(),
            timestamp: recorded.at,
        }
    }

    /// # Panics
    /// On a message from a user to himself, which no event can be (see [`crate::event::Event::subject`]).
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation::between(&self.sender, &self.recipient).expect("a message has two parties")
    }
}
