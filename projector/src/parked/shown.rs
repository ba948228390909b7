//! How parked events are shown: lines for a person, or JSON.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use shared::view::ParkedEvent;

/// What `list` shows. `Serialize` is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub(super) generation: u32,
    pub(super) parked: Vec<Event>,
    /// There are more, behind this position.
    pub(super) more_after: Option<String>,
}

/// What `show` shows, likewise.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub(super) generation: u32,
    #[serde(flatten)]
    pub(super) event: Event,
    /// As escaped ASCII.
    pub(super) bytes: String,
    pub(super) bytes_kept: usize,
}

impl Listing {
    /// Lines for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = row("POSITION", "PARKED AT", "TRIES", "PLACE", "CAUSE");
        for Event(event) in &self.parked {
            let ParkedEvent { position, cause, attempts, parked_at, .. } = event;
            text += &row(
                &position.to_string(),
                &parked_at.to_string(),
                &attempts.to_string(),
                &place(event),
                cause,
            );
        }
        let (generation, count) = (self.generation, self.parked.len());
        text += &match &self.more_after {
            Some(position) => {
                format!("generation {generation}: the first {count}; go on with --after {position}\n")
            }
            None => format!("generation {generation}: {count} parked\n"),
        };
        text
    }
}

fn row(position: &str, parked_at: &str, tries: &str, place: &str, cause: &str) -> String {
    // A cause may quote what is stored: it stays on its line.
    format!("{position:<24} {parked_at:<24} {tries:>5}  {place:<24} {}\n", cause.escape_debug())
}

impl Shown {
    /// Lines for a person.
    #[must_use]
    pub fn lines(&self) -> String {
        let ParkedEvent { position, cause, attempts, parked_at, .. } = &self.event.0;
        let (place, generation, kept) = (place(&self.event.0), self.generation, self.bytes_kept);
        [
            ("position", position.to_string()),
            ("generation", generation.to_string()),
            ("cause", cause.escape_debug().to_string()),
            ("attempts", attempts.to_string()),
            ("parked at", parked_at.to_string()),
            ("place", place),
            ("bytes kept", kept.to_string()),
            ("bytes", self.bytes.clone()),
        ]
        .map(|(name, value)| format!("{name:<12}{value}\n"))
        .concat()
    }
}

fn place(event: &ParkedEvent) -> String {
    event.place.as_ref().map_or_else(|| "-".to_owned(), |(conversation, seq)| format!("{conversation} {seq}"))
}

/// As JSON has it.
#[derive(Debug)]
pub(super) struct Event(pub(super) ParkedEvent);

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ParkedEvent { position, cause, attempts, parked_at, place } = &self.0;
        let place = place.as_ref().map(|(conversation, seq)| (conversation.to_string(), *seq));
        let mut event = serializer.serialize_struct("Event", 6)?;
        event.serialize_field("position", &position.to_string())?;
        event.serialize_field("cause", cause)?;
        event.serialize_field("attempts", attempts)?;
        event.serialize_field("parked_at", parked_at)?;
        event.serialize_field("conversation", &place.as_ref().map(|(conversation, _)| conversation))?;
        event.serialize_field("seq", &place.as_ref().map(|(_, seq)| seq))?;
        event.end()
    }
}
