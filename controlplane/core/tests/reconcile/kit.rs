//! A cluster in one thread: a machine, its reconcilers, and agents that report what a test tells them to.

use std::sync::Arc;

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::reconcile::{Context, Proposal, ReconcileConfig, Reconcilers, SoftState};
use bulkhead_controlplane_core::{Applied, Change, Machine, State, invariant};
use bulkhead_types::{
    Command, Container, Deployment, DeploymentSpec, DeploymentStrategy, FEATURE_LEVEL_MAX, IntOrPercent,
    Kind, LABEL_LOCAL_VOLUMES, LabelSelector, MemberId, Name, NodeFacts, Object, ObjectId, ObjectMeta,
    ObjectRef, Pod, PodPhase, PodReport, PodSpec, PodStatus, PodTemplate, Rejection, ReplicaSet,
    ReplicaSetSpec, ReplicaSetStatus, ResourceRequirements, Resources, Revision, Shared, Stamped, StringMap,
    Transaction,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::play::Seen;

/// Runs of the reconcilers before a cluster counts as one that never comes to rest.
const RUNS_MAX: usize = 500;
pub const GIB: u64 = 1 << 30;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn reference(kind: Kind, text: &str) -> ObjectRef {
    let namespace = kind.is_namespaced().then(|| name("default"));
    ObjectRef { kind, namespace, name: name(text) }
}

pub fn map(pairs: &[(&str, &str)]) -> StringMap {
    pairs.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v))).collect()
}

pub fn pod_spec(image: &str, cpu_millis: u64, memory_bytes: u64) -> PodSpec {
    let requests = ResourceRequirements {
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some(memory_bytes),
        ephemeral_storage_bytes: None,
    };
    let container = Container { name: "main".into(), image: image.into(), requests, ..Container::default() };
    PodSpec { containers: vec![container], termination_grace_ms: 30_000, ..PodSpec::default() }
}

pub fn template(app: &str, spec: PodSpec) -> PodTemplate {
    PodTemplate { labels: map(&[("app", app)]), annotations: StringMap::new(), spec: Shared::new(spec) }
}

pub fn deployment(app: &str, replicas: u32, change: impl FnOnce(&mut DeploymentSpec)) -> Object {
    let mut spec = DeploymentSpec {
        replicas,
        selector: LabelSelector::from_labels(map(&[("app", app)])),
        template: template(app, pod_spec("web:1", 100, 64 << 20)),
        strategy: DeploymentStrategy::default(),
        min_ready_ms: 0,
        progress_deadline_ms: 600_000,
        revision_history_limit: 10,
        paused: false,
        stopped: false,
        delivery: Default::default(),
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::Deployment(Arc::new(Deployment { meta, spec, status: Default::default() }))
}

pub fn replica_set(app: &str, replicas: u32, spec: PodSpec) -> Object {
    let spec = ReplicaSetSpec {
        replicas,
        min_ready_ms: 0,
        selector: LabelSelector::from_labels(map(&[("app", app)])),
        template: template(app, spec),
        rollout_revision: 0,
    };
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::ReplicaSet(Arc::new(ReplicaSet { meta, spec, status: ReplicaSetStatus::default() }))
}

pub fn pod(app: &str, spec: PodSpec) -> Object {
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::Pod(Arc::new(Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }))
}

pub fn rolling(surge: u32, unavailable: u32) -> DeploymentStrategy {
    DeploymentStrategy::RollingUpdate {
        max_surge: IntOrPercent::Int(surge),
        max_unavailable: IntOrPercent::Int(unavailable),
    }
}

pub fn facts(cpu_millis: u64, memory_bytes: u64, pods_max: u32) -> NodeFacts {
    let all = Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes: 100 * GIB, ..Resources::ZERO };
    NodeFacts { capacity: all, allocatable: all, pods_max, ..NodeFacts::default() }
}

/// What an agent says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Ready,
    NotReady,
    Failed,
    Gone,
}

/// See the module.
pub struct Cluster {
    pub machine: Machine,
    pub reconcilers: Reconcilers,
    pub soft: SoftState,
    config: ReconcileConfig,
    pub now_ms: u64,
    /// How far the calendar is ahead of the monotonic clock, in milliseconds.
    pub lag_ms: u64,
    pub transactions: Vec<Transaction>,
    pub proposals: Vec<Proposal>,
    /// Sees every command of a reconciler.
    pub watch: Box<dyn FnMut(&Seen<'_>)>,
    /// Nodes whose agents are silent.
    pub silent: Vec<ObjectId>,
    pub sequence: u64,
}

impl Cluster {
    pub fn new() -> Self {
        Self::with(ReconcileConfig::default())
    }

    pub fn with(config: ReconcileConfig) -> Self {
        Self::at_level(config, FEATURE_LEVEL_MAX)
    }

