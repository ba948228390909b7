//! Spans for OpenTelemetry, with the feature `otel`: requests that a client samples, their appends, and the projection
//! of their events are sent to a collector, as OTLP in JSON over HTTP. A layer turns spans of the log into records, a
//! task sends them. What the collector does not take is dropped: no request ever waits for it.
//!
//! It speaks the protocol itself: the SDK and its exporter would be eight packages, for one message of few fields.

use std::fmt;
use std::time::{Duration, Instant};

use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::config::ConfigError;
use super::shutdown::Lifecycle;
use crate::clock::Clock;
use crate::ids::TraceId;
use crate::limits::{SPANS_PER_POST_MAX, SPANS_POST_TIMEOUT, SPANS_QUEUED_MAX};

/// Kinds of spans, as OTLP numbers them.
const SERVER: u8 = 2;
const PRODUCER: u8 = 4;
const CONSUMER: u8 = 5;

/// A span that is open.
struct Open {
    trace: TraceId,
    id: u64,
    /// Empty: none is known.
    parent: String,
    begin_ms: u64,
    since: Instant,
}

/// A span that has ended.
struct Record {
    open: Open,
    name: &'static str,
    took: Duration,
}

/// Gives finished spans to the sender.
pub struct Spans {
    queue: mpsc::Sender<Record>,
    clock: Clock,
}

impl Spans {
    /// Sends to `endpoint`, which is the base of `/v1/traces`, as a task of `lifecycle`; at its end what is queued
    /// is still sent, within [`SPANS_POST_TIMEOUT`] after the post that is on its way, which has as long.
    ///
    /// # Errors
    /// When `endpoint` is no `http://` address.
    pub fn start(endpoint: &str, service: &'static str, lifecycle: &Lifecycle) -> Result<Self, ConfigError> {
        let refuse = || ConfigError(format!("--otlp-endpoint {endpoint}: not an http:// address"));
        let uri: Uri =
            format!("{}/v1/traces", endpoint.trim_end_matches('/')).parse().map_err(|_| refuse())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(refuse());
        }
        let (queue, records) = mpsc::channel(SPANS_QUEUED_MAX);
        let stop = lifecycle.stores_stop.clone();
        lifecycle.store_tasks.spawn(async move {
            let sender = Sender { uri, service, client: Client::builder(TokioExecutor::new()).build_http() };
            sender.run(records, stop).await;
        });
        Ok(Self { queue, clock: Clock::system() })
    }
}

/// Lets through what becomes a record.
pub(super) struct Ours;

impl<S> Filter<S> for Ours {
    fn enabled(&self, metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        metadata.is_span() && kind(metadata.name()).is_some()
    }
}

fn kind(name: &str) -> Option<u8> {
    match name {
        "request" => Some(SERVER),
        "append" => Some(PRODUCER),
        "project" => Some(CONSUMER),
        _ => None,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    /// A request is recorded if its client samples it, the work on an event always (there is a span only if it is
    /// sampled), everything else inside of something that is recorded.
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let place = match (attributes.metadata().name(), fields.trace, fields.parent) {
            ("request", Some(trace), Some(parent)) => Some((trace, parent)),
            ("project", Some(trace), _) => Some((trace, String::new())),
            ("append", ..) => span.scope().skip(1).find_map(|outer| {
                outer.extensions().get::<Open>().map(|open| (open.trace, format!("{:016x}", open.id)))
            }),
            _ => None,
        };
        if let Some((trace, parent)) = place {
            let (id, begin_ms, since) = (new_id(), self.clock.now().0, Instant::now());
            span.extensions_mut().insert(Open { trace, id, parent, begin_ms, since });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        // A full queue means that the collector is slow or away.
        let _ = self.queue.try_send(Record { name: span.name(), took: open.since.elapsed(), open });
    }
}

/// What a span says of its trace.
#[derive(Default)]
struct Fields {
    trace: Option<TraceId>,
    parent: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "trace_id" => self.trace = value.parse().ok(),
            "parent_id" => self.parent = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "trace_id" {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

fn new_id() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    // All zeros are no span.
    u64::from_be_bytes(bytes) | 1
}

struct Sender {
    uri: Uri,
    service: &'static str,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Sender {
    /// There is no timer: while a post is on its way, the next spans gather.
    async fn run(self, mut queue: mpsc::Receiver<Record>, stop: CancellationToken) {
        let mut records = Vec::with_capacity(SPANS_PER_POST_MAX);
        let mut failing = false;
        while let Some(1..) =
            stop.run_until_cancelled(queue.recv_many(&mut records, SPANS_PER_POST_MAX)).await
        {
            let sent = tokio::time::timeout(SPANS_POST_TIMEOUT, self.post(&records)).await;
            records.clear();
            let failed = !matches!(sent, Ok(Ok(())));
            if failed && !failing {
                tracing::warn!("the collector of spans does not take them; they are dropped");
            }
            failing = failed;
        }
        queue.close();
        let rest = async {
            while queue.recv_many(&mut records, SPANS_PER_POST_MAX).await > 0 {
                let _ = self.post(&records).await;
                records.clear();
            }
        };
        let _ = tokio::time::timeout(SPANS_POST_TIMEOUT, rest).await;
    }

    async fn post(&self, records: &[Record]) -> Result<(), Refused> {
        let body = Full::from(self.body(records).to_string());
        let request = Request::post(&self.uri).header(header::CONTENT_TYPE, "application/json").body(body);
        let answer =
            self.client.request(request.expect("the address was checked")).await.map_err(|_| Refused)?;
        if answer.status().is_success() { Ok(()) } else { Err(Refused) }
    }

    /// `ExportTraceServiceRequest`, in the JSON form of OTLP 1.
    fn body(&self, records: &[Record]) -> Value {
        let spans: Vec<_> = records.iter().map(Record::json).collect();
        let name = json!({ "key": "service.name", "value": { "stringValue": self.service } });
        json!({ "resourceSpans": [{
            "resource": { "attributes": [name] },
            "scopeSpans": [{ "scope": { "name": "chat" }, "spans": spans }],
        }] })
    }
}

struct Refused;

impl Record {
    fn json(&self) -> Value {
        let Open { trace, id, parent, begin_ms, .. } = &self.open;
        let begin = u128::from(*begin_ms) * 1_000_000;
        json!({
            "traceId": trace.to_string(),
            "spanId": format!("{id:016x}"),
            "parentSpanId": parent,
            "name": self.name,
            "kind": kind(self.name),
            "startTimeUnixNano": begin.to_string(),
            "endTimeUnixNano": (begin + self.took.as_nanos()).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_a_plain_http_address() {
        let lifecycle = Lifecycle::default();
        let fits = |endpoint: &str| Spans::start(endpoint, "test", &lifecycle).is_ok();
        assert!(fits("http://127.0.0.1:4318") && fits("http://collector:4318/") && fits("http://h/base"));
        for endpoint in
            ["", "127.0.0.1:4318", "https://collector:4318", "http://", "http://a b", "grpc://h:1"]
        {
            assert!(!fits(endpoint), "{endpoint}");
        }
    }
}
