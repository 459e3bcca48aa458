//! How long a caller waits.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// How long a request may take when its caller does not say.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Kept back from a caller's deadline, so that the answer still arrives: a tenth of it, between these bounds. A caller
/// that gives up first learns nothing of the reason.
const ANSWER_MARGIN_MIN: Duration = Duration::from_millis(20);
const ANSWER_MARGIN_MAX: Duration = Duration::from_secs(1);

/// When a request must be answered: the caller's `grpc-timeout`, at most [`REQUEST_TIMEOUT`] from now.
pub(crate) fn deadline(metadata: &MetadataMap) -> Instant {
    let asked = metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse_timeout);
    let timeout = asked.map_or(REQUEST_TIMEOUT, |t| t.min(REQUEST_TIMEOUT));
    let margin = (timeout / 10).clamp(ANSWER_MARGIN_MIN, ANSWER_MARGIN_MAX);
    Instant::now() + timeout.saturating_sub(margin)
}

/// The `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "5", "5X", "123456789S", "-1S", "ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
