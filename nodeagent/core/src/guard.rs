//! The guard of a guest that must be unique: it holds the guest to its lease although the agent may be dead.
//!
//! ```text
//!  agent ── StartVm, until ──► Guard ── starts ──► guest
//!        ── PersistLease ────► renew                 ▲
//!           (nothing more)       until ── SIGKILL ───┘
//! ```
//!
//! Every such guest has one of its own, in a process of its own; this is what that process goes by, without its IO.

/// The lease of a guest that belongs to no pod yet: it may live until somebody says otherwise.
pub const NO_LEASE_MS: u64 = u64::MAX;

/// Until when a guest may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    until_ms: u64,
    over: bool,
}

impl Guard {
    /// The guard of a guest that is about to start, with the lease that it starts under; `None` when that is over, and
    /// nothing may start. Times are the agent's monotonic clock, in milliseconds.
    #[must_use]
    pub fn new(now_ms: u64, until_ms: u64) -> Option<Self> {
        (now_ms < until_ms).then_some(Self { until_ms, over: false })
    }

    /// The lease was renewed. What is over stays over: somebody else may count on it. The first word to the guard of a guest that was
    /// nobody's ([`NO_LEASE_MS`]) is the lease that holds for it from then on.
    pub fn renew(&mut self, now_ms: u64, until_ms: u64) {
        if self.until_ms == NO_LEASE_MS {
            self.until_ms = until_ms;
        } else if !self.is_over(now_ms) {
            self.until_ms = self.until_ms.max(until_ms);
        }
    }

    /// Until when the guest may live, in milliseconds; look again then.
    #[must_use]
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whether the guest must be killed.
    pub fn is_over(&mut self, now_ms: u64) -> bool {
        self.over |= now_ms >= self.until_ms;
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_lives_as_long_as_its_lease_is_renewed() {
        assert_eq!(Guard::new(100, 100), None, "nothing starts after the lease");
        let mut guard = Guard::new(99, 100).expect("it runs");
        assert!(!guard.is_over(99));
        guard.renew(99, 200);
        guard.renew(100, 150);
        assert_eq!(guard.until_ms(), 200, "an older word shortens nothing");
        assert!(!guard.is_over(199));
        assert!(guard.is_over(200));
    }

    #[test]
    fn a_guest_of_nobody_lives_until_it_is_a_pods_and_then_by_its_lease() {
        let mut guard = Guard::new(1, NO_LEASE_MS).expect("it runs");
        assert!(!guard.is_over(NO_LEASE_MS - 1));
        guard.renew(1, 100);
        assert_eq!(guard.until_ms(), 100, "the first word is the lease");
        guard.renew(1, 50);
        assert_eq!(guard.until_ms(), 100, "an older word shortens nothing from then on");
        assert!(!guard.is_over(99) && guard.is_over(100));
        let mut late = Guard::new(1, NO_LEASE_MS).expect("it runs");
        late.renew(200, 100);
        assert!(late.is_over(200), "a lease that is over already ends it");
    }

    #[test]
    fn what_is_over_stays_over() {
        let mut guard = Guard::new(0, 100).expect("it runs");
        guard.renew(100, 200);
        assert!(guard.is_over(100), "the word came too late");
        guard.renew(50, 200);
        assert!(guard.is_over(50), "not even a clock that goes back brings it back");
    }
}
