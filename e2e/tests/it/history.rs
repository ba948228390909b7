//! Readers beside writers, while projectors and query-apis are killed: no hole, nothing stale that does not say so,
//! nothing missing at the end, and a walk meets every message that was there exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::traffic::{AcknowledgedHeads, Pair, Traffic, assert_all_visible};
use e2e::{Answer, Backend, TestApp, User, seqs};
use shared::Clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

e2e::scenarios!(readers_see_what_was_acknowledged);

#[cfg(feature = "real")]
e2e::real_scenarios!(readers_see_what_was_acknowledged_over_generations);

const CLIENTS: usize = 16;
const CALM: Duration = Duration::from_secs(4);
const KILLS: u128 = 6;
/// How long one that was killed stays away.
const AWAY: Duration = Duration::from_millis(700);

/// What the readers met.
#[derive(Default)]
struct Met {
    fresh: AtomicUsize,
    behind: AtomicUsize,
    own: AtomicUsize,
    walks: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Clone)]
struct Reader {
    pairs: Arc<[Pair]>,
    heads: AcknowledgedHeads,
    met: Arc<Met>,
    end: CancellationToken,
}

async fn readers_see_what_was_acknowledged(app: &TestApp) {
    let Shown { pages, behind, refused } = readers_see(app, CLIENTS, disturb(app)).await;
    assert!(refused * 4 < pages, "{refused} refused beside {pages} shown");
    assert!(app.backend() == Backend::Embedded || behind > 0, "nobody read while no projector ran");
}

/// While another generation is built, served, and served back; what a busy machine refuses by itself is little.
#[cfg(feature = "real")]
async fn readers_see_what_was_acknowledged_over_generations() {
    let app = TestApp::start(Backend::Real).await;
    let switch = async {
        for command in [&["rebuild"][..], &["serve", "2"], &["serve", "1"], &["serve", "2"], &["drop", "1"]] {
            let output = app.processes().projector(command).await;
            assert!(output.status.success(), "{command:?}: {output:?}");
            tokio::time::sleep(AWAY).await;
        }
    };
    let Shown { pages, refused, .. } = readers_see(&app, CLIENTS / 2, switch).await;
    assert!(refused * 20 < pages, "{refused} refused beside {pages} shown");
    app.finish().await;
}

/// How many pages were shown and refused.
struct Shown {
    pages: usize,
    /// Those among them that say how much they lack.
    behind: usize,
    refused: usize,
}

async fn readers_see(app: &TestApp, clients: usize, meanwhile: impl Future<Output = ()>) -> Shown {
    let pairs: Arc<[Pair]> = Pair::of(&app.users(6).await, 8).into();
    let traffic = Traffic::start(&pairs, clients).await;
    traffic.go_on_for(200).await;
    let reader = Reader {
        pairs: pairs.clone(),
        heads: traffic.heads(),
        met: Arc::default(),
        end: CancellationToken::new(),
    };
    let mut readers = JoinSet::new();
    for number in 0..clients {
        let reader = reader.clone();
        readers.spawn(async move { reader.run(number).await });
    }
    meanwhile.await;
    traffic.go_on_for(50).await;
    reader.end.cancel();
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader met what must not be");
    }
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let Met { fresh, behind, own, walks, refused } = &*reader.met;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    eprintln!(
        "{} sent; fresh {fresh:?}, behind {behind:?}, min_seq {own:?}, walks {walks:?}, refused {refused:?}",
        sent.len()
    );
    // A slow machine reads less; one that reads next to nothing shows nothing.
    assert!(count(fresh) > 30 && count(own) > 30 && count(walks) > 5, "too few reads");
    let pages = count(fresh) + count(behind) + count(own);
    Shown { pages, behind: count(behind), refused: count(refused) }
}

/// On the real backend all projectors at once, then one process after the other, in no order.
async fn disturb(app: &TestApp) {
    if app.backend() == Backend::Embedded {
        tokio::time::sleep(CALM).await;
        return;
    }
    let names = ["projector-1", "query-api-1", "projector-2", "query-api-2"];
    take_away(app, &["projector-1", "projector-2"]).await;
    let random = Clock::system().new_id().0.random();
    for kill in 0..KILLS {
        let name = names[usize::try_from((random >> (2 * kill)) % 4).expect("one of four")];
        take_away(app, &[name]).await;
    }
}

