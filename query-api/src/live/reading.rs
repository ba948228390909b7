//! The tasks behind the streams: one reads the log, one looks whether streams are listened to, one whether their
//! sessions last.

use std::sync::Arc;

use futures_util::StreamExt;
use shared::Username;
use shared::limits::{
    LIVE_EVENTS_AT_START_MAX, LIVE_EVENTS_PER_READ_MAX, LIVE_GATHERED_FOR, LIVE_LOOK_EVERY, LIVE_RETRY_PAUSE,
    LIVE_SESSION_ASKED_EVERY, LIVE_SESSIONS_ASKED_AT_ONCE,
};
use shared::ports::{LogTail, SessionKey, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Shared, wake};

/// Until shutdown, whatever becomes of the log meanwhile; then the streams end.
pub(super) async fn read(shared: Arc<Shared>, mut tail: Box<dyn LogTail>, shutdown: CancellationToken) {
    let reading = async {
        let mut failing = false;
        loop {
            let Err(error) = follow(&shared, &mut *tail, &mut failing).await else { continue };
            if !failing {
                tracing::warn!(error = &error as &dyn std::error::Error, "live events wait for the log");
            }
            if let StoreError::Other { .. } = error {
                // It has users of its own. Whose session holds there comes back by himself.
                give_up(&shared);
            }
            failing = true;
            tokio::time::sleep(LIVE_RETRY_PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(reading).await;
    let wakers = shared.hub().end();
    wake(wakers);
}

/// From when somebody listens until nobody does.
async fn follow(shared: &Shared, tail: &mut dyn LogTail, failing: &mut bool) -> Result<(), StoreError> {
    while !shared.hub().is_wanted(Instant::now()) {
        shared.wanted.notified().await;
    }
    while !shared.hub().has_begun() {
        match tail.end(LIVE_EVENTS_AT_START_MAX).await? {
            Some(end) => {
                shared.hub().begin(end, Instant::now());
                shared.begun.send_replace(true);
            }
            // Nobody can have a session yet.
            None => tokio::time::sleep(LIVE_GATHERED_FOR).await,
        }
    }
    while shared.hub().is_wanted(Instant::now()) {
        let mut batch = tail.next_batch(LIVE_EVENTS_PER_READ_MAX).await?;
        if std::mem::take(failing) {
            tracing::info!("live events go on");
        }
        if batch.is_empty() {
            continue;
        }
        let wakers = {
            let mut hub = shared.hub();
            let (wakers, cut) = hub.take(&mut batch, Instant::now());
            shared.metrics.cuts.inc_by(cut);
            hub.ring().inspect(|ring| shared.metrics.holds(ring.len(), ring.bytes()));
            wakers
        };
        wake(wakers);
        // A read costs the log the same for one event as for many: at a high rate they come together.
        tokio::time::sleep(LIVE_GATHERED_FOR).await;
    }
    shared.begun.send_replace(false);
    shared.metrics.holds(0, 0);
    Ok(())
}

fn give_up(shared: &Shared) {
    shared.begun.send_replace(false);
    shared.metrics.holds(0, 0);
    let wakers = shared.hub().give_up(Instant::now());
    wake(wakers);
}

pub(super) async fn look_after(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = interval(LIVE_LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let (wakers, cut) = shared.hub().look_after(Instant::now());
        shared.metrics.cuts.inc_by(cut);
        wake(wakers);
    }
}

/// While the store cannot be asked, streams stay open.
pub(super) async fn ask_for_sessions(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = interval(LIVE_LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let due = shared.hub().sessions_to_ask(Instant::now(), LIVE_SESSION_ASKED_EVERY);
        let asking = futures_util::stream::iter(due)
            .for_each_concurrent(LIVE_SESSIONS_ASKED_AT_ONCE, |(session, user)| {
                ask(shared.clone(), session, user)
            });
        shutdown.run_until_cancelled(asking).await;
    }
}

async fn ask(shared: Arc<Shared>, session: SessionKey, user: Username) {
    let found = shared.sessions.ask(&session).await;
    if found.is_ok_and(|found| found.as_ref() != Some(&user)) {
        let wakers = shared.hub().end_session(&user, session, Instant::now());
        wake(wakers);
    }
}
