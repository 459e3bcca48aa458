//! What clients ask for: objects come, change, roll, scale and go.

mod autoscalers;
mod cpus;
mod devices;
mod elastic;
mod huge_pages;
mod jobs;
mod networks;
mod node_pools;
mod placement;
mod policies;
mod ports;
mod queues;
mod resizes;
mod scoring;
mod volumes;

pub(crate) use devices::AVOIDED;
#[cfg(test)]
pub(crate) use jobs::new_job as any_job;

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_UNIQUE, Command, Container, Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy,
    FENCING_LEVEL, IntOrPercent, Kind, LabelSelector, Name, Namespace, Object, ObjectMeta, ObjectRef, Pod,
    PodSpec, PodStatus, PodTemplate, Precondition, ResourceRequirements, RestartPolicy, Shared, Stamped,
    StringMap,
};
use smol_str::SmolStr;

use crate::options::WorkloadOptions;
use crate::rng::Rng;
use crate::workload_sets::Sets;

/// The namespaces that are used; the first is always there.
const NAMESPACES: [&str; 2] = ["default", "team"];
/// Names of pods that belong to no workload.
const PODS: u64 = 6;
const MIB: u64 = 1 << 20;
/// Deployments of a full cluster that fill it, in thousandths.
const FILL_PERMILLE: u64 = 700;
/// Commands that keep a card back, of those of a cluster with cards, in thousandths; and below which index.
const CORDON_PERMILLE: u64 = 30;
/// How often an operator sets the mode of a node's cards, in thousandths.
const GPU_MODE_PERMILLE: u64 = 60;
const CORDONED_BELOW: u32 = 4;
/// How long a rollout may stand still, in milliseconds.
const PROGRESS_DEADLINE_MS: u64 = 20_000;

/// The source of operations.
#[derive(Debug)]
pub(crate) struct Workload {
    options: WorkloadOptions,
    agents: u32,
    /// Makes every template, and every restart, a new one.
    count: u64,
}

/// The name of a node.
pub(crate) fn node_name(agent: u32) -> Name {
    name(&format!("node-{agent}"))
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("the simulation makes valid names")
}

pub(crate) fn labels(key: &str, value: &str) -> StringMap {
    [(SmolStr::new(key), SmolStr::new(value))].into_iter().collect()
}

impl Workload {
    pub(crate) fn new(options: WorkloadOptions, agents: u32) -> Self {
        Self { options, agents, count: 0 }
    }

    /// What a client does next: a submission, or a read.
    pub(crate) fn next(&mut self, rng: &mut Rng, client: u32, state: &State) -> Option<Stamped> {
        if rng.chance(self.options.read_permille) {
            return None;
        }
        let count = if rng.chance(self.options.bundle_permille) { rng.range(2, 4) } else { 1 };
        let commands: Vec<Command> = (0..count).map(|_| self.command(rng, state)).collect();
        let mut stamped = submission(rng, client, commands);
        if rng.chance(self.options.precondition_permille)
            && let Some(object) = stamped.commands.first().and_then(target)
        {
            // Some are out of date on purpose.
            let revision = state.find_object(&object).map(|o| o.meta().revision);
            let revision = revision.map(|r| r - rng.range(0, 1).min(r - 1));
            stamped.preconditions.push(Precondition { object, revision });
        }
        Some(stamped)
    }

