//! A hundred shapes of poison: entries as a program with a mistake, a broken disk or a stranger may have left them,
//! between good ones. Each is parked with its cause and nothing else suffers; what a repair makes readable is applied
//! after it, the rest is given up.

use e2e::{Backend, Planted, TestApp, User, eventually, new_id, poison};
use projector::Which;
use serde_json::{Value, json};
use shared::Position;
use shared::limits::STORM_UNREADABLE_MAX;
use storage::contract::RawEntry;

mod spoilt;

use spoilt::{Shape, shapes};

e2e::embedded_scenarios!(seventy_shapes_of_poison_are_parked_and_repaired_or_given_up);

#[cfg(feature = "real")]
e2e::real_scenarios!(a_hundred_and_fifty_shapes_of_poison_are_parked_and_repaired_or_given_up);

/// A body of 64 MiB is read by its consumer and for the archive, maybe at once: each holds what was received and one copy.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

const SENDER: &str = "samer";

/// A conversation, the shapes between its good messages, and where they were planted.
struct Row {
    peer: User,
    shapes: Vec<(Shape, Planted)>,
}

impl Row {
    fn seq(nth: usize) -> u64 {
        2 * nth as u64 + 2
    }

    fn entry(&self, nth: usize) -> RawEntry {
        poison(SENDER, &self.peer.name, Self::seq(nth), "mended")
    }

    /// What is shown when these are applied and the others marked.
    fn expected(&self, is_applied: impl Fn(usize) -> bool) -> Vec<(u64, String)> {
        let mut expected = vec![(1, "good 1".to_owned())];
        for nth in 0..self.shapes.len() {
            let seq = Self::seq(nth);
            expected.extend(is_applied(nth).then(|| (seq, "mended".to_owned())));
            expected.push((seq + 1, format!("good {}", seq + 1)));
        }
        expected
    }
}

/// Those that tell their place share conversations; those that do not have others, which stop there.
struct Rows {
    placed: Vec<Row>,
    unplaced: Vec<Row>,
}

impl Rows {
    async fn plant(app: &TestApp, sender: &User) -> Self {
        let (placed, unplaced): (Vec<_>, Vec<_>) =
            shapes(app.backend()).into_iter().partition(Shape::is_placed);
        // Before anything large stands in the way of a registration, which cannot be repeated.
        let (some, others) = (app.users(CONVERSATIONS).await, app.users(CONVERSATIONS).await);
        Self {
            placed: plant(app, sender, some, placed).await,
            unplaced: plant(app, sender, others, unplaced).await,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.placed.iter().chain(&self.unplaced)
    }

    fn count(&self) -> usize {
        self.all().map(|row| row.shapes.len()).sum()
    }

    /// Whatever has no marker, and every other one of the rest.
    async fn repair(&self, app: &TestApp, parked: &[Value]) -> usize {
        let placed = self.placed.iter().map(|row| (row, 2));
        let rows: Vec<_> = placed.chain(self.unplaced.iter().map(|row| (row, 1))).collect();
        let mut repaired = 0;
        for nth in 0..self.count() {
            for (row, _) in rows.iter().filter(|(_, every)| nth.is_multiple_of(*every)) {
                if let Some((_, planted)) = row.shapes.get(nth) {
                    app.repair(planted, position(find(parked, planted)), row.entry(nth)).await;
                    repaired += 1;
                }
            }
        }
        repaired
    }
}

const CONVERSATIONS: usize = 6;

async fn plant(app: &TestApp, sender: &User, peers: Vec<User>, shapes: Vec<Shape>) -> Vec<Row> {
    let mut rows = Vec::new();
    for peer in peers {
        assert_eq!(send(sender, &peer, 1).await, 1);
        rows.push(Row { peer, shapes: Vec::new() });
    }
    for (nth, shape) in shapes.into_iter().enumerate() {
        let row = &mut rows[nth % CONVERSATIONS];
        let planted = shape.plant(app, row.entry(row.shapes.len())).await;
        row.shapes.push((shape, planted));
        let seq = 2 * row.shapes.len() as u64 + 1;
        assert_eq!(send(sender, &row.peer, seq).await, seq);
    }
    rows
}

/// Again while the log is busy with something large.
async fn send(sender: &User, peer: &User, number: u64) -> Value {
    let (id, content) = (new_id(), format!("good {number}"));
    let sent = eventually("it is sent", async || {
        let answer = sender.put_message(id, peer, &content).send().await;
        matches!(answer.status, 200 | 201).then_some(answer)
    });
    sent.await.json()["seq"].clone()
}

fn position(parked: &Value) -> Position {
    parked["position"].as_str().unwrap().parse().unwrap()
}

fn find<'a>(parked: &'a [Value], planted: &Planted) -> &'a Value {
    let found = parked.iter().find(|event| planted.is_at(position(event)));
    found.unwrap_or_else(|| panic!("{planted:?} is not parked"))
}

