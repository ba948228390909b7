//! Puts load on a server from threads of their own and measures a window of it: after a warm-up, until its end.
//! Each thread drives its share of the connections on one single-threaded runtime, which costs the least.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::closed_loop;
use crate::connection::Connection;
use crate::open_loop::{self, Schedule};
use crate::sends::Source;
use crate::tally::Tally;
use crate::usage::{self, Part};

const THREADS_MAX: usize = 2;
/// From the last connection to the first request.
const START_DELAY: Duration = Duration::from_millis(5);
/// How long answers are waited for after the window. What comes later is counted as not answered.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// How much a load that yields gives way: a tenth of the share of a server that wants the same core.
const YIELDING_NICENESS: i32 = 10;

#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) timing: Timing,
    /// Leaves the cores to the servers when they want them, as a client on another machine would.
    pub(crate) yields: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each connection sends its next request when it has the answer to the last.
    Closed,
    /// Requests come due at a fixed rate, whatever became of those before.
    Open { per_second: f64, when_late: WhenLate },
}

/// What becomes of a request that comes due while all connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenLate {
    /// It waits for one; its latency counts from when it was due.
    Wait,
    /// It is given up and counted.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Timing {
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    #[serde(rename = "measured_seconds", serialize_with = "seconds")]
    pub(crate) measured: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What counts lies in `begin..end`; load is there from `start` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: Instant,
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

impl Window {
    fn starting_at(start: Instant, timing: Timing) -> Self {
        let begin = start + timing.warm_up;
        Self { start, begin, end: begin + timing.measured }
    }

    pub(crate) fn counts(&self, at: Instant) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

/// What one measurement found.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// CPU seconds used by each part within the window.
    pub(crate) cpu: Vec<(&'static str, f64)>,
}

/// Runs a load to its end. Dropping the future ends the load.
pub(crate) async fn measure(load: &Load, source: &Arc<dyn Source>, parts: &[Part]) -> Result<Measured> {
    let [measured] = measure_together([(load, source)], parts).await?;
    Ok(measured)
}

/// Runs loads to their end, each with requests of its own, all in the window of the first, which begins when all of them are connected. The CPU
/// time is counted for the first: nobody can tell whose requests it was spent on.
pub(crate) async fn measure_together<const N: usize>(
    loads: [(&Load, &Arc<dyn Source>); N],
    parts: &[Part],
) -> Result<[Measured; N]> {
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let (window_sender, window) = watch::channel(None);
    let mut running = Vec::new();
    for (number, (load, source)) in loads.into_iter().enumerate() {
        let threads = load.connections.clamp(1, THREADS_MAX);
        for thread in 0..threads {
            let (ready_sender, is_ready) = oneshot::channel();
            let (done_sender, is_done) = oneshot::channel();
            let share =
                Share { load: load.clone(), source: source.clone(), thread, threads, window: window.clone() };
            let stop = stop.clone();
            std::thread::Builder::new().name(format!("load-{number}-{thread}")).spawn(move || {
                // Nobody asks any more if the measurement was given up.
                drop(done_sender.send(share.run(ready_sender, &stop)));
            })?;
            running.push((number, is_ready, is_done));
        }
    }
    let mut done = Vec::new();
    for (number, is_ready, is_done) in running {
        if is_ready.await.is_err() {
            finished(is_done).await?;
            bail!("a thread of the load ended before it began");
        }
        done.push((number, is_done));
    }
    let window = Window::starting_at(Instant::now() + START_DELAY, loads[0].0.timing);
    window_sender.send_replace(Some(window));
    let mut before = Vec::new();
    tokio::time::sleep_until(window.begin).await;
    usage::sample(parts, &mut before)?;
    tokio::time::sleep_until(window.end).await;
    let mut after = Vec::new();
    usage::sample(parts, &mut after)?;

    let seconds = (window.end - window.begin).as_secs_f64();
    let mut measured = [(); N].map(|()| Measured { tally: Tally::new(), seconds, cpu: Vec::new() });
    for (number, is_done) in done {
        measured[number].tally.add(&finished(is_done).await?);
    }
    let used = before.iter().zip(&after).map(|((part, before), (_, after))| (*part, after - before));
    measured[0].cpu = used.collect();
    Ok(measured)
}

async fn finished(is_done: oneshot::Receiver<Result<Tally>>) -> Result<Tally> {
    is_done.await.map_err(|_| anyhow!("a thread of the load panicked"))?
}

/// What one thread does of a load.
struct Share {
    load: Load,
    source: Arc<dyn Source>,
    thread: usize,
    threads: usize,
    window: watch::Receiver<Option<Window>>,
}

impl Share {
    fn run(self, ready: oneshot::Sender<()>, stop: &CancellationToken) -> Result<Tally> {
        if self.load.yields {
            rustix::process::nice(YIELDING_NICENESS).context("giving way to the servers")?;
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let tally = runtime.block_on(stop.run_until_cancelled(self.drive(ready)));
        runtime.shutdown_background();
        tally.unwrap_or_else(|| Ok(Tally::new()))
    }

    async fn drive(mut self, ready: oneshot::Sender<()>) -> Result<Tally> {
        let mut connections = Vec::new();
        for number in (self.thread..self.load.connections).step_by(self.threads) {
            let connection = Connection::open(self.load.address).await.context("connecting to the server")?;
            connections.push((connection, self.source.requests(number)));
        }
        // Nobody asks any more if the measurement was given up.
        let _ = ready.send(());
        let window = self.window.wait_for(Option::is_some).await.map(|window| *window)?;
        let window = window.expect("waited until it is there");
        tokio::time::sleep_until(window.start).await;

        let tally = Arc::new(Mutex::new(Tally::new()));
        let tasks = TaskTracker::new();
        match self.load.pace {
            Pace::Closed => closed_loop::drive(connections, window, &tally, &tasks).await?,
            Pace::Open { per_second, when_late } => {
                let schedule = Schedule::share(window.start, per_second, self.thread, self.threads);
                open_loop::drive(connections, &schedule, when_late, window, &tally, &tasks).await?;
            }
        }
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(tally)
    }
}

/// Waits for the tasks of a load. False if some request is not answered in time.
pub(crate) async fn all_answered(tasks: &TaskTracker, window: Window) -> bool {
    tasks.close();
    tokio::time::timeout_at(window.end + ANSWERS_WAIT_MAX, tasks.wait()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: Duration = Duration::from_millis(400);

    struct Pings;

    impl Source for Pings {
        fn requests(&self, _connection: usize) -> Box<dyn crate::sends::Requests> {
            Box::new(Ping)
        }
    }

    struct Ping;

    impl crate::sends::Requests for Ping {
        fn next(&mut self) -> &[u8] {
            b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
        }
    }

    /// A server that answers at once, but for one request that holds all others up.
    async fn stalling_server(stall: Duration) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, turn) =
            (Arc::new(std::sync::atomic::AtomicU32::new(0)), Arc::new(tokio::sync::Mutex::new(())));
        let answer = move || async move {
            let _turn = turn.lock().await;
            if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
                tokio::time::sleep(stall).await;
            }
        };
        let router = axum::Router::new().route("/", axum::routing::get(answer));
        TaskTracker::new().spawn(async { axum::serve(listener, router).await });
        address
    }

