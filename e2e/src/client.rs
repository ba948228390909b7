//! A small HTTP client that shows exactly what was answered. It keeps connections alive, follows nothing,
//! decodes nothing and repeats only what a busy machine has not done.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Waking, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::environment::patience;
use crate::waiting::eventually;

/// Longer than every deadline of the API: who waits for this long is not answered at all.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// nginx waits at least this long for a service that says nothing.
const SILENCE_TIME_MIN: Duration = Duration::from_millis(1_500);

/// Clients of one address; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    pool: Pool<HttpConnector, Outgoing>,
}

impl Client {
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { address, pool }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` goes over the wire as it stands.
    ///
    /// # Panics
    /// When `method` is not one.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request {
            client: self.clone(),
            method: method.parse().expect("a method"),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Outgoing { bytes: Bytes::new(), ends: true },
        }
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

    /// Writes `bytes` to a connection of their own and reads until the server closes it: for what is not HTTP,
    /// or asks for the end of the connection.
    ///
    /// # Panics
    /// When the server has not closed it within [`patience`].
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("the server accepts");
        // A server may refuse before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        // A reset after the answer is a close too.
        let _ = tokio::time::timeout(patience(), reading).await.expect("the server closes the connection");
        answer
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is sent"]
pub struct Request {
    client: Client,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Outgoing,
}

impl Request {
    pub fn token(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// One more header: earlier ones of the same name stay.
    ///
    /// # Panics
    /// On a name or value that HTTP does not allow; [`Client::raw`] sends those.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("the name of a header");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("the value of a header"));
        self
    }

    pub fn json(self, json: &Value) -> Self {
        self.header(CONTENT_TYPE.as_str(), "application/json").body(json.to_string())
    }

    /// Without a content type.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body.bytes = body.into();
        self
    }

    /// More of the body is to come and never does.
    pub fn unfinished(mut self) -> Self {
        self.body.ends = false;
        self
    }

    /// Asked again for as long as it says that nothing was done because the machine has too much else to do, and for no
    /// longer than a test is patient. Where such an answer is expected, use [`Request::once`].
    ///
    /// # Panics
    /// When no other answer comes.
    pub async fn send(self) -> Answer {
        self.repeated(|answer| answer.is_of_a_slow_machine() && !answer.is_unknown()).await
    }

    /// Asked again after any answer of a slow machine, which may have done what was asked: the request must bear that.
    ///
    /// # Panics
    /// When no other answer comes.
    pub async fn answered(self) -> Answer {
        self.repeated(Answer::is_of_a_slow_machine).await
    }

    async fn repeated(self, is_repeated: fn(&Answer) -> bool) -> Answer {
        let answered = eventually("an answer of a machine that is not too busy", async move || {
            let answer = self.clone().once().await;
            (!is_repeated(&answer)).then_some(answer)
        });
        // A named type, as the compiler cannot tell for every lifetime that this may go to another thread.
        let answered: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(answered);
        answered.await
    }

    /// # Panics
    /// When no answer comes. Where that is expected, use [`Request::try_send`].
    pub async fn once(self) -> Answer {
        let asked = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{asked}: {error:#}"))
    }

    /// # Errors
    /// When no answer comes: whether the request was served is not known.
    pub async fn try_send(self) -> Result<Answer> {
        let Self { client, method, path, headers, body } = self;
        let asked = format!("{method} {path}");
        let uri: Uri = format!("http://{}{path}", client.address).parse().context("the path")?;
        let mut request = hyper::Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        let begun = Instant::now();
        let answered = async {
            let (parts, body) = client.pool.request(request).await.context("no answer")?.into_parts();
            let body = body.collect().await.context("half an answer")?.to_bytes();
            let (status, reason) = (parts.status.as_u16(), reason(parts.status, parts.extensions.get()));
            Ok(Answer { asked, status, reason, headers: parts.headers, body, took: begun.elapsed() })
        };
        tokio::time::timeout(ANSWER_TIME_MAX, answered).await.context("no answer in time")?
    }
}

impl Request {
    /// For an answer that does not end: its body is the caller's to read.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn open(self) -> Result<Opened> {
        let Self { client, method, path, headers, body } = self;
        let uri: Uri = format!("http://{}{path}", client.address).parse().context("the path")?;
        let mut request = hyper::Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.pool.request(request)).await;
        let (parts, body) = answer.context("no answer in time")?.context("no answer")?.into_parts();
        Ok(Opened { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

/// An answer that has begun.
pub struct Opened {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Incoming,
}

/// A body on its way.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Bytes,
    pub(crate) ends: bool,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _waking: &mut Waking<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        match (bytes.is_empty(), self.ends) {
            (false, _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ends { SizeHint::with_exact(self.bytes.len() as u64) } else { SizeHint::default() }
    }
}

/// hyper keeps the words only where they are not the usual ones.
fn reason(status: StatusCode, told: Option<&ReasonPhrase>) -> String {
    match told {
        Some(told) => String::from_utf8_lossy(told.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    }
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// Method and path of the request.
    pub asked: String,
    pub status: u16,
    /// The words after the status.
    pub reason: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the request to the end of the body.
    pub took: Duration,
}

impl Answer {
    /// Of a header that stands once; `None` when it is not there.
    ///
    /// # Panics
    /// When it is repeated or not text.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} is repeated: {self:?}");
        Some(value.to_str().expect("a header of visible ASCII"))
    }

    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// # Panics
    /// When the body is not a JSON array.
    #[must_use]
    #[track_caller]
    pub fn items(&self) -> Vec<Value> {
        match self.json() {
            Value::Array(items) => items,
            other => panic!("not an array: {other}"),
        }
    }

    /// Where a link of this relation leads; `None` when there is none.
    ///
    /// # Panics
    /// When the header is not one of links.
    #[must_use]
    #[track_caller]
    pub fn link(&self, relation: &str) -> Option<String> {
        let links = self.header("link")?.split(", ").map(|link| {
            let (target, relation) =
                link.split_once("; rel=").unwrap_or_else(|| panic!("not a link: {self:?}"));
            (target.trim_start_matches('<').trim_end_matches('>'), relation.trim_matches('"'))
        });
        let mut found = links.filter(|(_, named)| *named == relation);
        found.next().map(|(target, _)| target.to_owned())
    }

    /// `code` of a problem; empty when there is none.
    #[must_use]
    pub fn problem_code(&self) -> String {
        self.problem()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A service says truly that a store did not answer it in time, or not yet since its own start, or that the store
    /// answers and the queue before it takes too long, or nginx says so of a service: that happens on a machine with
    /// much else to do. What has gone is known sooner than that.
    #[must_use]
    pub fn is_of_a_slow_machine(&self) -> bool {
        match (self.status, self.problem_code().as_str()) {
            (503, "log_unavailable" | "views_unavailable" | "starting" | "busy") => true,
            (504, "outcome_unknown") => true,
            (503, "unavailable") => self.took > SILENCE_TIME_MIN,
            _ => false,
        }
    }

    /// Whether what was asked was done is not known.
    fn is_unknown(&self) -> bool {
        self.problem()["outcome"] == "unknown"
    }

    /// Null where the body is not JSON.
    fn problem(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// # Panics
    /// When it is another status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Checks that this is the problem of that status and code, in every detail that all problems share, and
    /// returns its body.
    ///
    /// # Panics
    /// When anything about it is not as docs/api.md says.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.problem_code().as_str()), (status, code), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!((&body["type"], &body["status"]), (&"about:blank".into(), &status.into()), "{self:?}");
        for text in ["title", "detail"] {
            assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "no {text}: {self:?}");
        }
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        assert_eq!(body.get("errors").is_some(), code == "invalid_fields", "{self:?}");
        for error in body["errors"].as_array().into_iter().flatten() {
            assert!(["field", "code", "detail"].iter().all(|key| error[key].is_string()), "{self:?}");
        }
        let writes = !self.asked.starts_with("GET ") && !self.asked.starts_with("HEAD ");
        let outcome = body["outcome"].as_str();
        let expected: &[_] =
            if status >= 500 && writes { &[Some("not_applied"), Some("unknown")] } else { &[None] };
        assert!(expected.contains(&outcome), "outcome {outcome:?}: {self:?}");
        assert_eq!(self.header("www-authenticate"), (status == 401).then_some("Bearer"), "{self:?}");
        assert_eq!(self.header("retry-after").is_some(), status == 503 || status == 429, "{self:?}");
        assert_eq!(self.header("allow").is_some(), status == 405, "{self:?}");
        body
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, status, reason: _, headers, body, took } = self;
        write!(f, "{asked} -> {status} in {took:?} {headers:?} {:.2000}", String::from_utf8_lossy(body))
    }
}
