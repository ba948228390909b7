//! Walking through a long conversation, while others write into it.

use e2e::{TestApp, User, seqs};
use serde_json::Value;
use tokio_util::task::TaskTracker;

e2e::scenarios!(a_walk_has_no_hole_and_no_repetition);

const MESSAGES: u64 = 250;
const MORE: u64 = 100;

/// Every page from `path` on, in the direction of `relation`.
async fn walk(user: &User, path: &str, relation: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = user.fresh(&path).await;
        next = page.link(relation);
        pages.push(page.items());
    }
    pages
}

async fn a_walk_has_no_hole_and_no_repetition(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut sent = Vec::new();
    for n in 1..=MESSAGES {
        sent.push(samer.send(&lena, &format!("message {n}")).await);
    }
    let newest = "/messages?sender=samer&recipient=lena&limit=7";

    // Others write while both walk.
    let writers = TaskTracker::new();
    for (from, to) in [(samer.clone(), lena.clone()), (lena.clone(), samer.clone())] {
        writers.spawn(async move {
            for n in 1..=MORE / 2 {
                from.send(&to, &format!("meanwhile {n}")).await;
            }
        });
    }
    writers.close();

    let mut backward = walk(&samer, newest, "prev").await;
    backward.reverse();
    assert!(backward[1..].iter().all(|page| page.len() == 7), "only the first page may be shorter");
    let backward = backward.concat();
    let last = *seqs(&backward).last().expect("messages");
    assert!(last >= MESSAGES);
    assert_eq!(seqs(&backward), (1..=last).collect::<Vec<_>>());
    assert_eq!(backward[..sent.len()], sent, "message by message");

    let forward = walk(&lena, &format!("{newest}&before=8"), "next").await.concat();
    let last = *seqs(&forward).last().expect("messages");
    assert!(last >= MESSAGES);
    assert_eq!(seqs(&forward), (1..=last).collect::<Vec<_>>());
    assert_eq!(forward[..backward.len().min(forward.len())], backward[..backward.len().min(forward.len())]);

    writers.wait().await;
    let all = walk(&lena, &format!("{newest}&before=8"), "next").await.concat();
    assert_eq!(seqs(&all), (1..=MESSAGES + MORE).collect::<Vec<_>>());
}
