//! What every [`RateLimits`] does, and what [`Limits`] make of it. Time goes by while a test runs, so what is asserted of
//! waits is a little less than the whole.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use shared::limits::{LOGIN_DELAY_MAX, LOGIN_FAILURES_FREE, LOGIN_FAILURES_REMEMBERED};
use shared::network::Network;
use shared::ports::{RateLimits, StoreError};
use shared::process::config::LimitOptions;
use shared::process::limits::{LimitMetrics, Limits};
use shared::process::problem::Code;
use shared::rate::{Counted, LoginKey, Rate, Taken, Unit, login_delay};
use tokio::task::JoinSet;

use super::{LogStores, name};

/// Nothing comes back while a test runs: six minutes from one permit to the next.
const SLOW: Rate = Rate::new(10, Unit::Hour, 10);
const SPACING: Duration = Duration::from_secs(360);
/// Longer than a test's calls take.
const MOMENT: Duration = Duration::from_secs(20);

pub async fn a_burst_is_granted_and_then_what_comes_back(stores: LogStores) {
    let samer = sends("samer");
    assert_eq!(take(&stores, &samer, 4).await, Taken { granted: 4, remaining: 6, next: Duration::ZERO });
    let last = take(&stores, &samer, 6).await;
    assert_eq!((last.granted, last.remaining), (6, 0));
    assert_next(last, SPACING);
    let refused = take(&stores, &samer, 1).await;
    assert_eq!((refused.granted, refused.remaining), (0, 0));
    assert_next(refused, SPACING);

    (stores.age_limits)(SPACING / 2).await;
    let refused = take(&stores, &samer, 1).await;
    assert_eq!(refused.granted, 0, "half the time is not enough");
    assert_next(refused, SPACING / 2);
    (stores.age_limits)(refused.next).await;
    assert_eq!(take(&stores, &samer, 5).await.granted, 1, "what it said was true");
    (stores.age_limits)(SPACING * 3).await;
    assert_eq!(take(&stores, &samer, 5).await.granted, 3);
    (stores.age_limits)(SPACING * 10).await;
    assert_eq!(take(&stores, &samer, 1).await, Taken { granted: 1, remaining: 9, next: Duration::ZERO });
}

pub async fn what_is_taken_is_at_most_what_is_free(stores: LogStores) {
    let samer = sends("samer");
    assert_eq!(take(&stores, &samer, 7).await.granted, 7);
    let rest = take(&stores, &samer, 7).await;
    assert_eq!((rest.granted, rest.remaining), (3, 0));
    assert_next(rest, SPACING);
    assert_eq!(take(&stores, &sends("lena"), 1_000).await.granted, 10, "all at once");
}

pub async fn subjects_have_permits_of_their_own(stores: LogStores) {
    let subjects = [
        sends("samer"),
        sends("lena"),
        Counted::Logins(client("10.0.0.1")),
        Counted::Logins(client("10.0.0.2")),
        Counted::Logins(client("2001:db8::1")),
        Counted::Registrations(client("10.0.0.1")),
        Counted::Registrations(client("2001:db8:0:1::1")),
    ];
    for subject in &subjects {
        assert_eq!(take(&stores, subject, 10).await.granted, 10, "{subject}");
    }
    for subject in &subjects {
        assert_eq!(take(&stores, subject, 1).await.granted, 0, "{subject}");
    }
    let neighbour = Counted::Logins(client("2001:db8::2"));
    assert_eq!(take(&stores, &neighbour, 1).await.granted, 0, "a /64 is one client");
}

pub async fn of_many_takers_at_once_no_more_are_granted_than_there_are(stores: LogStores) {
    let mut takers = JoinSet::new();
    for _ in 0..50 {
        let limits = Arc::clone(&stores.limits);
        takers.spawn(async move { limits.take(&sends("samer"), SLOW, 1).await.expect("take").granted });
    }
    assert_eq!(takers.join_all().await.into_iter().sum::<u32>(), 10);
}

