//! `Idempotency-Key` on `POST /send`, and `PUT /messages/{id}`: a repetition is one message and one answer.

use std::time::Duration;

use e2e::{Answer, Backend, Settings, TestApp, User, eventually, new_id};
use serde_json::{Value, json};
use shared::limits::{ID_AHEAD_MAX, IDEMPOTENCY_WINDOW};
use shared::{Clock, EventId, Timestamp, ids::Ulid};

e2e::scenarios!(
    a_repeated_key_is_one_message,
    a_repeated_id_is_one_message,
    keys_and_ids_are_of_sender_and_recipient,
    the_same_id_fifty_times_at_once,
    what_is_no_key_and_no_id,
    refused_sends_are_not_recorded,
);

fn with_key(from: &User, to: &User, key: &str, content: &str) -> e2e::Request {
    let body = json!({ "recipient": to.name, "content": content });
    from.post("/send").header("idempotency-key", key).json(&body)
}

fn assert_replays(first: &Answer, again: &Answer, status: u16) {
    assert_eq!((again.status, &again.body), (status, &first.body), "{again:?}");
    assert_eq!(first.header("idempotency-replayed"), None, "{first:?}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again:?}");
    assert_ne!(first.header("x-request-id"), again.header("x-request-id"), "a request id is fresh");
}

async fn a_repeated_key_is_one_message(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let first = with_key(&samer, &lena, "key-1", "hi").send().await.expect(201);
    for _ in 0..3 {
        assert_replays(&first, &with_key(&samer, &lena, "key-1", "hi").send().await, 201);
    }
    // Bodies are compared after validation: the same message said otherwise.
    for body in [
        json!({ "sender": "samer", "recipient": "lena", "content": "hi" }),
        json!({ "content": "\u{68}i", "recipient": "LENA", "sender": "Samer" }),
    ] {
        let again = samer.post("/send").header("Idempotency-Key", "key-1").json(&body).send().await;
        assert_replays(&first, &again, 201);
    }
    with_key(&samer, &lena, "key-1", "Hi").send().await.expect_problem(422, "idempotency_conflict");
    with_key(&samer, &lena, "key-1", "hi ").send().await.expect_problem(422, "idempotency_conflict");
    assert_replays(&first, &with_key(&samer, &lena, "key-1", "hi").send().await, 201);

    // Without a key every send is a message; with another one too.
    assert_eq!(samer.send(&lena, "hi").await["seq"], 2);
    let other = with_key(&samer, &lena, "key-2", "hi").send().await.expect(201).json();
    assert_eq!(other["seq"], 3);
    assert_eq!(samer.conversation(&lena).await.len(), 3);
}

async fn a_repeated_id_is_one_message(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let id = new_id();
    let first = samer.put_message(id, &lena, "hi").send().await.expect(201);
    assert_eq!((&first.json()["id"], &first.json()["seq"]), (&json!(id.to_string()), &json!(1)));
    for _ in 0..3 {
        assert_replays(&first, &samer.put_message(id, &lena, "hi").send().await, 200);
    }
    let named = json!({ "sender": "SAMER", "recipient": "Lena", "content": "hi" });
    let again = samer.put(&format!("/messages/{id}")).json(&named).send().await;
    assert_replays(&first, &again, 200);
    samer.put_message(id, &lena, "hello").send().await.expect_problem(422, "idempotency_conflict");
    assert_eq!(lena.conversation(&samer).await, [first.json()]);
}

async fn keys_and_ids_are_of_sender_and_recipient(app: &TestApp) {
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    let id = new_id();
    let mut sent = Vec::new();
    for (from, to, seq) in [(&samer, &lena, 1), (&samer, &tarek, 1), (&lena, &samer, 2), (&lena, &tarek, 1)] {
        let message =
            from.put_message(id, to, &format!("from {} to {}", from.name, to.name)).send().await.expect(201);
        assert_eq!((&message.json()["id"], &message.json()["seq"]), (&json!(id.to_string()), &json!(seq)));
        sent.push(message.json());
    }
    assert_eq!(samer.conversation(&lena).await, [sent[0].clone(), sent[2].clone()]);

    // An id is no key, even where it is spelled the same.
    let key = id.to_string();
    for (from, to, seq) in [(&samer, &lena, 3), (&lena, &samer, 4), (&samer, &tarek, 2)] {
        let message = with_key(from, to, &key, "with a key").send().await.expect(201).json();
        assert_eq!(message["seq"], seq);
    }
}

async fn the_same_id_fifty_times_at_once(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let id = new_id();
    let by_id = crate::at_once(50, || samer.put_message(id, &lena, "once").send()).await;
    let by_key = crate::at_once(50, || with_key(&samer, &lena, "k", "once").send()).await;
    let count = |answers: &[Answer], status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(&by_id, 201), count(&by_id, 200), count(&by_key, 201)), (1, 49, 50));
    let first = |answers: &[Answer]| {
        answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none()).count()
    };
    assert_eq!((first(&by_id), first(&by_key)), (1, 1));
    assert!(by_id.iter().all(|answer| answer.body == by_id[0].body));
    assert!(by_key.iter().all(|answer| answer.body == by_key[0].body));
    assert_eq!(samer.conversation(&lena).await, [by_id[0].json(), by_key[0].json()]);
}

