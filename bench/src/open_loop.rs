//! Load that does not adapt: requests come due at a fixed rate, and latency counts from when a request was due,
//! not from when it could be sent. So a server that stalls is charged for all who would have asked meanwhile
//! (no coordinated omission).

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::load::{self, WhenLate, Window};
use crate::sends::Requests;
use crate::tally::Tally;

/// Requests that come due within this time of each other go out together: a wake-up costs as much as a request.
const STEP_MIN: Duration = Duration::from_micros(100);

/// When requests are due: evenly, and exactly over any time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start: Instant,
    /// Of this thread.
    per_second: f64,
    /// In requests of this thread, so that those of all threads alternate.
    ahead: f64,
}

impl Schedule {
    /// The part of one of `threads` in a schedule of `per_second`.
    pub(crate) fn share(start: Instant, per_second: f64, thread: usize, threads: usize) -> Self {
        let ahead = thread as f64 / threads as f64;
        Self { start, per_second: per_second / threads as f64, ahead }
    }

    /// When the `nth` request is due, from 0.
    fn due(&self, nth: u64) -> Instant {
        self.start + Duration::from_secs_f64((nth as f64 + self.ahead) / self.per_second)
    }
}

/// Requests that are due and the connections that wait for them.
struct Queue {
    /// When each was due; `None` ends a connection.
    due: Mutex<VecDeque<Option<Instant>>>,
    /// As many permits as there are entries.
    available: Semaphore,
    waiting: AtomicUsize,
}

impl Queue {
    fn new(waiting: usize) -> Self {
        let waiting = AtomicUsize::new(waiting);
        Self { due: Mutex::default(), available: Semaphore::new(0), waiting }
    }

    fn put(&self, due: Option<Instant>) {
        self.lock().push_back(due);
        self.available.add_permits(1);
    }

    async fn take(&self) -> Option<Instant> {
        self.available.acquire().await.expect("the semaphore is never closed").forget();
        self.lock().pop_front().flatten()
    }

    /// True if a connection waits; it is then spoken for.
    fn claim(&self) -> bool {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| waiting.checked_sub(1))
            .is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Option<Instant>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what comes due within the window.
pub(crate) async fn drive(
    connections: Vec<(Connection, Box<dyn Requests>)>,
    schedule: &Schedule,
    when_late: WhenLate,
    window: Window,
    tally: &Arc<Mutex<Tally>>,
    tasks: &TaskTracker,
) -> Result<()> {
    let count = connections.len();
    let queue = Arc::new(Queue::new(count));
    for (connection, requests) in connections {
        tasks.spawn(serve(connection, requests, queue.clone(), window, tally.clone()));
    }
    let Paced { queued, skipped } =
        pace(schedule, when_late, window, &queue).await.context("keeping the pace")?;
    (0..count).for_each(|_| queue.put(None));
    load::all_answered(tasks, window).await;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let unanswered = queued.saturating_sub(tally.answered());
    tally.add_unanswered(unanswered);
    tally.skipped += skipped;
    Ok(())
}

/// Requests that came due within the window.
#[derive(Debug, Default)]
struct Paced {
    queued: u64,
    skipped: u64,
}

/// Puts each request into the queue when it is due, until the end of the window.
async fn pace(schedule: &Schedule, when_late: WhenLate, window: Window, queue: &Queue) -> io::Result<Paced> {
    let timer = Timer::new()?;
    let mut paced = Paced::default();
    let mut nth = 0;
    let mut woken = window.start;
    while schedule.due(nth) < window.end {
        timer.sleep_until(schedule.due(nth).max(woken + STEP_MIN)).await?;
        woken = Instant::now();
        let mut due = schedule.due(nth);
        while due <= woken && due < window.end {
            if when_late == WhenLate::Skip && !queue.claim() {
                paced.skipped += u64::from(window.counts(due));
            } else {
                paced.queued += u64::from(window.counts(due));
                queue.put(Some(due));
            }
            nth += 1;
            due = schedule.due(nth);
        }
    }
    Ok(paced)
}

async fn serve(
    mut connection: Connection,
    mut requests: Box<dyn Requests>,
    queue: Arc<Queue>,
    window: Window,
    tally: Arc<Mutex<Tally>>,
) {
    while let Some(due) = queue.take().await {
        let answer = connection.exchange(requests.next()).await;
        if window.counts(due) {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.record(&answer, due.elapsed());
            tally.behind += u64::from(answer.is_ok() && connection.is_behind());
        }
        if answer.is_ok_and(|status| status < 300) {
            requests.heard(connection.body());
        }
        queue.waiting.fetch_add(1, Ordering::Relaxed);
    }
}

/// The runtime's own timers are exact to 1 ms, which is as long as a whole send takes.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(
        deprecated,
        reason = "what it is replaced by is unsafe; an owned descriptor is all that it asks for"
    )]
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    async fn sleep_until(&self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // A pace that cannot be kept must not keep the answers from being read.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut readable = self.0.readable().await?;
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?);
            match readable.try_io(read) {
                Ok(expirations) => return expirations.map(drop),
                Err(_not_yet) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_keep_their_rate_and_alternate() {
        let start = Instant::now();
        let shares: Vec<Schedule> =
            (0..2).map(|thread| Schedule::share(start, 30_000.0, thread, 2)).collect();
        let mut due: Vec<Duration> =
            shares.iter().flat_map(|share| (0..45_000).map(|nth| share.due(nth) - start)).collect();
        due.sort_unstable();
        for (nth, due) in due.into_iter().enumerate() {
            let exact = nth as f64 / 30_000.0;
            assert!((due.as_secs_f64() - exact).abs() < 1e-8, "{nth}: {due:?} is not {exact}");
        }
    }

    #[test]
    fn a_claimed_connection_is_not_claimed_twice() {
        let queue = Queue::new(2);
        assert_eq!([queue.claim(), queue.claim(), queue.claim()], [true, true, false]);
    }

    #[tokio::test]
    async fn what_is_due_first_goes_out_first() {
        let queue = Queue::new(0);
        let now = Instant::now();
        queue.put(Some(now));
        queue.put(Some(now + STEP_MIN));
        queue.put(None);
        assert_eq!(queue.take().await, Some(now));
        assert_eq!(queue.take().await, Some(now + STEP_MIN));
        assert_eq!(queue.take().await, None);
    }

    #[tokio::test]
    async fn the_timer_is_never_early() {
        let timer = Timer::new().unwrap();
        for wait in [0, 1, 300, 2_500] {
            let until = Instant::now() + Duration::from_micros(wait);
            timer.sleep_until(until).await.unwrap();
            assert!(Instant::now() >= until);
        }
    }
}
