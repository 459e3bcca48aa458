//! proptest strategies for every domain type: any content that the log may hold, small enough to be quick.

use std::sync::Arc;

use bulkhead_types::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use smol_str::SmolStr;
use uuid::Uuid;

pub use autoscaling::*;
pub use claims::*;
pub use commands::*;
pub use cpus::*;
pub use descheduler::*;
pub use devices::*;
pub use elastic_quotas::*;
pub use events::*;
pub use naming::*;
pub use node_pools::*;
pub use placement::*;
pub use profiles::*;
pub use pull_secrets::*;
pub use queues::*;
pub use quotas::*;
pub use running::*;
pub use sriov::*;
pub use vertical::*;
pub use volumes::*;
pub use workloads::*;

/// Makes a struct from one strategy per field.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident: $type:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {
        $(#[$doc])*
        pub fn $name() -> impl Strategy<Value = $type> + Clone {
            // Nested pairs, because a tuple of strategies has at most twelve.
            let fields = Just(()).boxed();
            $(let fields = (fields, $strategy).boxed();)+
            fields.prop_map(|all| {
                record!(@unpack all; [] $($field)+);
                $type { $($field),+ }
            })
        }
    };
    (@unpack $all:ident; [$($done:ident)*] $head:ident $($rest:ident)*) => {
        record!(@unpack $all; [$head $($done)*] $($rest)*);
    };
    (@unpack $all:ident; [$($reversed:ident)+]) => {
        let rest = $all;
        $(let (rest, $reversed) = rest;)+
        let () = rest;
    };
}

mod autoscaling;
mod claims;
mod commands;
mod cpus;
mod descheduler;
mod devices;
mod elastic_quotas;
mod events;
mod naming;
mod node_pools;
mod placement;
mod profiles;
mod pull_secrets;
mod queues;
mod quotas;
mod running;
mod sriov;
mod vertical;
mod volumes;
mod workloads;

/// Any text, up to 12 characters, of all of Unicode.
pub fn text() -> impl Strategy<Value = String> + Clone {
    "\\PC{0,12}"
}

/// Any short text.
pub fn small() -> impl Strategy<Value = SmolStr> + Clone {
    text().prop_map(SmolStr::from)
}

/// Any object name.
pub fn name() -> impl Strategy<Value = Name> + Clone {
    "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?".prop_map(|text| Name::new(text).expect("the pattern is a name's"))
}

/// Any labels or annotations.
pub fn labels() -> impl Strategy<Value = StringMap> + Clone {
    proptest::collection::btree_map(
        "([a-z0-9]{1,5}(\\.[a-z0-9]{1,5})?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?"
            .prop_map(SmolStr::from),
        "([A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?)?".prop_map(SmolStr::from),
        0..4,
    )
    .prop_map(StringMap::from)
}

/// Any UUID; nil now and then.
pub fn uuid() -> impl Strategy<Value = Uuid> + Clone {
    prop_oneof![1 => Just(Uuid::nil()), 4 => any::<u128>().prop_map(Uuid::from_u128)]
}

/// Any object key.
pub fn object_id() -> impl Strategy<Value = ObjectId> + Clone {
    any::<u64>().prop_map(ObjectId)
}

/// Any member id.
pub fn member_id() -> impl Strategy<Value = MemberId> + Clone {
    (1..=u64::MAX).prop_map(MemberId)
}

/// Any kind.
pub fn kind() -> impl Strategy<Value = Kind> + Clone {
    select(Kind::ALL.to_vec())
}

record!(/// Any reference.
    object_ref: ObjectRef { kind: kind(), namespace: of(name()), name: name() });
record!(/// Any deletion.
deletion: Deletion {
    requested_at_ms: any::<u64>(), grace_ms: any::<u64>(), by_job: any::<bool>(), preemptor: of(object_id()),
});
record!(/// Any owner.
    owner_ref: OwnerRef { kind: kind(), id: object_id() });