    fn command(&mut self, rng: &mut Rng, state: &State) -> Command {
        self.count += 1;
        if self.options.sets_permille > 0 && rng.chance(self.options.sets_permille) {
            let replicas_max = self.options.replicas_max;
            return Sets { count: self.count, agents: self.agents, replicas_max }.command(rng, state);
        }
        if self.options.jobs_permille > 0 && rng.chance(self.options.jobs_permille) {
            return jobs::command(rng, state, self.count);
        }
        if let Some(command) = self.of_later_levels(rng, state) {
            return command;
        }
        let deployment = self.deployment_ref(rng);
        if self.options.devices_permille > 0 && rng.chance(CORDON_PERMILLE) {
            let node = node_name(rng.range(0, u64::from(self.agents) - 1) as u32);
            return devices::cordon(rng, node, CORDONED_BELOW);
        }
        if self.options.devices_permille > 0 && rng.chance(GPU_MODE_PERMILLE) {
            let node = node_name(rng.range(0, u64::from(self.agents) - 1) as u32);
            return devices::gpu_mode(rng, node);
        }
        if self.options.autoscalers_permille > 0 && rng.chance(self.options.autoscalers_permille) {
            return autoscalers::command(rng, state, &deployment);
        }
        if self.options.policies_permille > 0 && rng.chance(self.options.policies_permille) {
            let wanted = self.deployment(rng, &deployment);
            return policies::command(rng, state, wanted);
        }
        match rng.range(0, 99) {
            0..30 => Command::Apply(Object::Deployment(Arc::new(self.deployment(rng, &deployment)))),
            30..48 => Command::Scale { object: deployment, replicas: self.replicas(rng) },
            48..54 => Command::SetPaused { deployment, paused: rng.chance(400) },
            54..60 => Command::UndoRollout { deployment, to_revision: None },
            60..66 => {
                let restarted_at = SmolStr::new(format!("restart-{}", self.count));
                Command::RestartRollout { deployment, restarted_at }
            }
            66..72 => Command::Delete { object: deployment, grace_ms: None, force: false },
            72..80 => Command::Create(Object::Pod(Arc::new(self.pod(rng)))),
            80..88 => self.delete_pod(rng, state),
            88..94 => Command::SetUnschedulable {
                node: node_name(rng.range(0, u64::from(self.agents) - 1) as u32),
                unschedulable: rng.chance(500),
            },
            94..98 => {
                let meta = ObjectMeta::new(None, name(NAMESPACES[1]));
                Command::Create(Object::Namespace(Arc::new(Namespace { meta })))
            }
            _ => {
                let object = ObjectRef { kind: Kind::Namespace, namespace: None, name: name(NAMESPACES[1]) };
                Command::Delete { object, grace_ms: None, force: false }
            }
        }
    }

    /// What needs a level that a new cluster does not begin with: at first the level itself.
    fn of_later_levels(&mut self, rng: &mut Rng, state: &State) -> Option<Command> {
        let options = &self.options;
        let levels = [
            (options.placement_permille > 0).then(|| placement::level(state)),
            (options.devices_permille > 0).then(|| devices::level(state)),
            (options.cpus_permille > 0).then(|| cpus::level(state)),
            (options.ports_permille > 0).then(|| ports::level(state)),
            (options.huge_pages_permille > 0).then(|| huge_pages::level(state)),
        ];
        if let Some(first) = levels.into_iter().flatten().flatten().next() {
            return Some(first);
        }
        if options.networks_permille > 0 && rng.chance(options.networks_permille) {
            return Some(networks::command(rng, state));
        }
        if options.scoring_permille > 0 && rng.chance(options.scoring_permille) {
            let within = self.namespace(rng);
            return Some(scoring::command(rng, state, within, self.count));
        }
        if let Some(command) = self.of_pools(rng, state) {
            return Some(command);
        }
        if options.elastic_permille > 0 {
            if let Some(first) = elastic::first(state) {
                return Some(first);
            }
            if rng.chance(options.elastic_permille) {
                return Some(elastic::command(rng));
            }
        }
        if options.volumes_permille > 0 {
            if let Some(first) = volumes::level(state) {
                return Some(first);
            }
            if rng.chance(options.volumes_permille) {
                return Some(volumes::command(rng, state));
            }
        }
        if options.resizes_permille > 0 {
            if let Some(first) = resizes::level(state) {
                return Some(first);
            }
            if rng.chance(options.resizes_permille)
                && let Some(command) = resizes::command(rng, state)
            {
                return Some(command);
            }
        }
        if options.queues_permille == 0 {
            return None;
        }
        if let Some(first) = queues::level(state) {
            return Some(first);
        }
        if !rng.chance(self.options.queues_permille) {
            return None;
        }
        let namespace = self.namespace(rng);
        Some(queues::command(rng, namespace, self.count))
    }

    /// Something about pools of nodes, in runs that have some.
    fn of_pools(&self, rng: &mut Rng, state: &State) -> Option<Command> {
        let often = self.options.pools_permille;
        if often == 0 {
            return None;
        }
        let level = node_pools::level(state);
        if level.is_some() || !rng.chance(often) {
            return level;
        }
        let node = node_name(rng.range(0, u64::from(self.agents) - 1) as u32);
        Some(node_pools::command(rng, state, &node))
    }

    /// On a full cluster most often what fills it.
    fn replicas(&self, rng: &mut Rng) -> u32 {
        let any = rng.range(0, self.options.replicas_max) as u32;
        if self.options.fill_replicas > 0 && rng.chance(FILL_PERMILLE) {
            return self.options.fill_replicas as u32;
        }
        any
    }

