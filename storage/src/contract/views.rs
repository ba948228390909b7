//! What every `ViewWriter` and `ViewReader` does. The tests make changes as the projections do: a message
//! changes the timeline and both inboxes. They say nothing of who made an event or whether it may be seen.

#![expect(clippy::unwrap_used, reason = "these are tests, though they live in the library")]

use futures_util::StreamExt;
use shared::clock::Timestamp;
use shared::limits::{BUCKET_MESSAGES, INBOX_ROWS_PER_REQUEST, PAGE_MESSAGES_MAX};
use shared::view::{InboxRow, TimelineEntry, UserRow, UsersChange, ViewChange};

use super::words::{entry, mark, marker, message, sent};
use super::{ViewStores, name, pair};

mod merge;

/// One `#[tokio::test]` per function of this file. `$open` is an `async fn() -> ViewStores` on an empty store.
#[macro_export]
macro_rules! views_contract {
    ($open:path) => {
        $crate::contract_tests! { $open => views:
            an_empty_view_has_nothing
            no_changes_are_no_error
            a_message_reads_back_as_it_was_put
            any_content_reads_back_byte_for_byte
            any_name_keeps_its_rows_apart
            a_page_is_ascending_and_leaves_out_what_is_missing
            a_page_may_cross_a_bucket_boundary
            the_head_is_the_highest_number_seen
            a_marker_counts_for_the_head_and_not_for_the_inbox
            a_marker_never_replaces_a_message
            the_last_message_of_an_inbox_row_is_the_highest
            own_seq_rises_with_the_owners_messages_only
            marks_only_rise
            an_inbox_row_may_hold_a_mark_alone
            an_inbox_holds_all_conversations_of_its_owner_and_no_other
            a_long_inbox_comes_row_by_row
            the_highest_registration_of_a_user_stays
            changes_to_one_row_collapse
            large_messages_go_in_one_apply
            a_large_batch_goes_in_one_apply
            two_projectors_in_any_order_make_the_views_that_one_makes_in_order
        }
        $crate::contract_tests! { $open => parked:
            parked_events_come_in_the_order_of_their_positions
            a_parked_row_reads_back_as_it_was_put
            a_parked_row_may_hold_a_mebibyte
            the_last_attempt_stays
            a_settled_event_is_parked_no_longer
        }
        $crate::contract_tests! { $open => view_scan:
            an_empty_view_has_no_rows
            every_row_comes_once
            a_large_table_comes_page_by_page
        }
    };
}

pub async fn an_empty_view_has_nothing(stores: ViewStores) {
    assert_eq!(stores.page(&pair("samer", "lena"), 1, PAGE_MESSAGES_MAX).await, []);
    assert_eq!(stores.reader.timeline_head(&pair("samer", "lena")).await.unwrap(), 0);
    assert_eq!(stores.inbox("samer").await, []);
    assert_eq!(stores.reader.user(&name("samer")).await.unwrap(), None);
}

pub async fn no_changes_are_no_error(stores: ViewStores) {
    stores.apply(&[]).await;
}

pub async fn a_message_reads_back_as_it_was_put(stores: ViewStores) {
    let message = message("samer", "lena", 1, "hi");
    stores.apply(&sent(&message)).await;
    assert_eq!(stores.page(&pair("samer", "lena"), 1, 1).await, [entry(&message)]);
    let row = |peer: &str, own_seq| {
        let last = Some(message.clone());
        InboxRow { last, own_seq, ..InboxRow::empty(name(peer)) }
    };
    assert_eq!(stores.inbox("samer").await, [row("lena", 1)]);
    assert_eq!(stores.inbox("lena").await, [row("samer", 0)]);
}

pub async fn any_content_reads_back_byte_for_byte(stores: ViewStores) {
    let contents = [
        "line\nline\r\n\ttab".to_owned(),
        r#"'single' "double" \back $$ ; -- /* */ {} ?"#.to_owned(),
        "👩‍👩‍👧 مرحبا e\u{301}\u{202e}\u{feff}\u{fffd}".to_owned(),
        "\u{1}\u{7f}\u{10ffff}".to_owned(),
        " ".to_owned(),
        "🦀".repeat(4_096),
    ];
    let messages: Vec<_> =
        (1..).zip(&contents).map(|(seq, text)| message("samer", "lena", seq, text)).collect();
    stores.apply(&messages.iter().flat_map(sent).collect::<Vec<_>>()).await;
    let page = stores.page(&pair("samer", "lena"), 1, 6).await;
    assert_eq!(page, messages.iter().map(entry).collect::<Vec<_>>());
    assert_eq!(stores.inbox("lena").await[0].last.as_ref(), messages.last());
}