record!(/// Any metadata.
meta: ObjectMeta {
    name: name(), namespace: of(name()), id: object_id(), revision: any::<u64>(),
    generation: any::<u64>(), created_at_ms: any::<u64>(), deletion: of(deletion().prop_map(Box::new)), labels: labels(),
    annotations: labels(), owner: of(owner_ref()), trace_context: of(small()), managers: rare(managers()),
});
record!(/// Any manager.
field_manager: FieldManager {
    manager: small(), operation: select(vec![ManagerOperation::Apply, ManagerOperation::Update]),
    fields: vec(vec("[a-z]{1,3}|\\[name=[a-z,]{1,3}\\]", 1..4), 1..4).prop_map(|paths| {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set.text().into()
    }),
});
record!(/// Any managers.
    managers: Managers { managers: vec(field_manager(), 0..3) });
record!(/// Any amounts.
resources: Resources {
    cpu_millis: any::<u64>(), memory_bytes: any::<u64>(), ephemeral_storage_bytes: any::<u64>(),
    huge_pages: huge_pages(), pinned_memory_bytes: any::<u64>(),
});
record!(/// Any huge pages.
    huge_pages: HugePages { two_mib_bytes: any::<u64>(), one_gib_bytes: any::<u64>() });
record!(/// Any requirement.
label_requirement: LabelRequirement {
    key: small(),
    operator: select(vec![
        LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist,
    ]),
    values: vec(small(), 0..3),
});
record!(/// Any selector.
label_selector: LabelSelector {
    match_labels: labels(), match_expressions: vec(label_requirement(), 0..3),
});
record!(/// Any refusal.
rejection: Rejection {
    code: select(vec![
        RejectionCode::Invalid, RejectionCode::NotFound, RejectionCode::AlreadyExists,
        RejectionCode::Conflict, RejectionCode::NotAllowed, RejectionCode::StaleIncarnation,
    ]),
    field: text(), reason: text(), remedy: text(),
});

/// Any answer.
pub fn outcome() -> impl Strategy<Value = Outcome> + Clone {
    prop_oneof![any::<u64>().prop_map(Ok), rejection().prop_map(Err)]
}

// --- nodes ---

/// Any taint effect.
pub fn taint_effect() -> impl Strategy<Value = TaintEffect> + Clone {
    select(vec![TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute])
}

/// Any node phase.
pub fn node_phase() -> impl Strategy<Value = NodePhase> + Clone {
    select(vec![NodePhase::Ready, NodePhase::Unreachable, NodePhase::Fenced])
}

record!(/// Any taint.
    taint: Taint { key: small(), value: small(), effect: taint_effect() });
record!(/// Any node spec.
    node_spec: NodeSpec { unschedulable: any::<bool>(), taints: vec(taint(), 0..3),
    gpu: of(devices::node_gpu()).prop_map(Rare::from) });
record!(/// Any facts.
node_facts: NodeFacts {
    capacity: resources(), allocatable: resources(), pods_max: any::<u32>(), address: small(),
    boot_id: small(), agent_version: small(), kernel_version: small(), accelerator: small(),
    warnings: vec(small(), 0..3), labels: labels(), cpus: rare(cpu_topology()),
    preconditions: rare(node_preconditions()),
});
record!(/// Any preconditions of a node.
    node_preconditions: NodePreconditions { preconditions: vec(node_precondition(), 0..3) });
record!(/// Any precondition.
node_precondition: NodePrecondition {
    name: small(),
    need: select(vec![
        PreconditionNeed::Limits, PreconditionNeed::Confinement, PreconditionNeed::Speed,
        PreconditionNeed::Devices, PreconditionNeed::VirtualFunctions, PreconditionNeed::Network,
        PreconditionNeed::Volumes,
    ]),
    outcome: select(vec![
        PreconditionOutcome::Met, PreconditionOutcome::Missing, PreconditionOutcome::NotNeeded,
        PreconditionOutcome::Unknown,
    ]),
    found: small(), remedy: small(),
});
record!(/// Any node status.
node_status: NodeStatus {
    phase: node_phase(), phase_since_ms: any::<u64>(), incarnation: any::<u64>(), facts: node_facts(),
    pool: of(node_pool_record()).prop_map(Rare::from), images: rare(node_images()),
    device_labels: rare(device_labels()),
});
record!(/// Any image of a node.
    node_image: NodeImage { digest: small(), names: vec(small(), 0..3), size_bytes: any::<u64>() });
