//! `POST /send`: what is taken, what is refused, and the numbers that messages get.

use e2e::{TestApp, new_id, seqs};
use serde_json::{Value, json};
use shared::limits::CONTENT_CHARS_MAX;

e2e::scenarios!(
    a_message_is_kept_byte_for_byte,
    what_cannot_be_sent,
    numbers_are_dense_in_every_conversation,
    many_senders_at_once_keep_one_order,
);

async fn a_message_is_kept_byte_for_byte(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let longest = "\u{1f642}".repeat(CONTENT_CHARS_MAX / 2) + &"a".repeat(CONTENT_CHARS_MAX / 2);
    let contents = [
        "hi",
        " leading and trailing ",
        "\r\nlines\nand\ttabs\r\n",
        "quotes \" ' ` \\ / %00 {} </script>",
        "e\u{301} is not é",
        "\u{1f469}\u{200d}\u{1f680} \u{202e}right to left",
        "\u{1}\u{7f}\u{85}\u{feff}\u{fffd}\u{10ffff}",
        "'; DROP TABLE timeline; --",
        longest.as_str(),
    ];
    for content in contents {
        let sent = samer.send(&lena, content).await;
        assert_eq!(sent["content"], content);
    }
    let shown = lena.conversation(&samer).await;
    let shown: Vec<_> = shown.iter().map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!(shown, contents);

    // The sender may be named, in any case, and so may the recipient.
    for body in [
        json!({ "sender": "Samer", "recipient": "LENA", "content": "named" }),
        json!({ "recipient": "lena", "content": "not named" }),
    ] {
        let sent = samer.post("/send").json(&body).send().await.expect(201).json();
        assert_eq!((&sent["sender"], &sent["recipient"]), (&json!("samer"), &json!("lena")));
    }
}

async fn what_cannot_be_sent(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let too_long = "\u{e9}".repeat(CONTENT_CHARS_MAX + 1);
    let invalid = |field: &'static str, code: &'static str| (422, "invalid_fields", Some((field, code)));
    for (body, (status, code, field)) in [
        (json!({ "recipient": "lena", "content": "" }), invalid("content", "blank")),
        (
            json!({ "recipient": "lena", "content": " \t\r\n\u{a0}\u{2003}\u{3000}" }),
            invalid("content", "blank"),
        ),
        (json!({ "recipient": "lena", "content": "a\0b" }), invalid("content", "invalid")),
        (json!({ "recipient": "lena", "content": too_long }), invalid("content", "too_long")),
        (json!({ "recipient": "lena", "content": 1 }), invalid("content", "wrong_type")),
        (json!({ "recipient": "lena", "content": null }), invalid("content", "wrong_type")),
        (json!({ "recipient": "lena" }), invalid("content", "missing")),
        (json!({ "content": "hi" }), invalid("recipient", "missing")),
        (json!({ "recipient": "", "content": "hi" }), invalid("recipient", "invalid")),
        (json!({ "recipient": "le na", "content": "hi" }), invalid("recipient", "invalid")),
        (json!({ "recipient": "lena\r\nx", "content": "hi" }), invalid("recipient", "invalid")),
        (json!({ "recipient": "samer", "content": "hi" }), invalid("recipient", "invalid")),
        (json!({ "recipient": "SAMER", "content": "hi" }), invalid("recipient", "invalid")),
        (json!({ "recipient": ["lena"], "content": "hi" }), invalid("recipient", "wrong_type")),
        (json!({ "sender": null, "recipient": "lena", "content": "hi" }), invalid("sender", "wrong_type")),
        (json!({ "sender": "?", "recipient": "lena", "content": "hi" }), invalid("sender", "invalid")),
        (json!({ "recipient": "lena", "content": "hi", "seq": 1 }), invalid("seq", "unknown")),
        (json!({ "sender": "lena", "recipient": "samer", "content": "hi" }), (403, "not_your_name", None)),
        (json!({ "sender": "nobody", "recipient": "lena", "content": "hi" }), (403, "not_your_name", None)),
        (json!({ "recipient": "nobody", "content": "hi" }), (404, "recipient_not_found", None)),
    ] {
        for request in [samer.post("/send"), samer.put(&format!("/messages/{}", new_id()))] {
            let problem = request.json(&body).send().await.expect_problem(status, code);
            let error = &problem["errors"][0];
            let found = error["field"].as_str().zip(error["code"].as_str());
            assert_eq!(found, field, "{body:.200}");
        }
    }
    assert_eq!(lena.conversation(&samer).await, Vec::<Value>::new(), "nothing of it was sent");
    assert_eq!(samer.send(&lena, "hi").await["seq"], 1, "and no number was used up");
}

async fn numbers_are_dense_in_every_conversation(app: &TestApp) {
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    for expected in 1..=3 {
        assert_eq!(samer.send(&lena, "to lena").await["seq"], 2 * expected - 1);
        assert_eq!(lena.send(&samer, "back").await["seq"], 2 * expected);
        assert_eq!(samer.send(&tarek, "to tarek").await["seq"], expected);
    }
    let both = samer.conversation(&lena).await;
    assert_eq!(seqs(&both), [1, 2, 3, 4, 5, 6]);
    assert_eq!(both, lena.conversation(&samer).await);
    assert_eq!(seqs(&tarek.conversation(&samer).await), [1, 2, 3]);
    assert_eq!(tarek.conversation(&lena).await, Vec::<Value>::new());
    // Time never falls within a conversation.
    let times: Vec<_> = both.iter().map(|message| message["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn many_senders_at_once_keep_one_order(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let both = [(samer.clone(), lena.clone()), (lena.clone(), samer.clone())];
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let acknowledged = crate::at_once(16, || {
        let (sender, recipient) = both[turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2].clone();
        async move {
            let mut sent = Vec::new();
            for n in 0..10 {
                sent.push(sender.send(&recipient, &format!("message {n}")).await);
            }
            sent
        }
    })
    .await;
    for one in &acknowledged {
        assert!(seqs(one).is_sorted(), "a sender's own messages keep their order");
    }
    let mut all: Vec<Value> = acknowledged.into_iter().flatten().collect();
    all.sort_by_key(|message| message["seq"].as_u64());
    assert_eq!(seqs(&all), (1..=160).collect::<Vec<_>>());
    // The very next read shows all of them, as they were acknowledged.
    assert_eq!(samer.conversation(&lena).await, all);
}
