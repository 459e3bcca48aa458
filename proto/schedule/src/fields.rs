//! Cron expressions, and the times of a calendar without zones that they match.

use jiff::civil::{Date, DateTime, Time};

/// Which values of each field match, a bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) has_seconds: bool,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither days nor weekdays were left open: a day matches by either.
    either_day: bool,
}

/// One field of an expression.
struct Spec {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of values, from `first` on.
    names: &'static [&'static str],
}

const SECOND: Spec = Spec { name: "second", first: 0, last: 59, names: &[] };
const MINUTE: Spec = Spec { name: "minute", first: 0, last: 59, names: &[] };
const HOUR: Spec = Spec { name: "hour", first: 0, last: 23, names: &[] };
const DAY: Spec = Spec { name: "day of month", first: 1, last: 31, names: &[] };
const MONTH: Spec = Spec {
    name: "month",
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Spec = Spec {
    name: "day of week",
    first: 0,
    last: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// What stands for an expression (Kubernetes' list).
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse(expression: &str) -> Result<Fields, String> {
    let expression = expression.trim();
    if expression.contains("TZ=") {
        return Err("must not name a time zone: set timeZone instead".to_owned());
    }
    let plain = if expression.starts_with('@') {
        let named = NAMED.iter().find(|(name, _)| *name == expression);
        named.map(|(_, plain)| *plain).ok_or_else(|| {
            let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            format!("{expression:?} is none of {}", names.join(", "))
        })?
    } else {
        expression
    };
    let mut parts: Vec<_> = plain.split_whitespace().collect();
    let has_seconds = parts.len() == 6;
    if !has_seconds {
        if parts.len() != 5 {
            return Err(format!(
                "must have five fields (minute, hour, day of month, month, day of week), or six with the second \
                 first; this has {}",
                parts.len()
            ));
        }
        parts.insert(0, "0");
    }
    let days = field(&DAY, parts[3])?;
    let weekdays = field(&WEEKDAY, parts[5])?;
    Ok(Fields {
        has_seconds,
        seconds: field(&SECOND, parts[0])?.values,
        minutes: field(&MINUTE, parts[1])?.values,
        hours: field(&HOUR, parts[2])?.values,
        days: days.values,
        months: field(&MONTH, parts[4])?.values,
        weekdays: weekdays.values,
        either_day: !days.is_open && !weekdays.is_open,
    })
}

struct Values {
    values: u64,
    /// It was `*` or `?`.
    is_open: bool,
}

fn field(spec: &Spec, text: &str) -> Result<Values, String> {
    let mut found = Values { values: 0, is_open: false };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(spec, step)?)),
            None => (part, None),
        };
        if step == Some(0) {
            return Err(format!("{}: the step in {part:?} must be at least 1", spec.name));
        }
        let is_open = matches!(range, "*" | "?");
        let (first, last) = match range.split_once('-') {
            _ if is_open => (spec.first, spec.last),
            Some((first, last)) => (value(spec, first)?, value(spec, last)?),
            // `5/15`: from 5 on.
            None if step.is_some() => (value(spec, range)?, spec.last),
            None => (value(spec, range)?, value(spec, range)?),
        };
        if first > last {
            return Err(format!("{}: {range:?} ends before it begins", spec.name));
        }
        let step = step.unwrap_or(1);
        found.is_open |= is_open && step == 1;
        (first..=last).step_by(step as usize).for_each(|value| found.values |= 1 << value);
    }
    Ok(found)
}

fn number(spec: &Spec, text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("{}: {text:?} is no number", spec.name))
}

fn value(spec: &Spec, text: &str) -> Result<u32, String> {
    let named = spec.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    if let Some(position) = named.and_then(|position| u32::try_from(position).ok()) {
        return Ok(spec.first + position);
    }
    let found = number(spec, text)?;
    if (spec.first..=spec.last).contains(&found) {
        return Ok(found);
    }
    Err(format!("{}: {found} is not between {} and {}", spec.name, spec.first, spec.last))
}

/// The first value that matches, from `from` on.
fn next_bit(values: u64, from: i8) -> Option<i8> {
    let rest = values.checked_shr(u32::try_from(from).ok()?).filter(|rest| *rest != 0)?;
    i8::try_from(rest.trailing_zeros()).ok().map(|ahead| from + ahead)
}

fn has_bit(values: u64, at: i8) -> bool {
    next_bit(values, at) == Some(at)
}

impl Fields {
    /// Whether no hour was left out.
    pub(crate) fn takes_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// The first time that matches, from `from` on and before `until`.
    pub(crate) fn first_in(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let (mut date, mut time) = (from.date(), from.time());
        while date <= until.date() {
            if !has_bit(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                time = Time::midnight();
                continue;
            }
            if self.is_day(date)
                && let Some(found) = self.first_in_day(time)
            {
                return Some(date.to_datetime(found)).filter(|found| *found < until);
            }
            date = date.tomorrow().ok()?;
            time = Time::midnight();
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let day = has_bit(self.days, date.day());
        let weekday = has_bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.either_day { day || weekday } else { day && weekday }
    }

    fn first_in_day(&self, from: Time) -> Option<Time> {
        let first = |values| next_bit(values, 0).expect("a field has a value");
        let time = |hour, minute, second| Some(Time::constant(hour, minute, second, 0));
        let hour = next_bit(self.hours, from.hour())?;
        if hour == from.hour() {
            if has_bit(self.minutes, from.minute())
                && let Some(second) = next_bit(self.seconds, from.second())
            {
                return time(hour, from.minute(), second);
            }
            if let Some(minute) = next_bit(self.minutes, from.minute() + 1) {
                return time(hour, minute, first(self.seconds));
            }
            let hour = next_bit(self.hours, hour + 1)?;
            return time(hour, first(self.minutes), first(self.seconds));
        }
        time(hour, first(self.minutes), first(self.seconds))
    }
}
