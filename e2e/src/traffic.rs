//! Clients that send and read while something happens, and what they were told. Every message is a PUT that is
//! repeated with the same id until its outcome is certain, as docs/guarantees.md asks of clients: so at the end what
//! was acknowledged and what is visible must be the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Answer;
use crate::user::{User, new_id, seqs};
use crate::waiting::within;

/// Between two tries of one message.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// One request in this many may fail because the machine is busy.
const SLOW_SHARE_MAX: usize = 20;
/// Longer than any fault of a test.
const CERTAINTY_TIME_MAX: Duration = Duration::from_secs(60);

/// Who sends to whom.
#[derive(Debug, Clone)]
pub struct Pair {
    pub sender: User,
    pub recipient: User,
}

impl Pair {
    /// `count` pairs of these users, all different conversations.
    ///
    /// # Panics
    /// When there are not that many.
    #[must_use]
    pub fn of(users: &[User], count: usize) -> Vec<Self> {
        let later = |n: usize| users[n + 1..].iter();
        let all = users.iter().enumerate().flat_map(|(n, sender)| {
            later(n).map(|recipient| Self { sender: sender.clone(), recipient: recipient.clone() })
        });
        let pairs: Vec<_> = all.take(count).collect();
        assert_eq!(pairs.len(), count, "too few users");
        pairs
    }
}

/// One acknowledged message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Index of its pair.
    pub pair: usize,
    pub message: Value,
    /// Answers that were not an acknowledgement; `None` stands for no answer at all.
    pub failures: Vec<Option<Answer>>,
}

/// One traffic at a time in a test binary: two of them would only show how busy the machine is.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Clients that send until they are told to end.
#[derive(Debug)]
pub struct Traffic {
    state: Arc<State>,
    tasks: TaskTracker,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Debug)]
struct State {
    pairs: Vec<Pair>,
    begun: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Of each pair, the highest number that was acknowledged.
    heads: Vec<AtomicU64>,
    sent: Mutex<Vec<Sent>>,
    end: CancellationToken,
}

impl Traffic {
    /// `clients` at once, each sending its next message when the last one is certain, to one pair after the other.
    pub async fn start(pairs: &[Pair], clients: usize) -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let state = Arc::new(State {
            pairs: pairs.to_vec(),
            begun: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            heads: pairs.iter().map(|_| AtomicU64::new(0)).collect(),
            sent: Mutex::default(),
            end: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        for _ in 0..clients {
            tasks.spawn(send_all(state.clone()));
        }
        tasks.close();
        Self { state, tasks, _turn: turn }
    }

    /// What was acknowledged so far, for readers who compare it with what they are shown.
    #[must_use]
    pub fn heads(&self) -> AcknowledgedHeads {
        AcknowledgedHeads(self.state.clone())
    }

    /// Until `count` more messages are acknowledged.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn go_on_for(&self, count: usize) {
        let acknowledged = || self.state.acknowledged.load(Ordering::SeqCst);
        let enough = acknowledged() + count;
        let what = format!("{count} more messages are acknowledged");
        within(CERTAINTY_TIME_MAX, &what, async || (acknowledged() >= enough).then_some(())).await;
    }

    /// Begins no further message, waits until every one that was begun is certain, and returns all of them.
    ///
    /// # Panics
    /// When a client gave up.
    pub async fn end(self) -> Vec<Sent> {
        self.state.end.cancel();
        self.tasks.wait().await;
        let sent = std::mem::take(&mut *self.state.sent.lock().await);
        let begun = self.state.begun.load(Ordering::SeqCst);
        assert_eq!(sent.len(), begun, "a client gave up; its panic is above");
        sent
    }
}

/// See [`Traffic::heads`].
#[derive(Debug, Clone)]
pub struct AcknowledgedHeads(Arc<State>);

impl AcknowledgedHeads {
    /// `seq` of the last message of the pair that was acknowledged before this call; 0: none.
    #[must_use]
    pub fn of(&self, pair: usize) -> u64 {
        self.0.heads[pair].load(Ordering::SeqCst)
    }
}

async fn send_all(state: Arc<State>) {
    while !state.end.is_cancelled() {
        let number = state.begun.fetch_add(1, Ordering::SeqCst);
        let pair = number % state.pairs.len();
        let sent = send_until_certain(&state.pairs[pair], pair, &format!("message {number}")).await;
        let seq = sent.message["seq"].as_u64().expect("a seq");
        state.heads[pair].fetch_max(seq, Ordering::SeqCst);
        state.acknowledged.fetch_add(1, Ordering::SeqCst);
        state.sent.lock().await.push(sent);
    }
}

