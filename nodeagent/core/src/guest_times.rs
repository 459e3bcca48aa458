//! A guest's times as the host's, whatever happens to the host's calendar meanwhile.
//!
//! A guest reads the calendar once, when it boots, and counts on from there. The host's calendar may be set, by a day in either
//! direction; the clock since boot goes on evenly. So how far a guest's times may reach is said by that one, and what is said of the
//! calendar is by how much it was set since the guest began.

/// The host's two clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Milliseconds since the epoch: the calendar, which people and NTP set.
    pub unix_ms: u64,
    /// Milliseconds since the machine booted, which nobody sets.
    pub boot_ms: u64,
}

impl Clocks {
    /// When the machine booted, by the calendar as it is now.
    fn origin_ms(self) -> i64 {
        self.unix_ms.cast_signed().wrapping_sub(self.boot_ms.cast_signed())
    }
}

/// How far a guest's clock may run ahead, in milliseconds.
pub const CLOCK_AHEAD_MS_MAX: u64 = 2_000;
/// A calendar that differs by less than this was not set: NTP holds it to its course, in milliseconds.
pub const CALENDAR_STEP_MS: u64 = 10_000;

/// What is known of one guest's times. It is hostile: it can say what it likes within its own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestTimes {
    /// When its process started, by the calendar of then.
    started_at_ms: u64,
    /// The same by the clock since boot. A guest that an earlier agent started may have started before that clock's beginning is known.
    started_boot_ms: i64,
    /// [`Clocks::origin_ms`] when this began to look.
    origin_ms: i64,
}

impl GuestTimes {
    /// Of a guest whose process started then, by the calendar as it is now.
    #[must_use]
    pub fn new(started_at_ms: u64, now: Clocks) -> Self {
        let origin_ms = now.origin_ms();
        let started_boot_ms = started_at_ms.cast_signed().wrapping_sub(origin_ms);
        Self { started_at_ms, started_boot_ms, origin_ms }
    }

    /// By how much the calendar was set since.
    fn shift_ms(&self, now: Clocks) -> i64 {
        let shift = now.origin_ms().wrapping_sub(self.origin_ms);
        if shift.unsigned_abs() < CALENDAR_STEP_MS { 0 } else { shift }
    }

    /// How long the guest has been there, in milliseconds.
    fn age_ms(&self, now: Clocks) -> u64 {
        let age = now.boot_ms.cast_signed().wrapping_sub(self.started_boot_ms);
        u64::try_from(age).unwrap_or(0)
    }

    /// A time of its state, by the calendar of its start, so that the same moment is always told alike: neither before the start nor
    /// in the future. 0 stays 0.
    #[must_use]
    pub fn of_state(&self, guest_ms: u64, now: Clocks) -> u64 {
        let latest = self.started_at_ms.saturating_add(self.age_ms(now)).saturating_add(CLOCK_AHEAD_MS_MAX);
        if guest_ms == 0 { 0 } else { guest_ms.clamp(self.started_at_ms, latest) }
    }

    /// The time of its output, by the calendar as it is now: whoever asks for the last five minutes gets them, although the calendar
    /// was set since the guest began. 0 stays 0.
    #[must_use]
    pub fn of_output(&self, guest_ms: u64, now: Clocks) -> u64 {
        match guest_ms {
            0 => 0,
            _ => self.of_state(guest_ms, now).saturating_add_signed(self.shift_ms(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const NOW: u64 = 1_800_000_000_000;

    /// A guest that began an hour after the machine, a minute ago, and says a time; the calendar was set by `set_ms` since.
    fn check(set_ms: i64, says_ms: u64, state_ms: u64, output_ms: u64) {
        let then = Clocks { unix_ms: NOW, boot_ms: 3_600_000 };
        let times = GuestTimes::new(NOW, then);
        let now = Clocks {
            unix_ms: (NOW + 60_000).checked_add_signed(set_ms).expect("after 1970"),
            boot_ms: then.boot_ms + 60_000,
        };
        assert_eq!(times.of_state(says_ms, now), state_ms, "state, set by {set_ms}");
        assert_eq!(times.of_output(says_ms, now), output_ms, "output, set by {set_ms}");
    }

    #[test]
    fn a_guests_clock_is_not_believed() {
        check(0, NOW + 5_000, NOW + 5_000, NOW + 5_000);
        check(0, 0, 0, 0);
        check(0, 1, NOW, NOW);
        check(0, u64::MAX, NOW + 62_000, NOW + 62_000);
    }

    #[test]
    fn a_calendar_that_is_set_moves_new_output_and_no_state() {
        // The guest knows nothing of it: 55 s after its start it says so. Output is told by the calendar as it is.
        let says = NOW + 55_000;
        check(DAY.cast_signed(), says, says, says + DAY);
        check(-DAY.cast_signed(), says, says, says - DAY);
        // What NTP does all the time is nothing.
        check(800, says, says, says);
        check(-9_999, says, says, says);
        // It may be set to before 1970, where there are no times.
        check(-(NOW.cast_signed()), says, says, says - NOW);
    }

    #[test]
    fn a_guest_that_an_earlier_agent_started_is_as_old_as_its_process() {
        // The calendar was set ahead by a day before this agent began: the start follows from the age of the process.
        let now = Clocks { unix_ms: NOW + DAY, boot_ms: 7_200_000 };
        let times = GuestTimes::new(now.unix_ms - 600_000, now);
        assert_eq!(times.of_output(NOW - 1_000, now), now.unix_ms - 600_000, "it is bounded by its life");
        let later = Clocks { unix_ms: NOW + 5_000, boot_ms: now.boot_ms + 5_000 };
        assert_eq!(times.of_output(u64::MAX, later), NOW + 5_000 + CLOCK_AHEAD_MS_MAX, "and set back again");
    }
}
