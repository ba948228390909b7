//! Streams over a ring without a log: what each is told, by tables.

use shared::event::{ConversationRead, Event, Malformed, MessageSent, RecordedEvent, UserRegistered};
use shared::ids::{EventId, Ulid};
use shared::limits::LIVE_EVENTS_MAX;
use shared::ports::Unreadable;
use shared::{Position, Seq};

use super::*;

const PARTITIONS: u16 = 3;
const SILENCE: Duration = Duration::from_secs(10);

fn name(text: &str) -> Username {
    text.parse().unwrap()
}

fn session(user: &str) -> SessionKey {
    SessionKey([u8::try_from(user.len()).unwrap(); 32])
}

/// A log of three partitions in memory.
#[derive(Default)]
struct Log {
    ms: u64,
    offsets: [u64; PARTITIONS as usize],
    entries: Vec<Delivery>,
}

impl Log {
    fn append(&mut self, partition: u16, seq: Seq, event: Event) -> Delivery {
        self.ms += 1;
        let offset = &mut self.offsets[usize::from(partition)];
        *offset += 1;
        let position = Position { partition, ms: self.ms, counter: 0 };
        let (id, at) = (EventId(Ulid::nil()), Timestamp(self.ms));
        let recorded = RecordedEvent { position, offset: *offset, seq, id, at, trace: None, event };
        self.entries.push(Delivery { position, content: Ok(recorded) });
        self.entries[self.entries.len() - 1].clone()
    }

    fn send(&mut self, partition: u16, from: &str, to: &str, content: &str) -> Delivery {
        let (sender, recipient, content) = (name(from), name(to), content.to_owned());
        self.append(partition, 1, Event::MessageSent(MessageSent { sender, recipient, content }))
    }

    /// What an instance that starts now reads.
    fn end(&self) -> LogEnd {
        let behind = (0..PARTITIONS).map(|partition| Position { partition, ms: 0, counter: 0 }).collect();
        LogEnd { log: "log".to_owned(), behind, entries: self.entries.clone() }
    }

    fn instance(&self) -> Instance {
        let mut hub = Hub::default();
        hub.begin(self.end(), Instant::now());
        Instance(hub)
    }
}

struct Instance(Hub);

impl Instance {
    fn open(&mut self, user: &str, last_event_id: Option<&str>) -> StreamKey {
        self.open_with(user, last_event_id, Hangup::default())
    }

    fn open_with(&mut self, user: &str, last_event_id: Option<&str>, hangup: Hangup) -> StreamKey {
        let now = Instant::now();
        let opening = Opening {
            user: name(user),
            session: session(user),
            hangup,
            last_event_id: last_event_id.map(str::to_owned),
            silence: SILENCE,
            ask_at: now,
        };
        self.0.open(opening, now).unwrap()
    }

    fn take(&mut self, entries: &[Delivery]) {
        drop(self.0.take(&mut entries.to_vec(), Instant::now()));
    }

    fn next(&mut self, key: &StreamKey) -> Next {
        self.0.next(key, &Context::from_waker(Waker::noop()), Instant::now())
    }

    /// What the stream says until it waits: contents, `read`, `reset`, `quiet`, `end`; and its last id.
    fn told(&mut self, key: &StreamKey) -> (Vec<String>, Option<String>) {
        let (mut told, mut last_id) = (Vec::new(), None);
        loop {
            let (what, id) = match self.next(key) {
                Next::Event { id, text, .. } => (content(&text), id),
                Next::Reset { id } => ("reset".to_owned(), id),
                Next::Quiet { id } => ("quiet".to_owned(), id),
                Next::Wait => return (told, last_id),
                Next::End => {
                    told.push("end".to_owned());
                    return (told, last_id);
                }
            };
            told.push(what);
            last_id = Some(id);
        }
    }
}

