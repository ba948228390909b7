//! The deadlines of one connection, one after the other: for the headers of a request, for its answer, for the next
//! headers. They share one timer, because making one and taking it down again costs locks and memory each time, and
//! moving one on costs next to nothing: the runtime notices when the old time comes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Timer;
use tokio::time::Sleep;

/// Clones share the timer.
#[derive(Clone, Default)]
pub(super) struct Deadlines(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Deadlines {
    pub(super) fn until(&self, at: Instant) -> Deadline {
        let sleep = match self.idle().take() {
            Some(mut sleep) => {
                sleep.as_mut().reset(at.into());
                sleep
            }
            None => Box::pin(tokio::time::sleep_until(at.into())),
        };
        Deadline { sleep: Some(sleep), deadlines: self.clone() }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when its time has come. Dropped, it leaves the timer to the next one.
pub(super) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    deadlines: Deadlines,
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().expect("it is there until the drop").as_mut().poll(context)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        *self.deadlines.idle() = self.sleep.take();
    }
}

impl hyper::rt::Sleep for Deadline {}

impl Timer for Deadlines {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + time)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.until(at))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_timer_serves_one_deadline_after_the_other() {
        let deadlines = Deadlines::default();
        for _ in 0..3 {
            let begun = Instant::now();
            deadlines.until(begun + SOON).await;
            assert!(begun.elapsed() >= SOON, "{:?}", begun.elapsed());
            // One that is given up does not shorten the next.
            let given_up = deadlines.until(Instant::now() + SOON);
            assert!(timeout(Duration::from_millis(1), given_up).await.is_err());
            let next = deadlines.until(Instant::now() + 100 * SOON);
            assert!(timeout(3 * SOON, next).await.is_err());
        }
    }

    #[tokio::test]
    async fn two_at_once_have_a_timer_each() {
        let deadlines = Deadlines::default();
        let begun = Instant::now();
        let (first, second) = (deadlines.until(begun + SOON), deadlines.until(begun + 2 * SOON));
        second.await;
        first.await;
        assert!(begun.elapsed() >= 2 * SOON);
    }
}
