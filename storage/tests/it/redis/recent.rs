//! The trail that acknowledgements leave.

use redis::AsyncTypedCommands;
use shared::limits::ACK_TRAIL_SPANS;
use shared::ports::{EventFeed, RecentEvents};

use super::{GENERATION, fresh, message, plain, put, read};

#[tokio::test]
async fn what_was_acknowledged_last_can_be_read_again() {
    let fresh = fresh().await;
    for n in 0..20 {
        put(&fresh.store, message("anna", &format!("peer{n}"))).await;
    }
    let recent = fresh.store.recent(GENERATION);
    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = read(&mut feed, 20).await;
    assert_eq!(recent.spans().await.unwrap(), [], "nothing is acknowledged yet");
    let (first, rest) = batch.split_at(7);
    feed.ack(rest).await.unwrap();
    feed.ack(first).await.unwrap();

    let mut again = Vec::new();
    for span in recent.spans().await.unwrap() {
        let mut left = Some(span);
        while let Some(span) = left {
            let page = recent.read(&span, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            left = span.behind(last.position);
            again.extend(page);
        }
    }
    again.sort_by_key(|delivery| delivery.position);
    let mut expected = batch;
    expected.sort_by_key(|delivery| delivery.position);
    assert_eq!(again, expected);
}

/// Of spans in which something was acknowledged the last ones are kept, however long ago they were.
#[tokio::test]
async fn old_spans_leave_the_trail() {
    let fresh = fresh().await;
    let append = message("anna", "ben");
    let receipt = put(&fresh.store, append.clone()).await;
    let trail = format!("{}:trail:g{GENERATION}", fresh.keys_of(&append));
    let mut redis = plain().await;
    for span in 1..=ACK_TRAIL_SPANS + 2 {
        redis.hset(&trail, span.to_string(), "1-0 2-0").await.unwrap();
    }
    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = read(&mut feed, 1).await;
    feed.ack(&batch).await.unwrap();
    let kept = redis.hkeys(&trail).await.unwrap();
    assert_eq!(kept.len(), ACK_TRAIL_SPANS, "{kept:?}");
    assert!(["1", "2", "3"].iter().all(|old| !kept.contains(&(*old).to_owned())), "{kept:?}");
    let spans = fresh.store.recent(GENERATION).spans().await.unwrap();
    assert_eq!(spans.iter().map(|span| span.last).collect::<Vec<_>>(), [receipt.position]);
}
