//! The log is copied into the archive and forgotten by Redis, and nobody misses anything: a new generation is built from
//! both, compared with both, and what holds up the trimming is told.

use std::time::Duration;

use e2e::comparison::spoil as spoil_rows;
use e2e::traffic::Pair;
use e2e::{Shape, TestApp, within};
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, TRIM_HELD_MAX};

use crate::outage::own_redis;
use crate::rolled_back::partition_of;

e2e::real_scenarios!(what_was_trimmed_is_rebuilt_and_a_generation_that_stands_still_holds_it_up);

/// Until what is archived counts as settled, and what is acknowledged is old enough: 20 s each.
pub(crate) const TRIMMED_WITHIN: Duration = Duration::from_secs(60);

/// A look at the log each second; by time alone the alarm would come after 40 s.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Messages of each conversation: several blocks of the archive.
pub(crate) const MESSAGES: usize = 300;

pub(crate) async fn stored(app: &TestApp) -> usize {
    let sums = app.processes().stored().await;
    sums.values().map(|sum| usize::try_from(sum.count).unwrap()).sum()
}

/// Of both projectors together.
async fn metric(app: &TestApp, name: &str) -> u64 {
    let mut sum = 0;
    for projector in ["projector-1", "projector-2"] {
        let page = app.processes().operations_of(projector).await.get("/metrics").send().await.expect(200);
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
        sum += value.trim().parse::<u64>().unwrap();
    }
    sum
}

/// Of the pair's conversation. Returns its partition.
async fn damage_its_first_block(app: &TestApp, pair: &Pair) -> u16 {
    let partition = partition_of(pair);
    within(TRIMMED_WITHIN, "it is archived", async || {
        let status = app.processes().status().await;
        (status["archive"][usize::from(partition)]["archived"].as_u64()? >= ARCHIVE_BLOCK_ENTRIES)
            .then_some(())
    })
    .await;
    let place = format!("log_partition = {partition} AND span = 0 AND block = 0 AND part = 0");
    let spoil = format!("UPDATE {{keyspace}}.archive USING TIMESTAMP 999999 SET bytes = 0x01 WHERE {place}");
    spoil_rows(app.processes(), &[&spoil]).await;
    partition
}

async fn send_many(pairs: &[Pair]) {
    let send = async |pair: &Pair| {
        for _ in 0..MESSAGES {
            pair.sender.send(&pair.recipient, "kept for ever").await;
        }
    };
    let [one, two, three, four] = pairs else { panic!("four pairs") };
    tokio::join!(send(one), send(two), send(three), send(four));
}

async fn what_was_trimmed_is_rebuilt_and_a_generation_that_stands_still_holds_it_up() {
    let (redis, _options, _dir) = own_redis().await;
    let redis_url = Some(redis.url());
    let app = TestApp::real(Shape { command_apis: 1, query_apis: 1, redis_url, ..Shape::default() }).await;
    let pairs = Pair::of(&app.users(4).await, 4);
    let told_before = pairs[0].sender.events().await.last_id().expect("a place").to_owned();
    send_many(&pairs).await;
    let all = pairs.len() * MESSAGES;
    assert_eq!(stored(&app).await, all, "nothing is trimmed unless it is asked for");

    let damaged = damage_its_first_block(&app, &pairs[0]).await;
    for projector in ["projector-1", "projector-2"] {
        app.processes().terminate(projector).await;
        app.processes().restart_with(projector, "--hot-window=1s").await;
    }
    within(TRIMMED_WITHIN, "most of it is trimmed", async || {
        (metric(&app, "projector_trimmed_events_total ").await * 2 > all as u64).then_some(())
    })
    .await;
    let hot = stored(&app).await;
    assert!(0 < hot && hot * 2 < all, "{hot} are left");

    within(TRIMMED_WITHIN, "the damaged block is written again, and trimmed", async || {
        let status = app.processes().status().await;
        (status["archive"][usize::from(damaged)]["trimmed"].as_u64()? > 0).then_some(())
    })
    .await;
    let logs = app.processes().logs().await;
    let said = "a block of the archive is damaged; it is written again from the log";
    assert!(logs.values().any(|log| log.contains(said)), "it was not damaged");

    app.processes().terminate("query-api-1").await;
    app.processes().restart("query-api-1").await;
    let told = pairs[0].sender.events_after(&told_before).await.next().await;
    assert_eq!(told.kind, "reset", "what came next is not in the stream any more");

    // One of two that fill it is killed while they do.
    let rebuild = app.processes().begin("rebuild", &["rebuild", "--rate", "500"]);
    within(TRIMMED_WITHIN, "it is being built", async || {
        rebuild.output().contains("generation 2 building: ").then_some(())
    })
    .await;
    app.processes().kill("projector-2").await;
    within(TRIMMED_WITHIN, "it is built and proved", async || {
        rebuild.output().contains("generation 2 is complete").then_some(())
    })
    .await;
    app.processes().start_again("projector-2").await;
    app.processes().ready("projector-2").await;
    app.processes().done(&["serve", "2"]).await;
    let compared = app.processes().done(&["verify"]).await;
    let folded = (&compared["generation"], &compared["differences"], &compared["rows"]);
    let rows = all + 2 * pairs.len() + 4;
    assert_eq!(folded, (&2.into(), &0.into(), &rows.into()), "{compared}");
    within(TRIMMED_WITHIN, "readers follow", async || {
        let page = pairs[0].sender.page(&pairs[0].recipient, "limit=100").await;
        (page.items().len() == 100).then_some(())
    })
    .await;

    hold_it_up(&app, &pairs).await;
    app.finish().await;
}

/// By a generation that stands still, until memory is short.
async fn hold_it_up(app: &TestApp, pairs: &[Pair]) {
    let mut stalled = app.processes().begin("stalled", &["rebuild", "--rate", "1"]);
    within(TRIMMED_WITHIN, "it is being built", async || {
        let status = app.processes().status().await;
        let mut generations = status["generations"].as_array().unwrap().iter();
        let consumers = &generations.find(|one| one["generation"] == 3)?["consumers"];
        (!consumers.as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    assert_eq!(app.processes().done(&["rebuild", "--pause"]).await["state"], "paused");
    stalled.kill().unwrap();
    send_many(pairs).await;
    let why = "group g3 has not acknowledged what is to be trimmed";
    within(TRIMMED_WITHIN, "it is told", async || {
        let is_held = metric(app, "projector_held_partitions ").await > 0;
        let logs = if is_held { app.processes().logs().await } else { return None };
        logs.values().any(|log| log.contains(why)).then_some(())
    })
    .await;
    assert!(stored(app).await >= pairs.len() * MESSAGES, "nothing is trimmed that it has not applied");
    within(TRIM_HELD_MAX + TOLD_WITHIN, "it is an alarm, and memory is short", async || {
        app.processes().bound_memory(90).await;
        for projector in ["projector-1", "projector-2"] {
            let ready = app.processes().operations_of(projector).await.get("/readyz").send().await;
            let said = ready.json()["waiting_for"].to_string();
            if said.contains(why) && said.contains("% of the memory that the log may take is in use") {
                return Some(());
            }
        }
        None
    })
    .await;
    app.processes().bound_memory(50).await;
    app.processes().done(&["rebuild", "--cancel"]).await;
}
