//! Projectors that are started, ended and killed over and over under load: at the end the views are what the log is,
//! and the log is what was acknowledged.

use e2e::traffic::{Pair, Sent, Traffic, assert_all_visible};
use e2e::{Role, Shape, Sum, TestApp, User, new_id};
use serde_json::Value;

e2e::real_scenarios!(projectors_one_four_one_ten_times_and_a_hundred_kills);

const ROUNDS: u64 = 10;
const KILLS_PER_ROUND: u64 = 10;
const PROJECTORS: u64 = 4;

/// A linear congruential generator (Knuth's MMIX numbers).
struct Random(u64);

impl Random {
    /// Another one each time; it is told, so that a failure can be had again.
    fn new() -> Self {
        let seed = new_id().0.random() as u64;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn projector(number: u64) -> String {
    format!("projector-{number}")
}

async fn projectors_one_four_one_ten_times_and_a_hundred_kills() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let users = app.users(11).await;
    let (pairs, mut random) = (Pair::of(&users, 50), Random::new());
    let traffic = Traffic::start(&pairs, 8).await;
    for round in 0..ROUNDS {
        for number in 2..=PROJECTORS {
            match round {
                0 => assert_eq!(app.processes().start_one_more(Role::Projector).await, projector(number)),
                _ => app.processes().start_again(&projector(number)).await,
            }
        }
        // Read, write, acknowledgement, takeover, start: a kill meets any of them.
        for _ in 0..KILLS_PER_ROUND {
            traffic.go_on_for(1 + random.below(60) as usize).await;
            let victim = projector(1 + random.below(PROJECTORS));
            app.processes().kill(&victim).await;
            app.processes().start_again(&victim).await;
        }
        for number in 2..=PROJECTORS {
            app.processes().ready(&projector(number)).await;
            app.processes().terminate(&projector(number)).await;
        }
    }
    let sent = traffic.end().await;
    assert!(sent.len() as u64 > ROUNDS * KILLS_PER_ROUND, "{} were sent", sent.len());
    assert_all_visible(&pairs, &sent).await;
    assert_views_equal_the_log(&app, &pairs, &sent).await;
    for user in &users {
        assert_inbox(user, &pairs, &sent).await;
    }
    app.finish().await;
}

/// Count, head and digest of each conversation: as acknowledged, as a fold over the entries of the log, which shares
/// nothing with the projection, and as clients read it.
async fn assert_views_equal_the_log(app: &TestApp, pairs: &[Pair], sent: &[Sent]) {
    let mut stored = app.processes().stored().await;
    for (number, Pair { sender, recipient }) in pairs.iter().enumerate() {
        let mut messages: Vec<_> =
            sent.iter().filter(|sent| sent.pair == number).map(|sent| sent.message.clone()).collect();
        messages.sort_by_key(|message| message["seq"].as_u64());
        let mut names = [sender.name.as_str(), recipient.name.as_str()];
        names.sort_unstable();
        let name = names.join(":");
        let in_log = stored.remove(&name).unwrap_or_default();
        let shown = Sum::of(&recipient.conversation(sender).await);
        assert_eq!((in_log, shown), (Sum::of(&messages), in_log), "{name}");
    }
    assert!(stored.is_empty(), "the log holds more: {:?}", stored.keys());
}

/// Of each conversation of the user the last message, and how much is unread.
async fn assert_inbox(user: &User, pairs: &[Pair], sent: &[Sent]) {
    let rows = user.fresh("/conversations?limit=100").await.items();
    for (number, Pair { sender, recipient }) in pairs.iter().enumerate() {
        let (peer, unread_of) = match &user.name {
            name if *name == sender.name => (&recipient.name, 0),
            name if *name == recipient.name => (&sender.name, 1),
            _ => continue,
        };
        let of_pair = sent.iter().filter(|sent| sent.pair == number).map(|sent| &sent.message);
        let Some(last) = of_pair.max_by_key(|message| message["seq"].as_u64()) else { continue };
        let row = rows.iter().find(|row| row["peer"] == *peer).expect("the conversation is listed");
        let unread = Value::from(unread_of * last["seq"].as_u64().expect("a number"));
        assert_eq!((&row["last"], &row["unread"]), (last, &unread), "{} and {peer}", user.name);
    }
}
