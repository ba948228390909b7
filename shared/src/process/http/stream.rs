//! A client's connection. Who asks and does not read the answer holds its memory, and a place among the
//! connections: not for long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Hangup;
use crate::limits::ANSWER_UNREAD_MAX;

/// Writing fails when the client has taken nothing for [`ANSWER_UNREAD_MAX`]. A slow client is none that takes
/// nothing; a connection on which there is nothing to write may stay.
pub(super) struct ClientStream {
    stream: TcpStream,
    /// While something waits to be taken.
    unread: Option<Pin<Box<Sleep>>>,
    hangup: Hangup,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, hangup: Hangup) -> Self {
        Self { stream, unread: None, hangup }
    }

    fn taken<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let deadline = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(ANSWER_UNREAD_MAX)));
        ready!(deadline.as_mut().poll(context));
        self.throw_away();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Without this the kernel would keep what is unread, and offer it for minutes more.
    fn throw_away(&self) {
        let _ = self.stream.set_zero_linger();
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.hangup.is_asked() {
            self.throw_away();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.taken(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