pub async fn any_name_keeps_its_rows_apart(stores: ViewStores) {
    let longest = "z".repeat(32);
    let names = ["a.b", "a_b", "a-b", "a--", "ab", "aba", "0.", "0-._", &longest];
    let pairs =
        names.iter().enumerate().flat_map(|(at, one)| names[..at].iter().map(move |other| (*one, *other)));
    let messages: Vec<_> =
        pairs.map(|(one, other)| message(one, other, 1, &format!("{one} to {other}"))).collect();
    stores.apply(&messages.iter().flat_map(sent).collect::<Vec<_>>()).await;
    for message in &messages {
        assert_eq!(stores.page(&message.conversation(), 1, 2).await, [entry(message)]);
    }
    for name in &names {
        assert_eq!(stores.inbox(name).await.len(), names.len() - 1, "{name}");
    }
}

pub async fn a_page_is_ascending_and_leaves_out_what_is_missing(stores: ViewStores) {
    let odd: Vec<_> = (1..=199).step_by(2).map(|seq| message("samer", "lena", seq, "odd")).collect();
    stores.apply(&odd.iter().rev().flat_map(sent).collect::<Vec<_>>()).await;
    let pair = pair("samer", "lena");
    let seqs = |page: Vec<TimelineEntry>| page.iter().map(TimelineEntry::seq).collect::<Vec<_>>();
    assert_eq!(seqs(stores.page(&pair, 50, 149).await), (51..=149).step_by(2).collect::<Vec<_>>());
    assert_eq!(seqs(stores.page(&pair, 1, 100).await), (1..=99).step_by(2).collect::<Vec<_>>());
    assert_eq!(seqs(stores.page(&pair, 7, 7).await), [7]);
    assert_eq!(stores.page(&pair, 8, 8).await, []);
    assert_eq!(stores.page(&pair, 200, 299).await, []);
}

pub async fn a_page_may_cross_a_bucket_boundary(stores: ViewStores) {
    let (pair, edge) = (pair("samer", "lena"), BUCKET_MESSAGES);
    let all: Vec<_> = (edge - 60..=edge + 60).map(|seq| message("samer", "lena", seq, "edge")).collect();
    stores.apply(&all.iter().flat_map(sent).collect::<Vec<_>>()).await;
    let wide = (edge - 50, edge + 49);
    assert_eq!(wide.1 - wide.0 + 1, PAGE_MESSAGES_MAX);
    for (first, last) in
        [(edge - 10, edge + 10), (edge, edge), (edge - 1, edge - 1), (edge - 1, edge), (edge, edge + 1), wide]
    {
        let expected: Vec<_> = all.iter().filter(|m| (first..=last).contains(&m.seq)).map(entry).collect();
        assert_eq!(stores.page(&pair, first, last).await, expected, "{first}..={last}");
    }
    assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), edge + 60);
}

pub async fn the_head_is_the_highest_number_seen(stores: ViewStores) {
    let (pair, other) = (pair("samer", "lena"), pair("samer", "omar"));
    for (sender, recipient, seq, head) in [
        ("samer", "lena", 7, 7),
        ("lena", "samer", 3, 7),
        ("lena", "samer", 8, 8),
        ("samer", "lena", 5_003, 5_003),
    ] {
        stores.apply(&sent(&message(sender, recipient, seq, "hi"))).await;
        assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), head);
    }
    assert_eq!(stores.reader.timeline_head(&other).await.unwrap(), 0);
}

pub async fn a_marker_counts_for_the_head_and_not_for_the_inbox(stores: ViewStores) {
    let pair = pair("samer", "lena");
    stores.apply(&[marker(&pair, 1)]).await;
    assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), 1, "else its readers would wait for ever");
    assert_eq!((stores.inbox("samer").await, stores.inbox("lena").await), (vec![], vec![]));
    stores.apply(&sent(&message("samer", "lena", 2, "hi"))).await;
    stores.apply(&[marker(&pair, 3)]).await;
    assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), 3);
    assert_eq!(stores.inbox("lena").await[0].head_seq(), 2);
}

