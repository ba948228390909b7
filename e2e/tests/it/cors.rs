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

const PATHS: [(&str, &str); 7] = [
    ("POST", "/register"),
    ("POST", "/send"),
    ("PUT", "/messages/01JD0000000000000000000000"),
    ("PUT", "/conversations/lena/read"),
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

async fn a_named_origin_reads_every_answer(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    let page = "/messages?sender=samer&recipient=lena&limit=1";
    let etag = samer.fresh(page).await.header("etag").unwrap().to_owned();
    for origin in ["https://chat.example", "http://localhost:3000"] {
        for path in PATHS {
            let answer = preflight(app, path, origin).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
            let methods = answer.header("access-control-allow-methods").unwrap();
            assert!(methods.split(", ").any(|method| method == path.0), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, *"));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            assert!(answer.header("allow").is_some(), "{answer:?}");
        }
        // Also what is refused, as a page has to be able to say why.
        let nobody = json!({ "recipient": "nobody", "content": "hi" });
        for (request, status) in [
            (samer.get("/conversations"), 200),
            (samer.request("HEAD", "/conversations"), 200),
            (samer.get(page).header("if-none-match", &etag), 304),
            (app.get("/conversations"), 401),
            (samer.post("/send").json(&nobody), 404),
            (app.get("/send"), 405),
        ] {
            let answer = request.header("origin", origin).send().await.expect(status);
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
            assert_eq!(answer.header("access-control-expose-headers"), Some("*"), "{answer:?}");
            assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "origin"), "{answer:?}");
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
    let read = app.get("/conversations").header("origin", "https://chat.example").send().await.expect(401);
    assert_eq!((cross_origin(&read), read.header("vary")), (Vec::new(), None), "{read:?}");
}

fn cross_origin(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}
