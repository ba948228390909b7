//! Redis has lost everything, and gets back from the archive what is there. Whoever was connected
//! goes on; what only the views had seen is told by number, and given back by a repair.

use std::collections::BTreeSet;

use e2e::comparison::spoil;
use e2e::traffic::{Pair, Traffic};
use e2e::{Shape, TestApp, User, eventually, within};
use serde_json::{Value, json};
use shared::limits::{
    ARCHIVE_BLOCK_ENTRIES, CONSUMER_SILENCE_MAX, CONSUMERS_PER_PROJECTOR, FEED_WAIT_MAX, RESTORED_BLOCKS_HOT,
};
use xtask::servers::Redis;

use crate::emptied::{asked, emptied};
use crate::outage::own_redis;
use crate::rolled_back::{self, PROJECTORS, partition_of, read_new_views, repair, text};

e2e::real_scenarios!(what_redis_has_lost_is_restored_from_the_archive);

/// Of one conversation: more than a restore puts into Redis again.
const MESSAGES: usize = ((RESTORED_BLOCKS_HOT + 1) * ARCHIVE_BLOCK_ENTRIES) as usize;

/// All that six users make.
pub(crate) const PAIRS: usize = 15;

/// Of all partitions.
fn sum(of: &Value, name: &str) -> u64 {
    of["partitions"].as_array().unwrap().iter().map(|one| one[name].as_u64().unwrap()).sum()
}

pub(crate) fn ids(messages: &[Value]) -> BTreeSet<String> {
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) async fn all(pairs: &[Pair]) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for Pair { sender, recipient } in pairs {
        all.push(recipient.conversation(sender).await);
    }
    all
}

/// The same pairs, with the old passwords: sessions are gone.
pub(crate) async fn logged_in(app: &TestApp, users: &[User]) -> Vec<Pair> {
    for name in ["command-api-1", "command-api-2", "query-api-1", "query-api-2"] {
        app.processes().ready(name).await;
    }
    let mut again = Vec::new();
    for user in users {
        again.push(app.log_in(&user.name).await);
    }
    Pair::of(&again, PAIRS)
}

/// Nobody archives the partitions of a projector that is stopped, until it is not heard of any more; another one applies
/// them, and is stopped before that.
async fn send_what_is_not_archived(app: &TestApp, redis: &Redis, pairs: &[Pair]) {
    let [applies, stopped] = PROJECTORS;
    app.processes().pause(stopped).await;
    // Redis would give them what is sent.
    let others = format!("blocked_clients:{CONSUMERS_PER_PROJECTOR}\r\n");
    // One of the others may just be between two reads.
    let mut in_a_row = 0;
    eventually("its reads that wait end", async || {
        let is_so = asked(redis, "INFO clients").await.contains(&others);
        in_a_row = if is_so { in_a_row + 1 } else { 0 };
        (in_a_row == 3).then_some(())
    })
    .await;
    for Pair { sender, recipient } in pairs {
        sender.send(recipient, "at the end").await;
    }
    let applied = async || (app.standing().await.lag == 0).then_some(());
    within(CONSUMER_SILENCE_MAX - FEED_WAIT_MAX * 2, "all of it is in the views", applied).await;
    app.processes().pause(applies).await;
}

/// The log is nobody's until the block is put back.
async fn a_damaged_block_is_named(app: &TestApp, partition: u16) {
    let set_length = async |length: u64, at: u64| {
        let place = format!("log_partition = {partition} AND span = 0 AND block = 1 AND part = 0");
        let update =
            format!("UPDATE {{keyspace}}.archive USING TIMESTAMP {at} SET length = {length} WHERE {place}");
        spoil(app.processes(), &[update.as_str()]).await;
    };
    // Above that of the block: its last entry.
    let version = 2 * ARCHIVE_BLOCK_ENTRIES;
    set_length(ARCHIVE_BLOCK_ENTRIES - 1, version + 1).await;
    for _ in 0..2 {
        let refused = app.processes().projector(&["restore"]).await;
        let said = text(&refused.stderr);
        let is_named = said.contains(&format!("block 1 of partition {partition}: "));
        assert!(!refused.status.success() && said.contains("the log stays closed") && is_named, "{said}");
        let closed = app.processes().projector(&["status"]).await;
        assert!(text(&closed.stderr).contains("restored in part"), "{}", text(&closed.stderr));
    }
    set_length(ARCHIVE_BLOCK_ENTRIES, version + 2).await;
}

async fn what_redis_has_lost_is_restored_from_the_archive() {
    let (redis, options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let users = app.users(6).await;
    let pairs = Pair::of(&users, PAIRS);
    for (pairs, messages) in [(&pairs[..1], MESSAGES), (&pairs[..], 60)] {
        let traffic = Traffic::start(pairs, 8).await;
        traffic.go_on_for(messages).await;
        traffic.end().await;
    }
    pairs[0].recipient.mark_read(&pairs[0].sender, 5).await;
    rolled_back::archived(&app).await;
    send_what_is_not_archived(&app, &redis, &pairs).await;
    let (before, status) = (all(&pairs).await, app.processes().status().await);
    let events = sum(&status["generations"][0], "head");

    let _redis = emptied(redis, &options).await;
    for projector in PROJECTORS {
        app.processes().resume(projector).await;
    }

    let partition = partition_of(&pairs[0]);
    a_damaged_block_is_named(&app, partition).await;
    let restored = app.processes().done(&["restore"]).await;
    let beyond = sum(&restored, "beyond");
    assert!(0 < beyond && beyond <= pairs.len() as u64, "{restored}");
    assert_eq!((sum(&restored, "events"), &restored["users"]), (events - beyond, &json!(6)), "{restored}");
    let longest = &restored["partitions"][usize::from(partition)];
    let cold = longest["events"].as_u64().unwrap() - longest["hot"].as_u64().unwrap();
    assert!(cold > 0 && cold.is_multiple_of(ARCHIVE_BLOCK_ENTRIES), "{restored}");

    let again = logged_in(&app, &users).await;
    // Also what is in the archive alone is numbered, and recognised.
    let first = &before[0][0];
    let Pair { sender, recipient } = &again[0];
    let id = first["id"].as_str().unwrap().parse().unwrap();
    let repeated = sender.put_message(id, recipient, first["content"].as_str().unwrap()).send().await;
    assert_eq!((repeated.status, &repeated.json()), (200, first));
    let refused = app.processes().projector(&["restore"]).await;
    assert!(!refused.status.success() && text(&refused.stderr).contains("only an empty log is restored"));

    // To some of them it is as if nobody could repeat them any more.
    let lost = repair(&app, &["--apply", "--idempotency-window", "1s"]).await;
    assert_eq!(lost["messages"].as_array().unwrap().len() as u64, beyond, "{lost}");
    read_new_views(&app).await;
    let after = eventually("the new views are read", async || {
        let after = all(&again).await;
        (after.iter().map(Vec::len).eq(before.iter().map(Vec::len))).then_some(after)
    })
    .await;
    for (before, after) in before.iter().zip(&after) {
        let kept = before.len() - 1;
        assert_eq!((&before[..kept], ids(before)), (&after[..kept], ids(after)), "but for what was lost");
    }
    assert_eq!(sender.send(recipient, "after").await["seq"], before[0].len() as u64 + 1);
    let verified = app.processes().verify(&[]).await;
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
    app.finish().await;
}
