//! Pods of one template hold what they have in common once, however they came to be.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bulkhead_controlplane_core::{Machine, Restorer, State, invariant};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{
    Binding, Command, Container, ContainerOptions, ContainerState, ContainerStatus, Device, DeviceReport,
    FEATURE_LEVEL_MAX, Kind, LabelSelector, LogCodec, MemberId, Name, NodeFacts, Object, ObjectMeta, PciAcs,
    PciFacts, PciTraits, Pod, PodPhase, PodReport, PodSpec, PodStatus, PodTemplate, PortRef, Probe,
    ProbeHandler, Rare, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, Resources, Shared, Stamped, StringMap,
};
use smol_str::SmolStr;
use uuid::Uuid;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const DIGEST: &str = "sha256:9b2a0c0f3a1d5b7e8f60718293a4b5c6d7e8f90123456789abcdef0123456789";
/// Too long to be kept in place.
const NAMESPACE: &str = "a-namespace-with-a-rather-long-name";

fn map(pairs: &[(&str, &str)]) -> StringMap {
    pairs.iter().map(|(key, value)| (SmolStr::new(key), SmolStr::new(value))).collect()
}

fn submit(machine: &mut Machine, command: Command) {
    let stamped = Stamped {
        request_id: Uuid::nil(),
        actor: "user:test".into(),
        proposed_at_ms: 1000,
        trace_context: Some(SmolStr::new(TRACE)),
        preconditions: Vec::new(),
        commands: vec![command],
    };
    machine.apply_stamped(&stamped).transaction.outcome.unwrap();
}

fn replica_set() -> Object {
    let labels = map(&[("app", "web"), ("pod-template-hash", "0123456789")]);
    let container = Container { name: "main".into(), image: "web:1".into(), ..Container::default() };
    let template = PodTemplate {
        labels: labels.clone(),
        annotations: map(&[("note", "any text")]),
        spec: Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() }),
    };
    let selector = LabelSelector::from_labels(labels);
    let spec = ReplicaSetSpec { replicas: 3, min_ready_ms: 0, selector, template, rollout_revision: 0 };
    let meta = ObjectMeta::new(Some(Name::new(NAMESPACE).unwrap()), Name::new("web").unwrap());
    Object::ReplicaSet(Arc::new(ReplicaSet { meta, spec, status: ReplicaSetStatus::default() }))
}

fn report(pod: &Pod, incarnation: u64) -> PodReport {
    let container = ContainerStatus {
        name: "main".into(),
        state: ContainerState::Running { started_at_ms: pod.meta.id.0 },
        last_termination: None,
        restart_count: 0,
        ready: true,
        image_digest: SmolStr::new(DIGEST),
    };
    let status = PodStatus { phase: PodPhase::Running, containers: vec![container], ..PodStatus::default() };
    PodReport { pod: pod.meta.id, sequence: (incarnation << 32) + 1, status, gone: false }
}

/// Three pods of one ReplicaSet, created, bound and reported by one command each.
fn three_pods() -> Machine {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into())];
    submit(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(7), members });
    let meta = ObjectMeta::new(None, Name::new(NAMESPACE).unwrap());
    submit(&mut machine, Command::Create(Object::Namespace(Arc::new(bulkhead_types::Namespace { meta }))));
    let all = Resources {
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        ephemeral_storage_bytes: 8 << 30,
        ..Resources::ZERO
    };
    let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 10, ..NodeFacts::default() };
    submit(&mut machine, Command::RegisterNode { name: Name::new("a").unwrap(), facts });
    submit(&mut machine, Command::Create(replica_set()));
    let set = machine.state().replica_sets().iter().next().unwrap().meta.id;
    let (node, incarnation) = {
        let node = machine.state().nodes().iter().next().unwrap();
        (node.meta.id, node.status.incarnation)
    };
    for name in ["web-a", "web-b", "web-c"] {
        submit(&mut machine, Command::CreatePods { replica_set: set, names: vec![Name::new(name).unwrap()] });
    }
    let pods: Vec<_> = machine.state().pods().iter().cloned().collect();
    for pod in &pods {
        let binding = Binding {
            pod: pod.meta.id,
            node,
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        };
        submit(&mut machine, Command::BindPods { bindings: vec![binding] });
        let reports = vec![report(pod, incarnation)];
        submit(&mut machine, Command::ReportPods { node, incarnation, reports });
    }
    machine
}

