//! A leader's machine and its scheduler, without log: pods come, and are placed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bulkhead_controlplane_core::reconcile::{Context, ReconcileConfig, Reconcilers, SoftState};
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_types::{
    ANNOTATION_POD_GROUP, Command, ConfigMap, Device, DeviceCapacity, DeviceReport, FEATURE_LEVEL_MAX, Kind,
    LABEL_DEVICES, LABEL_FENCE_GUARD, MemberId, Name, Node, NodeFacts, Object, ObjectId, ObjectMeta,
    ObjectRef, Pod, PodGroup, PodGroupSpec, PodSpec, PodStatus, PriorityClass, QUEUE_DEFAULT, Resources,
    SCHEDULER_CONFIG_NAME, SCHEDULER_CONFIG_NAMESPACE, ScoringStrategy, Shared, Stamped, StringMap,
};
use smol_str::SmolStr;
use uuid::Uuid;

use super::on_processor;
use super::quality::Size;

const NOW_MS: u64 = 1_700_000_000_000;
const COMMANDS_PER_SUBMISSION: usize = 1000;
/// Zones over which the nodes are spread.
pub(super) const ZONES: usize = 10;
/// How often the reconcilers may have something to say before nothing more is to be said.
const ROUNDS_MAX: usize = 10_000;

/// Processor time of each node, in thousandths of a core.
pub(super) const CPU_MILLIS: u64 = 96_000;

/// Pods of one sort.
#[derive(Clone, Debug)]
pub(super) struct Sort {
    pub(super) app: SmolStr,
    pub(super) spec: Shared<PodSpec>,
}

pub(super) struct Leader {
    machine: Machine,
    reconcilers: Reconcilers,
    soft: SoftState,
    /// What the reconcilers took since the last look.
    work: Duration,
    pods: usize,
    /// Whether the reconcilers are told of changes.
    is_watched: bool,
}

impl Leader {
    /// A leader of so many nodes that has looked at all of them.
    pub(super) fn new(nodes: usize) -> anyhow::Result<Self> {
        let mut leader = Self::blind(nodes)?;
        leader.renew()?;
        Ok(leader)
    }

    /// A leader of so many nodes that has looked at nothing: call [`Self::renew`] before pods are to be placed.
    pub(super) fn blind(nodes: usize) -> anyhow::Result<Self> {
        let all = Resources {
            cpu_millis: CPU_MILLIS,
            memory_bytes: 512 << 30,
            ephemeral_storage_bytes: 1 << 40,
            ..Resources::ZERO
        };
        let mut leader = Self::without_nodes()?;
        leader.register((0..nodes).map(|_| all))?;
        Ok(leader)
    }

    /// The same of nodes of these sizes.
    pub(super) fn of(sizes: &[Size]) -> anyhow::Result<Self> {
        let mut leader = Self::without_nodes()?;
        leader.register(sizes.iter().map(|size| Resources {
            cpu_millis: 1000 * size.cpu,
            memory_bytes: size.memory << 30,
            ephemeral_storage_bytes: 1 << 40,
            ..Resources::ZERO
        }))?;
        let nodes: Vec<_> = leader.state().nodes().iter().cloned().collect();
        for (node, size) in nodes.iter().zip(sizes).filter(|(_, size)| size.cards > 0) {
            leader.submit(card_reports(node, size.cards as usize))?;
        }
        Ok(leader)
    }

