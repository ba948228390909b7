//! A TCP proxy between two parts of the system, for faults that a process cannot have: a wire that is cut, or
//! that carries nothing. It looks at no byte.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Carries,
    /// Connections stay and say nothing; new ones are accepted and say nothing.
    Stalled,
    /// A connection ends when the target answers: what was asked is done, and nobody hears of it.
    CutAtAnswer,
    /// Connections end at once, new ones too.
    Cut,
}

/// Ends with its handle.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and carries everything to `target` and back.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let (wire, state) = watch::channel(Wire::Carries);
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, target, state, tasks.clone()));
        Self { address, wire }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }

    pub fn cut_at_answer(&self) {
        self.wire.send_replace(Wire::CutAtAnswer);
    }

    pub fn stall(&self) {
        self.wire.send_replace(Wire::Stalled);
    }

    /// What was held back goes on.
    pub fn resume(&self) {
        self.wire.send_replace(Wire::Carries);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mut wire: watch::Receiver<Wire>,
    tasks: TaskTracker,
) {
    // Dropping the proxy closes the channel, which ends everything.
    while let Some(Ok((client, _peer))) = until_closed(&mut wire, listener.accept()).await {
        tasks.spawn(connection(client, target, wire.clone()));
    }
}

async fn until_closed<T>(wire: &mut watch::Receiver<Wire>, work: impl Future<Output = T>) -> Option<T> {
    let closed = async { while wire.changed().await.is_ok() {} };
    tokio::select! {
        done = work => Some(done),
        () = closed => None,
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut wire: watch::Receiver<Wire>) {
    let mut state = wire.clone();
    let carried = async move {
        carries(&mut state).await?;
        let server = TcpStream::connect(target).await.ok()?;
        // The proxy must not add the delays that it is not there for.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::join!(
            pump(from_client, to_server, state.clone(), &[Wire::Carries, Wire::CutAtAnswer]),
            pump(from_server, to_client, state, &[Wire::Carries]),
        );
        Some(())
    };
    tokio::select! {
        _ = carried => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
    carried_by: &[Wire],
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let carried = carries(&mut wire).await.is_some_and(|wire| carried_by.contains(&wire));
        if !carried || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    // Dropping `to` passes the end on.
}

/// Until the wire carries in one direction at least; `None` when it never will again.
async fn carries(wire: &mut watch::Receiver<Wire>) -> Option<Wire> {
    let carrying = wire.wait_for(|wire| matches!(wire, Wire::Carries | Wire::CutAtAnswer)).await;
    carrying.ok().map(|wire| *wire)
}
