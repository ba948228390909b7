//! Streams over restarts of every part while others send: nothing acknowledged is left untold, and each conversation
//! is told in its order.

use std::time::{Duration, Instant};

use e2e::traffic::{Pair, Sent, Traffic, assert_all_visible};
use e2e::{Follower, Proxy, Shape, TestApp, User, eventually, within};
use serde_json::Value;

use crate::outage::{own_redis, start};

e2e::real_scenarios!(
    streams_over_restarts_of_apis_and_edge,
    streams_while_redis_is_away,
    streams_go_on_behind_restarts_of_the_stores,
    streams_go_on_without_projectors,
    a_stream_ends_with_its_instance,
);

/// Each user, and what he is told from now on.
async fn followers(users: &[User]) -> Vec<(User, Follower)> {
    let mut followers = Vec::new();
    for user in users {
        followers.push((user.clone(), Follower::start(user).await));
    }
    followers
}

/// Each has been told every message of his, in order. How often they came back.
async fn assert_all_told(followers: Vec<(User, Follower)>, pairs: &[Pair], sent: &[Sent]) -> usize {
    let mut resumed = 0;
    for (user, follower) in followers {
        let his = |pair: &Pair| [&pair.sender.name, &pair.recipient.name].contains(&&user.name);
        for (number, pair) in pairs.iter().enumerate().filter(|(_, pair)| his(pair)) {
            let mut expected: Vec<Value> =
                sent.iter().filter(|sent| sent.pair == number).map(|sent| sent.message.clone()).collect();
            expected.sort_by_key(|message| message["seq"].as_u64());
            let what =
                format!("{} is told of {} messages to {}", user.name, expected.len(), pair.recipient.name);
            let told = eventually(&what, async || {
                let told = follower.so_far().await.conversation(&pair.sender, &pair.recipient);
                (told.len() >= expected.len()).then_some(told)
            });
            assert_eq!(told.await, expected, "{what}");
        }
        resumed += follower.end().await.resumed;
    }
    resumed
}

async fn streams_over_restarts_of_apis_and_edge() {
    let app = TestApp::real(Shape::default()).await;
    let users = app.users(5).await;
    let pairs = Pair::of(&users, 10);
    let followers = followers(&users).await;
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(100).await;
    for name in ["query-api-1", "query-api-2"] {
        app.processes().kill(name).await;
        traffic.go_on_for(100).await;
        app.processes().restart(name).await;
        traffic.go_on_for(50).await;
        app.processes().terminate(name).await;
        traffic.go_on_for(50).await;
        app.processes().restart(name).await;
    }
    app.processes().restart_nginx().await;
    traffic.go_on_for(100).await;
    for name in ["command-api-1", "projector-1"] {
        app.processes().terminate(name).await;
        traffic.go_on_for(50).await;
        app.processes().restart(name).await;
    }
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let resumed = assert_all_told(followers, &pairs, &sent).await;
    assert!(resumed >= 2 * users.len(), "only {resumed} streams were broken: the faults did not meet them");
    app.finish().await;
}

/// Open streams stay open; one of a session seen a moment ago is opened meanwhile.
async fn streams_while_redis_is_away() {
    let (mut redis, options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let users = app.users(5).await;
    let pairs = Pair::of(&users, 10);
    let followers = followers(&users).await;
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(150).await;
    for _ in 0..2 {
        redis.kill().expect("it runs");
        // Longer than anybody waits for an answer.
        tokio::time::sleep(Duration::from_secs(1)).await;
        redis = start(options.clone()).await;
        traffic.go_on_for(150).await;
    }
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let resumed = assert_all_told(followers, &pairs, &sent).await;
    assert_eq!(resumed, 0, "streams stay open while the log is away");
    app.finish().await;
}

/// Ids from before a restart of Redis are brought to a query-api that was started after it. Live events ask no views.
async fn streams_go_on_behind_restarts_of_the_stores() {
    let (mut redis, options, _dir) = own_redis().await;
    let node = e2e::environment::cassandra_node().parse().expect("an address");
    let proxy = Proxy::start(node).await;
    let cassandra_node = Some(proxy.address().to_string());
    let shape = Shape { redis_url: Some(redis.url()), cassandra_node, query_apis: 1, ..Shape::default() };
    let app = TestApp::real(shape).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let users = app.users(4).await;
    let pairs = Pair::of(&users, 6);
    let followers = followers(&users).await;
    let traffic = Traffic::start(&pairs, 6).await;
    traffic.go_on_for(100).await;
    redis.kill().expect("it runs");
    app.processes().kill("query-api-1").await;
    let _redis = start(options).await;
    traffic.go_on_for(50).await;
    app.processes().restart("query-api-1").await;
    traffic.go_on_for(100).await;

    let mut of_lena = lena.events().await;
    proxy.cut();
    let sent = samer.send(&lena, "while Cassandra is away").await;
    assert_eq!(of_lena.messages(1).await, [sent]);
    traffic.go_on_for(50).await;
    proxy.resume();
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let resumed = assert_all_told(followers, &pairs, &sent).await;
    assert!(resumed >= users.len(), "only {resumed} streams were broken: the faults did not meet them");
    app.finish().await;
}

async fn streams_go_on_without_projectors() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    app.processes().kill("projector-1").await;
    let mut of_lena = lena.events().await;
    for n in 1..=20 {
        let begun = Instant::now();
        let sent = samer.send(&lena, &format!("message {n}")).await;
        assert_eq!(of_lena.messages(1).await, [sent], "{:?}", begun.elapsed());
    }
    app.processes().restart("projector-1").await;
    app.finish().await;
}

/// In good order and soon, so that its reader comes back to another one; whoever comes to this one then is sent away.
async fn a_stream_ends_with_its_instance() {
    let app = TestApp::real(Shape { projectors: 1, query_apis: 1, ..Shape::default() }).await;
    let samer = app.register("samer").await;
    let door = app.processes().direct("query-api-1").await;
    let mut events = samer.at(&door).events().await;
    let mut through_nginx = samer.events().await;
    let begun = Instant::now();
    let bound = Duration::from_secs(5);
    tokio::join!(app.processes().terminate("query-api-1"), async {
        assert_eq!(events.ended(bound).await, []);
        assert_eq!(through_nginx.ended(bound).await, []);
    });
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    samer.get("/events").once().await.expect_problem(503, "unavailable");
    app.processes().restart("query-api-1").await;
    within(bound, "streams are open again", async || {
        (samer.get("/events").open().await.ok()?.status == 200).then_some(())
    })
    .await;
    app.finish().await;
}
