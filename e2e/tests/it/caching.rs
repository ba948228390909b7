//! What a client or the system already has is not read again, and is not wrong for that: `ETag` and 304, pages that can
//! no longer change, one read of the views for all who ask at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Answer, Backend, Client, TestApp, User, eventually};

e2e::scenarios!(
    who_has_a_page_is_told_so,
    pages_that_can_no_longer_change_are_immutable,
    a_thousand_readers_of_a_cold_page_are_one_read,
);

const NO_CACHE: &str = "private, no-cache";

/// One process that serves reads, and its figures.
pub(crate) async fn reader(app: &TestApp) -> (Client, Client) {
    match app.backend() {
        Backend::Embedded => (app.another_client(), app.operations().remove(0)),
        Backend::Real => {
            let processes = app.processes();
            (processes.direct("query-api-1").await, processes.operations_of("query-api-1").await)
        }
    }
}

/// Every event that was acknowledged is in the views; nobody has read any of it for that.
pub(crate) async fn all_applied(app: &TestApp) {
    eventually("every event is applied", async || {
        let standing = app.standing().await;
        (standing.lag == 0 && standing.pending == 0).then_some(())
    })
    .await;
}

/// The value of a metric that has no labels.
async fn figure(operations: &Client, name: &str) -> u64 {
    let page = operations.get("/metrics").send().await.expect(200);
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    let value: f64 = line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap();
    value.round() as u64
}

async fn who_has_a_page_is_told_so(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let empty = samer.page(&lena, "").await.expect(200);
    assert_eq!(empty.header("etag").map(str::len), Some(34), "{empty:?}");
    for n in 1..=5 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    all_applied(app).await;
    for path in ["/messages?sender=samer&recipient=lena&limit=2&before=5", "/conversations?limit=1"] {
        let page = samer.fresh(path).await;
        let etag = page.header("etag").expect("a tag").to_owned();
        let ask = async |method: &str, tags: &str| {
            samer.request(method, path).header("if-none-match", tags).send().await
        };
        for tags in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            for method in ["GET", "HEAD"] {
                let answer = ask(method, &tags).await.expect(304);
                assert!(answer.body.is_empty(), "{answer:?}");
                for name in ["etag", "cache-control", "vary", "link"] {
                    assert_eq!(answer.header(name), page.header(name), "{name}: {answer:?}");
                }
            }
        }
        for tags in ["\"x\"", "x", "", &etag[1..]] {
            assert_eq!(ask("GET", tags).await.expect(200).body, page.body);
        }
        let head = samer.request("HEAD", path).send().await.expect(200);
        assert!(head.body.is_empty() && head.header("etag") == Some(&etag), "{head:?}");
        assert_eq!(page.header("vary"), Some("authorization"));
        // A tag lets nobody in.
        app.get(path).header("if-none-match", "*").send().await.expect_problem(401, "unauthenticated");
    }
    let tarek = app.register("tarek").await;
    let others = tarek.get("/messages?sender=samer&recipient=lena").header("if-none-match", "*");
    others.send().await.expect_problem(403, "not_a_member");

    let newest = "/messages?sender=samer&recipient=lena";
    let before = samer.fresh(newest).await;
    samer.send(&lena, "message 6").await;
    let known = before.header("etag").unwrap().to_owned();
    let after = eventually("the page is up to date", async || {
        let page = samer.get(newest).header("if-none-match", &known).send().await;
        (page.header("chat-behind").is_none() && !page.is_of_a_slow_machine()).then_some(page)
    })
    .await
    .expect(200);
    assert_eq!(after.items().len(), 6);
}

async fn pages_that_can_no_longer_change_are_immutable(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=12 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    let cached = async |query: &str| {
        let page = samer.fresh(&format!("/messages?sender=samer&recipient=lena&{query}")).await;
        page.header("cache-control").unwrap().to_owned()
    };
    let immutable = "private, immutable, max-age=31536000";
    for (query, expected) in [
        ("limit=5", NO_CACHE),
        ("limit=5&before=6", immutable),
        ("limit=5&after=2", immutable),
        ("limit=5&before=12", immutable),
        // Its successor does not exist yet.
        ("limit=5&before=13", NO_CACHE),
        ("limit=5&before=99", NO_CACHE),
        ("limit=5&after=7", NO_CACHE),
        // Not full.
        ("limit=5&before=4", NO_CACHE),
        ("limit=5&after=10", NO_CACHE),
        ("limit=5&before=1", NO_CACHE),
        ("limit=5&after=12", NO_CACHE),
    ] {
        assert_eq!(cached(query).await, expected, "{query}");
    }
    samer.send(&lena, "message 13").await;
    assert_eq!(cached("limit=5&before=13").await, immutable);
    assert_eq!(cached("limit=5&after=7").await, immutable);
    assert_eq!(cached("limit=5&before=99").await, NO_CACHE);
}

async fn a_thousand_readers_of_a_cold_page_are_one_read(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=30 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    all_applied(app).await;
    let (door, operations) = reader(app).await;
    let users = [samer.at(&door), lena.at(&door)];
    // On a busy machine the log may not be asked in time, which costs a read of the views, and some may wait too long
    // for a page at all: then another cold page.
    for limit in 21..=30 {
        let (reads, pages, answers) = read_at_once(&users, limit, &operations).await;
        let is_late = |answer: &Answer| {
            answer.is_of_a_slow_machine() || answer.header("chat-behind") == Some("unknown")
        };
        if answers.iter().any(is_late) {
            continue;
        }
        assert_eq!((reads, pages), (1, READERS as u64));
        for answer in answers {
            let answer = answer.expect(200);
            assert_eq!((answer.items().len(), answer.header("chat-behind")), (limit, None));
        }
        let bytes = figure(&operations, "page_cache_bytes").await;
        assert!((1_000..100_000).contains(&bytes), "{bytes}");
        assert!(figure(&operations, "page_cache_hits_total").await > 0);
        return;
    }
    panic!("not all were answered in time, ten times in a row");
}

const READERS: usize = 1_000;

/// The newest page, by both of them and in either order of the names; how many reads of the views it took, and how many
/// pages it was.
async fn read_at_once(users: &[User; 2], limit: usize, operations: &Client) -> (u64, u64, Vec<Answer>) {
    let figures = async || {
        let sum = figure(operations, "page_store_reads_sum").await;
        (sum, figure(operations, "page_store_reads_count").await)
    };
    let before = figures().await;
    let requests = AtomicUsize::new(0);
    let answers = crate::at_once(READERS, || {
        let own = requests.fetch_add(1, Ordering::Relaxed) % 2;
        let (user, peer) = (&users[own], &users[1 - own]);
        let path = format!("/messages?sender={}&recipient={}&limit={limit}", user.name, peer.name);
        user.get(&path).once()
    })
    .await;
    let after = figures().await;
    (after.0 - before.0, after.1 - before.1, answers)
}