    fn without_nodes() -> anyhow::Result<Self> {
        let mut leader = Self {
            machine: Machine::default(),
            reconcilers: Reconcilers::new(ReconcileConfig::default()),
            soft: SoftState::new(NOW_MS, 0),
            work: Duration::ZERO,
            pods: 0,
            is_watched: false,
        };
        let members = vec![(MemberId(1), SmolStr::new_static("127.0.0.1:1"))];
        leader.apply(vec![
            Command::InitCluster { cluster_id: Uuid::from_u128(1), members },
            Command::RegisterMember {
                member: MemberId(1),
                storage_uid: Uuid::from_u128(2),
                address: SmolStr::new_static("127.0.0.1:1"),
                version: SmolStr::new_static("bench"),
                feature_level_max: FEATURE_LEVEL_MAX,
            },
            Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX },
        ])?;
        Ok(leader)
    }

    /// Nodes come that have so much each.
    fn register(&mut self, nodes: impl Iterator<Item = Resources>) -> anyhow::Result<()> {
        let facts = |zone: usize, all: Resources| {
            let labels = [(SmolStr::new_static("zone"), SmolStr::new(format!("zone-{zone}")))];
            let labels = labels.into_iter().collect();
            NodeFacts { capacity: all, allocatable: all, pods_max: 250, labels, ..NodeFacts::default() }
        };
        let register = |(number, all): (usize, Resources)| -> anyhow::Result<Command> {
            let name = Name::new(format!("node-{number}"))?;
            Ok(Command::RegisterNode { name, facts: facts(number % ZONES, all) })
        };
        let commands: Vec<_> = nodes.enumerate().map(register).collect::<anyhow::Result<_>>()?;
        self.submit(commands)
    }

    /// Which nodes are better for what is reserved on them; nothing else counts.
    pub(super) fn score_by(&mut self, strategy: ScoringStrategy) -> anyhow::Result<()> {
        let system = Name::new(SCHEDULER_CONFIG_NAMESPACE)?;
        let namespace = bulkhead_types::Namespace { meta: ObjectMeta::new(None, system.clone()) };
        let data =
            [("NodeResourcesFit.scoringStrategy.type", strategy.as_str()), ("NodeResourcesFit.weight", "10")];
        let map = ConfigMap {
            meta: ObjectMeta::new(Some(system), Name::new(SCHEDULER_CONFIG_NAME)?),
            immutable: false,
            data: data.into_iter().map(|(key, value)| (key.into(), value.to_owned())).collect(),
            binary_data: Default::default(),
        };
        self.submit(vec![
            Command::Create(Object::Namespace(Arc::new(namespace))),
            Command::Create(Object::ConfigMap(Arc::new(map))),
        ])
    }

    /// Begins anew, as a leader does.
    pub(super) fn renew(&mut self) -> anyhow::Result<()> {
        self.reconcilers = Reconcilers::new(ReconcileConfig::default());
        self.reconcilers.reset(self.machine.state());
        self.is_watched = true;
        self.run()?;
        self.work = Duration::ZERO;
        Ok(())
    }

    pub(super) fn state(&self) -> &State {
        self.machine.state()
    }

    /// What the reconcilers took since the last call.
    pub(super) fn take_work(&mut self) -> Duration {
        std::mem::take(&mut self.work)
    }

    /// Commands, as many at a time as may be submitted.
    pub(super) fn submit(&mut self, commands: Vec<Command>) -> anyhow::Result<()> {
        for commands in commands.chunks(COMMANDS_PER_SUBMISSION) {
            self.apply(commands.to_vec())?;
        }
        Ok(())
    }

    fn apply(&mut self, commands: Vec<Command>) -> anyhow::Result<()> {
        let applied = self.machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: SmolStr::new_static("system:bench"),
            proposed_at_ms: NOW_MS,
            trace_context: None,
            preconditions: Vec::new(),
            commands,
        });
        let since = on_processor();
        if self.is_watched {
            applied.changes.iter().for_each(|change| self.reconcilers.observe(change));
        }
        self.work += on_processor().saturating_sub(since);
        if let Err(rejection) = applied.transaction.outcome {
            bail!("a command was refused: {rejection}");
        }
        Ok(())
    }

    /// Every node gets so many cards, and an agent that attaches them.
    pub(super) fn cards(&mut self, per_node: usize) -> anyhow::Result<()> {
        let nodes: Vec<_> = self.state().nodes().iter().cloned().collect();
        let commands = nodes.iter().flat_map(|node| card_reports(node, per_node)).collect();
        self.submit(commands)
    }

    /// PodGroups of so many pods come, each pod with one card.
    pub(super) fn create_groups(&mut self, groups: usize, pods: usize) -> anyhow::Result<()> {
        let namespace = Name::new("default")?;
        let spec = super::sorts::with_card();
        for group in 0..groups {
            let group_name = Name::new(format!("gang-{group}"))?;
            let object = PodGroup {
                meta: ObjectMeta::new(Some(namespace.clone()), group_name.clone()),
                spec: PodGroupSpec {
                    min_member: pods as u32,
                    min_task_member: std::collections::BTreeMap::new(),
                    min_resources: bulkhead_types::QuotaAmounts::default(),
                    queue: Name::new(QUEUE_DEFAULT)?,
                    priority_class_name: None,
                    schedule_timeout_ms: None,
                },
                status: Default::default(),
            };
            self.apply(vec![Command::Create(Object::PodGroup(Arc::new(object)))])?;
            let mut commands = Vec::with_capacity(pods);
            for number in 0..pods {
                let pod_name = Name::new(format!("gang-{group}-{number}"))?;
                let mut meta = ObjectMeta::new(Some(namespace.clone()), pod_name);
                let note = (SmolStr::new_static(ANNOTATION_POD_GROUP), SmolStr::new(group_name.as_str()));
                meta.annotations = StringMap::from([note]);
                let pod = Pod { meta, spec: spec.clone(), node: None, status: PodStatus::default() };
                commands.push(Command::Create(Object::Pod(Arc::new(pod))));
            }
            self.submit(commands)?;
        }
        Ok(())
    }

    /// The classes of [`super::sorts::filling`] and [`super::sorts::urgent`].
    pub(super) fn classes(&mut self) -> anyhow::Result<()> {
        for (class, value) in [(super::sorts::LOW, 10), (super::sorts::HIGH, 1000)] {
            let class = PriorityClass {
                meta: ObjectMeta::new(None, Name::new(class)?),
                value,
                global_default: false,
                preemption_policy: None,
                description: String::new(),
            };
            self.apply(vec![Command::Create(Object::PriorityClass(Arc::new(class)))])?;
        }
        Ok(())
    }

    /// Pods come, in turn of each sort.
    pub(super) fn create(&mut self, sorts: &[Sort], count: usize) -> anyhow::Result<()> {
        let namespace = Name::new("default")?;
        let mut commands = Vec::with_capacity(count);
        for number in 0..count {
            let Sort { app, spec } = &sorts[number % sorts.len()];
            let mut meta = ObjectMeta::new(Some(namespace.clone()), Name::new(format!("pod-{}", self.pods))?);
            meta.labels = StringMap::from([(SmolStr::new_static("app"), app.clone())]);
            self.pods += 1;
            let pod = Pod { meta, spec: spec.clone(), node: None, status: PodStatus::default() };
            commands.push(Command::Create(Object::Pod(Arc::new(pod))));
        }
        self.submit(commands)
    }

    /// Pods go at once, as if their agents had said so.
    pub(super) fn remove(&mut self, pods: &[ObjectId]) -> anyhow::Result<()> {
        let mut commands = Vec::with_capacity(pods.len());
        for pod in pods.iter().filter_map(|id| self.machine.state().pods().get(*id)) {
            let (namespace, name) = (pod.meta.namespace.clone(), pod.meta.name.clone());
            let object = ObjectRef { kind: Kind::Pod, namespace, name };
            commands.push(Command::Delete { object, grace_ms: None, force: true });
        }
        self.submit(commands)
    }

    /// Something happens that changes nothing for any pod.
    pub(super) fn stir(&mut self, number: usize) -> anyhow::Result<()> {
        let meta = ObjectMeta::new(None, Name::new(format!("empty-{number}"))?);
        let namespace = bulkhead_types::Namespace { meta };
        self.apply(vec![Command::Create(Object::Namespace(Arc::new(namespace)))])
    }

    /// Until the reconcilers have nothing to do.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        for _ in 0..ROUNDS_MAX {
            if self.reconcilers.next_wake_ms().is_none_or(|ms| ms > NOW_MS) {
                return Ok(());
            }
            let since = on_processor();
            let cx = Context { state: self.machine.state(), now_ms: NOW_MS, up_ms: 0, soft: &self.soft };
            let proposals = self.reconcilers.run(&cx);
            self.work += on_processor().saturating_sub(since);
            for proposal in proposals {
                self.apply(vec![proposal.command])?;
                self.reconcilers.settled(proposal.reconciler);
            }
        }
        bail!("the reconcilers never come to rest")
    }
}

