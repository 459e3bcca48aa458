//! One pod of this node: what is wanted of it, what is known of it.
//!
//! ```text
//!  mod.rs         the data, and how intents and records become wants
//!  boot.rs        how long a guest may boot, and what is told of that
//!  machine.rs     level-triggered steps: want + phase + time -> next phase, actions
//!  observe.rs     what guests, processes and images say
//!  containers.rs  container states and the pod phase that follows
//!  resize.rs      other sizes of a guest that runs
//!  status.rs      the status to report, and when
//! ```

mod boot;
mod containers;
mod machine;
mod observe;
mod resize;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_canary::planted;
use bulkhead_types::{
    CpuPools, DeviceIntent, Name, ObjectId, PodBandwidth, PodIntent, PodPhase, PodSpec, PodStatus, PodUsage,
    Resources, Revision, Shared, VolumeFiles, digest128,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{Action, AgentConfig, PodPlan, RecoveredVm, RunsOn, VmRecord, spec_digest_text};
use boot::Boot;
pub(crate) use containers::{Container, Role};
pub(crate) use observe::Exit;

/// What a pod may look at, and take from, while it steps.
pub(crate) struct Env<'a> {
    pub(crate) now_ms: u64,
    pub(crate) config: &'a AgentConfig,
    /// The node's lease runs.
    pub(crate) lease_valid: bool,
    /// Until when, in milliseconds.
    pub(crate) lease_until_ms: Option<u64>,
    /// The lease runs, the intent is younger than any time at which it did not, and what must be unique and was killed is dead.
    pub(crate) unique_may_start: bool,
    /// Generation of the accepted intent.
    pub(crate) generation: Revision,
    /// What no existing guest holds.
    pub(crate) free: Resources,
    /// How many more guests may exist.
    pub(crate) free_slots: u32,
    /// Volumes that guests have for themselves.
    pub(crate) volumes: BTreeSet<Uuid>,
    /// Volumes that guests read, beside others.
    pub(crate) volumes_read: BTreeSet<Uuid>,
    /// Addresses that pods have.
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    /// Volumes with which something is being done.
    pub(crate) busy: BTreeSet<Uuid>,
    pub(crate) actions: &'a mut VecDeque<Action>,
}

/// What the control plane said of a pod.
#[derive(Clone, Debug)]
enum Desired {
    /// Nothing yet since the agent's start: an adopted guest is left alone.
    Unknown,
    /// It should run.
    Run,
    /// It ended by itself; its logs stay.
    Ended,
    /// It should end and leave nothing.
    Delete { grace_ms: u64 },
}

/// What follows for this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Wait,
    Run,
    Stop { grace_ms: u64, keep_logs: bool },
}

/// Why a guest is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It should not run (any more).
    Asked,
    /// It never said a word.
    NotReporting,
    /// It must be unique and the lease ran out.
    LeaseExpired,
    /// It said that all has ended and stayed.
    Lingers,
    /// It spoke once and answers nothing any more.
    GuestSilent,
    /// Its QEMU answers nothing any more.
    QemuSilent,
    /// A device that it has is gone.
    DeviceLost,
}

/// Where a pod stands on this node. A guest's process may exist from `Starting` to `Killing`.
#[derive(Clone, Debug)]
enum Phase {
    /// Nothing was begun.
    Idle,
    /// Images are fetched; the set holds containers that still wait for theirs.
    Preparing { missing: BTreeSet<SmolStr> },
    /// An image could not be had.
    ImageBackOff { until_ms: u64 },
    /// Everything is there but room on the node, or the lease.
    Ready,
    /// The process is being started.
    Starting,
    /// The process runs; the guest has not spoken to this agent yet.
    Booting(Boot),
    /// The guest speaks.
    Running { since_ms: u64, exit_by_ms: Option<u64> },
    /// It was asked to end.
    Stopping { grace_ms: u64, kill_at_ms: u64 },
    /// Its process is being killed.
    Killing { cause: Cause, retry_at_ms: u64 },
    /// Its process is gone, the next one comes later.
    BackOff { until_ms: u64 },
    /// What is left of it is being removed.
    Cleaning { keep_logs: bool, retry_at_ms: u64 },
    /// Nothing of it is left, but logs perhaps.
    Clean { logs_kept: bool },
}

