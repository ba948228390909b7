//! Which log is the right one: that of the first connection of this process, and beside views the one that they have
//! seen. It asks nobody.

use std::sync::OnceLock;

use shared::ports::{Epoch, Origin, StoreError};
use tokio::sync::watch;

pub(super) struct RightLog {
    /// The name of the log of the first connection. One with another name is another log.
    first: OnceLock<String>,
    /// Of views that are shown beside it.
    views: Option<watch::Receiver<Origin>>,
    /// As it was when it was found to be the right one last.
    found: watch::Sender<Option<Epoch>>,
}

impl RightLog {
    pub(super) fn new(views: Option<watch::Receiver<Origin>>) -> Self {
        Self { first: OnceLock::new(), views, found: watch::Sender::new(None) }
    }

    /// The same in all of its epochs; empty before the first connection.
    pub(super) fn name(&self) -> &str {
        self.first.get().map_or("", String::as_str)
    }

    pub(super) fn found(&self) -> watch::Receiver<Option<Epoch>> {
        self.found.subscribe()
    }

    /// Whoever waits for the right log, waits until it is whole.
    pub(super) fn is_beside_views(&self) -> bool {
        self.views.is_some()
    }

    /// Waits until somebody has looked what the views have seen.
    pub(super) async fn known(&self) {
        if let Some(views) = &self.views {
            // An error: nobody will look any more, and every log is refused.
            let _ = views.clone().wait_for(|origin| *origin != Origin::Unknown).await;
        }
    }

    /// Of a log that was found.
    pub(super) fn check(&self, epoch: &Epoch) -> Result<(), StoreError> {
        if let Some(views) = &self.views {
            views.borrow().admits(epoch)?;
        }
        let first = self.first.get_or_init(|| epoch.log.clone());
        if *first != epoch.log {
            return Err(another(&format!("it is {epoch}"), first));
        }
        self.found.send_if_modified(|found| found.replace(epoch.clone()).as_ref() != Some(epoch));
        Ok(())
    }

    /// Of what stands where the epoch does, on a connection that was made to the right log: it may have been emptied
    /// since.
    pub(super) fn check_again(&self, epoch: Option<String>) -> Result<Epoch, StoreError> {
        let none = || another("there is none any more", self.name());
        let epoch = epoch.and_then(|epoch| epoch.parse().ok()).ok_or_else(none)?;
        self.check(&epoch)?;
        Ok(epoch)
    }

    /// Of the log that was found last: other views may be shown by now.
    pub(super) fn check_views(&self) -> Result<(), StoreError> {
        match (&self.views, &*self.found.borrow()) {
            (Some(views), Some(found)) => views.borrow().admits(found),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// Where there is no log: whether a new one may be begun.
    pub(super) fn check_new(&self) -> Result<(), StoreError> {
        if let Some(views) = &self.views {
            views.borrow().admits_new()?;
        }
        match self.first.get() {
            Some(first) => Err(another("there is none", first)),
            None => Ok(()),
        }
    }

    /// Of one that is on its way back.
    pub(super) fn closed(layout: &str) -> StoreError {
        StoreError::other_log(format!("it is {layout}: `projector restore` ends what it has begun"))
    }

    /// Of one that goes on where the one before was left.
    pub(super) fn repaired(epoch: &Epoch) -> StoreError {
        StoreError::other_log(format!("it was repaired and is {epoch}"))
    }
}

/// What is there, and what was.
fn another(is: &str, first: &str) -> StoreError {
    StoreError::other_log(format!(
        "{is}, and this program began with {first}: put that back (`projector restore`), or start this program again"
    ))
}
