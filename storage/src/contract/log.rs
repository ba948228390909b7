//! What every [`EventLog`](shared::ports::EventLog) does: numbers, uniqueness, marks, idempotency.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use shared::ids::{EventId, Ulid};
use shared::limits::{ID_AHEAD_MAX, IDEMPOTENCY_WINDOW};
use shared::ports::{Append, AppendError, Appended, Once, OnceKey, Receipt, Refusal};
use shared::{Clock, Seq, Timestamp};

use super::{LogStores, mark, message, name, new_id, pair, registration, soon};

/// Far more than test and store take, far less than any limit here.
const MARGIN: Duration = Duration::from_secs(60);

pub async fn seq_is_dense_per_subject(stores: LogStores) {
    for round in 0..5 {
        assert_eq!(stores.put(message("anna", "ben", "hi")).await.seq, 2 * round + 1);
        assert_eq!(stores.put(message("ben", "anna", "ho")).await.seq, 2 * round + 2, "both ways are one");
        assert_eq!(stores.put(message("anna", "carl", "hi")).await.seq, round + 1);
        assert_eq!(stores.put(mark("anna", "ben", round + 1)).await.seq, round + 1, "numbered in the reader");
    }
    assert_eq!(stores.put(registration("ben")).await.seq, 1);
    assert_eq!(stores.put(mark("ben", "anna", 1)).await.seq, 2, "a user's events are numbered together");
}

pub async fn concurrent_appends_are_dense(stores: LogStores) {
    const EACH: usize = 20;
    let peers: Vec<String> = (0..64).map(|number| format!("peer{}", number % 8)).collect();
    let appenders = peers.iter().map(|peer| async {
        let mut seqs = Vec::with_capacity(EACH);
        for number in 0..EACH {
            seqs.push(stores.put(message("anna", peer, &number.to_string())).await.seq);
        }
        (peer.clone(), seqs)
    });
    let answered = soon("64 appenders", join_all(appenders)).await;

    for number in 0..8 {
        let peer = format!("peer{number}");
        let of_peer = answered.iter().filter(|(of, _)| *of == peer);
        for (_, seqs) in of_peer.clone() {
            assert!(seqs.is_sorted(), "one appender's numbers rise: {seqs:?}");
        }
        let mut seqs: Vec<Seq> = of_peer.flat_map(|(_, seqs)| seqs.clone()).collect();
        seqs.sort_unstable();
        let expected: Vec<Seq> = (1..=8 * EACH as u64).collect();
        assert_eq!(seqs, expected, "{peer}");
        assert_eq!(stores.heads.head(&pair("anna", &peer)).await.expect("head"), 8 * EACH as u64);
    }
}

pub async fn a_receipt_tells_time_and_position(stores: LogStores) {
    let before = Clock::system().now().minus(MARGIN);
    let append = message("anna", "ben", "hi");
    let first = stores.put(append.clone()).await;
    let second = stores.put(message("anna", "ben", "ho")).await;
    assert_eq!(first.id, append.id);
    assert!(first.at > before && second.at < Clock::system().now().plus(MARGIN));
    assert!(first.at <= second.at, "time never falls");
    assert!(first.position < second.position, "one subject, one partition, rising positions");
    assert_eq!(first.position.partition, second.position.partition);
    assert_eq!(first.at, Timestamp(first.position.ms));
}

pub async fn a_name_is_taken_once(stores: LogStores) {
    stores.put(registration("anna")).await;
    assert_eq!(refusal(&stores, registration("anna")).await, Refusal::UsernameTaken);
    stores.put(registration("anna2")).await;
    let hash = stores.accounts.password_hash(&name("anna")).await.expect("hash");
    assert_eq!(hash.as_deref(), Some("$argon2id$of$anna"), "the first one's");
}

