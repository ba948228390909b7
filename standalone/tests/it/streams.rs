//! Event streams over restarts of the program: whoever comes back is told what he missed.

use e2e::Follower;
use e2e::process::Signal;
use e2e::traffic::{Pair, Traffic};
use serde_json::Value;

use crate::Running;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_over_kills_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    let Pair { sender, recipient } = &pairs[0];
    let followers = [Follower::start(sender).await, Follower::start(recipient).await];
    let traffic = Traffic::start(&pairs, 8).await;
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        traffic.go_on_for(100).await;
        if signal == Signal::KILL {
            running.process.kill().unwrap();
        } else {
            running.process.signal(signal).unwrap();
            running.process.ended().await.unwrap();
        }
        running.process.restart().unwrap();
        running.ready().await;
    }
    traffic.go_on_for(100).await;
    let sent = traffic.end().await;
    let mut expected: Vec<Value> =
        sent.into_iter().filter(|sent| sent.pair == 0).map(|sent| sent.message).collect();
    expected.sort_by_key(|message| message["seq"].as_u64());
    for follower in followers {
        e2e::eventually("he is told of all messages", async || {
            let told = follower.so_far().await.conversation(sender, recipient);
            (told.len() >= expected.len()).then(|| assert_eq!(told, expected))
        })
        .await;
        let resumed = follower.end().await.resumed;
        assert!(resumed >= 3, "the streams were broken {resumed} times");
    }
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}
