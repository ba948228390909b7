//! Waiting for the projection. A page holds every message of its range that was acknowledged before the request
//! began; if the views lag, the answer waits a little for them.

use std::ops::RangeInclusive;

use shared::limits::{FRESHNESS_POLL, FRESHNESS_WAIT_MAX};
use shared::ports::{Applied, Notices, StoreError, ViewReader};
use shared::view::TimelineEntry;
use shared::{Conversation, Seq};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

/// The entries at the beginning of `range` without a hole: all of them, or as many as are there when the wait
/// is over.
pub(crate) async fn contiguous(
    views: &dyn ViewReader,
    notices: &dyn Notices,
    conversation: &Conversation,
    range: RangeInclusive<Seq>,
) -> Result<Vec<TimelineEntry>, StoreError> {
    let deadline = Instant::now() + FRESHNESS_WAIT_MAX;
    // Before the first read: a notice that comes in between must not be missed.
    let mut applied = notices.subscribe();
    loop {
        let mut entries = views.timeline(conversation, *range.start(), *range.end()).await?;
        entries.truncate(without_hole(&entries, *range.start()));
        let complete = entries.last().is_some_and(|last| last.seq() >= *range.end());
        if complete || Instant::now() >= deadline {
            return Ok(entries);
        }
        moved(&mut applied, conversation, deadline).await;
    }
}

/// How many entries follow each other from `first` on.
pub(crate) fn without_hole(entries: &[TimelineEntry], first: Seq) -> usize {
    entries.iter().zip(first..).take_while(|(entry, seq)| entry.seq() == *seq).count()
}

/// Until the conversation has moved, notices were lost, or it is time to look again anyway.
async fn moved(applied: &mut broadcast::Receiver<Applied>, conversation: &Conversation, deadline: Instant) {
    let look_again = deadline.min(Instant::now() + FRESHNESS_POLL);
    let notice = async {
        loop {
            match applied.recv().await {
                Ok(notice) if notice.conversation != *conversation => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    // Either way the next step is to read again.
    let _ = timeout_at(look_again, notice).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_ends_what_is_shown() {
        let count = |seqs: &[Seq], first| {
            let entries: Vec<_> = seqs.iter().map(|seq| TimelineEntry::Parked { seq: *seq }).collect();
            without_hole(&entries, first)
        };
        assert_eq!(count(&[], 1), 0);
        assert_eq!(count(&[1, 2, 3], 1), 3);
        assert_eq!(count(&[1, 3], 1), 1);
        assert_eq!(count(&[2, 3], 1), 0);
    }
}