    async fn pings(pace: Pace, connections: usize, stall: Duration) -> Tally {
        let address = stalling_server(stall).await;
        let timing = Timing { warm_up: Duration::ZERO, measured: MEASURED };
        let load = Load { address, connections, pace, timing, yields: false };
        measure(&load, &(Arc::new(Pings) as Arc<dyn Source>), &[Part::client()]).await.unwrap().tally
    }

    #[tokio::test]
    async fn a_stall_is_charged_for_all_who_would_have_asked() {
        let per_second = 1_000.0;
        let open = Pace::Open { per_second, when_late: WhenLate::Wait };
        let tally = pings(open, 2, MEASURED / 2).await;
        let due = per_second * MEASURED.as_secs_f64();
        assert!((tally.accepted() as f64 - due).abs() <= 2.0, "{} of {due}", tally.accepted());
        // The stall takes half of the window: the median of those in it waited for half of it.
        assert!(tally.accepted_ms(0.75) > 20.0, "p75 {} ms", tally.accepted_ms(0.75));
        assert_eq!((tally.failed(), tally.skipped), (0, 0));
    }

    #[tokio::test]
    async fn a_client_that_does_not_wait_gives_up_during_a_stall() {
        let open = Pace::Open { per_second: 1_000.0, when_late: WhenLate::Skip };
        let tally = pings(open, 2, MEASURED / 2).await;
        assert!(tally.skipped > 20, "{} given up", tally.skipped);
    }

    #[tokio::test]
    async fn a_closed_loop_sends_one_after_the_other() {
        let tally = pings(Pace::Closed, 3, Duration::ZERO).await;
        assert!(tally.accepted() > 3 && tally.failed() == 0, "{}", tally.accepted());
    }

    #[tokio::test]
    async fn loads_that_are_measured_together_meet() {
        let address = stalling_server(Duration::ZERO).await;
        let timing = Timing { warm_up: Duration::ZERO, measured: MEASURED };
        let few = Pace::Open { per_second: 100.0, when_late: WhenLate::Wait };
        // Connecting takes the first much longer than the window.
        let many = Load { address, connections: 1_000, pace: Pace::Closed, timing, yields: true };
        let watch = Load { connections: 2, pace: few, yields: false, ..many.clone() };
        let source = Arc::new(Pings) as Arc<dyn Source>;
        let loads = [(&many, &source), (&watch, &source)];
        let [many, watch] = measure_together(loads, &[Part::client()]).await.unwrap();
        let answered = [&many, &watch].map(|load| load.tally.accepted());
        assert!(answered[0] > 1_000 && answered[1] >= 38, "{answered:?}");
        assert!(watch.tally.accepted_ms(0.5) > 1.0, "alone: {} ms", watch.tally.accepted_ms(0.5));
        assert_eq!((many.cpu.len(), watch.cpu.len()), (1, 0));
    }

    #[tokio::test]
    async fn what_cannot_be_connected_is_an_error() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let timing = Timing { warm_up: Duration::ZERO, measured: MEASURED };
        let load = Load { address, connections: 1, pace: Pace::Closed, timing, yields: false };
        assert!(measure(&load, &(Arc::new(Pings) as Arc<dyn Source>), &[]).await.is_err());
    }

    #[test]
    fn only_what_lies_in_the_window_counts() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let window = Window::starting_at(start, Timing { warm_up: ms(10), measured: ms(100) });
        for (after, counts) in [(0, false), (9, false), (10, true), (109, true), (110, false)] {
            assert_eq!(window.counts(start + ms(after)), counts, "{after} ms");
        }
    }
}
