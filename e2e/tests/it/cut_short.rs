//! `projector restore` and `projector repair --apply`, killed wherever it may be: whoever runs them again finishes them,
//! and two at once do no harm.

use std::time::Duration;

use e2e::process::{self, Process};
use e2e::traffic::{Pair, Traffic};
use e2e::{Shape, TestApp, within};
use serde_json::json;

use crate::emptied::emptied;
use crate::outage::own_redis;
use crate::rebuild::forget_claim;
use crate::restored::{PAIRS, all, ids, logged_in};
use crate::rolled_back::{PROJECTORS, archived, copy, read_new_views, repair, replaced, text};

e2e::real_scenarios!(killed_restores_and_repairs_are_finished_by_the_next);

/// The first is killed when it has just started, and each later than the one before, until one is done.
const FIRST_AFTER: Duration = Duration::from_millis(40);
const LATER: f64 = 1.25;
const DONE_WITHIN: Duration = Duration::from_secs(20);
/// Of two at once: the second of a repair, the first of a restore, whoever comes when the other is done; and of a
/// machine with much else to do.
const REFUSED: [&str; 5] = [
    "another rebuild or repair is under way",
    "the connection was closed",
    "its log was restored by somebody else",
    "only an empty log is restored",
    process::TIMED_OUT,
];

/// Two at once, until one gets to its end.
async fn killed_until_one_is_done(app: &TestApp, command: &[&str], mut between: impl AsyncFnMut()) {
    let is_done = |process: &mut Process| {
        let done = process.exit_status().unwrap().map(|status| status.success());
        let is_refused = REFUSED.iter().any(|why| process.output().contains(why));
        assert!(done != Some(false) || is_refused, "{}", process.output());
        done
    };
    let mut after = FIRST_AFTER;
    while after < DONE_WITHIN {
        let name = |name| format!("{}-{name}-{}", command[0], after.as_millis());
        let mut two = ["one", "other"].map(|one| app.processes().begin(&name(one), command));
        tokio::time::sleep(after).await;
        if two.each_mut().map(is_done).contains(&Some(true)) {
            let ended = async || two.each_mut().map(is_done).iter().all(Option::is_some).then_some(());
            return within(DONE_WITHIN, "the other ends", ended).await;
        }
        for process in &mut two {
            let _ = process.kill();
        }
        forget_claim(app).await;
        between().await;
        after = after.mul_f64(LATER);
    }
    panic!("{command:?} is not done within {DONE_WITHIN:?}");
}

async fn killed_restores_and_repairs_are_finished_by_the_next() {
    let (redis, options, dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let users = app.users(6).await;
    let pairs = Pair::of(&users, PAIRS);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(3_000).await;
    traffic.end().await;
    archived(&app).await;
    let before = all(&pairs).await;

    let redis = emptied(redis, &options).await;
    let is_refused = async |command: &[&str]| {
        let refused = app.processes().projector(command).await;
        text(&refused.stderr).contains("restored in part")
    };
    let mut midway = 0;
    let stays_closed = async || {
        // The first of them had not got that far.
        if is_refused(&["status"]).await {
            assert!(is_refused(&["repair", "--apply"]).await && is_refused(&["rebuild"]).await);
            midway += 1;
        }
    };
    killed_until_one_is_done(&app, &["restore"], stays_closed).await;
    assert!(midway > 0, "no restore was killed midway");
    let pairs = logged_in(&app, &users).await;
    assert_eq!(all(&pairs).await, before, "it is as it was");
    for (pair, before) in pairs.iter().zip(&before) {
        assert_eq!(pair.sender.send(&pair.recipient, "after").await["seq"], before.len() as u64 + 1);
    }
    assert_eq!(repair(&app, &[]).await["partitions"], json!({}));

    let older = dir.path().join("older");
    copy(&options.dir, &older);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(1_000).await;
    traffic.end().await;
    archived(&app).await;
    let before = all(&pairs).await;
    let _redis = replaced(redis, &options, &older).await;
    let pairs = logged_in(&app, &users).await;
    let lost = async || repair(&app, &[]).await["messages"].as_array().map_or(0, Vec::len);
    let (all_lost, mut midway) = (lost().await, 0);
    let count = async || midway += usize::from((1..all_lost).contains(&lost().await));
    killed_until_one_is_done(&app, &["repair", "--apply"], count).await;
    assert!(midway > 0, "no repair of {all_lost} messages was killed midway");

    read_new_views(&app).await;
    let after = all(&pairs).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((after.len(), ids(after)), (before.len(), ids(before)), "each of them once");
    }
    let verified = app.processes().verify(&[]).await;
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
    app.finish().await;
}
