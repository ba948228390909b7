//! Cassandra's machine loses power: with its periodic commit log the rows of the last seconds are gone, though they
//! were acknowledged. The log still has their events.

use std::fs;

use e2e::ports::free_address;
use e2e::traffic::Pair;
use e2e::{Shape, TestApp, eventually, seqs, within};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use xtask::servers::{Cassandra, Keeping, Options};

use std::time::Duration;

use crate::archive::{MESSAGES, TRIMMED_WITHIN, stored};

e2e::real_scenarios!(
    what_cassandra_lost_with_its_machine_is_applied_again,
    what_a_rebuild_read_from_the_archive_is_read_again,
);

/// The node boots in 8 s; the rest is for a machine that does other things too.
pub(crate) const BOOT_TIME_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn start(options: &Options) -> Cassandra {
    let options = options.clone();
    let starting = spawn_blocking(move || Cassandra::start(&options, Keeping::Data));
    starting.await.expect("no panic").expect("cassandra starts")
}

async fn what_cassandra_lost_with_its_machine_is_applied_again() {
    let dir: TempDir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().join("cassandra"), port: free_address().port() };
    let mut cassandra = start(&options).await;
    let shape = Shape { cassandra_node: Some(cassandra.addr().to_string()), ..Shape::default() };
    let app = TestApp::real(shape).await;
    let pairs = Pair::of(&app.users(5).await, 10);
    for Pair { sender, recipient } in &pairs {
        sender.send(recipient, "kept").await;
    }
    all_shown(&pairs, &[1]).await;

    // A clean end writes everything to tables. What comes after is in the commit log alone, and not on the disk when
    // the power goes.
    cassandra.stop().expect("it ends");
    drop(cassandra);
    let cassandra = start(&options).await;
    for Pair { sender, recipient } in &pairs {
        within(BOOT_TIME_MAX, "it is back", async || {
            (sender.get("/conversations").once().await.status == 200).then_some(())
        })
        .await;
        sender.send(recipient, "lost").await;
    }
    all_shown(&pairs, &[1, 2]).await;
    let _cassandra = cut_power(cassandra, &options).await;
    within(BOOT_TIME_MAX, "all of it is there again", async || {
        for Pair { sender, recipient } in &pairs {
            let page = sender.get_page(recipient, "").once().await;
            if page.status != 200 || page.items().len() != 2 {
                return None;
            }
        }
        Some(())
    })
    .await;
    all_shown(&pairs, &[1, 2]).await;
    app.finish().await;
}

/// And starts it again.
async fn cut_power(mut cassandra: Cassandra, options: &Options) -> Cassandra {
    cassandra.kill().expect("it ran");
    drop(cassandra);
    for segment in fs::read_dir(options.dir.join("commitlog")).expect("a commit log") {
        fs::remove_file(segment.expect("a file").path()).expect("it can be removed");
    }
    start(options).await
}

async fn what_a_rebuild_read_from_the_archive_is_read_again() {
    let dir: TempDir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().join("cassandra"), port: free_address().port() };
    let mut cassandra = start(&options).await;
    let shape = Shape { cassandra_node: Some(cassandra.addr().to_string()), ..Shape::default() };
    let app = TestApp::real(shape).await;
    let programs = app.processes();
    for projector in ["projector-1", "projector-2"] {
        programs.terminate(projector).await;
        programs.restart_with(projector, "--hot-window=1s").await;
    }
    let pair = &Pair::of(&app.users(2).await, 1)[0];
    for _ in 0..MESSAGES {
        pair.sender.send(&pair.recipient, "kept for ever").await;
    }
    within(TRIMMED_WITHIN, "a block is in the archive alone", async || {
        (stored(&app).await < MESSAGES).then_some(())
    })
    .await;

    // What makes the generation is on the disk, and its rows will not be.
    let mut begun = programs.begin("begun", &["rebuild", "--rate", "1"]);
    within(TRIMMED_WITHIN, "it is being built", async || {
        begun.output().contains("generation 2 building: ").then_some(())
    })
    .await;
    assert_eq!(programs.done(&["rebuild", "--pause"]).await["state"], "paused");
    begun.kill().expect("it ran");
    cassandra.stop().expect("it ends");
    drop(cassandra);
    let cassandra = start(&options).await;
    rebuilt(&app).await;
    let _cassandra = cut_power(cassandra, &options).await;
    let generations = within(BOOT_TIME_MAX, "it is back", async || {
        let answer = programs.projector(&["generations", "--json"]).await;
        serde_json::from_slice::<serde_json::Value>(&answer.stdout).ok()
    })
    .await;
    assert_eq!(generations[1]["state"], "paused", "what came later is lost");
    rebuilt(&app).await;
    programs.done(&["serve", "2"]).await;
    app.finish().await;
}

/// Without any difference. A comparison that begins before projectors have seen the start finds some.
async fn rebuilt(app: &TestApp) {
    within(BOOT_TIME_MAX, "it is built and proved", async || {
        app.processes().projector(&["rebuild"]).await.status.success().then_some(())
    })
    .await;
}

async fn all_shown(pairs: &[Pair], expected: &[u64]) {
    for Pair { sender, recipient } in pairs {
        eventually("all of it is shown", async || {
            (seqs(&sender.conversation(recipient).await) == expected).then_some(())
        })
        .await;
    }
}
