//! The body of an event stream, as its connection asks for it: `text/event-stream`.
//!
//! A block without data, as of a comment, is no event, but its `id:` counts: so a reader to whom nothing happens does
//! not fall behind what is held for those who come back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use shared::process::limits::Held;

use super::Shared;
use super::hub::{Next, StreamKey};

pub(crate) struct EventStream {
    pub(super) shared: Arc<Shared>,
    pub(super) key: StreamKey,
    /// What is said before anything else is asked for.
    pub(super) said: Option<Bytes>,
    pub(super) _held: Held,
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(said) = self.said.take() {
            return Poll::Ready(Some(Ok(Frame::data(said))));
        }
        let head = match self.shared.next(&self.key, context) {
            Next::Event { id, text, live } => {
                self.shared.metrics.sent(live.map(|at| self.shared.clock.now().since(at)));
                // Apart: the rest is the same for every reader.
                self.said = Some(text);
                format!("id: {id}\n")
            }
            Next::Reset { id } => {
                self.shared.metrics.resets.inc();
                format!("id: {id}\nevent: reset\ndata: {{}}\n\n")
            }
            Next::Quiet { id } => format!(": nothing new\nid: {id}\n\n"),
            Next::Wait => return Poll::Pending,
            Next::End => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(head.into()))))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.shared.hub().close(&self.key);
        self.shared.metrics.open.dec();
    }
}
