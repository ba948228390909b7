//! So many requests of one user at once and no more, where it can be held: with a Redis that says nothing.

use std::time::{Duration, Instant};

use e2e::{Proxy, Settings, Shape, TestApp, within};
use serde_json::json;
use shared::limits::REQUESTS_IN_FLIGHT_PER_USER;
use shared::process::config::LimitOptions;

use crate::at_once;
use crate::outage::own_redis;

e2e::real_scenarios!(the_seventeenth_request_at_once_is_refused);

/// All wait for one call of 250 ms, or one each at the same time; never one after the other.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);

async fn the_seventeenth_request_at_once_is_refused() {
    let (redis, options, _dir) = own_redis().await;
    let proxy = Proxy::start(([127, 0, 0, 1], options.port).into()).await;
    let settings = Settings { limits: Some(LimitOptions::default()), ..Settings::default() };
    let redis_url = Some(format!("redis://{}/", proxy.address()));
    let app = TestApp::real(Shape { redis_url, settings, ..Shape::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let command_api = app.processes().direct("command-api-1").await;
    let query_api = app.processes().direct("query-api-1").await;
    let body = json!({ "recipient": "lena", "content": "hi" });
    let send = || samer.at(&command_api).post("/send").json(&body).once();
    let read = || samer.at(&query_api).get("/messages?sender=samer&recipient=lena").once();
    // So that both have seen the session a moment ago, and one of them the recipient.
    send().await.expect(201);
    read().await.expect(200);

    proxy.stall();
    let begun = Instant::now();
    let many = REQUESTS_IN_FLIGHT_PER_USER as usize + 1;
    let (writes, reads) = tokio::join!(at_once(many, send), at_once(many, read));
    assert!(begun.elapsed() < ANSWER_TIME_MAX, "{:?}", begun.elapsed());
    for answers in [writes, reads] {
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert_eq!(refused.len(), 1, "{answers:?}");
        refused[0].expect_problem(429, "rate_limited");
        assert_eq!(refused[0].header("retry-after"), Some("1"));
    }
    proxy.resume();
    within(Duration::from_secs(10), "the places are free again", async || {
        let sent = at_once(4, || samer.at(&command_api).post("/send").json(&body).once()).await;
        sent.iter().all(|answer| answer.status == 201).then_some(())
    })
    .await;
    drop(lena);
    app.finish().await;
    drop(redis);
}
