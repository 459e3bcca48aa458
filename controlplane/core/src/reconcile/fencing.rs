//! How long a node must be silent until nothing that must be unique can live there any more.
//!
//! ```text
//!  agent    sends ──── lease, on a clock that may be slow ────► kills ── kill_ms ──► dead
//!  leader     hears ──── silence, on a clock that may be fast ────────────────────────► Fenced
//! ```
//!
//! The leader hears a report after it was sent, so its count begins later; what is left is how differently two clocks
//! may run, and how long the kill takes. It counts ticks, not log time: a calendar that is set ahead ends leases early,
//! which costs a node its name as ready, but must not cost a pod its being unique.

use bulkhead_canary::planted;

/// The most that the clock of a server or of an agent may run too fast or too slow, in millionths. Crystals stay within
/// 100, and a clock that is being slewed within 500 (NTP's limit); ten times that leaves room for what virtual machines
/// do to them.
pub const CLOCK_DRIFT_PPM_MAX: u64 = 5_000;

/// From the end of a lease until the last guest that must be unique is dead, at most, in milliseconds, by default. Its
/// guard wakes at the end of the lease and sends SIGKILL, which stops the processors of the guest at once: milliseconds
/// on an idle host. The rest is for a host that swaps or is overcommitted, and for writes that QEMU had under way.
pub const FENCE_KILL_MS_DEFAULT: u64 = 5_000;

const MILLION: u64 = 1_000_000;

/// How long a leader must not have heard a node, by its own monotonic clock, before it is fenced, in milliseconds:
/// a lease on a clock that is as slow as one may be, and the kill, both on one that is as fast as one may be.
#[must_use]
pub fn fence_after_ms(lease_ms: u64, kill_ms: u64) -> u64 {
    if planted!("canary_fenced_without_margin") {
        return lease_ms;
    }
    let lease_ms = scaled(lease_ms, MILLION, MILLION - CLOCK_DRIFT_PPM_MAX);
    scaled(lease_ms.saturating_add(kill_ms), MILLION + CLOCK_DRIFT_PPM_MAX, MILLION)
}

/// `ms * numerator / denominator`, rounded up.
fn scaled(ms: u64, numerator: u64, denominator: u64) -> u64 {
    let exact = u128::from(ms) * u128::from(numerator);
    u64::try_from(exact.div_ceil(u128::from(denominator))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_covers_the_worst_two_clocks_and_the_kill() {
        for (lease_ms, kill_ms) in [(3_000, 0), (10_000, 5_000), (3_600_000, 1)] {
            let after_ms = fence_after_ms(lease_ms, kill_ms) as f64;
            let drift = CLOCK_DRIFT_PPM_MAX as f64 / 1e6;
            let dead_ms = lease_ms as f64 / (1.0 - drift) + kill_ms as f64;
            assert!(after_ms / (1.0 + drift) >= dead_ms, "{lease_ms} {kill_ms}: {after_ms}");
            assert!(after_ms / (1.0 + drift) <= dead_ms + 3.0, "{lease_ms} {kill_ms}: {after_ms}");
        }
        assert_eq!(fence_after_ms(10_000, 5_000), 15_127);
        assert_eq!(fence_after_ms(u64::MAX, 1), u64::MAX);
    }
}