/// One pod of this node.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) id: ObjectId,
    uid: Uuid,
    namespace: Name,
    name: Name,
    trace_context: Option<SmolStr>,
    /// The intent's entry; `None` when no accepted intent names the pod.
    intent: Option<PodIntent>,
    desired: Desired,
    plan: PodPlan,
    /// Digest of the spec that the guest runs.
    spec_digest: SmolStr,
    generation: Revision,
    phase: Phase,
    instance: u32,
    /// Failures in a row, for the back-off.
    failures: u32,
    image_failures: u32,
    sandbox_restarts: u32,
    /// A container of this or an earlier guest started.
    started: bool,
    /// Its guest has a guard.
    guarded: bool,
    started_at_ms: u64,
    /// The kernel killed its guest's process for want of memory: what that might use, in bytes.
    out_of_memory: Option<u64>,
    guest_phase: Option<PodPhase>,
    /// What its guest is about before any container starts; empty when it says nothing of that.
    guest_waits_for: String,
    /// Digest of the files that its volumes should have; `None` when the intent names none.
    files: Option<u128>,
    /// The same of those that the guest was given by this agent.
    files_given: Option<u128>,
    /// The CPUs that its guest should run on; `None` when nobody says so.
    cpus: Option<RunsOn>,
    /// Those that the guest was given by this agent.
    cpus_given: Option<RunsOn>,
    /// The sizes of its containers.
    sizes: resize::Sizes,
    /// Its address, from its first guest's start until nothing is left of the pod.
    address: Option<Ipv4Addr>,
    /// How fast its guest may send and receive, as its intent said when that started.
    bandwidth: Option<PodBandwidth>,
    /// Its node's, as it is told with that.
    host_ip: Option<IpAddr>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    reason: SmolStr,
    message: String,
    /// What of its disks its guest found no room for and stands still until there is some, for people.
    without_room: Option<String>,
    ended: Option<PodStatus>,
    /// No guest and no disk of it is left.
    gone: bool,
    /// What it uses, and when that was told, by the agent's monotonic clock in milliseconds.
    usage: Option<(u64, PodUsage)>,
    report: status::Reporting,
}

impl Pod {
    /// A pod that an intent names for the first time.
    pub(crate) fn from_intent(intent: &PodIntent) -> Self {
        let plan = PodPlan::new(&intent.spec, intent.unique);
        Self {
            id: intent.id,
            uid: intent.uid,
            namespace: intent.namespace.clone(),
            name: intent.name.clone(),
            trace_context: intent.trace_context.clone(),
            intent: None,
            desired: Desired::Unknown,
            spec_digest: spec_digest_text(intent.spec.digest()),
            generation: 0,
            phase: Phase::Idle,
            instance: 0,
            failures: 0,
            image_failures: 0,
            sandbox_restarts: 0,
            started: false,
            guarded: false,
            started_at_ms: 0,
            out_of_memory: None,
            guest_phase: None,
            guest_waits_for: String::new(),
            files: None,
            files_given: None,
            cpus: None,
            cpus_given: None,
            sizes: resize::Sizes::of(intent.spec.sizes(), false, intent.resizing),
            address: None,
            bandwidth: None,
            host_ip: None,
            init_containers: plan.fresh_init_containers(),
            containers: plan.fresh_containers(),
            plan,
            reason: SmolStr::default(),
            message: String::new(),
            without_room: None,
            ended: None,
            gone: false,
            usage: None,
            report: status::Reporting::default(),
        }
    }