fn content(text: &Bytes) -> String {
    let text = std::str::from_utf8(text).unwrap();
    let (kind, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
    let data: serde_json::Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
    data["content"].as_str().unwrap_or(kind).to_owned()
}

#[test]
fn each_is_told_what_is_his() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let [samer, lena, tarek] = ["samer", "lena", "tarek"].map(|user| instance.open(user, None));
    let mark = ConversationRead { reader: name("lena"), peer: name("samer"), seq: 1 };
    let registered = UserRegistered { username: name("lena"), password_hash: "a secret".to_owned() };
    let entries = [
        log.send(0, "samer", "lena", "one"),
        log.append(1, 2, Event::ConversationRead(mark)),
        log.append(1, 1, Event::UserRegistered(registered)),
        log.send(2, "tarek", "lena", "two"),
    ];
    instance.take(&entries);
    assert_eq!(instance.told(&samer).0, ["one"]);
    assert_eq!(instance.told(&lena).0, ["one", "read", "two"]);
    assert_eq!(instance.told(&tarek).0, ["two"]);
    instance.0.close(&lena);
    instance.take(&[log.send(0, "lena", "samer", "three")]);
    assert_eq!(instance.told(&samer).0, ["three"]);
    assert_eq!(instance.told(&lena).0, ["end"], "it is closed");
    assert_eq!(instance.told(&tarek).0, [""; 0]);
}

#[test]
fn a_read_of_several_partitions_is_told_by_time() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let lena = instance.open("lena", None);
    let mut entries: Vec<_> =
        [2, 0, 1, 0, 2].into_iter().map(|partition| log.send(partition, "samer", "lena", "x")).collect();
    let by_time: Vec<_> = entries.iter().map(|entry| entry.position.ms).collect();
    entries.sort_by_key(|entry| entry.position);
    instance.take(&entries);
    let mut told = Vec::new();
    while let Next::Event { live: Some(at), .. } = instance.next(&lena) {
        told.push(at.0);
    }
    assert_eq!(told, by_time);
}

#[test]
fn whoever_comes_back_is_told_what_he_missed_here_or_elsewhere() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let lena = instance.open("lena", None);
    let mut ids = vec![instance.told(&lena).1.unwrap()];
    let contents: Vec<String> = (0..9).map(|n| format!("message {n}")).collect();
    for (n, content) in (0..).zip(&contents) {
        let from = ["samer", "tarek"][n % 2];
        instance.take(&[log.send(n as u16 % PARTITIONS, from, "lena", content)]);
        ids.push(instance.told(&lena).1.unwrap());
        instance.take(&[log.send(0, "samer", "tarek", "not hers")]);
    }
    // Another one, which has read the log in an order of its own.
    for mut instance in [instance, log.instance()] {
        for (at, id) in ids.iter().enumerate() {
            let back = instance.open("lena", Some(id));
            let (told, _) = instance.told(&back);
            let quiet = ["quiet".to_owned()];
            let expected = if at < contents.len() { &contents[at..] } else { &quiet };
            assert_eq!(told, expected, "from {at} on");
        }
    }
}

/// Its own reading may be behind that of the instance that gave the position.
#[test]
fn a_position_ahead_of_the_instance_misses_nothing() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let (mut ahead, mut behind) = (log.instance(), log.instance());
    let lena = ahead.open("lena", None);
    let (one, two) = (log.send(0, "samer", "lena", "one"), log.send(1, "tarek", "lena", "two"));
    ahead.take(&[one.clone(), two.clone()]);
    let id = ahead.told(&lena).1.unwrap();
    let back = behind.open("lena", Some(&id));
    behind.take(&[one, two, log.send(0, "samer", "lena", "three")]);
    let (told, _) = behind.told(&back);
    assert!(told.contains(&"three".to_owned()) && !told.contains(&"reset".to_owned()), "{told:?}");
}

