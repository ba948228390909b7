//! Live events, straight from the log: no view and no projector is asked, so they go on while those are away. In
//! reading order: [`Live`] (opens streams), [`stream`] (what a reader gets), [`hub`] (who is open, and what is next for
//! him), [`ring`] (what is held), [`place`] (where a reader was), [`reading`] (the tasks behind it).
//!
//! One reader of the log serves all streams of the process; while there are none, the log is not read. Nothing is
//! stored: what a reader missed while he was away is told again from the ring, which every instance fills from the
//! log by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use shared::Clock;
use shared::limits::{
    LIVE_BEGIN_WAIT_MAX, LIVE_RETRY_MAX, LIVE_RETRY_MIN, LIVE_SESSION_ASKED_EVERY, LIVE_SILENCE_MAX,
    LIVE_STREAMS_MAX,
};
use shared::ports::LogTail;
use shared::process::auth::Caller;
use shared::process::http::Hangup;
use shared::process::limits::InFlight;
use shared::process::problem::{Code, Problem};
use shared::process::sessions::RecentSessions;
use shared::process::shutdown::Lifecycle;
use shared::process::telemetry::Metrics;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

mod hub;
mod metrics;
mod place;
mod reading;
mod ring;
mod stream;

use hub::{Closed, Hub, Next, Opening, StreamKey};
use metrics::LiveMetrics;
pub(crate) use stream::EventStream;

/// The event streams of one process. Clones are the same.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
    /// Of one user.
    limit: InFlight,
}

struct Shared {
    hub: Mutex<Hub>,
    /// Whether the hub has begun.
    begun: watch::Sender<bool>,
    /// Somebody wants it to.
    wanted: Notify,
    sessions: Arc<RecentSessions>,
    clock: Clock,
    metrics: LiveMetrics,
}

impl Live {
    /// Reads the log whenever somebody listens, until shutdown, on tasks of `lifecycle`.
    #[must_use]
    pub fn start(
        tail: Box<dyn LogTail>,
        sessions: Arc<RecentSessions>,
        limit: InFlight,
        (clock, metrics): (Clock, &Metrics),
        lifecycle: &Lifecycle,
    ) -> Self {
        let (begun, metrics) = (watch::Sender::new(false), LiveMetrics::new(metrics));
        let (hub, wanted) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { hub, begun, wanted, sessions, clock, metrics });
        lifecycle.spawn(reading::read(shared.clone(), tail, lifecycle.shutdown.clone()));
        lifecycle.spawn(reading::look_after(shared.clone(), lifecycle.shutdown.clone()));
        lifecycle.spawn(reading::ask_for_sessions(shared.clone(), lifecycle.shutdown.clone()));
        Self { shared, limit }
    }

    /// A stream of what concerns the caller from now on, or from where he was.
    pub(crate) async fn open(
        &self,
        Caller { user, session }: Caller,
        hangup: Hangup,
        last_event_id: Option<String>,
    ) -> Result<EventStream, Problem> {
        let held = self.limit.enter(&user)?;
        let Shared { metrics, begun, wanted, .. } = &*self.shared;
        self.shared.hub().want(Instant::now());
        wanted.notify_one();
        // A store that is there is read within moments.
        let _ = timeout(LIVE_BEGIN_WAIT_MAX, begun.subscribe().wait_for(|begun| *begun)).await;
        if metrics.open.get() >= LIVE_STREAMS_MAX {
            return Err(Problem::new(Code::Busy, "too many event streams are open; try again soon"));
        }
        let now = Instant::now();
        let opening = Opening {
            user,
            session,
            hangup,
            last_event_id,
            // So that streams that were opened together do not speak together.
            silence: LIVE_SILENCE_MAX * 3 / 5 + self.scattered(LIVE_SILENCE_MAX / 4),
            ask_at: now + self.scattered(LIVE_SESSION_ASKED_EVERY),
        };
        let opened = self.shared.hub().open(opening, now);
        let key = opened.map_err(|closed| match closed {
            Closed::NotBegun => {
                Problem::new(Code::LogUnavailable, "a part of the system is away; try again soon")
            }
            Closed::Ended => Problem::new(Code::Draining, "this instance is stopping; try again"),
        })?;
        metrics.open.inc();
        // Who is sent away together does not come back together.
        let retry = LIVE_RETRY_MIN + self.scattered(LIVE_RETRY_MAX - LIVE_RETRY_MIN);
        let said = Some(format!("retry: {}\n\n", retry.as_millis()).into());
        Ok(EventStream { shared: self.shared.clone(), key, said, _held: held })
    }

    /// Less than `most`, at random.
    fn scattered(&self, most: Duration) -> Duration {
        let share = u32::try_from(self.shared.clock.new_id().0.random() % 1_000).expect("below 1,000");
        most * share / 1_000
    }
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, key: &StreamKey, context: &Context<'_>) -> Next {
        self.hub().next(key, context, Instant::now())
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