async fn shown(row: &Row, sender: &User) -> Vec<(u64, String)> {
    let messages = row.peer.conversation(sender).await;
    let content = |message: &Value| message["content"].as_str().unwrap().to_owned();
    messages.iter().map(|message| (message["seq"].as_u64().unwrap(), content(message))).collect()
}

async fn seventy_shapes_of_poison_are_parked_and_repaired_or_given_up() {
    let app = TestApp::start(Backend::Embedded).await;
    parked_and_repaired_or_given_up(&app, 70).await;
    app.finish().await;
}

/// On a Redis of their own, which stands still while it takes 64 MiB.
#[cfg(feature = "real")]
async fn a_hundred_and_fifty_shapes_of_poison_are_parked_and_repaired_or_given_up() {
    let (redis, _options, _dir) = crate::outage::own_redis().await;
    let app = TestApp::real(e2e::Shape { redis_url: Some(redis.url()), ..e2e::Shape::default() }).await;
    parked_and_repaired_or_given_up(&app, 150).await;
    app.finish().await;
}

async fn parked_and_repaired_or_given_up(app: &TestApp, least: usize) {
    let sender = app.register(SENDER).await;
    let rows = Rows::plant(app, &sender).await;
    let count = rows.count();
    assert!((least..STORM_UNREADABLE_MAX).contains(&count), "{count} shapes");

    let parked = eventually("they are parked", async || {
        let parked = app.parked().await;
        (parked.len() >= count).then_some(parked)
    })
    .await;
    assert_eq!(parked.len(), count, "a good one is parked: {parked:?}");
    for (shape, planted) in rows.all().flat_map(|row| &row.shapes) {
        let event = find(&parked, planted);
        let cause = event["cause"].as_str().unwrap();
        assert!(cause.contains(shape.cause) && event["attempts"] == 1, "{}: {event}", shape.what);
    }
    for row in &rows.placed {
        assert_eq!(shown(row, &sender).await, row.expected(|_| false), "neighbours are unharmed");
    }
    for row in rows.unplaced.iter().filter(|row| !row.shapes.is_empty()) {
        let page = row.peer.get_page(&sender, "").answered().await.expect(200);
        assert_eq!(page.items().len(), 1, "it stops where a number is missing");
        let behind = 2 * row.shapes.len();
        assert_eq!(page.header("chat-behind"), Some(behind.to_string().as_str()), "and says so");
    }
    assert_memory_is_bounded(app).await;

    let repaired = rows.repair(app, &parked).await;
    let retried = app.retry_parked(Which::All).await;
    assert_eq!(retried, json!({ "applied": repaired, "parked": count - repaired }));
    app.discard_parked(Which::All).await;
    assert_eq!(app.parked().await, [] as [Value; 0]);
    for row in &rows.placed {
        assert_eq!(shown(row, &sender).await, row.expected(|nth| nth % 2 == 0));
    }
    for row in &rows.unplaced {
        assert_eq!(shown(row, &sender).await, row.expected(|_| true));
    }
}

async fn assert_memory_is_bounded(app: &TestApp) {
    if app.backend() == Backend::Embedded {
        return;
    }
    for name in ["projector-1", "projector-2"] {
        let peak = app.processes().memory_peak(name).await;
        eprintln!("{name} had {} MiB", peak / MIB as u64);
        assert!(peak < MEMORY_BYTES_MAX, "{name} had {peak} bytes");
    }
}
