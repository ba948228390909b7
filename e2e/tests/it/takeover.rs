//! Who holds what was read and not yet written: a projector that is killed or stopped is taken over from in time,
//! one that is slow is not, and one that is told to end leaves nothing behind. Rows of docs/faults.md, and its
//! promise P5.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{Proxy, Shape, TestApp, User, eventually, within};

e2e::real_scenarios!(
    projectors_killed_while_they_hold_events,
    a_projector_stopped_while_it_holds_events,
    a_projector_slow_for_longer_than_the_takeover,
    sigterm_to_a_projector_under_load,
    sigterm_to_a_projector_that_waits_for_cassandra,
);

const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);
const TAKEN_OVER_FROM_STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// Any of a dozen consumers may be the next to read, and each message costs a look at all of them.
const HELD_WITHIN: Duration = Duration::from_secs(90);

const HEIR: &str = "projector-1";
/// The first of those that reach Cassandra through the proxy.
const HOLDER: &str = "projector-2";
/// What the heir writes when it takes over.
const TOOK_OVER: &str = "took over what a silent consumer held";

/// A system in which, while the wire is stalled, all projectors but one write nothing of what they have read.
struct System {
    app: TestApp,
    proxy: Proxy,
    holders: Vec<String>,
    samer: User,
    lena: User,
    sent: u64,
}

impl System {
    async fn start() -> Self {
        Self::with_holders(1).await
    }

    async fn with_holders(count: usize) -> Self {
        let node = e2e::environment::cassandra_node().parse().expect("an address");
        let proxy = Proxy::start(node).await;
        let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
        let mut holders = Vec::new();
        for _ in 0..count {
            holders.push(app.processes().start_projector_on(proxy.address()).await);
        }
        assert_eq!(holders[0], HOLDER);
        let (samer, lena) = (app.register("samer").await, app.register("lena").await);
        Self { app, proxy, holders, samer, lena, sent: 0 }
    }

    /// Sends until each holder, which is cut off from Cassandra, has read some of it. Returns how much the first has.
    async fn let_them_hold(&mut self) -> u64 {
        eventually("nobody holds anything", async || {
            let standing = self.app.standing().await;
            (standing.pending == 0).then_some(())
        })
        .await;
        self.proxy.stall();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < HELD_WITHIN, "some holder reads nothing");
            self.sent += 1;
            assert_eq!(self.samer.send(&self.lena, "hi").await["seq"], self.sent);
            let consumers = consumers(&self.app).await;
            let held = |name: &String| consumers.get(name).map_or(0, |consumer| consumer.pending);
            if self.holders.iter().all(|name| held(name) > 0) {
                return held(&self.holders[0]);
            }
        }
    }

    /// Everything that was sent is shown, and nothing else.
    async fn is_whole(&self) -> bool {
        let page = self.lena.get_page(&self.samer, "limit=1").once().await;
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

/// All consumers of one projector.
#[derive(Default)]
struct Consumer {
    applied: u64,
    pending: u64,
}

/// What `projector status` says, by projector.
async fn consumers(app: &TestApp) -> BTreeMap<String, Consumer> {
    let status = app.processes().status().await;
    let consumers = status["generations"][0]["consumers"].as_array().expect("consumers");
    let mut projectors = BTreeMap::<String, Consumer>::new();
    for consumer in consumers {
        let (name, number) = (consumer["name"].as_str().expect("a name"), |key: &str| consumer[key].as_u64());
        // A projector may have several, as NAME/N.
        let projector = name.split('/').next().expect("the first part");
        let sum = projectors.entry(projector.to_owned()).or_default();
        sum.applied += number("applied").expect("a number");
        sum.pending += number("pending").expect("a number");
    }
    projectors
}

async fn consumer(app: &TestApp, name: &str) -> Consumer {
    consumers(app).await.remove(name).expect("it is listed")
}

/// Twenty times in all: in each round one heir takes over from five at once.
async fn projectors_killed_while_they_hold_events() {
    const ROUNDS: usize = 4;
    const HOLDERS: usize = 5;
    let mut system = System::with_holders(HOLDERS).await;
    for _ in 0..ROUNDS {
        system.let_them_hold().await;
        assert!(!system.is_whole().await);
        for holder in &system.holders {
            system.app.processes().kill(holder).await;
        }
        system.whole_within(TAKEN_OVER_WITHIN).await;
        // What the dead ones had sent arrives late.
        system.proxy.resume();
        for holder in &system.holders {
            system.app.processes().start_again(holder).await;
        }
        for holder in &system.holders {
            system.app.processes().ready(holder).await;
        }
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
    system.let_them_hold().await;
    assert!(!system.is_whole().await);
    system.app.processes().pause(HOLDER).await;
    system.whole_within(TAKEN_OVER_FROM_STOPPED_WITHIN).await;
    assert!(system.heir_wrote(TOOK_OVER).await);
    let shown = system.lena.conversation(&system.samer).await;
    let listed = system.lena.conversations().await;

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
    assert_eq!(system.lena.conversations().await, listed);
    system.app.finish().await;
}

async fn a_projector_slow_for_longer_than_the_takeover() {
    let mut system = System::start().await;
    let held = system.let_them_hold().await;
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
    system.let_them_hold().await;
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
