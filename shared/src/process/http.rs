//! The HTTP server that every process shares: deadlines, a connection cap, graceful and bounded drain; and
//! `edge`, the outermost layer of every router, which gives each answer its request id and each error its body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, future::RouteFuture};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service as _;
use tower::layer::layer_fn;
use tracing::{Instrument, Span};

use super::client::Peer;
use super::cors::Cors;
use super::health::Health;
use super::problem::{Code, Outcome, Problem};
use super::request::single;
use super::shutdown::Lifecycle;
use super::telemetry::{self, Connections, HttpMetrics, Metrics, OpenConnection};
use super::trace::{GivenTrace, sampled_parent};
use crate::clock::Clock;
use crate::limits::{
    CONNECTIONS_MAX, DRAIN_DEADLINE, HEADERS_BYTES_MAX, HEADERS_COUNT_MAX, HEADERS_DEADLINE,
    REQUEST_DEADLINE, REQUEST_ID_CHARS_MAX,
};

mod deadline;
mod hangup;
mod stream;

pub use hangup::Hangup;

use deadline::{Deadline, Deadlines};
use stream::ClientStream;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long the acceptor waits after an error such as "too many open files" before it tries again.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Serves until shutdown, as tasks of `lifecycle`. Then: accepts nothing more, lets requests in flight end,
/// closes idle connections, and cuts what is left after [`DRAIN_DEADLINE`].
pub fn serve(listener: TcpListener, router: Router, lifecycle: &Lifecycle) {
    lifecycle.spawn(accept(listener, router, CONNECTIONS_MAX, Connections::default(), lifecycle.clone()));
}

async fn accept(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    connections: Connections,
    lifecycle: Lifecycle,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let accepting = async {
        loop {
            // The place is taken first: beyond the cap, clients wait in the kernel's bounded backlog.
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (peer, held) = (Peer(peer.ip()), (place, connections.one_more()));
                    lifecycle.spawn(connection(stream, peer, router.clone(), held, lifecycle.clone()));
                }
                Err(error) => {
                    connections.failed.inc();
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                }
            }
        }
    };
    lifecycle.shutdown.run_until_cancelled(accepting).await;
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    held: (OwnedSemaphorePermit, OpenConnection),
    lifecycle: Lifecycle,
) {
    let (deadlines, hangup) = (Deadlines::default(), Hangup::default());
    let (timer, asked) = (deadlines.clone(), hangup.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(deadlines.clone());
        request.extensions_mut().insert(hangup.clone());
        router.clone().call(request)
    });
    // Answers are small and complete: waiting to fill a packet only adds latency.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(HEADERS_DEADLINE)
        .max_headers(HEADERS_COUNT_MAX)
        .max_header_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(ClientStream::new(stream, asked.clone())), service);
    let mut connection = std::pin::pin!(connection);
    // Errors here are the client's: it left, or spoke something that is not HTTP.
    tokio::select! {
        biased;
        result = connection.as_mut() => drop(result),
        () = asked.asked() => {}
        () = lifecycle.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(tokio::time::timeout(DRAIN_DEADLINE, connection).await);
        }
    }
    drop(held);
}

/// One process's HTTP side: what it serves to clients, and what it shows to operators.
pub struct Service {
    pub router: Router,
    pub metrics: Metrics,
    pub health: Health,
    pub cors: Cors,
    pub clock: Clock,
}

impl Service {
    /// Serves on both until shutdown, and returns where clients connect. The probes are on both.
    ///
    /// # Errors
    /// The system's.
    pub fn start(self, listeners: Listeners, lifecycle: &Lifecycle) -> std::io::Result<SocketAddr> {
        let Listeners { clients, operations } = listeners;
        let address = clients.local_addr()?;
        let (metrics, connections) = (HttpMetrics::new(&self.metrics), Connections::new(&self.metrics));
        let router = self.router.merge(self.health.clone().routes());
        let edge = Edge { clock: self.clock, metrics, health: self.health.clone(), cors: self.cors };
        let router = finish(router, edge);
        lifecycle.spawn(accept(clients, router, CONNECTIONS_MAX, connections, lifecycle.clone()));
        serve(operations, telemetry::operations(self.metrics, self.health), lifecycle);
        tracing::info!(%address, "listening");
        Ok(address)
    }
}

/// Where a process listens: for clients, and for operators. Bound before anything is connected to, so that an address
/// that is taken is told at once.
pub struct Listeners {
    clients: TcpListener,
    operations: TcpListener,
}

impl Listeners {
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(clients: SocketAddr, operations: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { clients: bind(clients).await?, operations: bind(operations).await? })
    }
}

/// Binds a listener; the error names the address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// What `edge` needs.
#[derive(Clone)]
pub struct Edge {
    pub clock: Clock,
    pub metrics: HttpMetrics,
    pub health: Health,
    pub cors: Cors,
}

