//! kill -9 under load: everything acknowledged is there after the restart, in order, with no number missing.

use e2e::process::Signal;
use e2e::traffic::{Traffic, assert_all_visible};

use crate::Running;

const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    // The clients go on over all kills, and repeat what got no answer with the same id.
    let traffic = Traffic::start(&pairs, 8).await;
    for _ in 0..KILLS {
        traffic.go_on_for(200).await;
        running.process.kill().unwrap();
        running.process.restart().unwrap();
        running.ready().await;
    }
    traffic.go_on_for(200).await;
    let sent = traffic.end().await;
    let unanswered = sent.iter().filter(|sent| !sent.failures.is_empty()).count();
    assert!(unanswered >= KILLS, "{unanswered} sends met a kill: the faults did not overlap traffic");
    assert_all_visible(&pairs, &sent).await;

    // And once more from the disk alone, when nobody sends.
    running.process.kill().unwrap();
    running.process.restart().unwrap();
    running.ready().await;
    assert_all_visible(&pairs, &sent).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}
