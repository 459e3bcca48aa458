//! Virtual time, and what each host's clocks make of it.

/// True time of the simulation, in microseconds from its start.
pub(crate) type Micros = u64;

/// Where wall clocks begin, milliseconds since the epoch.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
const MILLION: i128 = 1_000_000;

/// One host's clocks: a monotonic one that drifts, and a wall clock that can be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostClock {
    /// How much faster than true time it runs, in millionths.
    drift_ppm: i64,
    /// How far the wall clock is off, in milliseconds.
    offset_ms: i64,
    /// True time since which it runs so fast.
    since_us: Micros,
    /// Local time then, in microseconds since the simulation's start.
    local_us: u64,
    /// Local time at which the host booted.
    booted_local_us: u64,
}

impl HostClock {
    /// A clock with this drift and offset, of a host that boots at the beginning.
    #[must_use]
    pub(crate) fn new(drift_ppm: i64, offset_ms: i64) -> Self {
        Self { drift_ppm, offset_ms, since_us: 0, local_us: 0, booted_local_us: 0 }
    }

    /// The monotonic clock, in milliseconds since boot.
    #[must_use]
    pub(crate) fn monotonic_ms(&self, now_us: Micros) -> u64 {
        (self.local(now_us) - self.booted_local_us) / 1000
    }

    /// The wall clock, in milliseconds since the epoch.
    #[must_use]
    pub(crate) fn wall_ms(&self, now_us: Micros) -> u64 {
        (EPOCH_MS + self.local(now_us) / 1000).saturating_add_signed(self.offset_ms)
    }

    /// True time at which the monotonic clock shows at least this; the time of the last change of its speed when
    /// it showed it before.
    #[must_use]
    pub(crate) fn true_us(&self, monotonic_ms: u64) -> Micros {
        let ahead =
            i128::from(monotonic_ms) * 1000 + i128::from(self.booted_local_us) - i128::from(self.local_us);
        let after = -(-ahead.max(0) * MILLION).div_euclid(MILLION + i128::from(self.drift_ppm));
        self.since_us + u64::try_from(after).expect("it is at least zero")
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn jump(&mut self, by_ms: i64) {
        self.offset_ms += by_ms;
    }

    /// Lets the clock run at another speed from now on.
    pub(crate) fn set_drift(&mut self, now_us: Micros, drift_ppm: i64) {
        self.local_us = self.local(now_us);
        self.since_us = now_us;
        self.drift_ppm = drift_ppm;
    }

    /// How far the wall clock was set off, in milliseconds.
    #[must_use]
    pub(crate) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The host boots anew: its monotonic clock begins at zero.
    pub(crate) fn reboot(&mut self, now_us: Micros) {
        self.booted_local_us = self.local(now_us);
    }

    fn local(&self, now_us: Micros) -> u64 {
        let us = now_us - self.since_us;
        let drift = i128::from(us) * i128::from(self.drift_ppm) / MILLION;
        self.local_us + u64::try_from(i128::from(us) + drift).expect("drift is far below one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_go_off_when_the_clock_shows_their_time_and_not_much_later() {
        for drift in [-5000, -1, 0, 3, 4999, 300_000] {
            let mut clock = HostClock::new(drift, 0);
            clock.reboot(12_345);
            clock.set_drift(20_000, drift / 2);
            for at in [50, 999, 123_456_789] {
                let due = clock.true_us(at);
                assert!(clock.monotonic_ms(due + 1) >= at, "{drift} {at}");
                assert!(clock.monotonic_ms(due.saturating_sub(3000).max(20_000)) <= at, "{drift} {at}");
            }
        }
    }

    #[test]
    fn a_jump_moves_the_wall_clock_only() {
        let mut clock = HostClock::new(0, 0);
        let before = clock.wall_ms(1_000_000);
        clock.jump(-250);
        assert_eq!(clock.wall_ms(1_000_000), before - 250);
        assert_eq!(clock.monotonic_ms(1_000_000), 1000);
    }

    #[test]
    fn another_speed_counts_from_its_change_on() {
        let mut clock = HostClock::new(0, 0);
        clock.set_drift(1_000_000, 500_000);
        assert_eq!(clock.monotonic_ms(1_000_000), 1000);
        assert_eq!(clock.monotonic_ms(3_000_000), 4000);
    }
}
