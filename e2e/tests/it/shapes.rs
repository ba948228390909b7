//! A hundred shapes of poison: entries as a program with a mistake, a broken disk or a stranger may have left them,
//! between good ones. Each is parked with its cause and nothing else suffers; what a repair makes readable is applied
//! after it, the rest is given up.

use e2e::poison::Fields;
use e2e::{Backend, Planted, TestApp, User, eventually, new_id, poison};
use projector::Which;
use serde_json::{Value, json};
use shared::Position;
use shared::event::SCHEMA_VERSION;
use shared::limits::STORM_UNREADABLE_MAX;
use storage::contract::RawEntry;

e2e::embedded_scenarios!(seventy_shapes_of_poison_are_parked_and_repaired_or_given_up);

#[cfg(feature = "real")]
e2e::real_scenarios!(a_hundred_and_fifty_shapes_of_poison_are_parked_and_repaired_or_given_up);

/// A body of 64 MiB is read by its consumer and for the archive, maybe at once: each holds what was received and one copy.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

const SENDER: &str = "samer";
const STRANGER: &str = "nobody";

/// One way to spoil an entry, and part of the cause that is given.
struct Shape {
    what: String,
    cause: &'static str,
    damage: Damage,
}

enum Damage {
    /// Its checksum fits: a program with a mistake has written it so.
    Written(Box<dyn Fn(&mut RawEntry)>),
    /// As it lies in Redis, names and values.
    Stored { is_placed: bool, spoil: Box<dyn Fn(Fields) -> Vec<Vec<u8>>> },
}

impl Shape {
    fn written(
        what: impl Into<String>,
        cause: &'static str,
        spoil: impl Fn(&mut RawEntry) + 'static,
    ) -> Self {
        Self { what: what.into(), cause, damage: Damage::Written(Box::new(spoil)) }
    }

    fn stored(what: String, cause: &'static str, spoil: impl Fn(Fields) -> Vec<Vec<u8>> + 'static) -> Self {
        Self { what, cause, damage: Damage::Stored { is_placed: true, spoil: Box::new(spoil) } }
    }

    /// The entry does not tell its number: nothing can stand there until it is repaired.
    fn without_place(self) -> Self {
        let Damage::Stored { spoil, .. } = self.damage else { panic!("the header is whole") };
        Self { damage: Damage::Stored { is_placed: false, spoil }, ..self }
    }

    fn is_placed(&self) -> bool {
        match self.damage {
            Damage::Written(_) => true,
            Damage::Stored { is_placed, .. } => is_placed,
        }
    }

    async fn plant(&self, app: &TestApp, mut entry: RawEntry) -> Planted {
        match &self.damage {
            Damage::Written(spoil) => {
                spoil(&mut entry);
                app.plant(entry).await
            }
            Damage::Stored { spoil, .. } => app.plant_fields(entry, spoil).await,
        }
    }
}

fn shapes(backend: Backend) -> Vec<Shape> {
    let mut shapes = Vec::new();
    if backend == Backend::Real {
        huge(&mut shapes);
        wrong_headers(&mut shapes);
        wrong_words(&mut shapes);
        wrong_fields(&mut shapes);
        wrong_bytes(&mut shapes);
    }
    wrong_envelopes(&mut shapes);
    wrong_payloads(&mut shapes);
    wrong_members(&mut shapes);
    shapes
}

/// The first to be repaired: until then all that lies beside them takes long to repair.
fn huge(shapes: &mut Vec<Shape>) {
    shapes.push(Shape::stored("64 MiB".to_owned(), "checksum is", |mut fields| {
        fields.payload = vec![b'x'; 64 * MIB];
        fields.stored()
    }));
    let spoil = |entry: &mut RawEntry| set(entry, "content", json!("x".repeat(64 * MIB)));
    shapes.push(Shape::written("a message of 64 MiB", "payload: it has", spoil));
}

