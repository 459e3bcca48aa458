//! A leader's State and reconcilers, with nodes whose agents do at once what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bulkhead_controlplane_core::reconcile::{Context, ReconcileConfig, Reconcilers, SoftState};
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_types::{
    Command, Container, Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, ITEMS_MAX,
    LabelSelector, MemberId, Name, NodeFacts, Object, ObjectId, ObjectMeta, PodPhase, PodReport, PodSpec,
    PodStatus, PodTemplate, ResourceRequirements, Resources, Shared, Stamped, StringMap,
};
use smol_str::SmolStr;
use uuid::Uuid;

const NOW_MS: u64 = 1_700_000_000_000;
const PODS_PER_NODE: u32 = 200;
/// How often reconcilers and agents may have something to say in turn before nothing more is to be said.
const ROUNDS_MAX: usize = 10_000;

pub(super) struct Leader {
    machine: Machine,
    reconcilers: Reconcilers,
    soft: SoftState,
    /// What the reconcilers took since the last look.
    work: Duration,
    /// Pods that changed since the agents looked last.
    changed: Vec<ObjectId>,
    sequence: u64,
}

impl Leader {
    /// A leader of nodes for so many pods, and a few more.
    pub(super) fn new(pods: u32) -> anyhow::Result<Self> {
        let mut leader = Self {
            machine: Machine::default(),
            reconcilers: Reconcilers::new(ReconcileConfig::default()),
            soft: SoftState::new(NOW_MS, 0),
            work: Duration::ZERO,
            changed: Vec::new(),
            sequence: 0,
        };
        let members = vec![(MemberId(1), SmolStr::new_static("127.0.0.1:1"))];
        leader.apply(Command::InitCluster { cluster_id: Uuid::from_u128(1), members })?;
        let all = Resources {
            cpu_millis: 96_000,
            memory_bytes: 512 << 30,
            ephemeral_storage_bytes: 1 << 40,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 250, ..NodeFacts::default() };
        for number in 0..=pods.div_ceil(PODS_PER_NODE) {
            let name = Name::new(format!("node-{number}"))?;
            leader.apply(Command::RegisterNode { name, facts: facts.clone() })?;
        }
        leader.reconcilers.reset(leader.machine.state());
        Ok(leader)
    }

    pub(super) fn state(&self) -> &State {
        self.machine.state()
    }

    /// What the reconcilers took since the last call.
    pub(super) fn take_work(&mut self) -> Duration {
        std::mem::take(&mut self.work)
    }

    fn apply(&mut self, command: Command) -> anyhow::Result<()> {
        let applied = self.machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: SmolStr::new_static("system:bench"),
            proposed_at_ms: NOW_MS,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        });
        let since = Instant::now();
        applied.changes.iter().for_each(|change| self.reconcilers.observe(change));
        self.work += since.elapsed();
        self.changed.extend(applied.changes.iter().filter_map(|change| match &change.object {
            Object::Pod(pod) => Some(pod.meta.id),
            _ => None,
        }));
        if let Err(rejection) = applied.transaction.outcome {
            bail!("a command was refused: {rejection}");
        }
        Ok(())
    }

    /// Creates a Deployment, or gives it another image.
    pub(super) fn apply_deployment(&mut self, name: &str, replicas: u32, version: u32) -> anyhow::Result<()> {
        let labels: StringMap = [(SmolStr::new_static("app"), SmolStr::new(name))].into_iter().collect();
        let requests = ResourceRequirements {
            cpu_millis: Some(100),
            memory_bytes: Some(128 << 20),
            ephemeral_storage_bytes: None,
        };
        let image = format!("web:{version}");
        let container =
            Container { name: "main".into(), image: image.into(), requests, ..Container::default() };
        let template = PodTemplate {
            labels: labels.clone(),
            annotations: StringMap::default(),
            spec: Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() }),
        };
        let spec = DeploymentSpec {
            replicas,
            selector: LabelSelector::from_labels(labels),
            template,
            strategy: DeploymentStrategy::default(),
            min_ready_ms: 0,
            progress_deadline_ms: 600_000,
            revision_history_limit: 10,
            paused: false,
            stopped: false,
            delivery: Default::default(),
        };
        let meta = ObjectMeta::new(Some(Name::new("default")?), Name::new(name)?);
        let deployment = Deployment { meta, spec, status: DeploymentStatus::default() };
        self.apply(Command::Apply(Object::Deployment(Arc::new(deployment))))
    }

    /// Until the reconcilers have nothing to do before time passes.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        for _ in 0..ROUNDS_MAX {
            if self.reconcilers.next_wake_ms().is_none_or(|ms| ms > NOW_MS) {
                return Ok(());
            }
            let since = Instant::now();
            let cx = Context { state: self.machine.state(), now_ms: NOW_MS, up_ms: 0, soft: &self.soft };
            let proposals = self.reconcilers.run(&cx);
            self.work += since.elapsed();
            for proposal in proposals {
                self.apply(proposal.command)?;
                self.reconcilers.settled(proposal.reconciler);
            }
        }
        bail!("the reconcilers never come to rest")
    }

    /// Until neither reconcilers nor agents have anything to do.
    pub(super) fn converge(&mut self) -> anyhow::Result<()> {
        for _ in 0..ROUNDS_MAX {
            self.settle()?;
            if !self.agents()? {
                return Ok(());
            }
        }
        bail!("reconcilers and agents never come to rest")
    }

    /// Agents do what is wanted of pods that changed: bound ones become ready, ending ones go.
    fn agents(&mut self) -> anyhow::Result<bool> {
        let mut by_node = BTreeMap::<ObjectId, Vec<PodReport>>::new();
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for id in changed {
            let Some(pod) = self.machine.state().pods().get(id) else { continue };
            let Some(node) = pod.node else { continue };
            let gone = pod.meta.is_deleting();
            if gone || !pod.status.ready {
                self.sequence += 1;
                by_node.entry(node).or_default().push(report(id, self.sequence, true, gone));
            }
        }
        let said = !by_node.is_empty();
        for (node, reports) in by_node {
            for reports in reports.chunks(ITEMS_MAX) {
                self.say(node, reports.to_vec())?;
            }
        }
        Ok(said)
    }

    /// The agent of a pod's node says whether it is ready.
    pub(super) fn report(&mut self, pod: ObjectId, ready: bool) -> anyhow::Result<()> {
        let node =
            self.machine.state().pods().get(pod).and_then(|pod| pod.node).context("a pod on a node")?;
        self.sequence += 1;
        self.say(node, vec![report(pod, self.sequence, ready, false)])
    }

    fn say(&mut self, node: ObjectId, reports: Vec<PodReport>) -> anyhow::Result<()> {
        let found = self.machine.state().nodes().get(node).context("a node that was made")?;
        let incarnation = found.status.incarnation;
        self.apply(Command::ReportPods { node, incarnation, reports })
    }
}

fn report(pod: ObjectId, sequence: u64, ready: bool, gone: bool) -> PodReport {
    let status = PodStatus { phase: PodPhase::Running, ready, ..PodStatus::default() };
    PodReport { pod, sequence, status, gone }
}
