//! A user as his program is: a name, a token, and what one does with them.

use serde_json::{Value, json};
use shared::{Clock, EventId};

use crate::client::{Answer, Client, Request};
use crate::waiting::eventually;

/// The password of every user of a test.
pub const PASSWORD: &str = "password123";

/// A registered user who has logged in.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub token: String,
    client: Client,
}

impl User {
    /// # Panics
    /// Unless the name is new and the login succeeds.
    pub async fn register(client: &Client, name: &str) -> Self {
        let body = json!({ "username": name, "password": PASSWORD });
        let register = client.post("/register").json(&body);
        let first = register.clone().once().await;
        let is_repeated = first.is_of_a_slow_machine();
        let answer = if is_repeated { register.answered().await } else { first };
        // What is asked for twice may have been done the first time.
        assert!(answer.status == 201 || is_repeated && answer.status == 409, "{answer:?}");
        Self::log_in(client, name).await
    }

    /// # Panics
    /// Unless the user is registered.
    pub async fn log_in(client: &Client, name: &str) -> Self {
        let body = json!({ "username": name, "password": PASSWORD });
        let answer = client.post("/login").json(&body).answered().await.expect(200).json();
        Self::with_token(client, name, answer["token"].as_str().expect("a token"))
    }

    #[must_use]
    pub fn with_token(client: &Client, name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), token: token.to_owned(), client: client.clone() }
    }

    /// The same user through another door.
    #[must_use]
    pub fn at(&self, client: &Client) -> Self {
        Self { client: client.clone(), ..self.clone() }
    }

    /// With the user's token.
    pub fn request(&self, method: &str, path: &str) -> Request {
        self.client.request(method, path).token(&self.token)
    }

    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str) -> Request {
        self.request("POST", path)
    }

    pub fn put(&self, path: &str) -> Request {
        self.request("PUT", path)
    }

    /// Sends a message, again if need be, and returns it as it was acknowledged.
    ///
    /// # Panics
    /// Unless it is taken.
    pub async fn send(&self, to: &Self, content: &str) -> Value {
        let body = json!({ "recipient": to.name, "content": content });
        let send = self.post("/send").header("idempotency-key", new_id().to_string()).json(&body);
        send.answered().await.expect(201).json()
    }

    /// The idempotent form of a send.
    pub fn put_message(&self, id: EventId, to: &Self, content: &str) -> Request {
        let body = json!({ "recipient": to.name, "content": content });
        self.put(&format!("/messages/{id}")).json(&body)
    }

    /// Asks for a page of the conversation with `peer`; `query` is the rest of the query string.
    pub async fn page(&self, peer: &Self, query: &str) -> Answer {
        self.get_page(peer, query).send().await
    }

    /// What [`User::page`] asks.
    pub fn get_page(&self, peer: &Self, query: &str) -> Request {
        self.get(&format!("/messages?sender={}&recipient={}&{query}", self.name, peer.name))
    }

    /// A page that is not behind: asks again while the answer says that it is.
    /// A page that is behind and does not say so is the caller's to find.
    ///
    /// # Panics
    /// When it cannot be had in time.
    pub async fn fresh(&self, path: &str) -> Answer {
        eventually(&format!("{path} is up to date"), async || {
            let page = self.get(path).send().await.expect(200);
            page.header("chat-behind").is_none().then_some(page)
        })
        .await
    }

    /// The whole conversation with `peer`, by following `next` from its beginning.
    ///
    /// # Panics
    /// When a page cannot be had.
    pub async fn conversation(&self, peer: &Self) -> Vec<Value> {
        // There is no `after=0`: the first page is the one before the second.
        let first = format!("/messages?sender={}&recipient={}&limit=100&before=101", self.name, peer.name);
        let mut page = self.fresh(&first).await;
        let mut messages = page.items();
        while let Some(next) = page.link("next") {
            page = self.fresh(&next).await;
            messages.extend(page.items());
        }
        messages
    }

    /// # Panics
    /// Unless the mark is taken.
    pub async fn mark_read(&self, peer: &Self, seq: u64) {
        let path = format!("/conversations/{}/read", peer.name);
        self.put(&path).json(&json!({ "seq": seq })).answered().await.expect(204);
    }

    /// The first page of the user's conversations.
    ///
    /// # Panics
    /// When it cannot be had.
    pub async fn conversations(&self) -> Vec<Value> {
        self.get("/conversations").answered().await.expect(200).items()
    }
}

/// An id as a client makes it.
#[must_use]
pub fn new_id() -> EventId {
    Clock::system().new_id()
}

/// Numbers of messages, in the order they stand.
///
/// # Panics
/// When one has none.
#[must_use]
pub fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["seq"].as_u64().expect("a seq")).collect()
}
