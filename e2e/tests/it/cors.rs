//! Pages of other origins: those that are named use the API from a browser, and nobody else is told anything.

use e2e::{Answer, Settings, TestApp};
use serde_json::json;
use shared::process::config::CorsOptions;

fn named() -> Settings {
    let cors_origins =
        ["https://chat.example", "http://localhost:3000"].map(|origin| origin.parse().unwrap());
    Settings { cors: CorsOptions { cors_origins: cors_origins.into() }, ..Settings::default() }
}

e2e::scenarios!(named() => a_named_origin_reads_every_answer);
e2e::scenarios!(unless_told_no_origin_is_named);

const PATHS: [(&str, &str); 6] = [
    ("POST", "/register"),
    ("POST", "/send"),
    ("PUT", "/messages/01JD0000000000000000000000"),
    ("GET", "/messages?sender=samer&recipient=lena"),
    ("GET", "/conversations"),
    ("GET", "/events"),
];

/// What a browser asks before it sends what a form could not send.
async fn preflight(app: &TestApp, (method, path): (&str, &str), origin: &str) -> Answer {
    let asks = app.request("OPTIONS", path).header("origin", origin);
    let asks = asks.header("access-control-request-method", method);
    asks.header("access-control-request-headers", "authorization,content-type").send().await.expect(204)
}

fn lists(answer: &Answer, header: &str, word: &str) -> bool {
    answer.header(header).is_some_and(|value| value.split(", ").any(|one| one == word))
}

async fn a_named_origin_reads_every_answer(app: &TestApp) {
    let samer = app.register("samer").await;
    for origin in ["https://chat.example", "http://localhost:3000"] {
        for path in PATHS {
            let answer = preflight(app, path, origin).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
            assert!(lists(&answer, "access-control-allow-methods", path.0), "{answer:?}");
            for header in ["authorization", "content-type", "idempotency-key", "last-event-id"] {
                assert!(lists(&answer, "access-control-allow-headers", header), "{answer:?}");
            }
            assert!(answer.header("allow").is_some(), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
        // Also what is refused, as a page has to be able to say why.
        let inbox = samer.get("/conversations").header("origin", origin).send().await.expect(200);
        let refused = app.get("/conversations").header("origin", origin).send().await.expect(401);
        let nobody = json!({ "recipient": "nobody", "content": "hi" });
        let nobody = samer.post("/send").json(&nobody).header("origin", origin).send().await.expect(404);
        for answer in [inbox, refused, nobody] {
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
            for header in ["x-request-id", "link", "etag", "retry-after", "ratelimit", "chat-behind"] {
                assert!(lists(&answer, "access-control-expose-headers", header), "{answer:?}");
            }
        }
    }
    for origin in ["https://chat.example.org", "https://chat.example:3000", "http://chat.example", "null", ""]
    {
        let answer = preflight(app, PATHS[1], origin).await;
        assert_eq!(cross_origin(&answer), Vec::<&str>::new(), "{origin}");
    }
}

async fn unless_told_no_origin_is_named(app: &TestApp) {
    for path in PATHS {
        let answer = preflight(app, path, "https://chat.example").await;
        assert_eq!(cross_origin(&answer), Vec::<&str>::new(), "{answer:?}");
        assert_eq!(answer.header("vary"), None, "{answer:?}");
    }
}

fn cross_origin(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}
