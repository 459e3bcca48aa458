//! W3C trace context: from a `traceparent` into a span, and back.
//!
//! Source: "Trace Context", W3C Recommendation, section 3.2 (`00-<trace>-<span>-<flags>`).

use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Makes `span` a child of the span that this header names. What is no header is passed over.
pub(crate) fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(parse) {
        let parent = opentelemetry::Context::new().with_remote_span_context(context);
        // Without a tracer, or when the span is already part of a trace, there is nothing to set.
        let _ = span.set_parent(parent);
    }
}

/// The header that names this span, if it is part of a trace.
pub(crate) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    })
}

/// Tells the collector of a step that has ended, below the span of `parent`.
pub(crate) fn step(parent: &Context, name: &'static str, begun: SystemTime, ended: SystemTime) {
    if parent.span().span_context().is_valid() {
        let tracer = opentelemetry::global::tracer("bulkhead-agent");
        let builder = tracer.span_builder(name).with_start_time(begun);
        builder.start_with_context(&tracer, parent).end_with_timestamp(ended);
    }
}

fn parse(header: &str) -> Option<SpanContext> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if [version.len(), trace.len(), span.len(), flags.len()] != [2, 32, 16, 2] || version == "ff" {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse(good).expect("valid");
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        for bad in ["", "00", &good.replace("4bf9", "xxxx"), &good.replace("00-", "ff-"), &"0".repeat(55)] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
