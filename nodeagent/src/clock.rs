//! The two clocks of the agent.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_nodeagent_core::Clocks;
use rustix::time::{ClockId, clock_gettime};

/// A file with what to add to both clocks, "BOOT_MS UNIX_MS": how tests of whole processes let an agent's clocks jump.
/// Nothing is read when it is not set.
static TEST_OFFSETS: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("BULKHEAD_TEST_CLOCK").map(PathBuf::from));

fn test_offsets() -> (u64, i64) {
    let read = || {
        let text = std::fs::read_to_string(TEST_OFFSETS.as_ref()?).ok()?;
        let (boot_ms, unix_ms) = text.trim().split_once(' ')?;
        Some((boot_ms.parse().ok()?, unix_ms.parse().ok()?))
    };
    read().unwrap_or_default()
}

/// Milliseconds since the machine booted, suspended time included: it goes on over restarts of the agent, so that a
/// lease can be remembered on disk.
pub(crate) fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
    let millis = u64::try_from(time.tv_nsec / 1_000_000).expect("below one second");
    seconds * 1000 + millis + test_offsets().0
}

/// Both.
pub(crate) fn both() -> Clocks {
    Clocks { unix_ms: unix_ms(), boot_ms: boot_ms() }
}

/// Milliseconds since the epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(test_offsets().1)
}
