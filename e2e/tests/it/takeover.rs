//! Who holds what was read and not yet written: a projector that is killed or stopped is taken over from in time,
//! one that is slow is not, and one that is told to end leaves nothing behind. Rows of FAULTS.md, and its promise P5.

use std::time::{Duration, Instant};

use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{Proxy, Shape, TestApp, User, eventually, within};
use serde_json::Value;
use shared::limits::CONSUMERS_PER_PROJECTOR;

e2e::real_scenarios!(
    a_projector_killed_while_it_holds_events,
    a_projector_stopped_while_it_holds_events,
    a_projector_slow_for_longer_than_the_takeover,
    sigterm_to_a_projector_under_load,
    sigterm_to_a_projector_that_waits_for_cassandra,
);

const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);
const TAKEN_OVER_FROM_STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The one that reaches Cassandra through the proxy.
const HOLDER: &str = "projector-2";
const HEIR: &str = "projector-1";
/// What the heir writes when it takes over.
const TOOK_OVER: &str = "took over what a silent consumer held";

/// A system with two projectors: while the wire is stalled, one of them writes nothing of what it has read.
struct System {
    app: TestApp,
    proxy: Proxy,
    samer: User,
    lena: User,
    sent: u64,
}

impl System {
    async fn start() -> Self {
        let node = e2e::environment::cassandra_node().parse().expect("an address");
        let proxy = Proxy::start(node).await;
        let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
        assert_eq!(app.processes().start_projector_on(proxy.address()).await, HOLDER);
        let (samer, lena) = (app.register("samer").await, app.register("lena").await);
        Self { app, proxy, samer, lena, sent: 0 }
    }

    /// Sends until the holder, which is cut off from Cassandra, has read some of it. Returns how much.
    async fn let_it_hold(&mut self) -> u64 {
        eventually("nobody holds anything", async || {
            let standing = self.app.standing().await;
            (standing.pending == 0).then_some(())
        })
        .await;
        self.proxy.stall();
        loop {
            self.sent += 1;
            assert_eq!(self.samer.send(&self.lena, "hi").await["seq"], self.sent);
            match consumer(&self.app, HOLDER).await.pending {
                0 => {}
                held => return held,
            }
        }
    }

    /// Everything that was sent is shown, and nothing else.
    async fn is_whole(&self) -> bool {
        let page = self.lena.page(&self.samer, "limit=1").await;
        page.status == 200
            && page.header("chat-behind").is_none()
            && page.items().last().is_some_and(|last| last["seq"] == self.sent)
    }

    async fn whole_within(&self, bound: Duration) {
        let begun = Instant::now();
        within(bound, "all is shown", async || self.is_whole().await.then_some(())).await;
        eprintln!("all is shown after {:?}", begun.elapsed());
    }

    async fn heir_wrote(&self, text: &str) -> bool {
        self.app.processes().logs().await[HEIR].contains(text)
    }
}

/// Of all consumers of one projector.
struct Consumer {
    applied: u64,
    pending: u64,
}

/// What `projector status` says of one projector.
async fn consumer(app: &TestApp, name: &str) -> Consumer {
    let status = app.processes().status().await;
    let consumers = status["generations"][0]["consumers"].as_array().expect("consumers");
    let own = |consumer: &&Value| consumer["name"].as_str().expect("a name").starts_with(&format!("{name}/"));
    let own: Vec<&Value> = consumers.iter().filter(own).collect();
    assert_eq!(own.len(), CONSUMERS_PER_PROJECTOR, "all are listed: {consumers:?}");
    let sum = |key: &str| own.iter().map(|consumer| consumer[key].as_u64().expect("a number")).sum();
    Consumer { applied: sum("applied"), pending: sum("pending") }
}

