//! `GET /conversations` and `PUT /conversations/{peer}/read`: the inbox, what is unread, and marks.

use e2e::{TestApp, User, eventually};
use serde_json::{Value, json};

e2e::scenarios!(an_inbox_counts_what_is_unread, what_is_no_mark, an_inbox_in_pages, what_is_no_cursor);

/// Peer, head, read and unread of each conversation, as the inbox lists them.
fn summary(inbox: &[Value]) -> Vec<(String, u64, u64, u64)> {
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    let row = |row: &Value| {
        let peer = row["peer"].as_str().expect("a peer").to_owned();
        (peer, number(row, "head_seq"), number(row, "read_seq"), number(row, "unread"))
    };
    inbox.iter().map(row).collect()
}

/// Inboxes follow the log within moments; nothing bounds them from before (docs/guarantees.md, "What a page
/// shows", is about messages).
async fn expect_inbox(user: &User, expected: &[(&str, u64, u64, u64)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(peer, head, read, unread)| ((*peer).to_owned(), *head, *read, *unread))
        .collect();
    let what = format!("the inbox of {} is {expected:?}", user.name);
    eventually(&what, async || (summary(&user.conversations().await) == expected).then_some(())).await;
}

async fn an_inbox_counts_what_is_unread(app: &TestApp) {
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    let empty = samer.get("/conversations").send().await.expect(200);
    assert_eq!((empty.body.as_ref(), empty.header("link")), (&b"[]"[..], None));

    for n in 1..=3 {
        lena.send(&samer, &format!("message {n}")).await;
    }
    let last = lena.send(&samer, "message 4").await;
    expect_inbox(&samer, &[("lena", 4, 0, 4)]).await;
    expect_inbox(&lena, &[("samer", 4, 4, 0)]).await;
    let row = &samer.conversations().await[0];
    assert_eq!(row, &json!({ "peer": "lena", "head_seq": 4, "read_seq": 0, "unread": 4, "last": last }));

    let marked = samer.put("/conversations/LENA/read").json(&json!({ "seq": 3 })).send().await.expect(204);
    assert!(marked.body.is_empty());
    expect_inbox(&samer, &[("lena", 4, 3, 1)]).await;
    samer.mark_read(&lena, 1).await;
    samer.mark_read(&lena, 3).await;
    expect_inbox(&samer, &[("lena", 4, 3, 1)]).await;
    assert_eq!(summary(&lena.conversations().await), [("samer".to_owned(), 4, 4, 0)], "marks are one's own");

    // Who answers has read.
    samer.send(&lena, "an answer").await;
    expect_inbox(&samer, &[("lena", 5, 5, 0)]).await;
    expect_inbox(&lena, &[("samer", 5, 4, 1)]).await;
    lena.send(&samer, "message 6").await;
    expect_inbox(&samer, &[("lena", 6, 5, 1)]).await;

    // Beyond the head is the head.
    samer.mark_read(&lena, u64::MAX).await;
    expect_inbox(&samer, &[("lena", 6, 6, 0)]).await;
    lena.send(&samer, "message 7").await;
    expect_inbox(&samer, &[("lena", 7, 6, 1)]).await;

    // The newest activity comes first, and a mark is no activity.
    tarek.send(&samer, "hello").await;
    expect_inbox(&samer, &[("tarek", 1, 0, 1), ("lena", 7, 6, 1)]).await;
    samer.mark_read(&lena, 7).await;
    expect_inbox(&samer, &[("tarek", 1, 0, 1), ("lena", 7, 7, 0)]).await;
    lena.send(&samer, "message 8").await;
    expect_inbox(&samer, &[("lena", 8, 7, 1), ("tarek", 1, 0, 1)]).await;
}

