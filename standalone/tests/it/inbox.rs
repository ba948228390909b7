//! Somebody with ten thousand conversations reads his inbox page by page, in little memory.

use std::collections::BTreeSet;

use e2e::process::Signal;
use e2e::{User, eventually};
use serde_json::Value;
use shared::event::MessageSent;

use crate::{Running, append, open_store};

const CONVERSATIONS: usize = 10_000;
/// As many rows as a page may have.
const LIMIT: usize = 100;
/// That the program may gain while it serves all of it, page by page.
const MEMORY_GAINED_BYTES_MAX: u64 = 32 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_inbox_is_read_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&dir.path().join("data"));
    let peers: Vec<_> = (0..CONVERSATIONS).map(|peer| format!("peer{peer}")).collect();
    let message = |peer: &String| {
        let (sender, recipient) = (peer.parse().unwrap(), "samer".parse().unwrap());
        MessageSent { sender, recipient, content: "hi".to_owned() }
    };
    append(&store, &peers.iter().map(message).collect::<Vec<_>>()).await;
    drop(store);

    let mut running = Running::start(dir.path(), &[]).await;
    let samer = User::register(&running.client, "samer").await;
    let all = async || Some(walk(&samer).await).filter(|walked| walked.len() == CONVERSATIONS);
    eventually("all are applied", all).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
    // The peak is of one process, and that one has applied all of them.
    running.process.restart().unwrap();
    running.ready().await;
    let samer = User::log_in(&running.client, "samer").await;
    let before = running.process.memory_peak().unwrap();
    let walked = walk(&samer).await;
    let times: Vec<_> = walked.iter().map(|row| row["last"]["timestamp"].as_str().unwrap()).collect();
    assert!(times.iter().rev().is_sorted(), "newest first");
    let found: BTreeSet<_> = walked.iter().map(|row| row["peer"].as_str().unwrap()).collect();
    assert_eq!(walked.len(), CONVERSATIONS);
    assert_eq!(found, peers.iter().map(String::as_str).collect(), "each once");
    let gained = running.process.memory_peak().unwrap().saturating_sub(before);
    assert!(gained <= MEMORY_GAINED_BYTES_MAX, "it gained {gained} bytes");
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}

async fn walk(user: &User) -> Vec<Value> {
    let (mut walked, mut next) = (Vec::new(), Some(format!("/conversations?limit={LIMIT}")));
    while let Some(path) = next {
        let page = user.get(&path).answered().await.expect(200);
        walked.extend(page.items());
        next = page.link("next");
    }
    walked
}
