//! `GET /messages`: who may read what, and which page a query asks for. Walking is in `paging`.

use e2e::{TestApp, seqs};
use serde_json::{Value, json};

e2e::scenarios!(which_page_a_query_shows, who_may_read, what_is_not_a_page);

async fn which_page_a_query_shows(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=60 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    let link =
        |cursor: &str, limit: u64| format!("/messages?sender=samer&recipient=lena&limit={limit}&{cursor}");
    // Query, limit as the links repeat it, first and last seq shown, links.
    for (query, limit, shown, prev, next) in [
        ("", 50, 11..=60, Some("before=11"), None),
        ("limit=3", 3, 58..=60, Some("before=58"), None),
        ("limit=100", 100, 1..=60, None, None),
        ("limit=60", 60, 1..=60, None, None),
        ("limit=1", 1, 60..=60, Some("before=60"), None),
        ("limit=007", 7, 54..=60, Some("before=54"), None),
        ("before=11", 50, 1..=10, None, Some("after=10")),
        ("before=11&limit=3", 3, 8..=10, Some("before=8"), Some("after=10")),
        ("before=2", 50, 1..=1, None, Some("after=1")),
        ("before=61&limit=2", 2, 59..=60, Some("before=59"), None),
        ("before=1000&limit=2", 2, 59..=60, Some("before=59"), None),
        ("before=18446744073709551615&limit=2", 2, 59..=60, Some("before=59"), None),
        ("after=1&limit=2", 2, 2..=3, Some("before=2"), Some("after=3")),
        ("after=58&limit=2", 2, 59..=60, Some("before=59"), None),
        ("after=59", 50, 60..=60, Some("before=60"), None),
        ("after=10", 50, 11..=60, Some("before=11"), None),
        ("limit=2&unknown=1&unknown=2", 2, 59..=60, Some("before=59"), None),
    ] {
        let page = samer.fresh(&format!("/messages?sender=samer&recipient=lena&{query}")).await;
        assert_eq!(seqs(&page.items()), shown.collect::<Vec<_>>(), "{query}");
        assert_eq!(page.link("prev"), prev.map(|cursor| link(cursor, limit)), "{query}");
        assert_eq!(page.link("next"), next.map(|cursor| link(cursor, limit)), "{query}");
    }
    for query in ["before=1", "after=60", "after=61", "after=18446744073709551615"] {
        let page = samer.page(&lena, query).await.expect(200);
        assert_eq!((page.items(), page.header("link")), (vec![], None), "{query}");
    }
}

async fn who_may_read(app: &TestApp) {
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    let message = samer.send(&lena, "between us").await;
    assert_eq!(lena.conversation(&samer).await.len(), 1);
    let read = |sender: &str, recipient: &str| format!("/messages?sender={sender}&recipient={recipient}");
    for (user, sender, recipient, expected) in [
        (&samer, "samer", "lena", Some(json!([message]))),
        (&samer, "lena", "samer", Some(json!([message]))),
        (&lena, "samer", "lena", Some(json!([message]))),
        (&lena, "LENA", "Samer", Some(json!([message]))),
        (&samer, "samer", "tarek", Some(json!([]))),
        (&samer, "samer", "nobody", Some(json!([]))),
        (&samer, "nobody", "samer", Some(json!([]))),
        (&tarek, "samer", "lena", None),
        (&tarek, "samer", "nobody", None),
        (&tarek, "nobody", "nothing", None),
    ] {
        let answer = user.get(&read(sender, recipient)).send().await;
        match expected {
            Some(expected) => {
                assert_eq!(answer.expect(200).json(), expected, "{} {sender} {recipient}", user.name)
            }
            None => drop(answer.expect_problem(403, "not_a_member")),
        }
    }
    assert_eq!(tarek.conversations().await, Vec::<Value>::new());
}

async fn what_is_not_a_page(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=%2B1",
        "limit=1.0",
        "limit=1e1",
        "limit=",
        "limit=x",
        "limit=NaN",
        "limit=4294967297",
        "limit=18446744073709551617",
        "limit=5&limit=5",
        "limit=5&lim%69t=6",
        "before=0",
        "before=-1",
        "before=x",
        "before=",
        "before=1e999",
        "before=2&before=2",
        "after=0",
        "after=x",
        "after=1&after=2",
        "before=2&after=1",
        "after=NaN",
        "before=18446744073709551616",
        "sender=samer",
        "recipient=lena",
        "recipient=x",
    ] {
        samer.page(&lena, query).await.expect_problem(400, "invalid_request");
    }
    for query in [
        "",
        "?",
        "?sender=samer",
        "?recipient=lena",
        "?sender=samer&recipient=",
        "?sender=samer&recipient=samer",
        "?sender=samer&recipient=SAMER",
        "?sender=samer&recipient=%00",
        "?sender=samer&recipient=a%2fb",
        "?sender=samer&recipient=l",
        "?sender=samer&recipient=lena%0d%0a",
        "?sender=s%20amer&recipient=lena",
        "?sender=nobody&recipient=nobody",
        "?Sender=samer&recipient=lena",
    ] {
        samer.get(&format!("/messages{query}")).send().await.expect_problem(400, "invalid_request");
    }
}