pub async fn another_rate_holds_at_once(stores: LogStores) {
    let samer = sends("samer");
    assert_eq!(take(&stores, &samer, 10).await.granted, 10);
    // What the slow rate has left behind is an hour away; the fast one lets nobody wait for so long.
    let fast = Rate::new(1, Unit::Minute, 2);
    let refused = stores.limits.take(&samer, fast, 1).await.expect("take");
    assert_eq!(refused.granted, 0);
    assert!(refused.next <= Duration::from_secs(60), "{refused:?}");
}

pub async fn a_rate_of_microseconds_counts_too(stores: LogStores) {
    let fastest = Rate::new(1_000_000, Unit::Second, 1_000_000);
    let taken = stores.limits.take(&sends("samer"), fastest, 1_000_000).await.expect("take");
    assert_eq!((taken.granted, taken.remaining), (1_000_000, 0));
    (stores.age_limits)(Duration::from_millis(500)).await;
    let granted = stores.limits.take(&sends("samer"), fastest, 1_000_000).await.expect("take").granted;
    assert!(granted >= 500_000, "{granted}");
}

pub async fn failures_make_the_next_login_wait(stores: LogStores) {
    let login = LoginKey::new("samer", client("10.0.0.1"));
    for _ in 0..LOGIN_FAILURES_FREE {
        assert_eq!(try_login(&stores, login).await, Duration::ZERO);
    }
    for failures in LOGIN_FAILURES_FREE..LOGIN_FAILURES_FREE + 9 {
        let expected = login_delay(failures);
        for _ in 0..2 {
            let wait = try_login(&stores, login).await;
            let least = expected.saturating_sub(MOMENT).max(Duration::from_millis(1));
            assert!(
                wait <= expected && wait >= least,
                "{wait:?} after {failures} failures, not {expected:?}"
            );
        }
        for other in [LoginKey::new("samer", client("10.0.0.2")), LoginKey::new("lena", client("10.0.0.1"))] {
            assert_eq!(try_login(&stores, other).await, Duration::ZERO, "not for others");
            stores.limits.forget_failures(&other).await.expect("forget");
        }
        (stores.age_limits)(expected).await;
        assert_eq!(try_login(&stores, login).await, Duration::ZERO, "the wait is over; this fails too");
    }
    assert!(try_login(&stores, login).await > LOGIN_DELAY_MAX - MOMENT);
}

pub async fn a_success_forgets_the_failures(stores: LogStores) {
    let login = LoginKey::new("samer", client("10.0.0.1"));
    stores.limits.forget_failures(&login).await.expect("none is no error");
    for _ in 0..LOGIN_FAILURES_FREE {
        try_login(&stores, login).await;
    }
    assert!(try_login(&stores, login).await > Duration::ZERO);
    stores.limits.forget_failures(&login).await.expect("forget");
    for _ in 0..LOGIN_FAILURES_FREE {
        assert_eq!(try_login(&stores, login).await, Duration::ZERO, "as if nothing had been");
    }
}

pub async fn failures_are_forgotten_in_time(stores: LogStores) {
    let login = LoginKey::new("samer", client("10.0.0.1"));
    for _ in 0..LOGIN_FAILURES_FREE - 1 {
        try_login(&stores, login).await;
    }
    (stores.age_limits)(LOGIN_FAILURES_REMEMBERED - MOMENT).await;
    assert_eq!(try_login(&stores, login).await, Duration::ZERO, "the tenth");
    assert!(try_login(&stores, login).await > Duration::ZERO, "the others are remembered still");
    (stores.age_limits)(LOGIN_FAILURES_REMEMBERED).await;
    for _ in 0..LOGIN_FAILURES_FREE {
        assert_eq!(try_login(&stores, login).await, Duration::ZERO);
    }
}

pub async fn of_many_logins_at_once_few_are_tried(stores: LogStores) {
    let mut logins = JoinSet::new();
    for _ in 0..50 {
        let limits = Arc::clone(&stores.limits);
        let login = LoginKey::new("samer", client("10.0.0.1"));
        logins.spawn(async move { limits.try_login(&login).await.expect("try") });
    }
    let tried = logins.join_all().await.into_iter().filter(Duration::is_zero).count();
    assert_eq!(tried, LOGIN_FAILURES_FREE as usize);
}

