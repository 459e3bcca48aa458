//! The trace that a command starts: its id travels through log, intent and agent to the guest's start.

use std::fmt;

use uuid::Uuid;

/// A W3C `traceparent` for one run of this program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceParent {
    trace: Uuid,
    span: u64,
}

impl TraceParent {
    /// A new, sampled trace.
    pub(crate) fn new() -> Self {
        let (span, _) = Uuid::new_v4().as_u64_pair();
        // All zeros would mean "no span".
        Self { trace: Uuid::new_v4(), span: span.max(1) }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-01", self.trace.simple(), self.span)
    }
}

/// Shows what the libraries log, on standard error, when asked for with `BULKHEAD_LOG` (a tracing filter).
pub(crate) fn init_client_logging() {
    let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG") else { return };
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Logs of a server or an agent on standard error, and its traces to a collector when one is given.
pub(crate) fn init_process(
    service: &'static str,
    otlp_endpoint: Option<&str>,
) -> anyhow::Result<bulkhead_controlplane::telemetry::Telemetry> {
    Ok(bulkhead_controlplane::telemetry::init(service, otlp_endpoint)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_have_the_w3c_form() {
        let text = TraceParent::new().to_string();
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert!(text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }
}