pub async fn of_twenty_registrations_at_once_one_wins(stores: LogStores) {
    let answers = join_all((0..20).map(|_| stores.log.append(registration("anna")))).await;
    let (new, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((new.len(), refused.len()), (1, 19));
    for answer in refused {
        assert!(matches!(answer, Err(AppendError::Refused(Refusal::UsernameTaken))), "{answer:?}");
    }
}

pub async fn a_refused_registration_takes_no_number(stores: LogStores) {
    stores.put(registration("anna")).await;
    refusal(&stores, registration("anna")).await;
    assert_eq!(stores.put(mark("anna", "ben", 1)).await.seq, 2);
}

pub async fn marks_only_rise(stores: LogStores) {
    assert_eq!(stores.put(mark("anna", "ben", 10)).await.seq, 1);
    for seq in [10, 9, 1] {
        let answer = stores.log.append(mark("anna", "ben", seq)).await.expect("append");
        assert_eq!(answer, Appended::Unchanged, "{seq} is not above 10");
    }
    assert_eq!(stores.put(mark("anna", "ben", 11)).await.seq, 2, "what was unchanged took no number");
}

pub async fn marks_of_other_pairs_are_their_own(stores: LogStores) {
    stores.put(mark("anna", "ben", 10)).await;
    stores.put(mark("anna", "carl", 3)).await;
    stores.put(mark("ben", "anna", 2)).await;
    assert_eq!(stores.heads.head(&pair("anna", "ben")).await.expect("head"), 0, "a mark is not a message");
}

pub async fn concurrent_marks_append_only_what_rises(stores: LogStores) {
    let answers = join_all((1..=40).map(|seq| stores.log.append(mark("anna", "ben", seq)))).await;
    let mut new: Vec<(Seq, Seq)> = Vec::new();
    for (seq, answer) in (1..=40).zip(answers) {
        if let Appended::New(receipt) = answer.expect("append") {
            new.push((receipt.seq, seq));
        }
    }
    new.sort_unstable();
    let numbers: Vec<Seq> = new.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=new.len() as u64).collect::<Vec<_>>(), "dense");
    assert!(new.is_sorted_by_key(|(_, seq)| *seq), "each higher than the one before: {new:?}");
    assert_eq!(new.last().map(|(_, seq)| *seq), Some(40), "the highest is always new");
}

pub async fn without_once_every_send_is_a_message(stores: LogStores) {
    let append = message("anna", "ben", "hi");
    assert_eq!(stores.put(append.clone()).await.seq, 1);
    assert_eq!(stores.put(append).await.seq, 2);
}

pub async fn a_header_key_replays_the_first_receipt(stores: LogStores) {
    replays_the_first_receipt(&stores, header("key 1")).await;
}

pub async fn an_id_replays_the_first_receipt(stores: LogStores) {
    replays_the_first_receipt(&stores, OnceKey::Id).await;
}

async fn replays_the_first_receipt(stores: &LogStores, key: OnceKey) {
    let append = once(message("anna", "ben", "hi"), key, 1);
    let first = stores.put(append.clone()).await;
    let other = stores.put(message("ben", "anna", "ho")).await;
    for _ in 0..3 {
        assert_eq!(stores.log.append(repeated(&append)).await.expect("append"), Appended::Replayed(first));
    }
    assert_eq!(
        stores.put(message("anna", "ben", "next")).await.seq,
        other.seq + 1,
        "a replay takes no number"
    );
}

pub async fn a_header_key_with_another_body_is_a_conflict(stores: LogStores) {
    with_another_body_is_a_conflict(&stores, header("key")).await;
}

pub async fn an_id_with_another_body_is_a_conflict(stores: LogStores) {
    with_another_body_is_a_conflict(&stores, OnceKey::Id).await;
}

async fn with_another_body_is_a_conflict(stores: &LogStores, key: OnceKey) {
    let append = once(message("anna", "ben", "hi"), key.clone(), 1);
    let first = stores.put(append.clone()).await;
    let other_body = Append { id: append.id, ..once(message("anna", "ben", "other"), key, 2) };
    assert_eq!(refusal(stores, other_body).await, Refusal::IdempotencyConflict);
    assert_eq!(
        stores.log.append(append).await.expect("append"),
        Appended::Replayed(first),
        "the record stays"
    );
    assert_eq!(stores.put(message("anna", "ben", "next")).await.seq, 2, "a conflict takes no number");
}

pub async fn a_header_key_is_scoped_to_sender_and_recipient(stores: LogStores) {
    is_scoped_to_sender_and_recipient(&stores, header("key:1")).await;
}

pub async fn an_id_is_scoped_to_sender_and_recipient(stores: LogStores) {
    is_scoped_to_sender_and_recipient(&stores, OnceKey::Id).await;
}

async fn is_scoped_to_sender_and_recipient(stores: &LogStores, key: OnceKey) {
    let id = new_id();
    let send = |from: &str, to: &str| Append { id, ..once(message(from, to, "hi"), key.clone(), 1) };
    assert_eq!(stores.put(send("anna", "ben")).await.seq, 1);
    assert_eq!(stores.put(send("ben", "anna")).await.seq, 2, "the other side");
    assert_eq!(stores.put(send("anna", "carl")).await.seq, 1, "another recipient");
}

pub async fn a_header_key_fifty_times_at_once_is_one_event(stores: LogStores) {
    fifty_times_at_once_is_one_event(&stores, header("key")).await;
}

pub async fn an_id_fifty_times_at_once_is_one_event(stores: LogStores) {
    fifty_times_at_once_is_one_event(&stores, OnceKey::Id).await;
}

