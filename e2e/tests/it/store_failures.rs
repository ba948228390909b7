//! Cassandra itself paused or killed under load: rows of docs/faults.md. What a store does not take is tried again
//! for as long as it takes, and parks nothing.

use std::time::Duration;

use e2e::ports::free_address;
use e2e::traffic::{Pair, Readers, Reads, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Shape, TestApp, within};
use shared::limits::{BEHIND_MAX, STANDSTILL_MAX};
use tokio::task::spawn_blocking;
use xtask::servers::{Options, Ring};

use crate::power_cut::{self, BOOT_TIME_MAX};

e2e::real_scenarios!(
    cassandra_paused_and_then_killed_under_load,
    a_node_of_three_killed_under_load_stops_nothing,
);

const PROJECTORS: [&str; 2] = ["projector-1", "projector-2"];
/// From the begin of an outage to the word that the projection stands still; the rest is for a slow machine.
const TOLD_WITHIN: Duration = BEHIND_MAX.saturating_add(STANDSTILL_MAX);

/// Writes time out, and nobody knows which of them were applied.
async fn cassandra_paused_and_then_killed_under_load() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().join("cassandra"), port: free_address().port() };
    let mut cassandra = power_cut::start(&options).await;
    let shape = Shape { cassandra_node: Some(cassandra.addr().to_string()), ..Shape::default() };
    let app = TestApp::real(shape).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(300).await;

    cassandra.pause().expect("it runs");
    for name in PROJECTORS {
        let operations = app.processes().operations_of(name).await;
        within(TOLD_WITHIN, "it is behind and does not advance", async || {
            let ready = operations.get("/readyz").send().await;
            let waiting_for = ready.json()["waiting_for"].clone();
            (ready.status == 503 && waiting_for.as_array()?.iter().any(|what| what == "projection"))
                .then_some(())
        })
        .await;
        let page = operations.get("/metrics").send().await.expect(200);
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let failures = page.lines().find_map(|line| line.strip_prefix("projector_failures_total "));
        assert!(failures.is_some_and(|count| count != "0"), "no write failed: {page}");
    }
    cassandra.resume().expect("it runs");
    for name in PROJECTORS {
        app.processes().ready(name).await;
    }
    traffic.go_on_for(300).await;

    cassandra.kill().expect("it ran");
    traffic.go_on_for(300).await;
    drop(cassandra);
    let _cassandra = power_cut::start(&options).await;
    let sent = traffic.end().await;
    assert_unnoticed(&sent, &Reads::default());
    let back = async || (app.get("/readyz").send().await.status == 200).then_some(());
    within(BOOT_TIME_MAX, "the views are back", back).await;
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

/// Every row has three copies, and two of them are enough.
async fn a_node_of_three_killed_under_load_stops_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (place, port) = (dir.path().join("ring"), free_address().port());
    let starting = spawn_blocking(move || Ring::start(&place, port, 3));
    let mut ring = starting.await.expect("no panic").expect("the ring starts");
    let shape = Shape { cassandra_node: Some(ring.addresses()), replication_factor: 3, ..Shape::default() };
    let app = TestApp::real(shape).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let (traffic, readers) = (Traffic::start(&pairs, 8).await, Readers::start(&pairs, 2));
    traffic.go_on_for(300).await;
    ring.node(1).kill().expect("it ran");
    for _ in 0..4 {
        traffic.go_on_for(150).await;
        // Written and read on what is left.
        let seq = samer.send(&lena, "meanwhile").await["seq"].clone();
        assert_eq!(lena.conversation(&samer).await.last().expect("a message")["seq"], seq);
    }
    let (sent, reads) = (traffic.end().await, readers.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}