fn wrong_envelopes(shapes: &mut Vec<Shape>) {
    for kind in
        ["MessageSung", "messagesent", "MESSAGESENT", "MessageSent2", "Message", "UserRegistere", "Ünbekannt"]
    {
        let spoil = move |entry: &mut RawEntry| entry.envelope.kind = kind.to_owned();
        shapes.push(Shape::written(format!("type {kind}"), "unknown event type", spoil));
    }
    for version in [SCHEMA_VERSION + 1, SCHEMA_VERSION + 2, 99, u32::MAX] {
        let spoil = move |entry: &mut RawEntry| entry.envelope.version = version;
        shapes.push(Shape::written(format!("version {version}"), "is newer than this program", spoil));
    }
    for id in
        ["", "no-id", "01jd0000000000000000000000", "01JD000000000000000000000", "81JD0000000000000000000000"]
    {
        let spoil = move |entry: &mut RawEntry| entry.envelope.id = id.to_owned();
        shapes.push(Shape::written(format!("id {id:?}"), "field id", spoil));
    }
    for bit in [0, 7, 13, 31] {
        let spoil = move |entry: &mut RawEntry| entry.checksum_flipped = 1 << bit;
        shapes.push(Shape::written(format!("bit {bit} of the checksum"), "checksum is", spoil));
    }
    for (kind, payload) in [
        ("UserRegistered", json!({ "username": SENDER, "password_hash": "$argon2id$" })),
        ("ConversationRead", json!({ "reader": SENDER, "peer": STRANGER, "seq": 1 })),
        ("MessageSent", json!({ "sender": SENDER, "recipient": STRANGER, "content": "hi" })),
    ] {
        let spoil = move |entry: &mut RawEntry| {
            (entry.envelope.kind, entry.envelope.payload) = (kind.to_owned(), payload.to_string());
        };
        shapes.push(Shape::written(format!("{kind} of another subject"), "the subject is", spoil));
    }
}

fn wrong_payloads(shapes: &mut Vec<Shape>) {
    let deep = "[".repeat(100_000);
    let texts = [
        "",
        " ",
        "{",
        "}",
        "{}",
        "[]",
        "null",
        "true",
        "7",
        "1e999",
        "\"text\"",
        "nul",
        "{\"sender\":",
        "\0",
    ];
    for text in texts.iter().map(|text| (*text).to_owned()).chain([deep, "x".repeat(MIB + 1)]) {
        let what = format!("payload {text:.20?}");
        shapes.push(Shape::written(what, "payload: ", move |entry| entry.envelope.payload = text.clone()));
    }
    for eighth in 1..8 {
        let spoil = move |entry: &mut RawEntry| {
            let length = entry.envelope.payload.len() * eighth / 8;
            entry.envelope.payload.truncate(length);
        };
        shapes.push(Shape::written(format!("{eighth}/8 of the payload"), "payload: ", spoil));
    }
    for (what, from, to) in [
        ("more behind it", "}", "}}"),
        ("a lone surrogate", "mended", "\\ud800"),
        ("an unknown escape", "mended", "\\x41"),
        ("a raw line feed", "mended", "\n"),
        ("a raw zero byte", "mended", "\0"),
        ("single quotes", "\"", "'"),
    ] {
        let spoil =
            move |entry: &mut RawEntry| entry.envelope.payload = entry.envelope.payload.replace(from, to);
        shapes.push(Shape::written(what, "payload: ", spoil));
    }
    for (what, bytes) in [("more than 256 KiB", MIB / 4), ("more than a MiB", MIB)] {
        let spoil = move |entry: &mut RawEntry| set(entry, "content", json!("x".repeat(bytes)));
        shapes.push(Shape::written(format!("a message of {what}"), "payload: it has", spoil));
    }
}