record!(/// Any images of a node.
    node_images: NodeImages { images: vec(node_image(), 0..3) });
record!(/// Any node.
    node: Node { meta: meta(), spec: node_spec(), status: node_status() });

// --- pods ---

record!(/// Any toleration.
toleration: Toleration {
    key: small(), operator: select(vec![TolerationOperator::Equal, TolerationOperator::Exists]),
    value: small(), effect: of(taint_effect()), toleration_ms: of(any::<u64>()),
});
record!(/// Any environment variable.
    env_var: EnvVar { name: text(), value: text(), value_from: rare(env_source()) });
record!(/// Any port.
container_port: ContainerPort {
    name: of(small()), container_port: any::<u16>(),
    protocol: select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]), host: rare(host_port()),
});
record!(/// Any port of a node.
    host_port: HostPort { port: any::<u16>(), ip: of(any::<std::net::IpAddr>()) });
record!(/// Any requests or limits.
resource_requirements: ResourceRequirements {
    cpu_millis: of(any::<u64>()), memory_bytes: of(any::<u64>()),
    ephemeral_storage_bytes: of(any::<u64>()),
});
record!(/// Any container.
container: Container {
    name: small(), image: small(),
    image_pull_policy: select(vec![
        ImagePullPolicy::IfNotPresent, ImagePullPolicy::Always, ImagePullPolicy::Never,
    ]),
    command: vec(text(), 0..3), args: vec(text(), 0..3), working_dir: of(text()),
    env: vec(env_var(), 0..3), ports: vec(container_port(), 0..3),
    requests: resource_requirements(), limits: resource_requirements(), options: rare(container_options()),
});
record!(/// Any pod spec.
pod_spec: PodSpec {
    runtime_class: Just(RuntimeClass::Rune),
    restart_policy: select(vec![RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]),
    termination_grace_ms: any::<u64>(), node_selector: labels(), node_name: of(small()),
    tolerations: vec(toleration(), 0..3), hostname: of(small()),
    init_containers: vec(container(), 0..2), containers: vec(container(), 0..3), options: rare(pod_options()),
});
record!(/// Any template.
pod_template: PodTemplate {
    labels: labels(), annotations: labels(), spec: pod_spec().prop_map(Shared::new),
});
record!(/// Any end of a container.
termination: ContainerTermination {
    exit_code: any::<i32>(), signal: any::<i32>(), reason: small(), message: text(),
    started_at_ms: any::<u64>(), finished_at_ms: any::<u64>(),
});

/// Any container state.
pub fn container_state() -> impl Strategy<Value = ContainerState> + Clone {
    prop_oneof![
        (small(), text()).prop_map(|(reason, message)| ContainerState::Waiting { reason, message }),
        any::<u64>().prop_map(|started_at_ms| ContainerState::Running { started_at_ms }),
        termination().prop_map(|end| ContainerState::Terminated(Box::new(end))),
    ]
}

record!(/// Any container status.
container_status: ContainerStatus {
    name: small(), state: container_state(), last_termination: of(termination().prop_map(Box::new)),
    restart_count: any::<u32>(), ready: any::<bool>(), image_digest: small(),
});
record!(/// Any addresses of a pod.
pod_addresses: PodAddresses {
    pod_ips: vec(any::<std::net::IpAddr>(), 0..3), host_ip: of(any::<std::net::IpAddr>()),
});
record!(/// Any size of a container.
container_size: ContainerSize {
    name: small(), requests: resource_requirements(), limits: resource_requirements(),
});
record!(/// Any policy of resizes.
resize_policy: ResizePolicy { restart_for_cpu: any::<bool>(), restart_for_memory: any::<bool>() });
record!(/// Any resize.
pod_resize: PodResize {
    desired: vec(container_size(), 0..3),
    stage: select(vec![ResizeStage::Deferred, ResizeStage::Infeasible, ResizeStage::InProgress]),
    message: text(), since_ms: any::<u64>(),
});
record!(/// Any word of an agent about sizes.
actual_sizes: ActualSizes {
    containers: vec(container_size(), 0..3), wanted: vec(container_size(), 0..3), reason: small(),
    message: text(), refused: any::<bool>(),
});
record!(/// Any pod status.
pod_status: PodStatus {
    phase: select(vec![PodPhase::Pending, PodPhase::Running, PodPhase::Succeeded, PodPhase::Failed]),
    reason: small(), message: text(), ready: any::<bool>(), ready_since_ms: any::<u64>(),
    bound_at_ms: any::<u64>(), started_at_ms: any::<u64>(), report_sequence: any::<u64>(),
    sandbox_restarts: any::<u32>(), init_containers: vec(container_status(), 0..2),
    containers: vec(container_status(), 0..3), nominated_node: rare(object_id()),
    devices: rare(vec(allocated_device(), 0..3)), networks: rare(vec(network_attachment(), 0..3)),
    cpus: rare(pod_cpus()), addresses: rare(pod_addresses()), resize: rare(pod_resize()),
    actual: rare(actual_sizes()),
});
record!(/// Any pod.
pod: Pod {
    meta: meta(), spec: pod_spec().prop_map(Shared::new), node: of(object_id()),
    status: prop_oneof![Just(PodStatus::default()), pod_status()],
});