async fn what_is_no_mark(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mark = |peer: &str, body: &Value| samer.put(&format!("/conversations/{peer}/read")).json(body).send();
    for peer in ["lena", "nobody", "samer"] {
        mark(peer, &json!({ "seq": 1 })).await.expect_problem(404, "not_found");
    }
    lena.send(&samer, "hi").await;
    for peer in ["", "l", "le%20na", "%00", "a%2fb", "_lena", "lena%0d%0a", "%ff"] {
        mark(peer, &json!({ "seq": 1 })).await.expect_problem(400, "invalid_request");
    }
    for body in [
        json!({}),
        json!({ "seq": 0 }),
        json!({ "seq": -1 }),
        json!({ "seq": 1.5 }),
        json!({ "seq": "1" }),
        json!({ "seq": null }),
        json!({ "seq": 18_446_744_073_709_551_616.0 }),
        json!({ "seq": 1, "peer": "lena" }),
        json!([1]),
        json!(1),
    ] {
        mark("lena", &body).await.expect_problem(422, "invalid_fields");
    }
    expect_inbox(&samer, &[("lena", 1, 0, 1)]).await;
    mark("lena", &json!({ "seq": 1 })).await.expect(204);
    expect_inbox(&samer, &[("lena", 1, 1, 0)]).await;
}

async fn an_inbox_in_pages(app: &TestApp) {
    let samer = app.register("samer").await;
    let peers = app.users(7).await;
    for peer in &peers {
        peer.send(&samer, "hi").await;
    }
    let newest_first: Vec<_> = peers.iter().rev().map(|peer| peer.name.clone()).collect();
    let names =
        |rows: &[Value]| rows.iter().map(|row| row["peer"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    // Within a millisecond the name decides, so only the set is certain at first.
    let all = eventually("all seven are listed", async || {
        let rows = samer.conversations().await;
        (rows.len() == 7).then_some(rows)
    })
    .await;
    let times: Vec<_> = all.iter().map(|row| row["last"]["timestamp"].as_str().unwrap()).collect();
    assert!(times.iter().rev().is_sorted(), "{times:?}");
    let mut sorted = names(&all);
    sorted.sort();
    let mut expected = newest_first;
    expected.sort();
    assert_eq!(sorted, expected);

    for limit in [1, 3, 7, 100] {
        let mut walked = Vec::new();
        let mut next = Some(format!("/conversations?limit={limit}"));
        while let Some(path) = next {
            let page = samer.get(&path).send().await.expect(200);
            assert!(page.items().len() <= limit && page.link("prev").is_none());
            walked.extend(page.items());
            next = page.link("next");
            assert!(next.is_none() || page.items().len() == limit);
        }
        assert_eq!(walked, all, "limit {limit}");
    }
}

async fn what_is_no_cursor(app: &TestApp) {
    let samer = app.register("samer").await;
    let peers = app.users(3).await;
    for peer in &peers {
        peer.send(&samer, "hi").await;
        samer.send(peer, "hello").await;
    }
    peers[1].send(&peers[0], "hi").await;
    let next = eventually("a second page is there", async || {
        samer.get("/conversations?limit=1").send().await.expect(200).link("next")
    })
    .await;
    samer.get(&next).send().await.expect(200);
    // Another user's cursor, a damaged one, both, and what is none.
    peers[0].get(&next).send().await.expect_problem(400, "invalid_request");
    let cursor = next.split_once("cursor=").expect("a cursor").1;
    for query in [
        "cursor=".to_owned(),
        "cursor=x".to_owned(),
        "cursor=%00".to_owned(),
        format!("cursor={}", &cursor[1..]),
        format!("cursor={cursor}A"),
        format!("cursor={cursor}&cursor={cursor}"),
        "limit=0".to_owned(),
        "limit=101".to_owned(),
        "limit=-1".to_owned(),
        "limit=2&limit=2".to_owned(),
    ] {
        let answer = samer.get(&format!("/conversations?{query}")).send().await;
        answer.expect_problem(400, "invalid_request");
    }
}
