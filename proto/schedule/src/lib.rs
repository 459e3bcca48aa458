//! When a CronJob runs.
//!
//! The grammar is that of Kubernetes (robfig's standard parser), with an optional field of seconds in front. Its
//! rule for time zones is stated here because cron's many tools differ: a run is an **instant at which the zone's
//! clock shows a matching time**. So a time that a change of clocks leaps over does not run. A time that the clocks
//! show twice runs once, the first time; unless the hour field takes every hour: such a schedule follows elapsed
//! time, and `*/10 * * * *` stays every ten minutes.
//!
//! Pure: no clock is read, and zones come from the database in this build, never from the host's. Raising the
//! version of that database may add names, which replicas of another build refuse: that is a feature level.

mod fields;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use fields::Fields;

/// How far ahead a run is looked for, in days: 29 February may be eight years away.
const DAYS_MAX: i64 = 9 * 366;
/// A day of the year 2000, on which every search for any run at all begins.
const SOME_DAY: DateTime = jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0);

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is none.
    #[error("{0}")]
    Expression(String),
    /// The zone is not in the database.
    #[error("{0}")]
    TimeZone(String),
}

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    fields: Fields,
    zone: TimeZone,
}

impl Schedule {
    /// Reads an expression of five fields (minute, hour, day of month, month, day of week) or six (second first), or
    /// one of `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`. The zone is a name of
    /// the IANA database, UTC when unset.
    ///
    /// # Errors
    /// When the expression has mistakes or can never come true, or the zone is unknown.
    pub fn new(expression: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let fields = fields::parse(expression).map_err(ScheduleError::Expression)?;
        let last = SOME_DAY.saturating_add(SignedDuration::from_hours(24 * DAYS_MAX));
        if fields.first_in(SOME_DAY, last).is_none() {
            let reason = "never comes: no month that it names has such a day";
            return Err(ScheduleError::Expression(reason.to_owned()));
        }
        Ok(Self { fields, zone: zone.map_or(Ok(TimeZone::UTC), find_zone)? })
    }

    /// Whether it has a field of seconds.
    #[must_use]
    pub fn has_seconds(&self) -> bool {
        self.fields.has_seconds
    }

    /// The first run after a time, both in milliseconds since the epoch; `None` beyond the end of calendars.
    #[must_use]
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let mut at = Timestamp::from_second(i64::try_from(after_ms / 1000).ok()?.checked_add(1)?).ok()?;
        let limit = at.checked_add(SignedDuration::from_hours(24 * DAYS_MAX)).ok()?;
        while at <= limit {
            // Up to the next change of clocks the zone is one offset.
            let offset = self.zone.to_offset(at);
            let change = self.zone.following(at).map(|t| t.timestamp()).find(|change| *change > at);
            let end = change.unwrap_or(limit).min(limit);
            let found = self.fields.first_in(offset.to_datetime(at), offset.to_datetime(end));
            let Some(local) = found else {
                at = change?;
                continue;
            };
            let found = offset.to_timestamp(local).ok()?;
            if change.is_some_and(|change| found >= change) {
                at = change?;
            } else if self.is_second_pass(local, found) {
                at = found.checked_add(SignedDuration::from_secs(1)).ok()?;
            } else {
                return u64::try_from(found.as_millisecond()).ok();
            }
        }
        None
    }

    /// The last run after `after_ms` and not after `until_ms`. Costs the logarithm of the time between, however many
    /// runs there were.
    #[must_use]
    pub fn last_between(&self, after_ms: u64, until_ms: u64) -> Option<u64> {
        let is_due = |run_ms: &u64| *run_ms <= until_ms;
        let mut last_ms = self.next_after(after_ms).filter(is_due)?;
        let mut beyond_ms = until_ms;
        // The first run after `last_ms` or later is due, that after `beyond_ms` is not.
        while beyond_ms - last_ms > 1 {
            let middle_ms = last_ms + (beyond_ms - last_ms) / 2;
            match self.next_after(middle_ms).filter(is_due) {
                Some(run_ms) => last_ms = run_ms,
                None => beyond_ms = middle_ms,
            }
        }
        Some(self.next_after(last_ms).filter(is_due).unwrap_or(last_ms))
    }

    /// Whether there are more than `most` runs after `after_ms` and not after `until_ms`. Looks at no more.
    #[must_use]
    pub fn has_more_than(&self, most: u32, after_ms: u64, until_ms: u64) -> bool {
        let mut at_ms = after_ms;
        (0..=most).all(|_| match self.next_after(at_ms) {
            Some(run_ms) if run_ms <= until_ms => {
                at_ms = run_ms;
                true
            }
            _ => false,
        })
    }

    fn is_second_pass(&self, local: DateTime, at: Timestamp) -> bool {
        match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Fold { before, .. } if !self.fields.takes_every_hour() => {
                before.to_timestamp(local).is_ok_and(|first| first != at)
            }
            _ => false,
        }
    }
}

/// Every second of the days that an expression of six fields names: those of the time of day do not count.
///
/// # Errors
/// As [`Schedule::new`], and when there are not six fields.
pub fn day_schedule(expression: &str, zone: Option<&str>) -> Result<Schedule, ScheduleError> {
    let parts: Vec<&str> = expression.split_whitespace().collect();
    let [_, _, _, day, month, weekday] = parts[..] else {
        let reason = "must have six fields (second, minute, hour, day of month, month, day of week)";
        return Err(ScheduleError::Expression(reason.to_owned()));
    };
    Schedule::new(expression, zone)?;
    Schedule::new(&format!("* * * {day} {month} {weekday}"), zone)
}

/// A time as RFC 3339, in UTC and whole seconds.
#[must_use]
pub fn format_time(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

/// A time given as RFC 3339, in milliseconds since the epoch; `None` when it is none, or before the epoch.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok())
}

fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let unknown = |hint: String| {
        ScheduleError::TimeZone(format!("{name:?} is no time zone of the IANA database{hint}"))
    };
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown(String::new()))?;
    match zone.iana_name() {
        Some(exact) if exact != name => Err(unknown(format!(": did you mean {exact:?}?"))),
        _ => Ok(zone),
    }
}

#[cfg(test)]
mod tests;