fn wrong_members(shapes: &mut Vec<Shape>) {
    for member in ["sender", "recipient", "content"] {
        for value in [json!(null), json!(7), json!([]), json!({})] {
            let what = format!("{member} {value}");
            shapes.push(Shape::written(what, "payload: ", move |entry| set(entry, member, value.clone())));
        }
        shapes.push(Shape::written(format!("no {member}"), "payload: missing field", move |entry| {
            let renamed = entry.envelope.payload.replace(&format!("{member:?}"), "\"other\"");
            entry.envelope.payload = renamed;
        }));
        shapes.push(Shape::written(format!("{member} twice"), "payload: duplicate field", move |entry| {
            entry.envelope.payload =
                entry.envelope.payload.replacen('{', &format!("{{{member:?}:\"xx\","), 1);
        }));
    }
    for name in ["", "a", "a b", "a:b", "_ab", "é1"].map(str::to_owned).into_iter().chain(["a".repeat(33)]) {
        let what = format!("sender {name:?}");
        shapes.push(Shape::written(what, "payload: a username is", move |entry| {
            set(entry, "sender", json!(name))
        }));
    }
    let spoil = |entry: &mut RawEntry| set(entry, "recipient", json!(SENDER));
    shapes.push(Shape::written("to oneself", "payload: sender and recipient are the same", spoil));
}

fn set(entry: &mut RawEntry, member: &str, value: Value) {
    let mut payload: Value = serde_json::from_str(&entry.envelope.payload).unwrap();
    payload[member] = value;
    entry.envelope.payload = payload.to_string();
}

const WORDS: [&str; 8] = ["version", "type", "subject", "id", "trace", "seq", "offset", "checksum"];
const FIELDS: [&str; 8] = [
    "field version",
    "field type",
    "field subject",
    "field id",
    "field trace",
    "field seq",
    "field offset",
    "field checksum",
];
/// The largest number of 64 bits, and one.
const BEYOND: &str = "18446744073709551616";
const SUBJECT: usize = 2;
const SEQ: usize = 5;
const OFFSET: usize = 6;

fn is_of_place(word: usize) -> bool {
    [SUBJECT, SEQ, OFFSET].contains(&word)
}

fn wrong_headers(shapes: &mut Vec<Shape>) {
    for (count, cause) in FIELDS.into_iter().enumerate() {
        let shape = Shape::stored(format!("{count} words"), cause, move |mut fields| {
            fields.words.truncate(count);
            fields.stored()
        });
        shapes.push(if count > OFFSET { shape } else { shape.without_place() });
    }
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let headers: [(_, _, _, Spoil); 6] = [
        ("one word more", "field header", true, |header| [header, b" more".to_vec()].concat()),
        ("a space behind", "field header", true, |header| [header, b" ".to_vec()].concat()),
        ("twice", "field header", true, |header| [header.clone(), b" ".to_vec(), header].concat()),
        ("a space before", "field version", false, |header| [b" ".to_vec(), header].concat()),
        ("tabs", "field version", false, |header| {
            header.split(|byte| *byte == b' ').collect::<Vec<_>>().join(&b'\t')
        }),
        ("no text", "field version", false, |header| [header, vec![0xff]].concat()),
    ];
    for (what, cause, is_placed, spoil) in headers {
        let shape = Shape::stored(format!("header: {what}"), cause, move |fields| {
            vec![b"e".to_vec(), spoil(fields.header()), b"p".to_vec(), fields.payload]
        });
        shapes.push(if is_placed { shape } else { shape.without_place() });
    }
}

