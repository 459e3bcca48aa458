//! Traces: one id from the client through the log and the intent to the start of the pod.

use std::process::Command;
use std::sync::{Arc, Mutex};

use bulkhead_tests::{
    Agent, Cluster, IMAGE_NAME, build_layout, free_addresses, guest_environment, skip, wait,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tonic::{Request, Response, Status};

/// How long spans may take to arrive: they are sent every few seconds.
const ARRIVAL_SECONDS: u64 = 120;

/// A span as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    service: String,
    name: String,
    trace: String,
    parent: String,
    span: String,
}

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Arrived>>>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut arrived = self.0.lock().expect("nobody panics with it");
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service =
                attributes.into_iter().find(|a| a.key == "service.name").and_then(|a| a.value?.value);
            let Some(Value::StringValue(service)) = service else {
                return Err(Status::invalid_argument("the resource has no service.name"));
            };
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                arrived.push(Arrived {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    parent: hex(&span.parent_span_id),
                    span: hex(&span.span_id),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

impl Collector {
    /// The span of this name in this trace, once it is there.
    fn await_span(&self, trace: &str, name: &str) -> Arrived {
        let look = || {
            let arrived = self.0.lock().expect("nobody panics with it");
            arrived.iter().find(|span| span.trace == trace && span.name == name).cloned()
        };
        wait::until_or(&format!("span {name}"), ARRIVAL_SECONDS, look, || format!(": {:?}", self.0.lock()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_client_to_the_start_of_the_pod() {
    if let Err(missing) = guest_environment() {
        return skip(&missing);
    }
    let address = free_addresses(1).remove(0);
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let served = tonic::transport::Server::builder().add_service(service);
    let collecting = tokio::spawn(served.serve(address.parse().expect("an address")));

    let endpoint = format!("http://{address}");
    let mut cluster = Cluster::prepare(1);
    cluster.options.extend(["--otlp-endpoint".to_owned(), endpoint.clone()]);
    cluster.start_server(1);
    cluster.await_all();
    let layout = match build_layout(cluster.dir()) {
        Ok(layout) => layout,
        Err(missing) => return skip(&missing),
    };
    // Without QEMU the start fails at once, and is a start all the same.
    let options = ["--qemu", "/nonexistent/qemu", "--otlp-endpoint", &endpoint];
    let mut agent = Agent::prepare(cluster.dir(), "node-1", &cluster.servers(), &options);
    agent.import(&layout, "v1", IMAGE_NAME);
    agent.start();
    wait::until_true("the node", ARRIVAL_SECONDS, || cluster.cli().object("node", "node-1").is_some());

    let manifest = cluster.dir().join("traced.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: traced\nspec:\n  containers:\n  - name: main\n    \
         image: {IMAGE_NAME}\n    imagePullPolicy: Never\n"
    );
    std::fs::write(&manifest, text).expect("written");
    let mut apply: Command = cluster.cli().command(&["-v", "--timeout", "90s", "apply", "-f"]);
    let applied = apply.arg(&manifest).output().expect("the program starts");
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "{said}");
    // The client's own word for its trace: 00-<trace>-<span>-01.
    let parent = said.split("traceparent 00-").nth(1).expect(&said).trim();
    let (trace, span) = parent.trim_end_matches("-01").split_once('-').expect(parent);

    let submit = collector.await_span(trace, "submit");
    assert_eq!((submit.service.as_str(), submit.parent.as_str()), ("bulkhead-server", span), "{submit:?}");
    let start = collector.await_span(trace, "pod.start");
    assert_eq!(start.service, "bulkhead-agent", "{start:?}");
    assert_eq!(start.parent, submit.span, "{start:?} is below {submit:?}");
    for step in ["pod.start.image", "pod.start.room", "pod.start.disks"] {
        let step = collector.await_span(trace, step);
        assert_eq!(step.parent, start.span, "{step:?} is below {start:?}");
    }
    collecting.abort();
}
