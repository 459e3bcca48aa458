//! A pod that must be unique runs at most once anywhere, and never longer than its node's lease allows: whoever
//! waits for the lease, the drift of two clocks and the time that a kill takes may start it elsewhere.
//!
//! The lease counts from the moment at which the agent sent the last report that a server acknowledged, in true
//! time, whether an agent runs on the node or not: its guard does.

use super::{Verdict, ensure};

/// What a guest that must be unique may count on, in microseconds of true time.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// When the last acknowledged report was sent; `None` when none was.
    pub sent_us: Option<u64>,
    /// How long a lease runs.
    pub lease_us: u64,
    /// The most that a clock may be wrong, in millionths.
    pub drift_ppm: u64,
    /// How long a kill may take.
    pub kill_us: u64,
}

impl Lease {
    /// Until when a guest may live, in microseconds.
    #[must_use]
    pub fn until_us(&self) -> u64 {
        // A clock that is slow by this much makes the lease longer by a little more than that.
        let stretch_us = 2 * self.lease_us * self.drift_ppm / 1_000_000;
        let fenced_us = self.sent_us.map_or(0, |sent| sent + self.lease_us + stretch_us);
        fenced_us + self.kill_us
    }
}

/// Checks that a guest may still live.
///
/// # Errors
/// When its node's lease is over.
pub fn lives(name: &str, now_us: u64, lease: &Lease) -> Verdict {
    ensure(now_us <= lease.until_us(), "unique", || {
        format!("{name} lives at {now_us} us, it had to end by {} us: {lease:?}", lease.until_us())
    })
}

/// Checks how many guests of one name live.
///
/// # Errors
/// When there is more than one.
pub fn once(name: &str, nodes: &[u32]) -> Verdict {
    ensure(nodes.len() <= 1, "unique", || format!("{name} lives on the nodes {nodes:?} at the same time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease { sent_us: Some(1000), lease_us: 10_000, drift_ppm: 5000, kill_us: 50 };

    #[test]
    fn a_guest_that_outlives_its_lease_is_noticed() {
        assert!(lives("a", 1000 + 10_000 + 100 + 50, &LEASE).is_ok());
        assert!(lives("a", 1000 + 10_000 + 100 + 51, &LEASE).is_err());
        assert!(lives("a", 51, &Lease { sent_us: None, ..LEASE }).is_err());
    }

    #[test]
    fn two_at_a_time_are_noticed() {
        assert!(once("a", &[]).is_ok());
        assert!(once("a", &[3]).is_ok());
        assert!(once("a", &[3, 5]).is_err());
    }
}