fn wrong_words(shapes: &mut Vec<Shape>) {
    // Each is well formed and another one than was written.
    let others: [fn(String) -> String; 8] = [
        |_| "2".to_owned(),
        |kind| kind.replace('S', "s"),
        |subject| format!("{subject}x"),
        |id| id.replace(|last: char| last.is_ascii_digit(), "7"),
        |_| "0af7651916cd43dd8448eb211c80319c".to_owned(),
        |seq| (seq.parse::<u64>().unwrap() - 1).to_string(),
        |offset| (offset.parse::<u64>().unwrap() - 1).to_string(),
        |checksum| checksum.chars().rev().collect(),
    ];
    for (word, other) in others.into_iter().enumerate() {
        let shape = Shape::stored(format!("another {}", WORDS[word]), "checksum is", move |mut fields| {
            let text = String::from_utf8(fields.words[word].clone()).unwrap();
            fields.words[word] = other(text).into_bytes();
            fields.stored()
        });
        shapes.push(if is_of_place(word) { shape.without_place() } else { shape });
    }
    for (word, texts) in [
        (0, &["", "-1", "01", "1.0", "4294967296", "x", "+1"][..]),
        (4, &["", "no-trace", "0af7651916cd43dd8448eb211c80319", "0AF7651916CD43DD8448EB211C80319C"]),
        (SEQ, &["", "0", "-1", "007", "+7", "1.5", "9007199254740993", BEYOND, "seven"]),
        (OFFSET, &["", "-1", "01", "1e3", BEYOND]),
        (7, &["", "ABCDEF01", "123", "0x123456", "zzzzzzzz", "123456789"]),
    ] {
        for text in texts {
            let what = format!("{} {text:?}", WORDS[word]);
            let shape = Shape::stored(what, FIELDS[word], move |mut fields| {
                fields.words[word] = text.as_bytes().to_vec();
                fields.stored()
            });
            shapes.push(if is_of_place(word) { shape.without_place() } else { shape });
        }
    }
}

fn field(name: &str, value: Vec<u8>) -> Vec<Vec<u8>> {
    vec![name.as_bytes().to_vec(), value]
}

fn wrong_fields(shapes: &mut Vec<Shape>) {
    type Spoil = fn(Fields) -> Vec<Vec<u8>>;
    let (header, payload) = ("field version", "field payload");
    let fields: [(_, _, _, Spoil); 8] = [
        ("no header", header, false, |fields| field("p", fields.payload)),
        ("no payload", payload, true, |fields| field("e", fields.header())),
        ("a strange one", header, false, |_| field("hello", b"world".to_vec())),
        ("swapped", header, false, |fields| {
            [field("p", fields.header()), field("e", fields.payload)].concat()
        }),
        ("in capitals", header, false, |fields| {
            [field("E", fields.header()), field("P", fields.payload)].concat()
        }),
        ("header twice", header, false, |fields| [field("e", fields.header()), fields.stored()].concat()),
        ("payload twice", payload, true, |fields| [fields.stored(), field("p", fields.payload)].concat()),
        ("empty", header, false, |_| [field("e", vec![]), field("p", vec![])].concat()),
    ];
    for (what, cause, is_placed, spoil) in fields {
        let shape = Shape::stored(format!("fields: {what}"), cause, spoil);
        shapes.push(if is_placed { shape } else { shape.without_place() });
    }
}

fn wrong_bytes(shapes: &mut Vec<Shape>) {
    for tenth in 0..10 {
        let spoil = move |mut fields: Fields, spoil: fn(u8) -> u8| {
            let at = fields.payload.len() * tenth / 10;
            fields.payload[at] = spoil(fields.payload[at]);
            fields.stored()
        };
        let what = format!("at {tenth}/10 of the payload");
        let flipped = move |fields| spoil(fields, |byte| byte ^ 1);
        shapes.push(Shape::stored(format!("a flipped bit {what}"), "checksum is", flipped));
        let no_text = move |fields| spoil(fields, |_| 0xff);
        shapes.push(Shape::stored(format!("no text {what}"), "field payload", no_text));
    }
}

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
        Self { placed: plant(app, sender, placed).await, unplaced: plant(app, sender, unplaced).await }
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

async fn plant(app: &TestApp, sender: &User, shapes: Vec<Shape>) -> Vec<Row> {
    let mut rows = Vec::new();
    for peer in app.users(CONVERSATIONS).await {
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
        let page = row.peer.page(&sender, "").await.expect(200);
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