    /// A cluster that writes records of this feature level.
    pub fn at_level(config: ReconcileConfig, level: u32) -> Self {
        let now_ms = 1_000_000;
        let mut cluster = Self {
            machine: Machine::default(),
            reconcilers: Reconcilers::new(config.clone()),
            config,
            soft: SoftState::new(now_ms, now_ms),
            now_ms,
            lag_ms: 0,
            transactions: Vec::new(),
            proposals: Vec::new(),
            watch: Box::new(|_| ()),
            silent: Vec::new(),
            sequence: 0,
        };
        let members = vec![(MemberId(1), SmolStr::new("a:1"))];
        cluster.submit(vec![Command::InitCluster { cluster_id: Uuid::from_u128(7), members }]).unwrap();
        cluster.ok(Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(8),
            address: "a:1".into(),
            version: "0.1.0".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        });
        if level > cluster.state().feature_level() {
            cluster.ok(Command::RaiseFeatureLevel { level });
        }
        cluster.reconcilers.reset(cluster.machine.state());
        cluster
    }

    pub fn up_ms(&self) -> u64 {
        self.now_ms - self.lag_ms
    }

    pub fn state(&self) -> &State {
        self.machine.state()
    }

    pub fn stamped(&self, actor: &str, commands: Vec<Command>) -> Stamped {
        Stamped {
            request_id: Uuid::nil(),
            actor: actor.into(),
            proposed_at_ms: self.now_ms,
            trace_context: None,
            preconditions: Vec::new(),
            commands,
        }
    }

    pub fn apply(&mut self, stamped: &Stamped) -> Applied {
        let applied = self.machine.apply_stamped(stamped);
        applied.changes.iter().for_each(|change: &Change| self.reconcilers.observe(change));
        if !applied.repeated {
            self.transactions.push(applied.transaction.clone());
        }
        applied
    }

    pub fn submit(&mut self, commands: Vec<Command>) -> Result<Revision, Rejection> {
        let stamped = self.stamped("user:test", commands);
        self.apply(&stamped).transaction.outcome
    }

    pub fn ok(&mut self, command: Command) {
        self.submit(vec![command.clone()]).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    }

    pub fn node(&mut self, node: &str, facts: NodeFacts) -> ObjectId {
        self.ok(Command::RegisterNode { name: name(node), facts });
        self.state().find(Kind::Node, None, &name(node)).unwrap()
    }

    pub fn nodes(&mut self, count: usize) {
        for n in 0..count {
            self.node(&format!("node-{n}"), facts(16_000, 64 * GIB, 100));
        }
    }

    /// The same, of nodes whose agents keep volumes.
    pub fn volume_nodes(&mut self, count: usize) {
        for n in 0..count {
            let labels = map(&[(LABEL_LOCAL_VOLUMES, "true")]);
            self.node(&format!("node-{n}"), NodeFacts { labels, ..facts(16_000, 64 * GIB, 100) });
        }
    }

    /// Agents delete the volumes that they are told to.
    pub fn delete_volumes(&mut self) -> usize {
        let mut said = 0;
        for node in self.state().nodes().iter().cloned().collect::<Vec<_>>() {
            let intent = intent_of(self.state(), node.meta.id).unwrap();
            if !intent.deleted_volumes.is_empty() && !self.silent.contains(&node.meta.id) {
                said += intent.deleted_volumes.len();
                let deleted = intent.deleted_volumes.iter().map(|one| one.id).collect();
                let (node, incarnation) = (node.meta.id, node.status.incarnation);
                self.ok(Command::ReportVolumes { node, incarnation, deleted });
            }
        }
        said
    }

    /// One run of the reconcilers; all that they propose is applied. Returns how much that was.
    pub fn step(&mut self) -> usize {
        let cx = Context {
            state: self.machine.state(),
            now_ms: self.now_ms,
            up_ms: self.up_ms(),
            soft: &self.soft,
        };
        let proposals = self.reconcilers.run(&cx);
        for proposal in &proposals {
            let actor = format!("system:{}", proposal.reconciler);
            let stamped = self.stamped(&actor, vec![proposal.command.clone()]);
            let before = self.machine.state().clone();
            self.apply(&stamped);
            let (by, after) = (proposal.reconciler, self.machine.state());
            (self.watch)(&Seen { now_ms: self.now_ms, by, before: &before, after });
        }
        proposals.iter().for_each(|proposal| self.reconcilers.settled(proposal.reconciler));
        self.proposals.extend(proposals.iter().cloned());
        assert_eq!(invariant::check(self.machine.state()), []);
        proposals.len()
    }

    /// One run of the reconcilers of which nothing arrives in the log.
    pub fn lose(&mut self) {
        let cx = Context {
            state: self.machine.state(),
            now_ms: self.now_ms,
            up_ms: self.up_ms(),
            soft: &self.soft,
        };
        let proposals = self.reconcilers.run(&cx);
        proposals.iter().for_each(|proposal| self.reconcilers.settled(proposal.reconciler));
    }

    /// Another server takes over: all that only the leader knew is lost.
    pub fn new_leader(&mut self) {
        self.soft = SoftState::new(self.now_ms, self.up_ms());
        self.reconcilers = Reconcilers::new(self.config.clone());
        self.reconcilers.reset(self.machine.state());
    }