/// Two instances, and as many requests as both can make.
pub async fn instances_share_a_limit_up_to_their_leases(stores: LogStores) {
    const BURST: u32 = 40;
    const BLOCK: u32 = 10;
    let options =
        LimitOptions { send_limit: Rate::new(BURST, Unit::Second, BURST), ..LimitOptions::default() };
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let limits = Limits::new(&options, Arc::clone(&stores.limits), &LimitMetrics::default());
        for _ in 0..4 {
            let limits = limits.clone();
            clients.spawn(async move {
                let mut sent = 0;
                for _ in 0..100 {
                    match limits.send(&name("samer")).await {
                        Ok(_) => sent += 1,
                        Err(problem) => assert_eq!(problem.code, Code::RateLimited),
                    }
                }
                sent
            });
        }
    }
    let sent: u32 = clients.join_all().await.into_iter().sum();
    let came_back = f64::from(BURST) * begun.elapsed().as_secs_f64();
    let most = f64::from(BURST + 2 * BLOCK) + came_back;
    assert!(sent >= BURST && f64::from(sent) <= most, "{sent} sends, at most {most}");
}

pub async fn requests_that_find_no_lease_share_one_call(stores: LogStores) {
    let store = Arc::new(Watched { store: stores.limits, takes: AtomicU32::new(0) });
    let options = LimitOptions { send_limit: Rate::new(500, Unit::Second, 500), ..LimitOptions::default() };
    let limits = Limits::new(&options, store.clone(), &LimitMetrics::default());
    let mut clients = JoinSet::new();
    for _ in 0..125 {
        let limits = limits.clone();
        clients.spawn(async move { limits.send(&name("samer")).await.is_ok() });
    }
    assert!(clients.join_all().await.into_iter().all(|sent| sent));
    assert_eq!(store.takes.load(Ordering::SeqCst), 1, "a quarter of the burst is one block");
    assert!(limits.send(&name("samer")).await.is_ok(), "there are more");
    assert_eq!(store.takes.load(Ordering::SeqCst), 2, "the block is used up");
}

pub async fn logins_are_exact_over_instances(stores: LogStores) {
    let address: IpAddr = "10.0.0.1".parse().expect("an address");
    let mut clients = JoinSet::new();
    for _ in 0..5 {
        let options = LimitOptions { login_limit: SLOW, ..LimitOptions::default() };
        let limits = Limits::new(&options, Arc::clone(&stores.limits), &LimitMetrics::default());
        for _ in 0..10 {
            let limits = limits.clone();
            clients.spawn(async move { limits.log_in(address).await.is_ok() });
        }
    }
    assert_eq!(clients.join_all().await.into_iter().filter(|tried| *tried).count(), 10);
}

/// The store under test, with a count of what it is asked.
struct Watched {
    store: Arc<dyn RateLimits>,
    takes: AtomicU32,
}

#[async_trait]
impl RateLimits for Watched {
    async fn take(&self, counted: &Counted, rate: Rate, wanted: u32) -> Result<Taken, StoreError> {
        self.takes.fetch_add(1, Ordering::SeqCst);
        self.store.take(counted, rate, wanted).await
    }

    async fn try_login(&self, login: &LoginKey) -> Result<Duration, StoreError> {
        self.store.try_login(login).await
    }

    async fn forget_failures(&self, login: &LoginKey) -> Result<(), StoreError> {
        self.store.forget_failures(login).await
    }
}

fn sends(user: &str) -> Counted {
    Counted::Sends(name(user))
}

fn client(address: &str) -> Network {
    let address: IpAddr = address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Network::of_client(address)
}

async fn take(stores: &LogStores, counted: &Counted, wanted: u32) -> Taken {
    stores.limits.take(counted, SLOW, wanted).await.expect("take")
}

#[track_caller]
fn assert_next(taken: Taken, whole: Duration) {
    assert!(taken.next <= whole && taken.next > whole - MOMENT, "{taken:?}, not {whole:?}");
}

async fn try_login(stores: &LogStores, login: LoginKey) -> Duration {
    stores.limits.try_login(&login).await.expect("try")
}