async fn a_projector_killed_while_it_holds_events() {
    const ROUNDS: usize = 4;
    let mut system = System::start().await;
    for _ in 0..ROUNDS {
        system.let_it_hold().await;
        assert!(!system.is_whole().await);
        system.app.processes().kill(HOLDER).await;
        system.whole_within(TAKEN_OVER_WITHIN).await;
        // What the dead one had sent arrives late.
        system.proxy.resume();
        system.app.processes().restart(HOLDER).await;
    }
    assert!(system.heir_wrote(TOOK_OVER).await);
    let page = system.app.processes().operations_of(HEIR).await.get("/metrics").send().await.expect(200);
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let claimed = page.lines().find_map(|line| line.strip_prefix("projector_claimed_events_total "));
    assert!(claimed.is_some_and(|events| events.parse::<f64>().unwrap() >= ROUNDS as f64), "{page}");
    system.whole_within(TAKEN_OVER_WITHIN).await;
    system.app.finish().await;
}

/// And when it goes on, its late writes and acknowledgements change nothing.
async fn a_projector_stopped_while_it_holds_events() {
    let mut system = System::start().await;
    system.let_it_hold().await;
    assert!(!system.is_whole().await);
    system.app.processes().pause(HOLDER).await;
    system.whole_within(TAKEN_OVER_FROM_STOPPED_WITHIN).await;
    assert!(system.heir_wrote(TOOK_OVER).await);
    let shown = system.lena.conversation(&system.samer).await;
    let inbox = async || {
        eventually("the inbox can be read", async || {
            let answer = system.lena.get("/conversations").send().await;
            (!answer.is_of_a_slow_machine()).then(|| answer.expect(200).items())
        })
        .await
    };
    let listed = inbox().await;

    let before = consumer(&system.app, HOLDER).await;
    system.proxy.resume();
    system.app.processes().resume(HOLDER).await;
    let others = Pair::of(&system.app.users(6).await, 15);
    let traffic = Traffic::start(&others, 8).await;
    let at_work = async || {
        traffic.go_on_for(20).await;
        (consumer(&system.app, HOLDER).await.applied > before.applied).then_some(())
    };
    within(TAKEN_OVER_FROM_STOPPED_WITHIN, "it works again", at_work).await;
    let sent = traffic.end().await;
    assert_all_visible(&others, &sent).await;
    assert_eq!(system.lena.conversation(&system.samer).await, shown);
    assert_eq!(inbox().await, listed);
    system.app.finish().await;
}

async fn a_projector_slow_for_longer_than_the_takeover() {
    let mut system = System::start().await;
    let held = system.let_it_hold().await;
    let slow_since = Instant::now();
    let applied = consumer(&system.app, HOLDER).await.applied;
    while slow_since.elapsed() < 2 * TAKEN_OVER_WITHIN {
        assert_eq!(consumer(&system.app, HOLDER).await.pending, held, "{:?}", slow_since.elapsed());
        assert!(!system.is_whole().await);
    }
    system.proxy.resume();
    system.whole_within(TAKEN_OVER_WITHIN).await;
    let holder = async || {
        let Consumer { applied, pending } = consumer(&system.app, HOLDER).await;
        (pending == 0).then_some(applied)
    };
    let after = eventually("it has acknowledged", holder).await;
    assert_eq!(after, applied + held, "by who held it");
    assert!(!system.heir_wrote(TOOK_OVER).await);
    system.app.finish().await;
}

async fn sigterm_to_a_projector_under_load() {
    let app = TestApp::real(Shape::default()).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 16).await;
    for _ in 0..6 {
        traffic.go_on_for(50).await;
        app.processes().terminate(HOLDER).await;
        assert_eq!(consumer(&app, HOLDER).await.pending, 0, "it left something behind");
        app.processes().restart(HOLDER).await;
    }
    assert!(consumer(&app, HOLDER).await.applied > 0, "it did nothing");
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let logs = app.processes().logs().await;
    assert!(!logs[HEIR].contains(TOOK_OVER), "{}", logs[HEIR]);
    app.finish().await;
}

/// It has the time to write what it has read.
async fn sigterm_to_a_projector_that_waits_for_cassandra() {
    let mut system = System::start().await;
    system.let_it_hold().await;
    let back_soon = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!system.is_whole().await);
        system.proxy.resume();
    };
    tokio::join!(system.app.processes().terminate(HOLDER), back_soon);
    assert_eq!(consumer(&system.app, HOLDER).await.pending, 0, "it left something behind");
    assert!(system.is_whole().await);
    assert!(!system.heir_wrote(TOOK_OVER).await);
    system.app.finish().await;
}
