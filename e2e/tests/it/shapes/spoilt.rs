//! The ways in which an entry may be spoilt, and what is said of each.

use e2e::poison::Fields;
use e2e::{Backend, Planted, TestApp};
use serde_json::{Value, json};
use shared::event::SCHEMA_VERSION;
use storage::contract::RawEntry;

use super::{MIB, SENDER};

const STRANGER: &str = "nobody";

/// One way to spoil an entry, and part of the cause that is given.
pub(super) struct Shape {
    pub(super) what: String,
    pub(super) cause: &'static str,
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

    pub(super) fn is_placed(&self) -> bool {
        match self.damage {
            Damage::Written(_) => true,
            Damage::Stored { is_placed, .. } => is_placed,
        }
    }

    pub(super) async fn plant(&self, app: &TestApp, mut entry: RawEntry) -> Planted {
        match &self.damage {
            Damage::Written(spoil) => {
                spoil(&mut entry);
                app.plant(entry).await
            }
            Damage::Stored { spoil, .. } => app.plant_fields(entry, spoil).await,
        }
    }
}

pub(super) fn shapes(backend: Backend) -> Vec<Shape> {
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