    /// A pod that the agent's last life left behind.
    pub(crate) fn from_record(vm: &RecoveredVm, now_ms: u64, config: &AgentConfig) -> Self {
        let record = &vm.record;
        let mut pod = Self {
            id: record.pod,
            uid: record.uid,
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            trace_context: record.trace_context.clone(),
            intent: None,
            desired: Desired::Unknown,
            spec_digest: record.spec_digest.clone(),
            generation: record.generation,
            phase: Phase::Idle,
            instance: record.instance,
            failures: 0,
            image_failures: 0,
            sandbox_restarts: record.sandbox_restarts,
            started: record.started,
            guarded: record.guarded,
            started_at_ms: vm.started_at_ms,
            out_of_memory: None,
            guest_phase: None,
            guest_waits_for: String::new(),
            files: None,
            files_given: None,
            cpus: None,
            cpus_given: None,
            sizes: resize::Sizes::recorded(record),
            address: record.address,
            bandwidth: record.bandwidth,
            host_ip: config.host_ip,
            init_containers: record.plan.fresh_init_containers(),
            containers: record.plan.fresh_containers(),
            plan: record.plan.clone(),
            reason: SmolStr::default(),
            message: String::new(),
            without_room: None,
            ended: record.ended.clone(),
            gone: false,
            usage: None,
            report: status::Reporting::default(),
        };
        for container in pod.init_containers.iter_mut().chain(&mut pod.containers) {
            container.image_digest = record.images.get(&container.name).cloned().unwrap_or_default();
            container.restarts_before = record.restart_counts.get(&container.name).copied().unwrap_or(0);
        }
        if vm.running {
            pod.phase = Phase::Booting(Boot::begin(now_ms, config.boot_deadline_ms, true));
        }
        pod
    }

    /// Takes over what an accepted intent says: its entry, or that there is none.
    pub(crate) fn set_intent(&mut self, intent: Option<&PodIntent>) {
        self.desired = match intent {
            None => Desired::Delete { grace_ms: self.plan.grace_ms },
            Some(PodIntent { deletion: Some(deletion), .. }) => {
                Desired::Delete { grace_ms: deletion.grace_ms }
            }
            Some(PodIntent { ended: true, .. }) => Desired::Ended,
            Some(_) => Desired::Run,
        };
        self.intent = intent.cloned();
        self.files = self.volumes().map(digest128);
        self.hear_sizes();
        if let Some(intent) = intent {
            if self.process_may_exist() {
                // What the running guest holds stays as it is; whether it must be unique may be told later.
                self.plan.unique |= intent.unique;
            } else {
                self.adopt_spec(&intent.spec, intent.unique);
                let of = |read_only| {
                    let claims = intent.claims.iter().filter(move |claim| claim.read_only == read_only);
                    claims.map(|claim| claim.uid).collect()
                };
                self.plan.volumes = of(false);
                self.plan.volumes_read = of(true);
            }
        }
    }

    /// Takes over what runs where: a pod has CPUs of its own, or is in one of these pools. An empty pool says nothing.
    pub(crate) fn set_pools(&mut self, pools: Option<&CpuPools>) {
        let Some(intent) = &self.intent else { return };
        let pool = pools.map(|pools| if intent.batch { &pools.batch } else { &pools.shared });
        let cpus = intent.cpus.as_ref().or(pool).filter(|cpus| !cpus.is_empty());
        let is_own = |cpus| intent.cpus.is_some() && pools.is_none_or(|pools| pools.shared.is_disjoint(cpus));
        let runs_on = cpus.map(|cpus| RunsOn { one_by_one: is_own(cpus), cpus: cpus.clone() });
        self.cpus = runs_on.or_else(|| self.cpus.take());
    }

    fn adopt_spec(&mut self, spec: &Shared<PodSpec>, unique: bool) {
        self.plan.unique = unique;
        self.adopt_sizes();
        if self.spec_digest != spec_digest_text(spec.digest()) {
            self.sizes = resize::Sizes::of(spec.sizes(), false, self.sizes.told);
            self.spec_digest = spec_digest_text(spec.digest());
            self.plan = PodPlan::new(spec, unique);
            self.init_containers = self.plan.fresh_init_containers();
            self.containers = self.plan.fresh_containers();
            if !matches!(self.phase, Phase::Cleaning { .. } | Phase::Clean { .. }) {
                self.phase = Phase::Idle;
            }
        }
    }

    fn want(&self) -> Want {
        match self.desired {
            Desired::Unknown => Want::Wait,
            Desired::Delete { grace_ms } => Want::Stop { grace_ms, keep_logs: false },
            Desired::Ended if planted!("canary_ended_runs_again") => Want::Run,
            Desired::Ended => Want::Stop { grace_ms: self.plan.grace_ms, keep_logs: true },
            Desired::Run if self.ended.is_some() || self.runs_other_spec() => {
                Want::Stop { grace_ms: self.plan.grace_ms, keep_logs: true }
            }
            Desired::Run => Want::Run,
        }
    }