    /// Until the reconcilers have nothing to do before time passes.
    pub fn settle(&mut self) {
        for _ in 0..RUNS_MAX {
            let proposed = self.step();
            if proposed == 0 && self.reconcilers.next_wake_ms().is_none_or(|ms| ms > self.now_ms) {
                return;
            }
        }
        let last = &self.proposals[self.proposals.len().saturating_sub(5)..];
        panic!("the reconcilers never come to rest: {last:#?}");
    }

    /// Lets time pass; agents that are not silent go on with their heartbeats.
    pub fn advance(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + 3000);
            for node in self.machine.state().nodes().iter().map(|node| node.meta.id) {
                if !self.silent.contains(&node) {
                    self.soft.heartbeat(node, self.now_ms, self.up_ms());
                }
            }
            self.settle();
        }
    }

    /// Lets the agent of a pod's node say something about it.
    pub fn say(&mut self, pod: ObjectId, say: Say) {
        let Some(pod) = self.state().pods().get(pod).cloned() else { return };
        let Some(node) = pod.node.and_then(|node| self.state().nodes().get(node)).cloned() else { return };
        self.sequence += 1;
        let status = PodStatus {
            phase: if say == Say::Failed { PodPhase::Failed } else { PodPhase::Running },
            ready: say == Say::Ready,
            ..PodStatus::default()
        };
        let report = PodReport { pod: pod.meta.id, sequence: self.sequence, status, gone: say == Say::Gone };
        let (incarnation, reports) = (node.status.incarnation, vec![report]);
        self.ok(Command::ReportPods { node: node.meta.id, incarnation, reports });
    }

    /// Agents do what is wanted of them: bound pods become ready, ending pods go.
    pub fn agents(&mut self) -> usize {
        let mut said = 0;
        let heard = |pod: &Pod| pod.node.is_some_and(|node| !self.silent.contains(&node));
        let pods: Vec<_> = self.state().pods().iter().filter(|pod| heard(pod)).cloned().collect();
        for pod in pods {
            if pod.meta.is_deleting() {
                self.say(pod.meta.id, Say::Gone);
            } else if !pod.status.ready && !pod.status.phase.is_terminal() {
                self.say(pod.meta.id, Say::Ready);
            } else {
                continue;
            }
            said += 1;
        }
        said
    }

    /// Until reconcilers and agents have nothing to do.
    pub fn converge(&mut self) {
        for _ in 0..RUNS_MAX {
            self.settle();
            if self.agents() + self.delete_volumes() == 0 {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    pub fn get_deployment(&self, app: &str) -> Arc<Deployment> {
        match self.state().find_object(&reference(Kind::Deployment, app)) {
            Some(Object::Deployment(deployment)) => deployment,
            _ => panic!("no Deployment {app}"),
        }
    }

    /// A Deployment's sets as `revision:replicas/active/available`, oldest revision first, without empty ones.
    pub fn sets(&self, app: &str) -> String {
        let owned = self.state().owned(self.get_deployment(app).meta.id, Kind::ReplicaSet);
        let mut sets: Vec<_> = owned.filter_map(|id| self.state().replica_sets().get(id)).collect();
        sets.sort_by_key(|set| set.spec.rollout_revision);
        let shown: Vec<_> = sets
            .iter()
            .filter(|set| set.spec.replicas + self.state().active_pods(set.meta.id) > 0)
            .map(|set| {
                let active = self.state().active_pods(set.meta.id);
                let (revision, replicas) = (set.spec.rollout_revision, set.spec.replicas);
                format!("{revision}:{replicas}/{active}/{}", set.status.available_replicas)
            })
            .collect();
        shown.join(" ")
    }

    /// A Deployment's conditions as `Type=Status(Reason)`.
    pub fn conditions(&self, app: &str) -> String {
        let deployment = self.get_deployment(app);
        let conditions = deployment.status.conditions.iter();
        let shown: Vec<_> =
            conditions.map(|c| format!("{}={:?}({})", c.condition_type, c.status, c.reason)).collect();
        shown.join(" ")
    }

    /// Changes a Deployment as `apply` does.
    pub fn change(&mut self, app: &str, change: impl FnOnce(&mut DeploymentSpec)) {
        let mut deployment = self.get_deployment(app);
        change(&mut Arc::make_mut(&mut deployment).spec);
        self.ok(Command::Apply(Object::Deployment(deployment)));
    }

    pub fn set_image(&mut self, app: &str, image: &str) {
        self.change(app, |spec| spec.template = template(app, pod_spec(image, 100, 64 << 20)));
    }

    pub fn active_pods(&self) -> Vec<Arc<Pod>> {
        let active = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
        self.state().pods().iter().filter(active).cloned().collect()
    }

    /// A State made from the transactions alone.
    pub fn replayed(&self) -> State {
        let mut state = State::default();
        for transaction in &self.transactions {
            evolve(&mut state, transaction);
        }
        state
    }
}
