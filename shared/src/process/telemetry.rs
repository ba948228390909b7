//! Logs and metrics. Log lines go to standard error, as JSON unless it is a terminal; they never hold bodies,
//! tokens or passwords. Metrics live in a registry that is a value, not a global, and are shown on a listener of
//! their own.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
#[cfg(feature = "otel")]
use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
#[cfg(not(feature = "otel"))]
use tracing_subscriber::layer::Identity;
use tracing_subscriber::layer::{Layer, SubscriberExt};
#[cfg(feature = "otel")]
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::config::{ConfigError, ProcessOptions};
use super::health::Health;
#[cfg(feature = "otel")]
use super::otel;
use super::problem::Code;
use super::shutdown::Lifecycle;

/// Sets up the log of this process. Call it once, in `main`.
///
/// # Errors
/// When the filter (such as `info` or `info,storage=debug`) cannot be read.
pub fn init_log(
    options: &ProcessOptions,
    service: &'static str,
    lifecycle: &Lifecycle,
) -> Result<(), ConfigError> {
    let filter: Targets = options.log.parse().map_err(|error| ConfigError(format!("--log: {error}")))?;
    let log = tracing_subscriber::registry().with(spans(options, service, lifecycle)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.with(lines.compact().with_filter(filter)).init();
    } else {
        log.with(lines.json().flatten_event(true).with_filter(filter)).init();
    }
    Ok(())
}

/// As [`init_log`], for a command that ends by itself: what whoever waits for it has to know, and nothing of how it
/// is done.
///
/// # Panics
/// Never: the filter is valid.
pub fn init_log_of_command(service: &'static str) {
    // How it is with its connections it says itself, with where the stores are.
    let connections = "storage::redis::link=error,storage::cassandra::connection=error";
    let options = ProcessOptions::logging(&format!("warn,{connections},scylla=off"));
    init_log(&options, service, &Lifecycle::default()).expect("the filter is valid");
}

#[cfg(feature = "otel")]
fn spans<S: Subscriber + for<'a> LookupSpan<'a>>(
    options: &ProcessOptions,
    service: &'static str,
    lifecycle: &Lifecycle,
) -> Result<Option<impl Layer<S> + use<S>>, ConfigError> {
    let Some(endpoint) = &options.otlp_endpoint else { return Ok(None) };
    Ok(Some(otel::Spans::start(endpoint, service, lifecycle)?.with_filter(otel::Ours)))
}

#[cfg(not(feature = "otel"))]
fn spans(_: &ProcessOptions, _: &'static str, _: &Lifecycle) -> Result<Option<Identity>, ConfigError> {
    Ok(None)
}

/// The metrics of one process.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// Adds metrics; `register` gets the registry.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of them, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = String::new();
        self.register(|registry| text::encode(&mut page, registry)).expect("writing to a string cannot fail");
        page
    }
}

/// The routes of the operational listener: `/metrics`, `/healthz`, `/readyz`.
pub fn operations(metrics: Metrics, health: Health) -> Router {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page =
        move || async move { ([(header::CONTENT_TYPE, content_type)], metrics.text()).into_response() };
    Router::new().route("/metrics", get(page)).merge(health.routes())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    code: &'static str,
}

/// What the histogram of a route is found by.
type ByAnswer = Vec<(&'static str, StatusCode, Histogram)>;

/// Requests by route, method and status, and how long they took; problems by code.
#[derive(Clone)]
pub struct HttpMetrics {
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// What `durations` holds, by route: an observation makes no labels.
    resolved: Arc<RwLock<HashMap<String, ByAnswer>>>,
    problems: Family<ProblemLabels, Counter>,
}

impl HttpMetrics {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        // 250 µs to 8 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let problems = Family::<ProblemLabels, Counter>::default();
        metrics.register(|registry| {
            let help = "From the end of a request's headers to the start of its answer, in seconds";
            registry.register("http_request_duration_seconds", help, durations.clone());
            registry.register("http_problems", "Answers that are a problem", problems.clone());
        });
        Self { durations, resolved: Arc::default(), problems }
    }

    /// `route` is the pattern, never the path: a label has few values.
    pub fn observe(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let (method, seconds) = (name(method), took.as_secs_f64());
        let resolved = self.resolved.read().unwrap_or_else(PoisonError::into_inner);
        let mut answers = resolved.get(route).into_iter().flatten();
        if let Some((.., histogram)) = answers.find(|answer| (answer.0, answer.1) == (method, status)) {
            histogram.observe(seconds);
            return;
        }
        drop(resolved);
        let labels = RouteLabels { route: route.to_owned(), method, status: status.as_u16() };
        let histogram = self.durations.get_or_create(&labels).clone();
        histogram.observe(seconds);
        let mut resolved = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        resolved.entry(labels.route).or_default().push((method, status, histogram));
    }

    pub fn problem(&self, code: Code) {
        let (_, code, _) = code.parts();
        self.problems.get_or_create(&ProblemLabels { code }).inc();
    }
}

/// Of few values: a client may write any word there.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The connections of one listener.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    open: Gauge,
    /// The system gave none although one waited: too many open files, most likely.
    pub failed: Counter,
}

impl Connections {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let Self { open, failed } = Self::default();
        metrics.register(|registry| {
            registry.register("http_connections_open", "Connections of clients", open.clone());
            let help = "Connections of clients that could not be accepted";
            registry.register("http_accept_failures", help, failed.clone());
        });
        Self { open, failed }
    }

    /// Counts a connection as open until what is returned is dropped, which a panic does too.
    pub fn one_more(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

#[must_use = "the connection is closed when this is dropped"]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
