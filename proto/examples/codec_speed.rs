//! Prints what encoding and decoding cost: `cargo run --release -p bulkhead-proto --example codec_speed`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::ProtoCodec;
use bulkhead_types::*;
use smol_str::SmolStr;

/// Records of one measurement.
const ROUNDS: u32 = 20_000;
/// Bindings of one command.
const BINDINGS: u64 = 256;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn deployment() -> Object {
    let labels: StringMap = BTreeMap::from([("app", "web"), ("tier", "front")])
        .into_iter()
        .map(|(k, v)| (SmolStr::new(k), SmolStr::new(v)))
        .collect();
    let amounts = ResourceRequirements {
        cpu_millis: Some(250),
        memory_bytes: Some(128 << 20),
        ephemeral_storage_bytes: None,
    };
    let container = Container {
        name: "main".into(),
        image: "registry.example.org/shop/web:v1.2.3".into(),
        args: vec!["--port=8080".to_owned()],
        env: vec![EnvVar { name: "MODE".to_owned(), value: "production".to_owned(), ..EnvVar::default() }],
        ports: vec![ContainerPort {
            name: None,
            container_port: 8080,
            protocol: Protocol::Tcp,
            host: Rare::NONE,
        }],
        requests: amounts,
        limits: amounts,
        ..Container::default()
    };
    let spec = PodSpec { termination_grace_ms: 30_000, containers: vec![container], ..PodSpec::default() };
    let mut meta = ObjectMeta::new(Some(name("default")), name("web"));
    meta.labels.clone_from(&labels);
    Object::Deployment(Arc::new(Deployment {
        meta,
        spec: DeploymentSpec {
            replicas: 3,
            selector: LabelSelector::from_labels(labels.clone()),
            template: PodTemplate { labels, annotations: StringMap::new(), spec: Shared::new(spec) },
            strategy: DeploymentStrategy::default(),
            min_ready_ms: 0,
            progress_deadline_ms: PROGRESS_DEADLINE_MS_DEFAULT,
            revision_history_limit: REVISION_HISTORY_LIMIT_DEFAULT,
            paused: false,
            stopped: false,
            delivery: Default::default(),
        },
        status: DeploymentStatus::default(),
    }))
}

fn record(command: Command) -> LogRecord {
    LogRecord::Batch(vec![Stamped {
        request_id: uuid::Uuid::from_u128(7),
        actor: "user:alice".into(),
        proposed_at_ms: 1_700_000_000_000,
        trace_context: None,
        preconditions: vec![],
        commands: vec![command],
    }])
}

fn measure(what: &str, record: &LogRecord, items: u64) {
    let bytes = ProtoCodec.encode_log(record);
    let per_item = |start: Instant| start.elapsed().as_nanos() as f64 / f64::from(ROUNDS) / items as f64;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(ProtoCodec.encode_log(black_box(record)));
    }
    let encode = per_item(start);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(ProtoCodec.decode_log(black_box(&bytes))).expect("just encoded");
    }
    let decode = per_item(start);
    println!(
        "{what}: {} bytes, encode {encode:.0} ns, decode {decode:.0} ns ({:.0}/s)",
        bytes.len() as u64 / items,
        1e9 / decode
    );
}

fn main() {
    measure("Apply(Deployment)", &record(Command::Apply(deployment())), 1);
    let object = ObjectRef { kind: Kind::Deployment, namespace: Some(name("default")), name: name("web") };
    measure("Scale", &record(Command::Scale { object, replicas: 5 }), 1);
    let bindings = (0..BINDINGS)
        .map(|n| Binding {
            pod: ObjectId(1_000_000 + n),
            node: ObjectId(5000 + n),
            nodes_considered: 5000,
            score: 250,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        })
        .collect();
    measure("BindPods, per item", &record(Command::BindPods { bindings }), BINDINGS);
}
