//! `min_seq`: who has sent a message sees it, or is told that it cannot be seen yet.

use std::time::Duration;

use e2e::{Answer, TestApp, User, seqs};
use tokio::time::sleep;

e2e::scenarios!(
    a_client_reads_its_own_write,
    what_is_not_visible_in_time_is_said_so,
    a_message_that_comes_meanwhile_ends_the_wait,
    min_seq_is_settled_first,
);

async fn page(user: &User, peer: &User, query: &str, prefer: Option<&str>) -> Answer {
    let path = format!("/messages?sender={}&recipient={}&{query}", user.name, peer.name);
    let request = user.get(&path);
    match prefer {
        Some(prefer) => request.header("prefer", prefer).send().await,
        None => request.send().await,
    }
}

async fn a_client_reads_its_own_write(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=30_u64 {
        let (from, to) = if n.is_multiple_of(2) { (&samer, &lena) } else { (&lena, &samer) };
        let sent = from.send(to, &format!("message {n}")).await;
        let page = page(from, to, &format!("limit=5&min_seq={n}"), None).await.expect(200);
        assert_eq!(page.items().last(), Some(&sent), "{page:?}");
        assert_eq!(page.header("chat-behind"), None);
    }
    // A page that does not hold it is shown as it is, once it can be seen elsewhere.
    for (query, shown) in [
        ("limit=5&min_seq=1", 26..=30),
        ("limit=5&before=4&min_seq=30", 1..=3),
        ("limit=5&after=10&min_seq=30", 11..=15),
        ("limit=5&after=10&min_seq=3", 11..=15),
    ] {
        let page = page(&samer, &lena, query, None).await.expect(200);
        assert_eq!(seqs(&page.items()), shown.collect::<Vec<_>>(), "{query}");
    }
}

async fn what_is_not_visible_in_time_is_said_so(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    page(&samer, &lena, "min_seq=1", None).await.expect(200);
    let second = Duration::from_secs(1);
    // nginx asks another instance while there is time, and a machine may be busy.
    let late = |answer: &Answer, wait: Duration| {
        assert!((wait..2 * wait + 2 * second).contains(&answer.took), "{wait:?}: {answer:?}");
        answer.expect_problem(503, "not_yet_visible");
    };
    let expect = async |query: &str, prefer: Option<&str>, wait| {
        late(&page(&samer, &lena, query, prefer).await, wait);
    };
    tokio::join!(
        expect("min_seq=2", None, 2 * second),
        expect("min_seq=18446744073709551615", None, 2 * second),
        expect("min_seq=2&before=2", None, 2 * second),
        expect("min_seq=2", Some("wait=0"), Duration::ZERO),
        expect("min_seq=2", Some("respond-async, Wait=1"), second),
        expect("min_seq=2", Some("wait=3"), 3 * second),
        expect("min_seq=2", Some("wait=99"), 8 * second),
        expect("min_seq=2", Some("wait=soon"), 2 * second),
        expect("min_seq=2", Some("wait=-1"), 2 * second),
    );
    for query in ["min_seq=0", "min_seq=x", "min_seq=", "min_seq=1&min_seq=1", "min_seq=18446744073709551616"]
    {
        page(&samer, &lena, query, None).await.expect_problem(400, "invalid_request");
    }
    let tarek = app.register("tarek").await;
    let foreign = "/messages?sender=samer&recipient=lena&min_seq=9";
    tarek.get(foreign).send().await.expect_problem(403, "not_a_member");
    app.get(foreign).send().await.expect_problem(401, "unauthenticated");
    let nothing = page(&samer, &tarek, "min_seq=1", Some("wait=0")).await;
    nothing.expect_problem(503, "not_yet_visible");
}

async fn a_message_that_comes_meanwhile_ends_the_wait(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let pause = Duration::from_millis(500);
    for seq in [1, 2] {
        let waiting = page(&lena, &samer, if seq == 1 { "min_seq=1" } else { "min_seq=2" }, Some("wait=8"));
        let (answer, sent) = tokio::join!(waiting, async {
            sleep(pause).await;
            samer.send(&lena, "at last").await
        });
        let answer = answer.expect(200);
        assert_eq!(answer.items().last(), Some(&sent), "{answer:?}");
        assert!((pause..Duration::from_secs(6)).contains(&answer.took), "{answer:?}");
    }
}

async fn min_seq_is_settled_first(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    let known = page(&samer, &lena, "min_seq=1", None).await.expect(200);
    let etag = known.header("etag").unwrap().to_owned();
    let ask = async |min_seq: u64, tags: &str| {
        let path = format!("/messages?sender=samer&recipient=lena&min_seq={min_seq}");
        samer.get(&path).header("if-none-match", tags).header("prefer", "wait=0").send().await
    };
    ask(1, &etag).await.expect(304);
    ask(2, &etag).await.expect_problem(503, "not_yet_visible");
    ask(2, "*").await.expect_problem(503, "not_yet_visible");
}