// --- workloads ---

record!(/// Any ReplicaSet spec.
replica_set_spec: ReplicaSetSpec {
    replicas: any::<u32>(), min_ready_ms: any::<u64>(), selector: label_selector(),
    template: pod_template(), rollout_revision: any::<u64>(),
});
record!(/// Any ReplicaSet status.
replica_set_status: ReplicaSetStatus {
    observed_generation: any::<u64>(), replicas: any::<u32>(), ready_replicas: any::<u32>(),
    available_replicas: any::<u32>(), failure: rare(condition()),
});
record!(/// Any ReplicaSet.
    replica_set: ReplicaSet { meta: meta(), spec: replica_set_spec(), status: replica_set_status() });

/// Any number or share.
pub fn int_or_percent() -> impl Strategy<Value = IntOrPercent> + Clone {
    prop_oneof![any::<u32>().prop_map(IntOrPercent::Int), any::<u32>().prop_map(IntOrPercent::Percent)]
}

/// Any strategy of a Deployment.
pub fn deployment_strategy() -> impl Strategy<Value = DeploymentStrategy> + Clone {
    prop_oneof![
        Just(DeploymentStrategy::Recreate),
        (int_or_percent(), int_or_percent()).prop_map(|(max_surge, max_unavailable)| {
            DeploymentStrategy::RollingUpdate { max_surge, max_unavailable }
        }),
    ]
}

/// Any delivery.
pub fn delivery() -> impl Strategy<Value = Delivery> + Clone {
    let step = prop_oneof![
        int_or_percent().prop_map(|replicas| CanaryStep::SetReplicas { replicas }),
        of(any::<u64>()).prop_map(|duration_ms| CanaryStep::Pause { duration_ms }),
    ];
    let pause = of(any::<u64>()).prop_map(|duration_ms| BatchPause { duration_ms });
    prop_oneof![
        (int_or_percent(), of(int_or_percent()), of(pause))
            .prop_map(|(partition, size, pause)| Delivery::Batches { partition, size, pause }),
        (vec(step, 0..4), any::<u32>())
            .prop_map(|(steps, failure_limit)| Delivery::Canary { steps, failure_limit }),
        (of(any::<u64>()), any::<u64>(), of(any::<u32>())).prop_map(
            |(auto_promotion_ms, scale_down_delay_ms, preview_replicas)| Delivery::BlueGreen {
                auto_promotion_ms,
                scale_down_delay_ms,
                preview_replicas,
            }
        ),
    ]
}
record!(/// Any status of a delivery.
delivery_status: DeliveryStatus {
    stable: small(), update: small(), step: any::<u32>(), step_started_ms: any::<u64>(), abort_reason: small(),
    failed_pods: vec(object_id(), 0..3),
});

