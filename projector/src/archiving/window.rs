//! What of the log stays in memory.

use std::time::Duration;

/// An event may be trimmed when it is older, or when the streams take more memory: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotWindow {
    pub time: Option<Duration>,
    /// Of all partitions together.
    pub bytes: Option<u64>,
}

impl HotWindow {
    /// Whether an entry of this age is beyond it.
    pub(super) fn is_older(&self, now_ms: u64, at_ms: u64) -> bool {
        let window = self.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        window.is_some_and(|window| now_ms.saturating_sub(at_ms) > window)
    }

    /// How much of a partition that takes `bytes` is beyond it. A partition gives only if all together are too many.
    pub(super) fn excess(&self, bytes: u64, all: u64, partitions: u64) -> u64 {
        let Some(most) = self.bytes.filter(|most| all > *most) else { return 0 };
        bytes.saturating_sub(most / partitions.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_window() {
        let window = HotWindow { time: Some(Duration::from_secs(5)), bytes: Some(1_600) };
        assert!(!window.is_older(10_000, 5_000) && window.is_older(10_000, 4_999));
        assert!(!window.is_older(1_000, 2_000), "a clock that was set back");
        assert_eq!(window.excess(200, 2_000, 16), 100);
        assert_eq!(window.excess(90, 2_000, 16), 0, "others have more than their share");
        assert_eq!(window.excess(500, 1_600, 16), 0, "together they are within it");
        let none = HotWindow { time: None, bytes: None };
        assert!(!none.is_older(u64::MAX, 0) && none.excess(u64::MAX, u64::MAX, 1) == 0);
    }
}
