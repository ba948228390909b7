//! The program itself: how it starts, how it ends, what it refuses, and what is left when it is killed.
#![expect(clippy::unwrap_used, reason = "tests may; clippy knows that only of the functions marked so")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use e2e::ports::free_address;
use e2e::process::Process;
use e2e::traffic::Pair;
use e2e::{Client, User, eventually};
use futures_util::future::join_all;
use shared::Clock;
use shared::event::{Event, MessageSent};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::ports::{Append, EventLog};
use storage::embedded::{Embedded, Options};

mod exhausted;
mod expired;
mod inbox;
mod killed;
mod lifecycle;
mod logs;
#[cfg(feature = "otel")]
mod otel;
mod parked;
mod rebuild;
mod refused;
mod rehash;
mod streams;
mod verify;

/// The program on a directory, where it listens, and its client.
struct Running {
    process: Process,
    client: Client,
    address: SocketAddr,
}

impl Running {
    /// Waits until it is ready. What it writes goes to a file in `dir`, its data to a directory there.
    async fn start(dir: &Path, more: &[&str]) -> Self {
        let address = free_address();
        let mut running =
            Self { process: spawn("standalone", dir, address, more), client: Client::new(address), address };
        running.ready().await;
        running
    }

    /// Five new users, in all their conversations.
    async fn pairs(&self) -> Vec<Pair> {
        let mut users = Vec::new();
        for name in ["samer", "lena", "tarek", "nour", "omar"] {
            users.push(User::register(&self.client, name).await);
        }
        Pair::of(&users, 10)
    }

    async fn ready(&mut self) {
        eventually("it is ready", async || {
            if let Some(status) = self.process.exit_status().unwrap() {
                panic!("{status}\n{}", self.process.tail());
            }
            let answer = self.client.get("/readyz").try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

fn spawn(name: &str, dir: &Path, address: SocketAddr, more: &[&str]) -> Process {
    let (address, operations) = (address.to_string(), free_address().to_string());
    let data = dir.join("data").display().to_string();
    let mut arguments = vec!["--listen", &address, "--metrics-listen", &operations, "--data-dir", &data];
    // A test does more from one address than a person.
    arguments.extend(["--rate-limits", "off"]);
    arguments.extend(more);
    let arguments = arguments.into_iter().map(str::to_owned).collect();
    Process::start(name, Path::new(env!("CARGO_BIN_EXE_standalone")), arguments, dir).unwrap()
}

/// The store of a directory on which nothing runs.
fn open_store(data: &Path) -> Embedded {
    let options = Options { dir: data.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW };
    Embedded::open(&options, Clock::system()).unwrap()
}

const APPENDED_AT_ONCE: usize = 100;

/// As if they were sent.
async fn append(store: &Embedded, messages: &[MessageSent]) {
    for messages in messages.chunks(APPENDED_AT_ONCE) {
        let appends = messages.iter().map(|sent| {
            let event = Event::MessageSent(sent.clone());
            store.append(Append { id: Clock::system().new_id(), event, once: None, trace: None })
        });
        for appended in join_all(appends).await {
            appended.unwrap();
        }
    }
}

/// A command on a directory, to its end.
fn command(command: &str, data: &Path, more: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_standalone"));
    program.arg(command).arg("--data-dir").arg(data).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