async fn send_until_certain(Pair { sender, recipient }: &Pair, pair: usize, content: &str) -> Sent {
    let id = new_id();
    let begun = Instant::now();
    let mut failures = Vec::new();
    loop {
        match sender.put_message(id, recipient, content).try_send().await {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                return Sent { pair, message: answer.json(), failures };
            }
            Ok(answer) => {
                assert!(matches!(answer.status, 503 | 504), "a send failed for good: {answer:?}");
                answer.expect_problem(answer.status, &answer.problem_code());
                failures.push(Some(answer));
            }
            Err(_) => failures.push(None),
        }
        assert!(begun.elapsed() < CERTAINTY_TIME_MAX, "no certain answer: {:?}", failures.last());
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Nobody noticed the fault: no PUT of `sent` and no GET of `reads` failed, but for the few that a busy machine
/// fails by itself.
///
/// # Panics
/// When it is not so.
pub fn assert_unnoticed(sent: &[Sent], reads: &Reads) {
    let of_a_slow_machine =
        |failure: &&Option<Answer>| failure.as_ref().is_some_and(Answer::is_of_a_slow_machine);
    let failures = sent.iter().flat_map(|sent| &sent.failures).chain(&reads.failures);
    let (slow, failed): (Vec<_>, Vec<_>) = failures.partition(of_a_slow_machine);
    assert!(failed.is_empty(), "{} requests failed: {:?}", failed.len(), failed[0]);
    let requests = sent.len() + reads.pages;
    assert!(slow.len() * SLOW_SHARE_MAX <= requests, "{} of {requests} failed: {:?}", slow.len(), slow[0]);
}

/// What is visible is what was acknowledged, message by message: nothing lost, nothing twice, numbered 1, 2, 3, …
/// in every conversation. `sent` is everything that these pairs ever sent.
///
/// # Panics
/// When it is not so.
pub async fn assert_all_visible(pairs: &[Pair], sent: &[Sent]) {
    let ids: HashSet<_> = sent.iter().map(|sent| sent.message["id"].as_str()).collect();
    assert_eq!(ids.len(), sent.len(), "two messages were acknowledged with one id");
    for (number, Pair { sender, recipient }) in pairs.iter().enumerate() {
        let of_pair = sent.iter().filter(|sent| sent.pair == number);
        let mut expected: Vec<_> = of_pair.map(|sent| sent.message.clone()).collect();
        expected.sort_by_key(|message| message["seq"].as_u64());
        let dense: Vec<u64> = (1..=expected.len() as u64).collect();
        assert_eq!(seqs(&expected), dense, "acknowledged from {} to {}", sender.name, recipient.name);
        let shown = recipient.conversation(sender).await;
        assert_eq!(shown, expected, "from {} to {}", sender.name, recipient.name);
    }
}

/// Clients that read the newest page of one pair after the other until they are told to end. A page with a
/// hole fails the test.
#[derive(Debug)]
pub struct Readers {
    reads: Arc<Mutex<Reads>>,
    end: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
pub struct Reads {
    pub pages: usize,
    /// Answers that were no page; `None` stands for no answer at all.
    pub failures: Vec<Option<Answer>>,
    hole: bool,
}

impl Readers {
    #[must_use]
    pub fn start(pairs: &[Pair], clients: usize) -> Self {
        let (reads, end, tasks) = (Arc::default(), CancellationToken::new(), TaskTracker::new());
        for _ in 0..clients {
            tasks.spawn(read_all(pairs.to_vec(), Arc::clone(&reads), end.clone()));
        }
        tasks.close();
        Self { reads, end, tasks }
    }

    /// # Panics
    /// When a reader met a page with a hole, or nobody read any.
    pub async fn end(self) -> Reads {
        self.end.cancel();
        self.tasks.wait().await;
        let reads = Arc::into_inner(self.reads).expect("every reader has ended").into_inner();
        assert!(!reads.hole, "a page with a hole was shown; it is above");
        assert!(reads.pages > 0, "nobody read");
        reads
    }
}

async fn read_all(pairs: Vec<Pair>, reads: Arc<Mutex<Reads>>, end: CancellationToken) {
    for Pair { sender, recipient } in pairs.iter().cycle().take_while(|_| !end.is_cancelled()) {
        let path = format!("/messages?sender={}&recipient={}", sender.name, recipient.name);
        let answer = recipient.get(&path).try_send().await;
        let mut reads = reads.lock().await;
        match answer {
            Ok(page) if page.status == 200 => {
                let seqs = seqs(&page.items());
                reads.pages += 1;
                if !seqs.windows(2).all(|two| two[0] + 1 == two[1]) {
                    eprintln!("a hole: {page:?}");
                    reads.hole = true;
                }
            }
            other => reads.failures.push(other.ok()),
        }
    }
}
