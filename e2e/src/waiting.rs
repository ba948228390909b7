//! Waiting for something to become true, with a deadline. Nothing here sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

use crate::environment::patience;

const POLL: Duration = Duration::from_millis(20);

/// Asks until `check` gives something.
///
/// # Panics
/// When it has given nothing within [`patience`]: `what` did not happen.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    within(patience(), what, check).await
}

/// [`eventually`], for what needs another deadline than most.
///
/// # Panics
/// When `check` has given nothing until then.
pub async fn within<T>(bound: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(begun.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
