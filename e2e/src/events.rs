//! Event streams as a client reads them: strictly, so that what a browser would not understand fails the test; and a
//! reader who comes back after every break, as docs/guarantees.md asks of clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Opened, Request};
use crate::environment::patience;
use crate::user::User;

/// Between two tries of a reader who was sent away. The hint of the stream would make tests slow.
const COME_BACK_AFTER: Duration = Duration::from_millis(50);

/// Longer than any test.
const FOLLOWED_FOR_MAX: Duration = Duration::from_secs(3_600);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message`, `read` or `reset`.
    pub kind: String,
    pub data: Value,
}

/// What one block of the stream says: lines up to an empty one.
#[derive(Debug, Default)]
struct Block {
    kind: Option<String>,
    data: Option<String>,
    id: Option<String>,
    is_comment: bool,
}

impl Block {
    /// `None`: it is something else.
    fn event(self) -> Option<Event> {
        let (kind, data) = self.kind.zip(self.data)?;
        let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
        Some(Event { kind, data })
    }
}

/// An open stream. Dropped, its connection is closed.
pub struct Events {
    body: Incoming,
    unread: Vec<u8>,
    last_id: Option<String>,
    retry: Option<Duration>,
    /// Comments so far, and when the last one came.
    comments: (usize, Instant),
    /// The event that it began with.
    first: Option<Event>,
}

impl User {
    /// What happens from now on.
    ///
    /// # Panics
    /// Unless the stream is opened.
    pub async fn events(&self) -> Events {
        let mut events = Events::expect(self.get("/events")).await;
        // The first word of a stream is a position: whatever happens from here on is told. Where something happens just
        // then it is that of an event.
        while events.last_id.is_none() {
            let block = events.block(patience()).await.expect("the stream begins");
            events.first = block.event();
        }
        events
    }

    /// What happened since an event of this id, and what happens from now on.
    ///
    /// # Panics
    /// Unless the stream is opened.
    pub async fn events_after(&self, id: &str) -> Events {
        Events::expect(self.get("/events").header("last-event-id", id)).await
    }
}

impl Events {
    async fn expect(request: Request) -> Self {
        let opened = request.open().await.expect("an answer");
        assert_eq!(opened.status, 200, "{:?}", opened.headers);
        assert_eq!(opened.headers["content-type"], "text/event-stream");
        assert_eq!(opened.headers["cache-control"], "no-store");
        Self::of(opened)
    }

    fn of(opened: Opened) -> Self {
        let (unread, comments) = (Vec::new(), (0, Instant::now()));
        Self { body: opened.body, unread, last_id: None, retry: None, comments, first: None }
    }

    /// The last `id:`.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// When to come back, as the stream said it.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes, or the stream ends before.
    pub async fn next(&mut self) -> Event {
        self.next_within(patience()).await.expect("the stream goes on")
    }

    /// # Panics
    /// When none comes, or the stream ends before.
    pub async fn messages(&mut self, count: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let event = self.next().await;
            assert_eq!(event.kind, "message", "{event:?}");
            messages.push(event.data);
        }
        messages
    }

    /// `None`: the stream has ended.
    ///
    /// # Panics
    /// When neither comes in time.
    pub async fn next_within(&mut self, bound: Duration) -> Option<Event> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let begun = Instant::now();
        loop {
            let block = self.block(bound.saturating_sub(begun.elapsed())).await?;
            if let Some(event) = block.event() {
                return Some(event);
            }
        }
    }

    /// How long it takes until the next comment, counted from the last one.
    ///
    /// # Panics
    /// When none comes within `bound`.
    pub async fn next_comment(&mut self, bound: Duration) -> Duration {
        let (count, last) = self.comments;
        while self.comments.0 == count {
            self.block(bound).await.expect("the stream goes on");
        }
        self.comments.1 - last
    }

    /// Waits for the end of the stream; what still came before it.
    ///
    /// # Panics
    /// When it does not end within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> Vec<Event> {
        let begun = Instant::now();
        let mut events = Vec::new();
        while let Some(event) = self.next_within(bound.saturating_sub(begun.elapsed())).await {
            events.push(event);
        }
        events
    }

    /// `None`: the stream has ended, in good order or not.
    async fn block(&mut self, bound: Duration) -> Option<Block> {
        let reading = async {
            loop {
                if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                    let block = self.unread.drain(..end + 2).take(end).collect();
                    return Some(String::from_utf8(block).expect("text"));
                }
                let frame = self.body.frame().await?.ok()?;
                let data = frame.into_data().expect("a stream has no trailers");
                self.unread.extend_from_slice(&data);
            }
        };
        let block = tokio::time::timeout(bound, reading).await;
        let block = block.unwrap_or_else(|_| panic!("the stream said nothing within {bound:?}"))?;
        Some(self.understand(&block))
    }

    fn understand(&mut self, text: &str) -> Block {
        let mut block = Block::default();
        for line in text.split('\n') {
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {text:?}"));
            let value = value.to_owned();
            match field {
                "" => block.is_comment = true,
                "event" => assert!(block.kind.replace(value).is_none(), "{text}"),
                "data" => assert!(block.data.replace(value).is_none(), "{text}"),
                "id" => assert!(block.id.replace(value).is_none(), "{text}"),
                "retry" => self.retry = Some(Duration::from_millis(value.parse().expect("a number"))),
                _ => panic!("an unknown field: {text}"),
            }
        }
        if block.is_comment {
            self.comments = (self.comments.0 + 1, Instant::now());
        }
        self.last_id = block.id.clone().or(self.last_id.take());
        block
    }
}

/// A user who follows what happens, and goes on where he was whenever the stream ends.
#[derive(Debug)]
pub struct Follower {
    followed: Arc<Mutex<Followed>>,
    end: CancellationToken,
    tasks: TaskTracker,
}

/// What a follower was told.
#[derive(Debug, Default, Clone)]
pub struct Followed {
    pub events: Vec<Event>,
    /// How often he came back and was let in.
    pub resumed: usize,
}

impl Followed {
    /// The messages of a conversation, each once, in the order in which they were first told.
    ///
    /// # Panics
    /// When one came earlier than one before it.
    #[must_use]
    pub fn conversation(&self, one: &User, other: &User) -> Vec<Value> {
        let names = [one.name.as_str(), other.name.as_str()];
        let is_of_both = |data: &&Value| {
            let name = |key: &str| data[key].as_str().unwrap_or_default();
            names.contains(&name("sender")) && names.contains(&name("recipient"))
        };
        let mut messages: Vec<Value> = Vec::new();
        for data in self.events.iter().map(|event| &event.data).filter(is_of_both) {
            let seq = data["seq"].as_u64().expect("a number");
            let known = messages.len() as u64;
            assert!(seq <= known + 1, "{seq} came after {known} of {names:?}");
            if seq == known + 1 {
                messages.push(data.clone());
            } else {
                assert_eq!(
                    &messages[usize::try_from(seq).expect("small") - 1],
                    data,
                    "told twice, differently"
                );
            }
        }
        messages
    }
}

impl Follower {
    /// Returns when the first stream is open.
    ///
    /// # Panics
    /// Unless it is opened.
    pub async fn start(user: &User) -> Self {
        let (followed, end, tasks) = (Arc::default(), CancellationToken::new(), TaskTracker::new());
        let events = user.events().await;
        tasks.spawn(follow(user.clone(), events, Arc::clone(&followed), end.clone()));
        tasks.close();
        Self { followed, end, tasks }
    }

    /// What he was told so far.
    pub async fn so_far(&self) -> Followed {
        self.followed.lock().await.clone()
    }

    /// # Panics
    /// When he was told to reload: nothing here is away for so long.
    pub async fn end(self) -> Followed {
        self.end.cancel();
        self.tasks.wait().await;
        let followed = self.followed.lock().await.clone();
        let resets = followed.events.iter().filter(|event| event.kind == "reset").count();
        assert_eq!(resets, 0, "told to reload");
        followed
    }
}

async fn follow(user: User, mut events: Events, followed: Arc<Mutex<Followed>>, end: CancellationToken) {
    let follow = async {
        loop {
            while let Some(event) = events.next_within(FOLLOWED_FOR_MAX).await {
                followed.lock().await.events.push(event);
            }
            let last_id = events.last_id.take().expect("a position");
            events = come_back(&user, &last_id).await;
            followed.lock().await.resumed += 1;
        }
    };
    end.run_until_cancelled(follow).await;
}

async fn come_back(user: &User, last_id: &str) -> Events {
    loop {
        let request = user.get("/events").header("last-event-id", last_id);
        match request.open().await {
            Ok(opened) if opened.status == 200 => {
                return Events { last_id: Some(last_id.to_owned()), ..Events::of(opened) };
            }
            Ok(opened) => assert_eq!(opened.status, 503, "{:?}", opened.headers),
            Err(_) => {}
        }
        tokio::time::sleep(COME_BACK_AFTER).await;
    }
}
