//! Times and durations as people read and type them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time as RFC 3339.
pub(crate) fn rfc3339(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| ms.to_string(), |t| t.to_string())
}

/// Reads `30s`, `5m`, `1h30m`, `250ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is no duration: write 30s, 5m, 1h30m or 250ms"))?;
    Duration::try_from(signed).map_err(|_| format!("{text:?} is negative"))
}

/// How long ago, in kubectl's two-unit form; `<unknown>` for a time that was never set.
pub(crate) fn age(since_ms: u64) -> String {
    if since_ms == 0 { "<unknown>".to_owned() } else { short(now_ms().saturating_sub(since_ms) / 1000) }
}

/// A duration in kubectl's two-unit form.
pub(crate) fn short(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    let two = |large: u64, large_unit, small: u64, small_unit| {
        let (a, b) = (seconds / large, seconds % large / small);
        if b == 0 { format!("{a}{large_unit}") } else { format!("{a}{large_unit}{b}{small_unit}") }
    };
    match seconds {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, "d", HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        _ => two(YEAR, "y", DAY, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        let check = |seconds, expected: &str| assert_eq!(short(seconds), expected);
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(301, "5m1s");
        check(3600, "60m");
        check(4 * 3600 + 120, "4h2m");
        check(30 * 3600, "30h");
        check(3 * 86_400 + 3600, "3d1h");
        check(100 * 86_400, "100d");
        check(800 * 86_400, "2y70d");
    }

    #[test]
    fn durations_are_read_in_words() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(parse_duration("30").is_err());
        assert!(parse_duration("-5s").is_err());
    }
}