async fn fifty_times_at_once_is_one_event(stores: &LogStores, key: OnceKey) {
    let append = once(message("anna", "ben", "hi"), key, 1);
    let answers = join_all((0..50).map(|_| stores.log.append(repeated(&append)))).await;
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut new = 0;
    for answer in answers {
        match answer.expect("append") {
            Appended::New(receipt) => {
                new += 1;
                receipts.push(receipt);
            }
            Appended::Replayed(receipt) => receipts.push(receipt),
            Appended::Unchanged => panic!("a send is never unchanged"),
        }
    }
    assert_eq!(new, 1);
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]), "{receipts:?}");
    assert_eq!(stores.heads.head(&pair("anna", "ben")).await.expect("head"), 1);
}

pub async fn an_id_outside_the_window_is_refused(stores: LogStores) {
    let now = Clock::system().now();
    let refused = [
        now.minus(IDEMPOTENCY_WINDOW).minus(MARGIN),
        Timestamp(0),
        now.plus(ID_AHEAD_MAX).plus(MARGIN),
        Timestamp((1 << 48) - 1),
    ];
    for at in refused {
        let append = Append { id: id_at(at), ..once(message("anna", "ben", "hi"), OnceKey::Id, 1) };
        assert_eq!(refusal(&stores, append.clone()).await, Refusal::IdOutOfWindow, "{at}");
        assert_eq!(refusal(&stores, append).await, Refusal::IdOutOfWindow, "a refusal is not recorded");
    }
    assert_eq!(stores.put(message("anna", "ben", "hi")).await.seq, 1, "refusals take no number");

    let by_header =
        Append { id: id_at(Timestamp(0)), ..once(message("anna", "ben", "hi"), header("key"), 1) };
    assert_eq!(stores.put(by_header).await.seq, 2, "only an id as key has a window");
}

pub async fn an_id_at_the_edge_of_the_window_is_taken(stores: LogStores) {
    let now = Clock::system().now();
    for at in [now.minus(IDEMPOTENCY_WINDOW).plus(MARGIN), now.plus(ID_AHEAD_MAX).minus(MARGIN)] {
        let append = Append { id: id_at(at), ..once(message("anna", "ben", "hi"), OnceKey::Id, 1) };
        let first = stores.put(append.clone()).await;
        assert_eq!(stores.log.append(append).await.expect("append"), Appended::Replayed(first));
    }
}

pub async fn a_header_key_that_looks_like_an_id_is_not_one(stores: LogStores) {
    let by_id = once(message("anna", "ben", "hi"), OnceKey::Id, 1);
    let by_header = once(message("anna", "ben", "hi"), header(&by_id.id.to_string()), 2);
    assert_eq!(stores.put(by_id).await.seq, 1);
    assert_eq!(stores.put(by_header).await.seq, 2);
}

pub async fn a_dropped_append_is_not_undone(stores: LogStores) {
    let sends: Vec<Append> = (0..20).map(|_| once(message("anna", "ben", "hi"), OnceKey::Id, 1)).collect();
    for append in &sends {
        // Polled once, then dropped.
        let _ = tokio::time::timeout(Duration::ZERO, stores.log.append(append.clone())).await;
    }
    let mut seqs = HashSet::new();
    for append in sends {
        match stores.log.append(append).await.expect("append") {
            Appended::New(receipt) | Appended::Replayed(receipt) => assert!(seqs.insert(receipt.seq)),
            Appended::Unchanged => panic!("a send is never unchanged"),
        }
    }
    let head = stores.heads.head(&pair("anna", "ben")).await.expect("head");
    assert_eq!(head, 20, "each at most once, and all of them in the end");
    assert_eq!(seqs, (1..=20).collect());
}

fn header(key: &str) -> OnceKey {
    OnceKey::Header(key.to_owned())
}

fn once(append: Append, key: OnceKey, fingerprint: u8) -> Append {
    Append { once: Some(Once { key, fingerprint: [fingerprint; 16] }), ..append }
}

/// What a client's retry makes: an id given by the server is another one each time.
fn repeated(append: &Append) -> Append {
    match append.once.as_ref().map(|once| &once.key) {
        Some(OnceKey::Header(_)) => Append { id: new_id(), ..append.clone() },
        Some(OnceKey::Id) | None => append.clone(),
    }
}

fn id_at(at: Timestamp) -> EventId {
    EventId(Ulid::from_parts(at.0, new_id().0.random()))
}

/// # Panics
/// Unless the log refuses it.
async fn refusal(stores: &LogStores, append: Append) -> Refusal {
    match stores.log.append(append).await {
        Err(AppendError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