pub async fn a_marker_never_replaces_a_message(stores: ViewStores) {
    let pair = pair("samer", "lena");
    let messages = [1, 2, 3, 4].map(|seq| message("samer", "lena", seq, "hi"));
    stores.apply(&[marker(&pair, 1), marker(&pair, 5)]).await;
    assert_eq!(stores.page(&pair, 1, 5).await, [1, 5].map(|seq| TimelineEntry::Parked { seq }));
    stores.apply(&messages[..2].iter().flat_map(sent).collect::<Vec<_>>()).await;
    stores.apply(&[marker(&pair, 2)]).await;
    let mut one_batch = vec![marker(&pair, 3)];
    one_batch.extend(messages[2..].iter().flat_map(sent));
    one_batch.push(marker(&pair, 4));
    stores.apply(&one_batch).await;
    let mut expected: Vec<_> = messages.iter().map(entry).collect();
    expected.push(TimelineEntry::Parked { seq: 5 });
    assert_eq!(stores.page(&pair, 1, 5).await, expected);
}

pub async fn the_last_message_of_an_inbox_row_is_the_highest(stores: ViewStores) {
    let [second, fourth, third] =
        [2, 4, 3].map(|seq| message("samer", "lena", seq, &format!("number {seq}")));
    for (put, last) in [(&second, &second), (&fourth, &fourth), (&third, &fourth), (&second, &fourth)] {
        stores.apply(&sent(put)).await;
        assert_eq!(stores.inbox("samer").await[0].last.as_ref(), Some(last));
        assert_eq!(stores.inbox("lena").await[0].last.as_ref(), Some(last));
    }
}

pub async fn own_seq_rises_with_the_owners_messages_only(stores: ViewStores) {
    for (sender, recipient, seq, samers, lenas) in [
        ("samer", "lena", 4, 4, 0),
        ("lena", "samer", 5, 4, 5),
        ("samer", "lena", 2, 4, 5),
        ("lena", "samer", 3, 4, 5),
        ("samer", "lena", 6, 6, 5),
    ] {
        stores.apply(&sent(&message(sender, recipient, seq, "hi"))).await;
        assert_eq!(stores.inbox("samer").await[0].own_seq, samers, "after {seq}");
        assert_eq!(stores.inbox("lena").await[0].own_seq, lenas, "after {seq}");
    }
}

pub async fn marks_only_rise(stores: ViewStores) {
    stores.apply(&sent(&message("samer", "lena", 9, "hi"))).await;
    for (seq, highest) in [(3, 3), (5, 5), (4, 5), (5, 5), (1, 5), (9, 9)] {
        stores.apply(&[mark("lena", "samer", seq)]).await;
        let row = &stores.inbox("lena").await[0];
        assert_eq!((row.read_mark, row.head_seq(), row.own_seq), (highest, 9, 0));
    }
    assert_eq!(stores.inbox("samer").await[0].read_mark, 0, "a mark is its reader's alone");
}

pub async fn an_inbox_row_may_hold_a_mark_alone(stores: ViewStores) {
    stores.apply(&[mark("lena", "samer", 2)]).await;
    let row = InboxRow { read_mark: 2, ..InboxRow::empty(name("samer")) };
    assert_eq!(stores.inbox("lena").await, [row]);
    assert_eq!(stores.inbox("samer").await, []);
    assert_eq!(stores.reader.timeline_head(&pair("samer", "lena")).await.unwrap(), 0);
}

pub async fn an_inbox_holds_all_conversations_of_its_owner_and_no_other(stores: ViewStores) {
    let peers: Vec<_> = (0..250).map(|number| format!("peer-{number:03}")).collect();
    let messages: Vec<_> = peers.iter().map(|peer| message(peer, "samer", 1, peer)).collect();
    stores.apply(&messages.iter().flat_map(sent).collect::<Vec<_>>()).await;
    let rows = stores.inbox("samer").await;
    assert_eq!(rows.iter().map(|row| row.peer.as_str()).collect::<Vec<_>>(), peers);
    assert!(rows.iter().zip(&messages).all(|(row, message)| row.last.as_ref() == Some(message)));
    assert_eq!(stores.inbox("peer-007").await.len(), 1);
}

