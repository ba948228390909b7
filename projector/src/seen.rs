//! What views have seen of the log, whichever generation they are of.

use std::sync::Arc;

use shared::ports::SeenLog;

/// Of all generations that have views.
pub struct SeenLogs {
    pub serving: Arc<dyn SeenLog>,
    pub others: Vec<Arc<dyn SeenLog>>,
}