    fn namespace(&self, rng: &mut Rng) -> Name {
        name(NAMESPACES[usize::from(rng.chance(300))])
    }

    fn deployment_ref(&self, rng: &mut Rng) -> ObjectRef {
        let number = rng.range(1, self.options.deployments);
        ObjectRef {
            kind: Kind::Deployment,
            namespace: Some(self.namespace(rng)),
            name: name(&format!("web-{number}")),
        }
    }

    fn deployment(&self, rng: &mut Rng, reference: &ObjectRef) -> Deployment {
        let app = labels("app", reference.name.as_str());
        let is_unique = reference.name.as_str().ends_with(['2', '3']);
        let annotations = if is_unique { labels(ANNOTATION_UNIQUE, "true") } else { StringMap::new() };
        let version = *rng.pick(&[1, 2, 3, self.count]);
        let mut pod = pod_spec(rng, RestartPolicy::Always, &format!("web:{version}"));
        self.place(rng, &mut pod);
        let mut template = PodTemplate { labels: app.clone(), annotations, spec: Shared::new(pod) };
        if self.wants_cpus(rng) {
            cpus::want(rng, &mut template.labels, &mut template.annotations, &mut template.spec);
        }
        if self.publishes(rng) {
            ports::publish(rng, &mut template.spec);
        }
        if self.wants_huge_pages(rng) {
            huge_pages::ask(rng, &mut template.annotations, &mut template.spec);
        }
        let spec = DeploymentSpec {
            replicas: self.replicas(rng),
            selector: LabelSelector { match_labels: app, match_expressions: Vec::new() },
            template,
            strategy: strategy(rng),
            min_ready_ms: *rng.pick(&[0, 0, 500, 3000]),
            progress_deadline_ms: PROGRESS_DEADLINE_MS,
            revision_history_limit: *rng.pick(&[0, 1, 3]),
            paused: false,
            stopped: false,
            delivery: Default::default(),
        };
        let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
        Deployment { meta, spec, status: DeploymentStatus::default() }
    }

    fn pod(&self, rng: &mut Rng) -> Pod {
        let number = rng.range(1, PODS);
        let policy = *rng.pick(&[RestartPolicy::Never, RestartPolicy::OnFailure, RestartPolicy::Always]);
        let mut meta = ObjectMeta::new(Some(self.namespace(rng)), name(&format!("job-{number}")));
        // Every other name is one of which at most one instance may live.
        if number.is_multiple_of(2) {
            meta.annotations = labels(ANNOTATION_UNIQUE, "true");
        }
        let mut spec = pod_spec(rng, policy, "job:1");
        if self.place(rng, &mut spec) {
            meta.labels = labels("app", rng.pick::<SmolStr>(&self.apps()));
        }
        let mut spec = Shared::new(spec);
        if self.wants_cpus(rng) {
            cpus::want(rng, &mut meta.labels, &mut meta.annotations, &mut spec);
        }
        if self.publishes(rng) {
            ports::publish(rng, &mut spec);
        }
        if self.wants_huge_pages(rng) {
            huge_pages::ask(rng, &mut meta.annotations, &mut spec);
        }
        if self.options.devices_permille > 0 {
            devices::choose(rng, &mut meta.annotations, self.agents);
        }
        Pod { meta, spec, node: None, status: PodStatus::default() }
    }

    /// In some runs some pods publish ports of their nodes.
    fn publishes(&self, rng: &mut Rng) -> bool {
        self.options.ports_permille > 0 && rng.chance(self.options.ports_permille)
    }

    /// In some runs some pods ask for huge pages.
    fn wants_huge_pages(&self, rng: &mut Rng) -> bool {
        self.options.huge_pages_permille > 0 && rng.chance(self.options.huge_pages_permille)
    }

    /// In some runs some pods want CPUs for themselves.
    fn wants_cpus(&self, rng: &mut Rng) -> bool {
        self.options.cpus_permille > 0 && rng.chance(self.options.cpus_permille)
    }

    fn apps(&self) -> Vec<SmolStr> {
        (1..=self.options.deployments).map(|number| SmolStr::new(format!("web-{number}"))).collect()
    }