async fn what_is_no_key_and_no_id(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for key in ["", " ", "two words", "tab\there", "é", &"k".repeat(65)] {
        with_key(&samer, &lena, key, "hi").send().await.expect_problem(400, "invalid_request");
    }
    let repeated = with_key(&samer, &lena, "k", "hi").header("idempotency-key", "k");
    repeated.send().await.expect_problem(400, "invalid_request");
    let with_both = samer.put_message(new_id(), &lena, "hi").header("idempotency-key", "k");
    with_both.send().await.expect_problem(400, "invalid_request");
    for key in ["!", "~", &"k".repeat(64), "{}:/%00"] {
        with_key(&samer, &lena, key, "hi").send().await.expect(201);
    }

    let id = new_id().to_string();
    let body = json!({ "recipient": "lena", "content": "hi" });
    for id in [
        "x",
        "1",
        &id.to_lowercase(),
        &id[1..],
        &format!("{id}0"),
        &format!("8{}", &id[1..]),
        &format!("{}U", &id[..25]),
        "%30",
        "a%2fb",
        "01JD000000000000000000000%c3",
    ] {
        let answer = samer.put(&format!("/messages/{id}")).json(&body).send().await;
        answer.expect_problem(400, "invalid_request");
    }

    let at = |time: Timestamp| EventId(Ulid::from_parts(time.0, u128::from(time.0)));
    let now = Clock::system().now();
    let second = Duration::from_secs(1);
    // A margin for the time that requests take.
    let margin = Duration::from_secs(20);
    for time in [
        now.minus(IDEMPOTENCY_WINDOW + second),
        now.plus(ID_AHEAD_MAX + margin),
        Timestamp(0),
        Timestamp((1 << 48) - 1),
    ] {
        let answer = samer.put_message(at(time), &lena, "hi").send().await;
        answer.expect_problem(422, "id_out_of_window");
    }
    for time in [now.minus(IDEMPOTENCY_WINDOW - margin), now.plus(ID_AHEAD_MAX - second)] {
        samer.put_message(at(time), &lena, "hi").send().await.expect(201);
    }
    assert_eq!(samer.conversation(&lena).await.len(), 4 + 2);
}

async fn refused_sends_are_not_recorded(app: &TestApp) {
    let samer = app.register("samer").await;
    let id = new_id();
    let body = json!({ "recipient": "lena", "content": "hi" });
    let key = || samer.post("/send").header("idempotency-key", "k").json(&body).send();
    let put = || samer.put(&format!("/messages/{id}")).json(&body).send();
    key().await.expect_problem(404, "recipient_not_found");
    put().await.expect_problem(404, "recipient_not_found");
    let lena = app.register("lena").await;
    assert_eq!(key().await.expect(201).header("idempotency-replayed"), None);
    assert_eq!(put().await.expect(201).header("idempotency-replayed"), None);
    assert_eq!(samer.conversation(&lena).await.len(), 2);
}

mod an_id_is_never_taken_twice {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        even_after_its_record(Backend::Embedded).await;
    }

    #[cfg(feature = "real")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn real() {
        even_after_its_record(Backend::Real).await;
    }

    /// Repeats one send until the window has passed: each answer is the first one, until the id is refused.
    async fn even_after_its_record(backend: Backend) {
        let window = Duration::from_secs(2);
        let app =
            TestApp::with(backend, Settings { idempotency_window: Some(window), ..Settings::default() })
                .await;
        let (samer, lena) = (app.register("samer").await, app.register("lena").await);
        let id = new_id();
        let first = samer.put_message(id, &lena, "hi").send().await.expect(201);
        let keyed = with_key(&samer, &lena, "k", "hi").send().await.expect(201);
        let mut replayed = 0;
        eventually("the id is refused", async || {
            let again = samer.put_message(id, &lena, "hi").send().await;
            if again.status == 200 {
                assert_replays(&first, &again, 200);
                replayed += 1;
                return None;
            }
            again.expect_problem(422, "id_out_of_window");
            Some(())
        })
        .await;
        assert!(replayed > 0, "the window was over before it was used");
        samer.put_message(id, &lena, "other").send().await.expect_problem(422, "id_out_of_window");

        // A key has no time in it: after the window it is a new one.
        let fresh: Value = eventually("the key is forgotten", async || {
            let again = with_key(&samer, &lena, "k", "hi").send().await.expect(201);
            again.header("idempotency-replayed").is_none().then(|| again.json())
        })
        .await;
        assert_eq!(lena.conversation(&samer).await, [first.json(), keyed.json(), fresh]);
        app.finish().await;
    }
}