/// More rows than one request brings. Whoever has enough of them may leave.
pub async fn a_long_inbox_comes_row_by_row(stores: ViewStores) {
    let peers: Vec<_> =
        (0..2 * INBOX_ROWS_PER_REQUEST + 1).map(|number| format!("peer-{number:04}")).collect();
    let messages: Vec<_> = peers.iter().map(|peer| message(peer, "samer", 1, peer)).collect();
    stores.apply(&messages.iter().flat_map(sent).collect::<Vec<_>>()).await;
    stores.apply(&sent(&message("samer", "zoe", 1, "the last"))).await;
    let rows = stores.inbox("samer").await;
    let listed = rows.iter().map(|row| row.peer.as_str());
    assert!(listed.eq(peers.iter().map(String::as_str).chain(["zoe"])), "{} rows", rows.len());
    let mut some = stores.reader.inbox(&name("samer"));
    assert!(some.next().await.unwrap().is_ok());
    drop(some);
    assert_eq!(stores.inbox("peer-0001").await.len(), 1);
}

pub async fn the_highest_registration_of_a_user_stays(stores: ViewStores) {
    let row = |ms| UserRow { username: name("samer"), registered_at: Timestamp(ms) };
    for (ms, seq, stays) in [(20, 2, 20), (30, 1, 20), (10, 3, 10)] {
        stores.apply(&[ViewChange::Users(UsersChange::PutUser { user: row(ms), seq })]).await;
        assert_eq!(stores.reader.user(&name("samer")).await.unwrap(), Some(row(stays)));
    }
    assert_eq!(stores.reader.user(&name("lena")).await.unwrap(), None);
}

pub async fn changes_to_one_row_collapse(stores: ViewStores) {
    let messages: Vec<_> =
        (1..=300).map(|seq| message("samer", "lena", seq, &format!("number {seq}"))).collect();
    let mut changes: Vec<_> = messages.iter().rev().flat_map(sent).collect();
    changes.extend([7, 9, 8].map(|seq| mark("lena", "samer", seq)));
    changes.extend(messages.iter().flat_map(sent));
    stores.apply(&changes).await;
    let last = messages.last().cloned();
    let row = InboxRow { last, read_mark: 9, ..InboxRow::empty(name("samer")) };
    assert_eq!(stores.inbox("lena").await, [row]);
    assert_eq!(stores.page(&pair("samer", "lena"), 201, 300).await.len(), 100);
}

/// More bytes than some stores take in one request, in messages each near the size of a request body.
pub async fn large_messages_go_in_one_apply(stores: ViewStores) {
    let large: Vec<_> = (1..=40).map(|seq| message("samer", "lena", seq, &"€".repeat(5_461))).collect();
    stores.apply(&large.iter().flat_map(sent).collect::<Vec<_>>()).await;
    let page = stores.page(&pair("samer", "lena"), 1, 100).await;
    assert!(page == large.iter().map(entry).collect::<Vec<_>>(), "{} of 40", page.len());
}

pub async fn a_large_batch_goes_in_one_apply(stores: ViewStores) {
    let peers: Vec<_> = (0..100).map(|number| format!("peer{number}")).collect();
    let messages: Vec<_> =
        (1..=17).flat_map(|seq| peers.iter().map(move |peer| message("samer", peer, seq, "hi"))).collect();
    let changes: Vec<_> = messages.iter().flat_map(sent).collect();
    assert!(changes.len() >= 5_000);
    stores.apply(&changes).await;
    for peer in &peers {
        let expected: Vec<_> = messages.iter().filter(|m| m.recipient.as_str() == peer).map(entry).collect();
        assert_eq!(stores.page(&pair("samer", peer), 1, 100).await, expected);
    }
    assert!(stores.inbox("samer").await.iter().all(|row| (row.head_seq(), row.own_seq) == (17, 17)));
}

pub async fn two_projectors_in_any_order_make_the_views_that_one_makes_in_order(stores: ViewStores) {
    merge::check(&stores).await;
}