record!(/// Any Deployment spec.
deployment_spec: DeploymentSpec {
    replicas: any::<u32>(), selector: label_selector(), template: pod_template(),
    strategy: deployment_strategy(), min_ready_ms: any::<u64>(), progress_deadline_ms: any::<u64>(),
    revision_history_limit: any::<u32>(), paused: any::<bool>(), stopped: any::<bool>(),
    delivery: of(delivery()).prop_map(Rare::from),
});
record!(/// Any condition.
condition: Condition {
    condition_type: small(),
    status: select(vec![ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]),
    reason: small(), message: text(), last_transition_ms: any::<u64>(), last_update_ms: any::<u64>(),
});
record!(/// Any Deployment status.
deployment_status: DeploymentStatus {
    observed_generation: any::<u64>(), rollout_revision: any::<u64>(), replicas: any::<u32>(),
    updated_replicas: any::<u32>(), ready_replicas: any::<u32>(), available_replicas: any::<u32>(),
    unavailable_replicas: any::<u32>(), collision_count: any::<u32>(),
    conditions: vec(condition(), 0..3), delivery: of(delivery_status()).prop_map(Rare::from),
});
record!(/// Any Deployment.
    deployment: Deployment { meta: meta(), spec: deployment_spec(), status: deployment_status() });

/// Any object.
pub fn object() -> impl Strategy<Value = Object> + Clone {
    prop_oneof![
        meta().prop_map(|meta| Object::Namespace(Arc::new(Namespace { meta }))),
        node().prop_map(|o| Object::Node(Arc::new(o))),
        pod().prop_map(|o| Object::Pod(Arc::new(o))),
        replica_set().prop_map(|o| Object::ReplicaSet(Arc::new(o))),
        deployment().prop_map(|o| Object::Deployment(Arc::new(o))),
        workloads::workload_object(),
    ]
}

// --- agents ---

record!(/// Any intent about one pod.
pod_intent: PodIntent {
    id: object_id(), uid: uuid(), namespace: name(), name: name(), spec: pod_spec().prop_map(Shared::new),
    deletion: of(deletion()), ended: any::<bool>(), unique: any::<bool>(), trace_context: of(small()), resolved: rare(resolved_pod()),
    claims: vec(claim_intent(), 0..3), devices: vec(device_intent(), 0..3),
    networks: vec(network_attachment(), 0..3), cpus: of(cpu_set()), batch: any::<bool>(),
    bandwidth: of(pod_bandwidth()), resizing: any::<bool>(), pull_credentials: rare(pull_credentials()),
});
record!(/// Any limits of a guest's card.
pod_bandwidth: PodBandwidth {
    ingress_bits_per_second: of(any::<u64>()), egress_bits_per_second: of(any::<u64>()),
});
record!(/// Any intent.
intent: Intent {
    node: object_id(), incarnation: any::<u64>(), generation: any::<u64>(), pods: vec(pod_intent(), 0..3),
    deleted_volumes: vec(deleted_volume(), 0..3), gpu: of(devices::gpu_intent()),
    cpu_pools: of(cpu_pools()), nics: vec(sriov_interface(), 0..3), volume_orders: vec(volume_order(), 0..3),
});
record!(/// Any usage of a container.
container_usage: ContainerUsage { name: small(), cpu_millis: any::<u64>(), memory_bytes: any::<u64>() });
record!(/// Any usage.
pod_usage: PodUsage {
    pod: object_id(), cpu_millis: any::<u64>(), memory_bytes: any::<u64>(), window_ms: any::<u64>(),
    age_ms: any::<u64>(), containers: vec(container_usage(), 0..3),
});
record!(/// Any usage of a card.
device_usage: DeviceUsage {
    device: small(), address: small(), index: any::<u32>(), model: small(), pod: of(object_id()),
    in_guest: any::<bool>(), utilization_percent: of(any::<u32>()), memory_used_bytes: of(any::<u64>()),
    memory_bytes: of(any::<u64>()), temperature_celsius: of(any::<u32>()), power_milliwatts: of(any::<u64>()),
    last_reset: small(), last_reset_at_ms: any::<u64>(), age_ms: any::<u64>(),
});
record!(/// Any report.
agent_report: AgentReport {
    node: object_id(), incarnation: any::<u64>(), sent_at_ms: any::<u64>(),
    observed_generation: any::<u64>(), pods: vec(pod_report(), 0..3), usage: vec(pod_usage(), 0..3),
    deleted_volumes: vec(object_id(), 0..3), devices: rare(device_report()), images: rare(node_images()),
    volume_results: vec(volume_result(), 0..3), device_usage: vec(device_usage(), 0..3),
    has_pci_facts: any::<bool>(),
});