    /// The files that its volumes should have, as far as the intent says so.
    fn volumes(&self) -> Option<&[VolumeFiles]> {
        let resolved = self.intent.as_ref()?.resolved.get()?;
        (resolved.missing.is_empty() && !resolved.volumes.is_empty()).then_some(resolved.volumes.as_slice())
    }

    /// A device that was given to it and is not there any more.
    fn lost_device(&self) -> Option<&DeviceIntent> {
        self.intent.as_ref()?.devices.iter().find(|device| device.lost)
    }

    /// Of a pod's spec nothing but sizes changes; should anything else, the guest is replaced.
    fn runs_other_spec(&self) -> bool {
        self.process_may_exist() && self.intent.as_ref().is_some_and(|i| !self.is_same_but_sizes(&i.spec))
    }

    /// What it holds on the node: everything from the start of its process until its disks are gone.
    pub(crate) fn held(&self) -> Option<Resources> {
        let holds =
            self.process_may_exist() || (matches!(self.phase, Phase::Cleaning { .. }) && self.instance > 0);
        holds.then_some(self.plan.request)
    }

    /// The address that nobody else may have: guests of it may exist, or be about to.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// Another pod has its address.
    pub(crate) fn forget_address(&mut self) {
        self.address = None;
    }

    /// Which of its guests there is, or was last.
    pub(crate) fn instance(&self) -> u32 {
        self.instance
    }

    /// Whether its guest was heard by this agent, and is not about to end.
    pub(crate) fn speaks(&self) -> bool {
        matches!(self.phase, Phase::Running { exit_by_ms: None, .. })
    }

    /// The volumes that its guest has for itself, if there is one.
    pub(crate) fn volumes_held(&self) -> &[Uuid] {
        if self.process_may_exist() { &self.plan.volumes } else { &[] }
    }

    /// The volumes that its guest reads beside others, if there is one.
    pub(crate) fn volumes_read(&self) -> &[Uuid] {
        if self.process_may_exist() { &self.plan.volumes_read } else { &[] }
    }

    /// From the request to start until the exit was seen.
    pub(crate) fn process_may_exist(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting
                | Phase::Booting(_)
                | Phase::Running { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. }
        )
    }

    /// Whether it is one that the agent must kill when the lease ends, and lives.
    pub(crate) fn is_unique_and_lives(&self) -> bool {
        self.plan.unique && self.process_may_exist()
    }

    /// Whether it must be unique, was killed, and is not known to be dead yet.
    pub(crate) fn is_unique_and_dying(&self) -> bool {
        self.plan.unique && matches!(self.phase, Phase::Killing { .. })
    }

    /// No intent names it, nothing of it is left, and the control plane knows.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.intent.is_none()
            && matches!(self.desired, Desired::Delete { .. })
            && matches!(self.phase, Phase::Clean { logs_kept: false })
            && self.report.gone_is_known()
    }

    /// Whether an accepted intent names it.
    pub(crate) fn is_intended(&self) -> bool {
        self.intent.is_some()
    }

    fn record(&self) -> VmRecord {
        let all = || self.init_containers.iter().chain(&self.containers);
        VmRecord {
            pod: self.id,
            uid: self.uid,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            instance: self.instance,
            generation: self.generation,
            spec_digest: self.spec_digest.clone(),
            plan: self.plan.clone(),
            images: self.images(),
            restart_counts: all().map(|c| (c.name.clone(), c.restarts_before)).collect(),
            sandbox_restarts: self.sandbox_restarts,
            started: self.started,
            guarded: self.guarded,
            address: self.address,
            bandwidth: self.bandwidth,
            sizes: self.sizes.now.clone(),
            resize_begun: self.sizes.begun,
            resize_most: self.sizes.most.clone(),
            resize_least: self.sizes.least.clone(),
            resized: self.sizes.told,
            trace_context: self.trace_context.clone(),
            ended: self.ended.clone(),
        }
    }

    fn images(&self) -> BTreeMap<SmolStr, SmolStr> {
        let all = self.init_containers.iter().chain(&self.containers);
        all.map(|c| (c.name.clone(), c.image_digest.clone())).collect()
    }

    fn persist(&self, env: &mut Env<'_>) {
        env.actions.push_back(Action::PersistRecord(Box::new(self.record())));
    }
}