/// The State as it comes back from a snapshot's bytes.
fn restored(state: &State) -> State {
    let mut restorer = Restorer::default();
    for record in state.records() {
        let bytes = ProtoCodec.encode_snapshot_record(&record);
        restorer.push(ProtoCodec.decode_snapshot_record(&bytes).unwrap()).unwrap();
    }
    restorer.finish().unwrap()
}

fn is_one_text(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b)
}

fn check_shared(state: &State, pod: &Pod) {
    let template = &state.replica_sets().iter().next().unwrap().spec.template;
    let oldest = state.pods().iter().next().unwrap();
    let name = &pod.meta.name;
    assert!(pod.meta.labels.ptr_eq(&template.labels), "labels of {name}");
    assert!(pod.meta.annotations.ptr_eq(&template.annotations), "annotations of {name}");
    assert!(std::ptr::eq(&*pod.spec, &*template.spec), "spec of {name}");
    let images = |pod: &Pod| pod.status.containers[0].image_digest.clone();
    assert!(is_one_text(&images(pod), &images(oldest)), "image digest of {name}");
    let trace = |pod: &Pod| pod.meta.trace_context.clone().unwrap();
    assert!(is_one_text(&trace(pod), &trace(oldest)), "trace of {name}");
    let namespace = |pod: &Pod| pod.meta.namespace.clone().unwrap();
    assert!(is_one_text(namespace(pod).as_str(), namespace(oldest).as_str()), "namespace of {name}");
}

#[test]
fn pods_of_a_template_share_it_after_create_and_after_restore() {
    let machine = three_pods();
    let state = machine.state();
    assert_eq!(state.pods().iter().filter(|pod| pod.status.phase == PodPhase::Running).count(), 3);
    state.pods().iter().for_each(|pod| check_shared(state, pod));
    let again = restored(state);
    assert_eq!(again.digest(), state.digest());
    again.pods().iter().for_each(|pod| check_shared(&again, pod));
    assert_eq!(invariant::check(&again), Vec::new());
}

#[test]
fn a_pod_whose_labels_change_is_the_only_one_that_changes() {
    let mut machine = three_pods();
    let find =
        |state: &State| state.pods().iter().find(|pod| pod.meta.name.as_str() == "web-b").unwrap().clone();
    let mut changed = Object::Pod(find(machine.state()));
    changed.meta_mut().labels.insert("debug".into(), "yes".into());
    submit(&mut machine, Command::Apply(changed.clone()));
    for state in [machine.state().clone(), restored(machine.state())] {
        for pod in state.pods().iter().filter(|pod| pod.meta.name.as_str() != "web-b") {
            check_shared(&state, pod);
        }
        let template = &state.replica_sets().iter().next().unwrap().spec.template;
        assert_eq!(template.labels, map(&[("app", "web"), ("pod-template-hash", "0123456789")]));
        let pod = find(&state);
        assert_eq!(pod.meta.labels, changed.meta().labels);
        assert_eq!(state.object(Kind::Pod, pod.meta.id).unwrap().meta().labels["debug"], "yes");
        assert_eq!(invariant::check(&state), Vec::new());
    }
}

#[test]
fn equal_digests_do_not_depend_on_what_is_shared() {
    let state = three_pods().state().clone();
    for pod in state.pods().iter() {
        let mut apart = Pod::clone(pod);
        apart.meta.labels = apart.meta.labels.into_iter().collect();
        assert!(!apart.meta.labels.ptr_eq(&pod.meta.labels));
        assert_eq!(bulkhead_types::digest128(&apart), bulkhead_types::digest128(&**pod));
    }
}