#[test]
fn a_position_that_is_none_or_too_old_is_a_reset() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let lena = instance.open("lena", None);
    let id = instance.told(&lena).1.unwrap();
    for (user, text) in [("lena", ""), ("lena", "AAAA"), ("samer", &*id)] {
        let back = instance.open(user, Some(text));
        let (told, new) = instance.told(&back);
        assert_eq!(told, ["reset"], "{text}");
        // What it is told with is a position.
        let again = instance.open(user, new.as_deref());
        assert_eq!(instance.told(&again).0, ["quiet"]);
    }
    let elsewhere = LogEnd { log: "another".to_owned(), ..log.end() };
    let mut other = Instance(Hub::default());
    other.0.begin(elsewhere, Instant::now());
    let back = other.open("lena", Some(&id));
    assert_eq!(other.told(&back).0, ["reset"]);

    // The ring's bound: of one partition only, so all others are held from their beginning.
    let flood: Vec<_> = (0..=LIVE_EVENTS_MAX).map(|_| log.send(1, "nour", "omar", "x")).collect();
    instance.take(&flood);
    assert_eq!(instance.0.ring().unwrap().len(), LIVE_EVENTS_MAX);
    let back = instance.open("lena", Some(&id));
    assert_eq!(instance.told(&back).0, ["reset"]);
    // A reader to whom nothing happened has heard where the log is meanwhile.
    instance.0.look_after(Instant::now() + SILENCE);
    let (told, id) = instance.told(&lena);
    assert_eq!(told, ["quiet"]);
    let back = instance.open("lena", id.as_deref());
    assert_eq!(instance.told(&back).0, ["quiet"]);
}

#[test]
fn whom_the_ring_passes_by_is_cut_and_counted_once() {
    let mut log = Log::default();
    log.send(0, "nour", "omar", "before");
    let mut instance = log.instance();
    let (_omar, _lena) = (instance.open("omar", None), instance.open("lena", None));
    let mut flood: Vec<_> = (0..LIVE_EVENTS_MAX).map(|_| log.send(1, "nour", "omar", "x")).collect();
    let mut cut = |batch: &mut [Delivery]| instance.0.take(batch, Instant::now()).1;
    assert_eq!(cut(&mut flood), 0);
    assert_eq!(cut(&mut [log.send(1, "nour", "omar", "y"), log.send(1, "nour", "omar", "z")]), 1);
    assert_eq!(cut(&mut [log.send(1, "nour", "omar", "!")]), 0);
    assert_eq!(instance.0.look_after(Instant::now()).1, 0);
}

#[test]
fn entries_that_were_never_read_are_a_reset_for_all() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let [samer, tarek] = ["samer", "tarek"].map(|user| instance.open(user, None));
    let id = instance.told(&samer).1.unwrap();
    instance.told(&tarek);
    log.send(0, "samer", "lena", "trimmed before it was read");
    instance.take(&[log.send(0, "samer", "lena", "one"), log.send(0, "samer", "lena", "two")]);
    assert_eq!(instance.told(&samer).0, ["reset"]);
    assert_eq!(instance.told(&tarek).0, ["reset"]);
    let back = instance.open("samer", Some(&id));
    assert_eq!(instance.told(&back).0, ["reset"]);
    instance.take(&[log.send(0, "samer", "lena", "three")]);
    assert_eq!(instance.told(&samer).0, ["three"]);
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let lena = instance.open("lena", None);
    let mut damaged = log.send(0, "samer", "lena", "damaged");
    let cause = Malformed::FutureVersion(9);
    damaged.content = Err(Unreadable { cause, place: None, bytes: Vec::new(), length: 0 });
    instance.take(&[damaged, log.send(0, "samer", "lena", "whole")]);
    assert_eq!(instance.told(&lena).0, ["whole"]);
}

