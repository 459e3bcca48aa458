//! What `decide` refuses, with field, reason and remedy; and what a submission promises as a whole.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bulkhead_controlplane_core::{Machine, REQUEST_RETENTION_MS, State, decide, invariant};
use bulkhead_types::{
    Binding, COMMANDS_MAX, Command, Container, Deployment, DeploymentSpec, DeploymentStatus,
    DeploymentStrategy, ITEMS_MAX, Kind, LabelSelector, MemberId, Name, Namespace, NodeFacts, NodePhase,
    NodePrecondition, NodePreconditions, Object, ObjectId, ObjectMeta, ObjectRef, Pod, PodPhase, PodReport,
    PodSpec, PodStatus, PodTemplate, Precondition, PreconditionNeed, PreconditionOutcome, REPLICAS_MAX, Rare,
    ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, ResourceRequirements, Resources, Shared, Stamped,
    StringMap,
};
use expect_test::{Expect, expect};
use smol_str::SmolStr;
use uuid::Uuid;

const GIB: u64 = 1 << 30;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn reference(kind: Kind, text: &str) -> ObjectRef {
    let namespace = kind.is_namespaced().then(|| name("default"));
    ObjectRef { kind, namespace, name: name(text) }
}

fn labels(app: &str) -> StringMap {
    [(SmolStr::new("app"), SmolStr::new(app))].into_iter().collect()
}

fn spec(cpu_millis: u64) -> PodSpec {
    let requests = ResourceRequirements { cpu_millis: Some(cpu_millis), ..ResourceRequirements::default() };
    let container =
        Container { name: "main".into(), image: "web:1".into(), requests, ..Container::default() };
    PodSpec { containers: vec![container], ..PodSpec::default() }
}

fn template(app: &str) -> PodTemplate {
    PodTemplate { labels: labels(app), annotations: StringMap::new(), spec: Shared::new(spec(100)) }
}

fn meta(text: &str) -> ObjectMeta {
    ObjectMeta::new(Some(name("default")), name(text))
}

fn pod_in(namespace: &str, text: &str) -> Object {
    let meta = ObjectMeta::new(Some(name(namespace)), name(text));
    let (spec, status) = (Shared::new(spec(1000)), PodStatus::default());
    Object::Pod(Arc::new(Pod { meta, spec, node: None, status }))
}

fn deployment(app: &str, change: impl FnOnce(&mut DeploymentSpec)) -> Object {
    let mut spec = DeploymentSpec {
        replicas: 1,
        selector: LabelSelector::from_labels(labels(app)),
        template: template(app),
        strategy: DeploymentStrategy::default(),
        min_ready_ms: 0,
        progress_deadline_ms: 600_000,
        revision_history_limit: 10,
        paused: false,
        stopped: false,
        delivery: Default::default(),
    };
    change(&mut spec);
    Object::Deployment(Arc::new(Deployment { meta: meta(app), spec, status: DeploymentStatus::default() }))
}

fn replica_set(app: &str) -> Object {
    let spec = ReplicaSetSpec {
        replicas: 2,
        min_ready_ms: 0,
        selector: LabelSelector::from_labels(labels(app)),
        template: template(app),
        rollout_revision: 0,
    };
    Object::ReplicaSet(Arc::new(ReplicaSet { meta: meta(app), spec, status: ReplicaSetStatus::default() }))
}

fn namespace(text: &str) -> Object {
    Object::Namespace(Arc::new(Namespace { meta: ObjectMeta::new(None, name(text)) }))
}

fn facts(cpu_millis: u64) -> NodeFacts {
    let all =
        Resources { cpu_millis, memory_bytes: 8 * GIB, ephemeral_storage_bytes: GIB, ..Resources::ZERO };
    NodeFacts { capacity: all, allocatable: all, pods_max: 10, ..NodeFacts::default() }
}

fn stamped(commands: Vec<Command>) -> Stamped {
    Stamped {
        request_id: Uuid::nil(),
        actor: "user:test".into(),
        proposed_at_ms: 1000,
        trace_context: None,
        preconditions: Vec::new(),
        commands,
    }
}

fn submit(machine: &mut Machine, commands: Vec<Command>) {
    machine.apply_stamped(&stamped(commands)).transaction.outcome.unwrap();
}

fn id(state: &State, kind: Kind, text: &str) -> ObjectId {
    let reference = reference(kind, text);
    state.find(kind, reference.namespace.as_ref(), &reference.name).unwrap()
}