/// Finishes a router: unknown paths and methods are problems, and `edge` is around everything.
pub fn finish(router: Router, edge: Edge) -> Router {
    let edge = Arc::new(edge);
    let around = move |mut route: Route| {
        let edge = edge.clone();
        tower::service_fn(move |request: Request| {
            let asked = Asked::of(&request, &edge);
            answered(edge.clone(), asked, route.call(request))
        })
    };
    router
        .fallback(|| async { Problem::new(Code::NotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the path does not take this method; see Allow")
        })
        .layer(layer_fn(around))
}

/// What is known of a request before it is answered.
struct Asked {
    begun: Instant,
    method: Method,
    route: Option<MatchedPath>,
    request_id: HeaderValue,
    /// Of the page that asks, if it is one that may.
    origin: Option<HeaderValue>,
    deadlines: Deadlines,
    span: Span,
}

impl Asked {
    fn of(request: &Request, edge: &Edge) -> Self {
        let (headers, clock) = (request.headers(), &edge.clock);
        let request_id = request_id(headers, clock);
        let trace_id = GivenTrace::of(headers).0.map_or_else(|| clock.new_trace_id(), |trace| trace.id);
        let span = tracing::info_span!(
            "request",
            request_id = text(&request_id),
            %trace_id,
            parent_id = sampled_parent(headers)
        );
        let (method, route) = (request.method().clone(), request.extensions().get().cloned());
        let (origin, extensions) = (edge.cors.named(headers), request.extensions());
        let deadlines = extensions.get().cloned().unwrap_or_default();
        Self { begun: Instant::now(), method, route, request_id, origin, deadlines, span }
    }
}

/// Gives each answer its request id, each error its body, a deadline and a log line; turns a panic into a 500. Whoever
/// is another origin's page is told what it may do, with every answer.
async fn answered(
    edge: Arc<Edge>,
    asked: Asked,
    answering: RouteFuture<Infallible>,
) -> Result<Response, Infallible> {
    let Asked { begun, method, route, request_id, origin, deadlines, span } = asked;
    let deadline = deadlines.until(begun + REQUEST_DEADLINE);
    let answer = answer(answering, deadline, &method).instrument(span.clone()).await;
    let _entered = span.enter();
    let mut response = finished(answer, &edge, &method, request_id);
    edge.cors.tell(&method, origin, response.headers_mut());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let took = begun.elapsed();
    edge.metrics.observe(route, &method, response.status(), took);
    tracing::debug!(%method, route, status = response.status().as_u16(), took_us = took.as_micros(), "answered");
    Ok(response)
}

async fn answer(answering: RouteFuture<Infallible>, deadline: Deadline, method: &Method) -> Response {
    let handled = AssertUnwindSafe(answering).catch_unwind();
    tokio::select! {
        biased;
        handled = handled => match handled {
            Ok(Ok(response)) => response,
            Err(_panic) => {
                tracing::error!("a handler panicked");
                Problem::new(Code::Internal, "the request could not be served").into_response()
            }
        },
        () = deadline => {
            let code = if writes(method) { Code::OutcomeUnknown } else { Code::ViewsUnavailable };
            Problem::new(code, "the request took too long").into_response()
        }
    }
}

fn finished(mut response: Response, edge: &Edge, method: &Method, request_id: HeaderValue) -> Response {
    if *method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // axum adds `Allow` to whatever the fallback for other methods answers.
        response = StatusCode::NO_CONTENT.into_response();
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = if edge.health.has_started() { problem } else { problem.while_starting() };
        edge.metrics.problem(problem.code);
        response = problem_response(response, problem, method, text(&request_id));
    }
    response.headers_mut().insert(X_REQUEST_ID.clone(), request_id);
    response
}

fn problem_response(
    unfinished: Response,
    mut problem: Problem,
    method: &Method,
    request_id: &str,
) -> Response {
    if unfinished.status().is_server_error() && writes(method) {
        // Whoever did not say that nothing was done does not know.
        problem.outcome.get_or_insert(Outcome::Unknown);
    } else {
        problem.outcome = None;
    }
    let body = serde_json::to_vec(&problem.body(request_id)).expect("strings and numbers are always JSON");
    let (mut parts, _) = unfinished.into_parts();
    let problem_json = HeaderValue::from_static("application/problem+json");
    parts.headers.insert(header::CONTENT_TYPE, problem_json);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// The client's own, if it is well formed.
fn request_id(headers: &HeaderMap, clock: &Clock) -> HeaderValue {
    let well_formed = |id: &str| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    match single(headers, &X_REQUEST_ID) {
        Ok(Some(given)) if well_formed(given) => headers[&X_REQUEST_ID].clone(),
        Ok(_) | Err(_) => clock.new_id().to_string().try_into().expect("an id is visible ASCII"),
    }
}

fn text(request_id: &HeaderValue) -> &str {
    request_id.to_str().expect("a request id is visible ASCII")
}

#[cfg(test)]
mod tests;
