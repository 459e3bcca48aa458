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

/// A time in milliseconds since the epoch as people read it, in UTC: `2026-03-01T12:00:00Z`.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(crate) fn utc_text(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Milliseconds since the epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(test_offsets().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        let check = |unix_s: u64, expected: &str| assert_eq!(utc_text(unix_s * 1000 + 999), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_709_251_199, "2024-02-29T23:59:59Z");
        check(1_709_251_200, "2024-03-01T00:00:00Z");
        check(1_798_761_599, "2026-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }
}