    /// In some runs some pods say something about their place.
    fn place(&self, rng: &mut Rng, spec: &mut PodSpec) -> bool {
        let permille = self.options.placement_permille;
        if self.options.policies_permille > 0 {
            policies::rank(rng, spec);
        }
        let asks = self.options.devices_permille > 0 && rng.chance(self.options.devices_permille);
        if asks {
            devices::ask(rng, spec);
        }
        let says = permille > 0 && rng.chance(permille);
        if says {
            placement::place(rng, spec, &self.apps());
        }
        says
    }

    /// A pod of a workload, or one of its own.
    fn delete_pod(&self, rng: &mut Rng, state: &State) -> Command {
        let pods = state.pods();
        let object = if pods.is_empty() || rng.chance(300) {
            let (namespace, number) = (self.namespace(rng), rng.range(1, PODS));
            ObjectRef { kind: Kind::Pod, namespace: Some(namespace), name: name(&format!("job-{number}")) }
        } else {
            let pod = pods.iter().nth(rng.below(pods.len())).expect("the place is below the length");
            Object::Pod(pod.clone()).object_ref()
        };
        let grace_ms = *rng.pick(&[None, None, Some(0), Some(500)]);
        // Force waits for what must be unique, and for nothing else.
        let unique =
            state.find_object(&object).is_some_and(|o| matches!(o, Object::Pod(pod) if pod.is_unique()));
        let force = unique && state.feature_level() >= FENCING_LEVEL && rng.chance(300);
        Command::Delete { object, grace_ms, force }
    }
}

/// A client's submission of some commands.
pub(crate) fn submission(rng: &mut Rng, client: u32, commands: Vec<Command>) -> Stamped {
    Stamped {
        request_id: rng.uuid(),
        actor: SmolStr::new(format!("user:client-{client}")),
        proposed_at_ms: 0,
        trace_context: None,
        preconditions: Vec::new(),
        commands,
    }
}

/// The object that a command is about.
fn target(command: &Command) -> Option<ObjectRef> {
    match command {
        Command::Create(object) | Command::Apply(object) => Some(object.object_ref()),
        Command::Delete { object, .. } | Command::Scale { object, .. } => Some(object.clone()),
        Command::SetPaused { deployment, .. }
        | Command::UndoRollout { deployment, .. }
        | Command::RestartRollout { deployment, .. } => Some(deployment.clone()),
        _ => None,
    }
}

fn strategy(rng: &mut Rng) -> DeploymentStrategy {
    use IntOrPercent::{Int, Percent};
    if rng.chance(100) {
        return DeploymentStrategy::Recreate;
    }
    let (max_surge, max_unavailable) = *rng.pick(&[
        (Percent(25), Percent(25)),
        (Int(1), Int(0)),
        (Int(0), Int(1)),
        (Int(2), Int(1)),
        (Percent(100), Int(0)),
        (Percent(50), Percent(50)),
    ]);
    DeploymentStrategy::RollingUpdate { max_surge, max_unavailable }
}

pub(crate) fn pod_spec(rng: &mut Rng, restart_policy: RestartPolicy, image: &str) -> PodSpec {
    let mut container = |name: &str| Container {
        name: SmolStr::new(name),
        image: SmolStr::new(image),
        requests: ResourceRequirements {
            cpu_millis: Some(*rng.pick(&[50, 100, 500])),
            memory_bytes: Some(*rng.pick(&[32, 64, 256]) * MIB),
            ephemeral_storage_bytes: None,
        },
        ..Container::default()
    };
    let main = container("main");
    let side = container("side");
    let init = container("init");
    PodSpec {
        restart_policy,
        termination_grace_ms: *rng.pick(&[0, 1000, 5000]),
        init_containers: if rng.chance(200) { vec![init] } else { Vec::new() },
        containers: if rng.chance(200) { vec![main, side] } else { vec![main] },
        ..PodSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use bulkhead_types::validate;

    #[test]
    fn everything_that_is_asked_for_is_valid() {
        let mut options = Options::draw(1);
        options.workload.sets_permille = 300;
        options.workload.policies_permille = 300;
        let mut workload = Workload::new(options.workload, 3);
        let rng = &mut Rng::child(1, "test", 0);
        let mut objects = 0;
        for _ in 0..1000 {
            for command in workload.next(rng, 0, &State::default()).into_iter().flat_map(|s| s.commands) {
                if let Command::Create(object) | Command::Apply(object) = &command {
                    assert_eq!(validate(object), Vec::new(), "{command:?}");
                    objects += 1;
                }
            }
        }
        assert!(objects > 100, "{objects}");
    }
}
