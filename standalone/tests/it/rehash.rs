//! A password hash of an older version is made anew when its user logs in.

use e2e::User;
use e2e::process::Signal;
use e2e::user::PASSWORD;
use shared::Clock;
use shared::event::{Event, UserRegistered};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::ports::{Accounts, Append, EventLog};
use storage::embedded::{Embedded, Options};

use crate::Running;

/// Of [`PASSWORD`], with 8 KiB and one pass.
const WEAK: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$yqkGdnE1G3RMJdRdhbJvKQ";

#[tokio::test]
async fn a_login_raises_a_weak_hash() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().join("data"), idempotency_window: IDEMPOTENCY_WINDOW };
    let clock = Clock::system();
    let store = Embedded::open(&options, clock.clone()).unwrap();
    let samer = UserRegistered { username: "samer".parse().unwrap(), password_hash: WEAK.to_owned() };
    let event = Event::UserRegistered(samer.clone());
    store.append(Append { id: clock.new_id(), event, once: None, trace: None }).await.unwrap();
    drop(store);

    let mut running = Running::start(dir.path(), &[]).await;
    for _ in 0..2 {
        User::log_in(&running.client, "samer").await;
    }
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();

    let store = Embedded::open(&options, clock).unwrap();
    let hash = store.password_hash(&samer.username).await.unwrap().unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{PASSWORD} is hashed as {hash}");
}
