//! What every [`LogScan`](shared::ports::LogScan) does, and what the monitor tells beside it.

use std::collections::BTreeMap;

use shared::ids::Position;
use shared::ports::{Append, Delivery};

use super::feed::{WIDE, next, read, receipt_of};
use super::{LogStores, mark, message, registration, soon};

pub async fn an_empty_log_has_no_extent(stores: LogStores) {
    assert_eq!(stores.scan.extent().await.expect("an extent"), []);
    assert_eq!(stores.monitor.first_unacknowledged().await.expect("positions"), []);
}

pub async fn the_whole_log_is_read_page_by_page(stores: LogStores) {
    let mut expected = BTreeMap::new();
    for append in &appends() {
        let receipt = stores.put(append.clone()).await;
        expected.insert(receipt.position, (receipt, append.clone()));
    }
    let extent = stores.scan.extent().await.expect("an extent");
    let later = stores.put(message("anna", "ben", "behind it")).await;
    let mut seen = BTreeMap::new();
    for span in extent {
        let mut left = Some(span);
        while let Some(span) = left {
            let page = soon("a page", stores.scan.page(&span, 3)).await.expect("a page");
            assert!(page.len() <= 3);
            let Some(last) = page.last() else { break };
            assert_eq!(page[0].position.partition, span.first.partition);
            left = span.behind(last.position);
            for pair in page.windows(2) {
                assert!(pair[0].position < pair[1].position, "in log order");
            }
            seen.extend(page.iter().map(|delivery| (delivery.position, read(delivery).clone())));
        }
    }
    assert!(!seen.contains_key(&later.position), "it came behind the extent");
    assert_eq!(seen.len(), expected.len());
    for (position, (receipt, append)) in expected {
        let event = &seen[&position];
        assert_eq!((receipt_of(event), &event.event), (receipt, &append.event));
    }
}

pub async fn a_scan_takes_nothing_from_consumers(stores: LogStores) {
    let receipt = stores.put(message("anna", "ben", "hi")).await;
    let mut feed = (stores.consumer)("one").await;
    for span in stores.scan.extent().await.expect("an extent") {
        assert_eq!(stores.scan.page(&span, WIDE).await.expect("a page").len(), 1);
    }
    let batch = next(&mut *feed, WIDE).await;
    assert_eq!(receipt_of(read(&batch[0])), receipt);
    feed.ack(&batch).await.expect("ack");
}

pub async fn the_first_unacknowledged_event_is_told(stores: LogStores) {
    let mut appended = Vec::new();
    for content in ["first", "second", "third"] {
        appended.push(stores.put(message("anna", "ben", content)).await.position);
    }
    let first = async || stores.monitor.first_unacknowledged().await.expect("positions");
    assert_eq!(first().await, [appended[0]], "nobody has read anything");
    let mut feed = (stores.consumer)("one").await;
    let mut given: Vec<Delivery> = Vec::new();
    while given.len() < 3 {
        given.extend(next(&mut *feed, WIDE).await);
    }
    assert_eq!(first().await, [appended[0]], "it is given, not acknowledged");
    feed.ack(&given[1..2]).await.expect("ack");
    assert_eq!(first().await, [appended[0]], "one behind it is acknowledged");
    feed.ack(&given[..1]).await.expect("ack");
    assert_eq!(first().await, [appended[2]]);
    feed.ack(&given[2..]).await.expect("ack");
    assert_eq!(first().await, [] as [Position; 0]);
    let later = stores.put(message("anna", "ben", "later")).await;
    assert_eq!(first().await, [later.position]);
}

fn appends() -> Vec<Append> {
    let mut appends = Vec::new();
    for number in 0..8 {
        let user = format!("user{number}");
        appends.push(registration(&user));
        appends.extend((0..5).map(|_| message(&user, "anna", "hi")));
        appends.push(mark("anna", &user, 3));
    }
    appends
}