/// What the agent of a node says that attaches devices, and has so many cards.
fn card_reports(node: &Node, count: usize) -> Vec<Command> {
    let card = |index: usize| Device {
        id: SmolStr::new(format!("GPU-{index}")),
        address: SmolStr::new(format!("0000:{:02x}:00.0", 0x10 + index)),
        index: index as u32,
        vendor: 0x10de,
        device: 0x1db1,
        class_code: 0x03_0200,
        numa_node: Some(index as u32 / 4),
        pcie_root: SmolStr::new(format!("pci0000:{index}")),
        capacity: DeviceCapacity { memory_bytes: 16 << 30, cores: 100 },
        ..Device::default()
    };
    let mut facts = node.status.facts.clone();
    facts.labels.insert(SmolStr::new_static(LABEL_DEVICES), SmolStr::new_static("true"));
    facts.labels.insert(SmolStr::new_static(LABEL_FENCE_GUARD), SmolStr::new_static("true"));
    let devices = (0..count).map(card).collect();
    vec![
        Command::RegisterNode { name: node.meta.name.clone(), facts },
        Command::ReportDevices {
            node: node.meta.id,
            incarnation: node.status.incarnation + 1,
            report: DeviceReport { sequence: 1, snapshot: true, devices, ..DeviceReport::default() },
        },
    ]
}
