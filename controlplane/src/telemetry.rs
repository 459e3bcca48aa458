//! Logs, and traces over OTLP when configured.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, global};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The log filter when the environment variable `BULKHEAD_LOG` does not say otherwise.
const FILTER_DEFAULT: &str = "info,h2=warn,hyper=warn,tonic=warn,sled=warn";
/// The header, and the environment's name, of a W3C trace context.
const TRACEPARENT: &str = "traceparent";

/// Keeps the exporter alive; dropping it sends what is left.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            eprintln!("the last traces could not be sent: {error}");
        }
    }
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter cannot be made.
    #[error("the OTLP exporter cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else has set up logging already.
    #[error("logging is set up already: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logs on standard error, and traces to an OTLP collector (gRPC, such as `http://127.0.0.1:4317`)
/// when one is given. Must be called inside a tokio runtime when traces are exported.
///
/// # Errors
/// When the exporter cannot be made, or logging is set up already.
pub fn init(service: &'static str, otlp_endpoint: Option<&str>) -> Result<Telemetry, TelemetryError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter).with(logs);
    let Some(endpoint) = otlp_endpoint else {
        registry.try_init()?;
        return Ok(Telemetry { provider: None });
    };
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let tracer = provider.tracer(service);
    registry.with(tracing_opentelemetry::layer().with_tracer(tracer)).try_init()?;
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry { provider: Some(provider) })
}

/// Makes a span the child of a W3C `traceparent`; does nothing when it cannot be read.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    let carrier = std::collections::HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context: Context = global::get_text_map_propagator(|p| p.extract(&carrier));
    // A span that is not recorded has no context to set.
    let _ = span.set_parent(context);
}

/// The W3C `traceparent` of a span, when it is traced.
#[must_use]
pub fn traceparent(span: &tracing::Span) -> Option<String> {
    let mut carrier = std::collections::HashMap::new();
    global::get_text_map_propagator(|p| p.inject_context(&span.context(), &mut carrier));
    carrier.remove(TRACEPARENT)
}