/// A pod with one probe: of readiness, or of liveness.
fn probed(named: &str, readiness: bool) -> Object {
    let probe = Rare::some(Probe {
        handler: ProbeHandler::TcpSocket { port: PortRef::Number(80), host: Rare::NONE },
        initial_delay_ms: 0,
        period_ms: 10_000,
        timeout_ms: 1000,
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_ms: None,
    });
    let options = match readiness {
        true => ContainerOptions { readiness_probe: probe, ..ContainerOptions::default() },
        false => ContainerOptions { liveness_probe: probe, ..ContainerOptions::default() },
    };
    let container = Container {
        name: "main".into(),
        image: "web:1".into(),
        options: Rare::some(options),
        ..Container::default()
    };
    Object::Pod(Arc::new(Pod {
        meta: ObjectMeta::new(Some(Name::new(NAMESPACE).unwrap()), Name::new(named).unwrap()),
        spec: Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() }),
        node: None,
        status: PodStatus::default(),
    }))
}

fn at_the_highest_level(machine: &mut Machine) {
    submit(
        machine,
        Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::nil(),
            address: "a:1".into(),
            version: "1".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        },
    );
    submit(machine, Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
}

#[test]
fn what_only_a_digest_takes_for_equal_stays_apart() {
    let mut machine = three_pods();
    at_the_highest_level(&mut machine);
    for readiness in [true, false] {
        submit(&mut machine, Command::Create(probed(if readiness { "ready" } else { "alive" }, readiness)));
    }
    let specs = |state: &State| {
        let probed = state.pods().iter().filter(|pod| pod.meta.owner.is_none());
        probed.map(|pod| pod.spec.clone()).collect::<Vec<_>>()
    };
    let [ready, alive] = &specs(machine.state())[..] else { panic!("two pods of their own") };
    assert_eq!(ready.digest(), alive.digest(), "what a missing part adds to a digest is nothing");
    assert!(ready != alive && specs(&restored(machine.state())) == [ready.clone(), alive.clone()]);
}

/// A node with two functions of such a kind.
fn with_functions(machine: &mut Machine, named: &str, acs: PciAcs) {
    let name = Name::new(named).unwrap();
    submit(machine, Command::RegisterNode { name: name.clone(), facts: NodeFacts::default() });
    let node = machine.state().nodes().iter().find(|node| node.meta.name == name).unwrap().clone();
    let function = |index: u32| {
        let traits = Shared::new(PciTraits { acs, ..PciTraits::default() });
        let pci = PciFacts { traits, serial_number: Some(index.into()), link: None, ports: Rare::NONE };
        Device { id: format!("0000:61:00.{index}").into(), pci: Rare::some(pci), ..Device::default() }
    };
    let devices = vec![function(0), function(1)];
    let report = DeviceReport { sequence: 1, snapshot: true, devices, ..DeviceReport::default() };
    let incarnation = node.status.incarnation;
    submit(machine, Command::ReportDevices { node: node.meta.id, incarnation, report });
}

#[test]
fn functions_of_a_kind_share_what_they_have_alike_over_all_nodes() {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into())];
    submit(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(7), members });
    at_the_highest_level(&mut machine);
    for (named, acs) in [
        ("a", PciAcs::On),
        ("b", PciAcs::Off),
        ("c", PciAcs::On),
        ("d", PciAcs::Absent),
        ("e", PciAcs::Absent),
        ("f", PciAcs::Off),
    ] {
        with_functions(&mut machine, named, acs);
    }
    // How many there are in memory.
    let count = |state: &State| {
        let slices = state.resource_slices().iter().flat_map(|slice| &slice.devices);
        let places = slices.map(|one| std::ptr::from_ref(&*one.pci.get().unwrap().traits));
        places.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(
        count(machine.state()),
        4,
        "of the kinds of the first two nodes one each, else one for a node"
    );
    let again = restored(machine.state());
    assert_eq!((count(&again), again.digest()), (3, machine.state().digest()));
    assert_eq!(invariant::check(&again), Vec::new());
}
