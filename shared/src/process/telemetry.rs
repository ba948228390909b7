//! Logs and metrics. Log lines go to standard error, as JSON unless it is a terminal; they never hold bodies,
//! tokens or passwords. Metrics live in a registry that is a value, not a global, and are shown on a listener of
//! their own.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use super::health::Health;

/// Sets up the log of this process. Call it once, in `main`.
///
/// # Errors
/// When `filter` (such as `info` or `info,storage=debug`) cannot be read.
pub fn init_log(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.compact().init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
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
    method: String,
    status: u16,
}

/// Requests by route, method and status, and how long they took.
#[derive(Clone)]
pub struct HttpMetrics {
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

impl HttpMetrics {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        // 250 µs to 8 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        metrics.register(|registry| {
            let help = "From the end of a request's headers to the start of its answer, in seconds";
            registry.register("http_request_duration_seconds", help, durations.clone());
        });
        Self { durations }
    }

    /// `route` is the pattern, never the path: a label has few values.
    pub fn observe(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS => {
                method.as_str()
            }
            _ => "other",
        };
        let labels =
            RouteLabels { route: route.to_owned(), method: method.to_owned(), status: status.as_u16() };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