/// A cluster with a bit of everything: node `a` with pod `bound`, pod `waiting`, Deployment `web` with set
/// `web-1`, set `alone`, paused Deployment `held`, namespace `ending` with a pod in it.
fn cluster() -> Machine {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into()), (MemberId(2), "b:1".into())];
    submit(&mut machine, vec![Command::InitCluster { cluster_id: Uuid::from_u128(7), members }]);
    submit(
        &mut machine,
        vec![
            Command::RegisterNode { name: name("a"), facts: facts(4000) },
            Command::Create(pod_in("default", "bound")),
            Command::Create(deployment("web", |_| ())),
            Command::Create(deployment("held", |spec| spec.paused = true)),
            Command::Create(replica_set("alone")),
            Command::Create(namespace("ending")),
            Command::Create(pod_in("ending", "last")),
        ],
    );
    let state = machine.state();
    let (node, web) = (id(state, Kind::Node, "a"), id(state, Kind::Deployment, "web"));
    let last = state.pods().iter().find(|pod| pod.meta.name.as_str() == "last").unwrap().meta.id;
    let bind = |pod| Binding {
        pod,
        node,
        nodes_considered: 1,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let bindings = vec![bind(id(state, Kind::Pod, "bound")), bind(last)];
    let delete = ObjectRef { kind: Kind::Namespace, namespace: None, name: name("ending") };
    submit(
        &mut machine,
        vec![
            Command::BindPods { bindings },
            Command::CreateReplicaSet {
                deployment: web,
                generation: 1,
                name: name("web-1"),
                template_hash: "1".into(),
                rollout_revision: 1,
            },
            Command::Create(pod_in("default", "waiting")),
            Command::Delete { object: delete, grace_ms: None, force: false },
        ],
    );
    assert_eq!(invariant::check(machine.state()), []);
    machine
}

/// The refusal of each command, one a line; the State must stay as it was.
fn check(commands: impl Fn(&State) -> Vec<Command>, expected: Expect) {
    let mut machine = cluster();
    let mut lines = String::new();
    for command in commands(machine.state()) {
        let before = machine.state().digest();
        let line = match decide(machine.state(), &stamped(vec![command.clone()])) {
            Ok(events) => format!("accepted, {} events", events.len()),
            Err(rejection) => {
                let applied = machine.apply_stamped(&stamped(vec![command]));
                assert_eq!(applied.transaction.outcome.as_ref(), Err(&rejection));
                assert!(applied.transaction.events.is_empty() && applied.changes.is_empty());
                assert_eq!(machine.state().digest(), before, "a refusal changes nothing");
                format!(
                    "{:?} | {} | {} | {}",
                    rejection.code, rejection.field, rejection.reason, rejection.remedy
                )
            }
        };
        lines.push_str(line.trim_end_matches([' ', '|']));
        lines.push('\n');
    }
    expected.assert_eq(&lines);
}