/// Kills them, and lets some time pass with them and without.
async fn take_away(app: &TestApp, names: &[&str]) {
    eprintln!("killed: {names:?}");
    for name in names {
        app.processes().kill(name).await;
    }
    tokio::time::sleep(AWAY).await;
    for name in names {
        app.processes().restart(name).await;
    }
    tokio::time::sleep(AWAY).await;
}

impl Reader {
    async fn run(self, number: usize) {
        for round in 0.. {
            if self.end.is_cancelled() {
                return;
            }
            let pair = (number + round) % self.pairs.len();
            let Pair { sender, recipient } = &self.pairs[pair];
            let (user, peer) = if round % 2 == 0 { (sender, recipient) } else { (recipient, sender) };
            match (number + round / self.pairs.len()) % 3 {
                0 => self.newest(pair, user, peer).await,
                1 => self.own_write(pair, user, peer).await,
                _ => self.walk(pair, user, peer).await,
            }
        }
    }

    async fn newest(&self, pair: usize, user: &User, peer: &User) {
        let acknowledged = self.heads.of(pair);
        let Some(page) = self.page(user, &path(user, peer, "limit=20")).await else { return };
        let last = seqs(&page.items()).last().copied().unwrap_or(0);
        match page.header("chat-behind") {
            None => {
                assert!(last >= acknowledged, "stale, {acknowledged} was acknowledged: {page:?}");
                self.met.fresh.fetch_add(1, Ordering::Relaxed);
            }
            // A busy machine may not tell in time.
            Some("unknown") => drop(self.met.refused.fetch_add(1, Ordering::Relaxed)),
            Some(behind) => {
                let behind: u64 = behind.parse().expect("a number");
                assert!(last + behind >= acknowledged, "{acknowledged} was acknowledged: {page:?}");
                self.met.behind.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn own_write(&self, pair: usize, user: &User, peer: &User) {
        let acknowledged = self.heads.of(pair).max(1);
        let query = format!("limit=20&min_seq={acknowledged}");
        let Some(page) = self.page(user, &path(user, peer, &query)).await else { return };
        let last = seqs(&page.items()).last().copied().unwrap_or(0);
        assert!(last >= acknowledged, "a stale 200 with min_seq={acknowledged}: {page:?}");
        self.met.own.fetch_add(1, Ordering::Relaxed);
    }

    /// From the newest page to the first message.
    async fn walk(&self, pair: usize, user: &User, peer: &User) {
        let acknowledged = self.heads.of(pair);
        let mut next = Some(path(user, peer, &format!("limit=50&min_seq={}", acknowledged.max(1))));
        let mut met = Vec::new();
        let begun = Instant::now();
        while let Some(path) = next.take() {
            let Some(page) = self.page(user, &path).await else {
                // Who was refused asks again.
                assert!(begun.elapsed() < Duration::from_secs(20), "no page for a long time");
                next = Some(path);
                continue;
            };
            if page.header("chat-behind").is_some() && !met.is_empty() {
                next = Some(path);
                continue;
            }
            let shown = seqs(&page.items());
            met.splice(0..0, shown);
            next = page.link("prev");
        }
        let last = met.last().copied().unwrap_or(0);
        assert!(last >= acknowledged, "{acknowledged} was acknowledged, the walk began at {last}");
        assert_eq!(met, (1..=last).collect::<Vec<_>>(), "each exactly once");
        self.met.walks.fetch_add(1, Ordering::Relaxed);
    }

    /// A page without a hole; `None` if it was refused for the time being.
    async fn page(&self, user: &User, path: &str) -> Option<Answer> {
        let answer = user.get(path).once().await;
        if answer.status != 200 {
            assert!(answer.status == 503 || answer.is_of_a_slow_machine(), "{answer:?}");
            answer.expect_problem(answer.status, &answer.problem_code());
            self.met.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let shown = seqs(&answer.items());
        assert!(shown.windows(2).all(|two| two[0] + 1 == two[1]), "a hole: {answer:?}");
        Some(answer)
    }
}

fn path(user: &User, peer: &User, query: &str) -> String {
    format!("/messages?sender={}&recipient={}&{query}", user.name, peer.name)
}
