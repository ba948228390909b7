//! Spans as a collector gets them: a small one takes the posts.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use e2e::process::Signal;
use e2e::{User, eventually};
use serde_json::{Value, json};
use shared::process::{http, shutdown::Lifecycle};

use crate::Running;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Every span that was posted.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

impl Collector {
    /// Returns its address.
    async fn start(&self, lifecycle: &Lifecycle) -> String {
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        http::serve(listener, router, lifecycle);
        format!("http://{address}")
    }

    fn spans(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> Option<Value> {
        self.spans().into_iter().find(|span| span["name"] == name)
    }
}

async fn take(State(collector): State<Collector>, Json(posted): Json<Value>) -> Json<Value> {
    let resource = &posted["resourceSpans"][0];
    let name = &resource["resource"]["attributes"][0];
    assert_eq!((&name["key"], &name["value"]["stringValue"]), (&json!("service.name"), &json!("standalone")));
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    collector.0.lock().unwrap().extend(spans);
    Json(json!({}))
}

#[tokio::test]
async fn a_send_is_one_trace_from_the_client_to_the_projector() {
    let (dir, collector, lifecycle) =
        (tempfile::tempdir().unwrap(), Collector::default(), Lifecycle::default());
    let endpoint = collector.start(&lifecycle).await;
    let mut running = Running::start(dir.path(), &["--otlp-endpoint", &endpoint]).await;
    let client = &running.client;
    let (samer, lena) = (User::register(client, "samer").await, User::register(client, "lena").await);
    let message = json!({ "recipient": lena.name, "content": "hi" });
    let traceparent = |flags| format!("00-{TRACE}-{PARENT}-{flags}");
    // The first one nobody samples.
    for flags in ["00", "01"] {
        let send = samer.post("/send").json(&message).header("traceparent", traceparent(flags));
        send.send().await.expect(201);
    }
    let spans = eventually("the spans of the send", async || {
        Some([collector.named("request")?, collector.named("append")?, collector.named("project")?])
    })
    .await;
    let [request, append, project] = &spans;
    for span in &spans {
        assert_eq!(span["traceId"], TRACE, "{span}");
        let time = |field: &str| span[field].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time("startTimeUnixNano") < time("endTimeUnixNano"), "{span}");
    }
    assert_eq!((&request["parentSpanId"], &request["kind"]), (&json!(PARENT), &json!(2)));
    assert_eq!((&append["parentSpanId"], &append["kind"]), (&request["spanId"], &json!(4)));
    assert_eq!((&project["parentSpanId"], &project["kind"]), (&json!(""), &json!(5)));

    // What nobody samples is not sent; what is queued at the end still is.
    samer.get("/conversations").send().await.expect(200);
    for flags in ["00", "01"] {
        let request = samer.get("/conversations").header("traceparent", traceparent(flags));
        request.send().await.expect(200);
    }
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
    let count = |name: &str| collector.spans().iter().filter(|span| span["name"] == name).count();
    assert_eq!((count("request"), count("append"), count("project")), (2, 1, 1), "{:?}", collector.spans());
    lifecycle.drain().await;
}

#[tokio::test]
async fn a_collector_that_is_away_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("http://{}", e2e::ports::free_address());
    let mut running = Running::start(dir.path(), &["--otlp-endpoint", &nobody]).await;
    let samer = User::register(&running.client, "samer").await;
    for _ in 0..20 {
        let traced = samer.get("/conversations");
        let traced = traced.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        traced.send().await.expect(200);
    }
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
    let warnings = running.process.output().matches("the collector of spans does not take them").count();
    assert_eq!(warnings, 1, "once, not for every span");
}