#[test]
fn users_hear_why() {
    let with = |object: Object, change: fn(&mut DeploymentSpec)| match object {
        Object::Deployment(mut deployment) => {
            change(&mut Arc::make_mut(&mut deployment).spec);
            Object::Deployment(deployment)
        }
        other => other,
    };
    check(
        |_| {
            vec![
                Command::Create(deployment("web", |_| ())),
                Command::Create(with(deployment("new", |_| ()), |spec| {
                    spec.selector = LabelSelector::default()
                })),
                Command::Create(pod_in("nowhere", "p")),
                Command::Create(pod_in("ending", "p")),
                Command::Apply(with(deployment("web", |_| ()), |spec| {
                    spec.selector = LabelSelector::from_labels(labels("other"));
                    spec.template = template("other");
                })),
                Command::Apply(match pod_in("default", "bound") {
                    Object::Pod(mut pod) => {
                        Arc::make_mut(&mut pod).spec = Shared::new(spec(1));
                        Object::Pod(pod)
                    }
                    other => other,
                }),
                Command::Apply(match replica_set("web-1") {
                    Object::ReplicaSet(set) => Object::ReplicaSet(set),
                    other => other,
                }),
                Command::Apply(namespace("ending")),
            ]
        },
        expect![[r#"
            AlreadyExists | Deployment default/web | already exists | choose another name, or apply instead of create
            Invalid | Deployment default/new: spec.selector | is required: an empty selector would take every pod of the namespace
            NotFound | Namespace nowhere | does not exist | create the namespace first
            NotAllowed | Namespace ending | is being deleted: nothing new may enter
            Invalid | Deployment default/web: spec.selector | cannot change after creation | delete the object and create it anew, or give the new one another name
            Invalid | Pod default/bound: spec | a pod's spec cannot change | cpu and memory of a pod that runs change with `bulkhead resize pod`
            NotAllowed | ReplicaSet default/web-1 | belongs to Deployment default/web | change that instead
            NotAllowed | Namespace ending | is being deleted | wait until it is gone, then apply again
        "#]],
    );
}

#[test]
fn users_hear_why_about_what_is_there() {
    check(
        |_| {
            let delete =
                |kind, text| Command::Delete { object: reference(kind, text), grace_ms: None, force: false };
            vec![
                delete(Kind::Pod, "nobody"),
                delete(Kind::Namespace, "default"),
                delete(Kind::Node, "a"),
                Command::Scale { object: reference(Kind::Deployment, "web"), replicas: REPLICAS_MAX + 1 },
                Command::Scale { object: reference(Kind::ReplicaSet, "web-1"), replicas: 1 },
                Command::Scale { object: reference(Kind::Pod, "bound"), replicas: 1 },
                Command::Scale { object: reference(Kind::Deployment, "nobody"), replicas: 1 },
                Command::SetPaused { deployment: reference(Kind::ReplicaSet, "alone"), paused: true },
                Command::UndoRollout { deployment: reference(Kind::Deployment, "web"), to_revision: None },
                Command::UndoRollout { deployment: reference(Kind::Deployment, "web"), to_revision: Some(9) },
                Command::UndoRollout { deployment: reference(Kind::Deployment, "held"), to_revision: None },
                Command::RestartRollout {
                    deployment: reference(Kind::Deployment, "held"),
                    restarted_at: "now".into(),
                },
                Command::RestartRollout {
                    deployment: reference(Kind::Deployment, "web"),
                    restarted_at: "".into(),
                },
                Command::SetUnschedulable { node: name("nobody"), unschedulable: true },
            ]
        },
        expect![[r#"
            NotFound | Pod default/nobody | does not exist
            NotAllowed | Namespace default | is always there and cannot be deleted
            NotAllowed | Node a | is Ready and holds 2 pods | drain the node first
            Invalid | Deployment default/web: spec.replicas | must be at most 1000000
            NotAllowed | ReplicaSet default/web-1 | belongs to Deployment default/web, which sets its size | scale that instead
            Invalid | Pod default/bound | cannot be scaled: only Deployments, ReplicaSets, StatefulSets and ElasticWorkloads have replicas
            NotFound | Deployment default/nobody | does not exist
            Invalid | ReplicaSet default/alone | has no rollout: only Deployments, StatefulSets and DaemonSets have
            NotFound | Deployment default/web | has no earlier revision in its history
            NotFound | Deployment default/web | has no revision 9 in its history | list the revisions with rollout history
            NotAllowed | Deployment default/held | is paused: cannot undo its rollout | resume it first
            NotAllowed | Deployment default/held | is paused: cannot restart its rollout | resume it first
            Invalid | Deployment default/web: bulkhead.io/restartedAt | must be a time of at most 64 characters that differs from the last restart's | try again in a second
            NotFound | Node nobody | does not exist
        "#]],
    );
}

#[test]
fn agents_hear_why() {
    check(
        |state| {
            let node = id(state, Kind::Node, "a");
            let report = PodReport {
                pod: id(state, Kind::Pod, "bound"),
                sequence: 1,
                status: PodStatus { phase: PodPhase::Running, ..PodStatus::default() },
                gone: false,
            };
            let reports = vec![report.clone(); ITEMS_MAX + 1];
            let kvm = NodePrecondition {
                name: "kvm".into(),
                need: PreconditionNeed::Speed,
                outcome: PreconditionOutcome::Met,
                found: "a guest ran".into(),
                remedy: "".into(),
            };
            // Refused by its level alone, whatever it says.
            let told = NodePreconditions { preconditions: vec![kvm] };
            vec![
                Command::RegisterNode {
                    name: name("b"),
                    facts: NodeFacts { allocatable: facts(9).capacity, ..NodeFacts::default() },
                },
                Command::RegisterNode {
                    name: name("b"),
                    facts: NodeFacts { labels: [("-".into(), "x".into())].into_iter().collect(), ..facts(1) },
                },
                Command::RegisterNode {
                    name: name("b"),
                    facts: NodeFacts { preconditions: Rare::some(told), ..facts(1) },
                },
                Command::ReportPods { node: ObjectId(999), incarnation: 1, reports: Vec::new() },
                Command::ReportPods { node, incarnation: 7, reports: Vec::new() },
                Command::ReportPods { node, incarnation: 1, reports },
                Command::ReportPods { node, incarnation: 1, reports: vec![report.clone(), report] },
            ]
        },
        expect![[r#"
            Invalid | Node b: facts.allocatable | exceeds the capacity
            Invalid | Node b: facts.labels | label key "-" is invalid: the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
            NotAllowed | featureLevel | needs level 14, the cluster runs at level 1 | upgrade every server, then run `bulkhead cluster feature-level set 14`
            NotFound | Node #999 | does not exist
            StaleIncarnation | Node a | is at incarnation 1, not 7: another session took over | register again, unless another agent runs under this name
            Invalid | reports | at most 4096 items are allowed, there are 4097
            accepted, 1 events
        "#]],
    );
}

fn bind(pod: ObjectId, node: ObjectId) -> Command {
    let (nodes_considered, score, devices, networks, cpus) = (1, 1, vec![], vec![], Default::default());
    Command::BindPods {
        bindings: vec![Binding { pod, node, nodes_considered, score, devices, networks, cpus }],
    }
}

#[test]
fn reconcilers_are_checked_again() {
    check(
        |state| {
            let web = id(state, Kind::Deployment, "web");
            let set = id(state, Kind::ReplicaSet, "web-1");
            let alone = id(state, Kind::ReplicaSet, "alone");
            let node = id(state, Kind::Node, "a");
            let create = |deployment, generation, text| Command::CreateReplicaSet {
                deployment,
                generation,
                name: name(text),
                template_hash: "2".into(),
                rollout_revision: 2,
            };
            let waiting = id(state, Kind::Pod, "waiting");
            vec![
                create(ObjectId(999), 1, "web-2"),
                create(web, 2, "web-2"),
                create(web, 1, "web-1"),
                Command::SetRolloutRevision { replica_set: set, rollout_revision: 0 },
                Command::ScaleReplicaSet { replica_set: set, from: 3, to: 4 },
                Command::ScaleReplicaSet { replica_set: ObjectId(999), from: 0, to: 1 },
                Command::CreatePods { replica_set: ObjectId(999), names: vec![name("p")] },
                Command::CreatePods { replica_set: set, names: vec![name("p")] },
                Command::CreatePods { replica_set: alone, names: vec![name("p"), name("q"), name("r")] },
                Command::CreatePods { replica_set: alone, names: vec![name("bound"), name("p"), name("p")] },
                Command::CreatePods { replica_set: alone, names: vec![name("p"); ITEMS_MAX + 1] },
                Command::DeletePods { pods: vec![waiting], surplus_of: Some(alone), reason: "X".into() },
                Command::DeletePods { pods: vec![waiting, waiting], surplus_of: None, reason: "X".into() },
                Command::SetReplicaSetStatus { replica_set: ObjectId(999), status: Default::default() },
                Command::SetDeploymentStatus { deployment: ObjectId(999), status: Default::default() },
                bind(waiting, node),
                bind(waiting, ObjectId(999)),
                bind(id(state, Kind::Pod, "bound"), node),
                Command::SetPodsUnschedulable { pods: vec![(waiting, "why".into()), (set, "why".into())] },
                Command::SetNodePhase { node, incarnation: 2, phase: NodePhase::Unreachable },
                Command::SetNodePhase { node, incarnation: 1, phase: NodePhase::Ready },
                Command::CollectGarbage { objects: vec![(Kind::Pod, waiting), (Kind::Deployment, web)] },
            ]
        },
        expect![[r#"
            NotFound | Deployment #999 | does not exist
            Conflict | Deployment web | its spec changed meanwhile
            AlreadyExists | ReplicaSet default/web-1 | the name is taken
            Conflict | ReplicaSet web-1 | stands for a newer revision already
            Conflict | ReplicaSet web-1 | its size changed meanwhile
            NotFound | ReplicaSet #999 | does not exist
            NotFound | ReplicaSet #999 | does not exist
            accepted, 0 events
            accepted, 2 events
            accepted, 1 events
            Invalid | names | at most 4096 items are allowed, there are 4097
            accepted, 0 events
            accepted, 1 events
            NotFound | ReplicaSet #999 | does not exist
            NotFound | Deployment #999 | does not exist
            accepted, 1 events
            accepted, 0 events
            accepted, 0 events
            accepted, 1 events
            StaleIncarnation | Node a | is at incarnation 1, not 2: another session took over | register again, unless another agent runs under this name
            accepted, 0 events
            accepted, 0 events
        "#]],
    );
}

#[test]
fn the_cluster_itself_is_guarded() {
    check(
        |_| {
            let register = |member, level| Command::RegisterMember {
                member: MemberId(member),
                storage_uid: Uuid::from_u128(1),
                address: "a:1".into(),
                version: "1".into(),
                feature_level_max: level,
            };
            vec![
                Command::InitCluster { cluster_id: Uuid::from_u128(8), members: Vec::new() },
                Command::InitCluster { cluster_id: Uuid::from_u128(7), members: Vec::new() },
                Command::RaiseFeatureLevel { level: 1 },
                Command::RaiseFeatureLevel { level: 0 },
                register(9, 1),
                register(1, 1),
            ]
        },
        expect![[r#"
            NotAllowed | cluster | is 00000000-0000-0000-0000-000000000007 already and cannot become 00000000-0000-0000-0000-000000000008
            accepted, 0 events
            NotAllowed | featureLevel | member 1 has not said yet which levels it supports | upgrade or remove that member first: it could not read the log any more
            accepted, 0 events
            NotFound | member 9 | does not exist
            accepted, 1 events
        "#]],
    );
}

#[test]
fn a_submission_has_a_form() {
    let state = cluster().state().clone();
    let refusal = |submission: Stamped| decide(&state, &submission).unwrap_err().to_string();
    let uncordon = || Command::SetUnschedulable { node: name("a"), unschedulable: false };
    expect!["commands: a submission has 1 to 1024 commands, this one has 0; split it"]
        .assert_eq(&refusal(stamped(Vec::new())));
    expect!["commands: a submission has 1 to 1024 commands, this one has 1025; split it"]
        .assert_eq(&refusal(stamped(vec![uncordon(); COMMANDS_MAX + 1])));
    let with = |text: &str, revision| Stamped {
        preconditions: vec![Precondition { object: reference(Kind::Deployment, text), revision }],
        ..stamped(vec![uncordon()])
    };
    let found = id(&state, Kind::Deployment, "web").0;
    assert!(decide(&state, &with("web", Some(found))).is_ok());
    assert!(decide(&state, &with("nobody", None)).is_ok());
    expect!["Deployment default/nobody: does not exist, but was expected at revision 3; read it again and decide anew"]
        .assert_eq(&refusal(with("nobody", Some(3))));
    let refused = refusal(with("web", Some(found + 1)));
    assert!(refused.contains("somebody changed it"), "{refused}");
    let refused = refusal(with("web", None));
    assert!(refused.contains("was expected not to"), "{refused}");
}

#[test]
fn a_bundle_applies_as_a_whole_or_not_at_all() {
    let mut machine = cluster();
    let before = machine.state().clone();
    let scale = |text: &str, replicas| Command::Scale { object: reference(Kind::Deployment, text), replicas };
    let applied = machine.apply_stamped(&stamped(vec![
        Command::Create(deployment("second", |_| ())),
        scale("second", 5),
        scale("nobody", 5),
    ]));
    assert!(applied.transaction.outcome.is_err() && applied.changes.is_empty());
    assert_eq!(machine.state().digest(), before.digest());
    assert_eq!(machine.state().revision(), before.revision());
    // The commands of a bundle see each other.
    submit(&mut machine, vec![Command::Create(deployment("second", |_| ())), scale("second", 5)]);
    assert_eq!(machine.state().revision(), before.revision() + 2);
    assert_eq!(invariant::check(machine.state()), []);
}

#[test]
fn a_repeated_request_has_its_first_answer() {
    let mut machine = cluster();
    let request = |request_id: u128, at_ms, replicas| Stamped {
        request_id: Uuid::from_u128(request_id),
        proposed_at_ms: at_ms,
        ..stamped(vec![Command::Scale { object: reference(Kind::Deployment, "web"), replicas }])
    };
    let first = machine.apply_stamped(&request(1, 2000, 5));
    let revision = machine.state().revision();
    let again = machine.apply_stamped(&request(1, 3000, 5));
    assert!(!first.repeated && again.repeated);
    assert_eq!(first.transaction.outcome, again.transaction.outcome);
    assert!(again.transaction.events.is_empty());
    assert_eq!(machine.state().revision(), revision);
    let refused = machine.apply_stamped(&request(2, 4000, REPLICAS_MAX + 1));
    let again = machine.apply_stamped(&request(2, 5000, 7));
    assert!(again.repeated, "a refusal is remembered too");
    assert_eq!(refused.transaction.outcome, again.transaction.outcome);
    assert_eq!(invariant::check(machine.state()), []);
    // After the retention it is a new request.
    let late = machine.apply_stamped(&request(3, 2001 + REQUEST_RETENTION_MS, 5));
    assert!(!late.repeated);
    let forgotten = machine.apply_stamped(&request(1, 2002 + REQUEST_RETENTION_MS, 6));
    assert!(!forgotten.repeated);
    assert_eq!(invariant::check(machine.state()), []);
}
