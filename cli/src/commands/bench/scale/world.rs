//! A State of many pods as a cluster that has run for a while has it: owned, bound, running, reported.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bulkhead_controlplane_core::Machine;
use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_disk::{point_of, save_snapshot};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{
    Binding, Command, Container, ContainerState, ContainerStatus, ITEMS_MAX, LabelSelector, Name, NodeFacts,
    Object, ObjectId, ObjectMeta, PodPhase, PodReport, PodSpec, PodStatus, PodTemplate, ReplicaSet,
    ReplicaSetSpec, ReplicaSetStatus, ResourceRequirements, Resources, Shared, Stamped, StringMap,
};
use smol_str::SmolStr;
use uuid::Uuid;

use super::single::{CLUSTER, MEMBER, create};

/// Pods of one ReplicaSet, and of one node.
const PODS_PER_SET: u32 = 1000;
const PODS_PER_NODE: u32 = 200;
/// The entry that the snapshot stands for: anything after the first.
const SNAPSHOT_INDEX: u64 = 1000;
const NOW_MS: u64 = 1_700_000_000_000;
const DIGEST: &str = "sha256:9b2a0c0f3a1d5b7e8f60718293a4b5c6d7e8f90123456789abcdef0123456789";

/// Fills a data directory with a snapshot of so many pods.
pub(super) fn fill(dir: &Path, pods: u32) -> anyhow::Result<()> {
    let stores = create(dir)?;
    let machine = build(pods)?;
    let first = stores.snapshots.latest()?.context("a new directory has its first snapshot")?;
    let point = SnapshotPoint { index: SNAPSHOT_INDEX, ..point_of(&first.meta)? };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, machine.state())?;
    Ok(())
}

/// Applies commands as the log would, one submission each.
fn apply(machine: &mut Machine, commands: Vec<Command>) -> anyhow::Result<()> {
    let stamped = Stamped {
        request_id: Uuid::nil(),
        actor: SmolStr::new_static("system:bench"),
        proposed_at_ms: NOW_MS,
        trace_context: None,
        preconditions: Vec::new(),
        commands,
    };
    match machine.apply_stamped(&stamped).transaction.outcome {
        Ok(_) => Ok(()),
        Err(rejection) => bail!("a command was refused: {rejection:?}"),
    }
}

fn build(pods: u32) -> anyhow::Result<Machine> {
    let mut machine = Machine::default();
    let members = vec![(MEMBER, SmolStr::new_static("127.0.0.1:1"))];
    apply(&mut machine, vec![Command::InitCluster { cluster_id: CLUSTER, members }])?;
    for number in 0..pods.div_ceil(PODS_PER_NODE) {
        apply(&mut machine, vec![node(number)?])?;
    }
    for number in 0..pods.div_ceil(PODS_PER_SET) {
        let replicas = PODS_PER_SET.min(pods - number * PODS_PER_SET);
        apply(&mut machine, vec![Command::Create(replica_set(number, replicas)?)])?;
        let set = machine.state().revision();
        let names: Vec<Name> =
            (0..replicas).map(|pod| Name::new(pod_name(number, pod))).collect::<Result<_, _>>()?;
        apply(&mut machine, vec![Command::CreatePods { replica_set: ObjectId(set), names }])?;
    }
    let nodes: Vec<ObjectId> = machine.state().nodes().iter().map(|node| node.meta.id).collect();
    let all: Vec<ObjectId> = machine.state().pods().iter().map(|pod| pod.meta.id).collect();
    let place = |index: usize| nodes[index / PODS_PER_NODE as usize];
    for (chunk, ids) in all.chunks(ITEMS_MAX).enumerate() {
        let bindings = ids
            .iter()
            .enumerate()
            .map(|(i, pod)| Binding {
                pod: *pod,
                node: place(chunk * ITEMS_MAX + i),
                nodes_considered: 100,
                score: 100,
                devices: vec![],
                networks: vec![],
                cpus: Default::default(),
            })
            .collect();
        apply(&mut machine, vec![Command::BindPods { bindings }])?;
    }
    for (ids, node) in all.chunks(PODS_PER_NODE as usize).zip(&nodes) {
        let incarnation =
            machine.state().nodes().get(*node).context("a node that was made")?.status.incarnation;
        let reports = ids.iter().map(|pod| report(*pod, incarnation)).collect();
        apply(&mut machine, vec![Command::ReportPods { node: *node, incarnation, reports }])?;
    }
    let running = machine.state().pods().iter().filter(|pod| pod.status.phase == PodPhase::Running).count();
    anyhow::ensure!(running == pods as usize, "{running} of {pods} pods run");
    Ok(machine)
}

fn node(number: u32) -> anyhow::Result<Command> {
    let all = Resources {
        cpu_millis: 96_000,
        memory_bytes: 512 << 30,
        ephemeral_storage_bytes: 1 << 40,
        ..Resources::ZERO
    };
    let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 250, ..NodeFacts::default() };
    Ok(Command::RegisterNode { name: Name::new(format!("node-{number}"))?, facts })
}

/// Names as the ReplicaSet's reconciler gives them: the set's, and five letters.
fn pod_name(set: u32, pod: u32) -> String {
    format!("shop-frontend-{set:05}-{pod:05}")
}

fn replica_set(number: u32, replicas: u32) -> anyhow::Result<Object> {
    let name = Name::new(format!("shop-frontend-{number:05}"))?;
    let labels: StringMap = [
        ("app.kubernetes.io/name", "shop-frontend".to_owned()),
        ("pod-template-hash", format!("{number:010}")),
    ]
    .into_iter()
    .map(|(key, value)| (SmolStr::new(key), SmolStr::new(value)))
    .collect();
    let requests = ResourceRequirements {
        cpu_millis: Some(100),
        memory_bytes: Some(128 << 20),
        ephemeral_storage_bytes: None,
    };
    let container = Container {
        name: "main".into(),
        image: "registry.example.com/shop/frontend:v1.27.3".into(),
        requests,
        ..Container::default()
    };
    let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
    let template = PodTemplate { labels: labels.clone(), annotations: StringMap::new(), spec };
    let selector = LabelSelector { match_labels: labels, ..LabelSelector::default() };
    let spec = ReplicaSetSpec { replicas, min_ready_ms: 0, selector, template, rollout_revision: 0 };
    let meta = ObjectMeta::new(Some(Name::new("default")?), name);
    Ok(Object::ReplicaSet(Arc::new(ReplicaSet { meta, spec, status: ReplicaSetStatus::default() })))
}

fn report(pod: ObjectId, incarnation: u64) -> PodReport {
    let container = ContainerStatus {
        name: "main".into(),
        state: ContainerState::Running { started_at_ms: NOW_MS },
        last_termination: None,
        restart_count: 0,
        ready: true,
        image_digest: DIGEST.into(),
    };
    let status = PodStatus {
        phase: PodPhase::Running,
        ready: true,
        started_at_ms: NOW_MS,
        containers: vec![container],
        ..PodStatus::default()
    };
    PodReport { pod, sequence: (incarnation << 32) + 1, status, gone: false }
}