#[test]
fn too_much_for_one_reader_is_a_reset_or_his_end() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let hangup = Hangup::default();
    let lena = instance.open_with("lena", None, hangup.clone());
    let id = instance.told(&lena).1.unwrap();
    let content = "x".repeat(4_000);
    let some: Vec<_> = (0..200).map(|_| log.send(0, "samer", "lena", &content)).collect();
    instance.take(&some);
    let now = Instant::now();
    assert_eq!(instance.0.look_after(now).1, 0, "it is not yet too much");
    let back = instance.open("lena", Some(&id));
    assert_eq!(instance.told(&back).0.len(), 200);
    let more: Vec<_> = (0..100).map(|_| log.send(0, "samer", "lena", &content)).collect();
    instance.take(&more);
    let samer = instance.open("samer", None);
    assert_eq!(instance.0.look_after(now).1, 1, "more than 1 MiB");
    assert_eq!(instance.told(&samer).0, ["quiet"]);
    let back = instance.open("lena", Some(&id));
    assert_eq!(instance.told(&back).0, ["reset"]);
}

#[test]
fn what_is_not_taken_for_long_is_the_end() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let [lena, _samer] = ["lena", "samer"].map(|user| instance.open(user, None));
    instance.take(&[log.send(0, "samer", "lena", "one")]);
    let now = Instant::now();
    assert_eq!(instance.0.look_after(now + LIVE_UNSENT_MAX / 2).1, 0);
    instance.told(&lena);
    assert_eq!(instance.0.look_after(now + 2 * LIVE_UNSENT_MAX).1, 1, "only who has not taken it");
}

#[test]
fn a_lost_session_ends_its_streams() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let [lena, again, samer] = ["lena", "lena", "samer"].map(|user| instance.open(user, None));
    instance.told(&lena);
    let now = Instant::now();
    let due = instance.0.sessions_to_ask(now, SILENCE);
    assert_eq!(due.len(), 2, "each once, however many streams it has: {due:?}");
    assert!(instance.0.sessions_to_ask(now, SILENCE).is_empty());
    let woken = instance.0.end_session(&name("lena"), session("lena"), now);
    assert_eq!(woken.len(), 1, "the other one was not waiting");
    assert_eq!(instance.told(&lena).0, ["end"]);
    assert_eq!(instance.told(&samer).0, ["quiet"]);
    instance.0.close(&lena);
    // Whose connection does not ask for more, does not see it.
    assert_eq!(instance.0.look_after(now + Duration::from_secs(1)).1, 1);
    instance.0.close(&again);
    instance.0.end();
    assert_eq!(instance.told(&samer).0, ["end"]);
}

#[test]
fn no_stream_goes_on_in_another_log() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let [lena, samer] = ["lena", "samer"].map(|user| instance.open(user, None));
    instance.told(&lena);
    let now = Instant::now();
    assert_eq!(instance.0.give_up(now).len(), 1, "the other one was not waiting");
    let mut another = Log::default();
    instance.0.begin(another.end(), now);
    instance.take(&[another.send(0, "samer", "lena", "to somebody else")]);
    assert_eq!([&lena, &samer].map(|key| instance.told(key).0), [["end"], ["end"]]);
    let again = instance.open("lena", None);
    assert_eq!(instance.told(&again).0, ["quiet"]);
}

#[test]
fn a_log_is_followed_while_somebody_listens_and_a_while_longer() {
    let mut log = Log::default();
    log.send(0, "samer", "lena", "before");
    let mut instance = log.instance();
    let mut now = Instant::now();
    let moment = Duration::from_millis(1);
    instance.0.want(now);
    assert!(instance.0.is_wanted(now + LIVE_FOLLOWED_FOR - moment), "he is about to open a stream");
    let lena = instance.open("lena", None);
    for _ in 0..5 {
        now += LIVE_FOLLOWED_FOR;
        assert!(instance.0.is_wanted(now) && instance.0.has_begun());
    }
    instance.0.close(&lena);
    assert!(instance.0.is_wanted(now + LIVE_FOLLOWED_FOR - moment) && instance.0.has_begun());
    assert!(!instance.0.is_wanted(now + LIVE_FOLLOWED_FOR) && !instance.0.has_begun());
}
