//! The agent: inputs in, actions out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_canary::planted;
use bulkhead_types::{
    AgentReport, DEVICE_USAGES_MAX, DeviceUsage, Intent, Joined, ObjectId, PodIntent, PodStatus, Resources,
    Revision, SriovInterface,
};
use uuid::Uuid;

use crate::backlog::Backlog;
use crate::devices::DeviceNews;
use crate::images::ImageNews;
use crate::pod::{Cause, Env, Exit, Pod};
use crate::session::Session;
use crate::volume_tasks::{Holder, Tasks};
use crate::volumes::Deletions;
use crate::{Action, AgentConfig, Input, Note, RecoveredVm};

/// Most pods in one report; the rest follows in the next.
pub const REPORT_PODS_MAX: usize = 64;

/// The node agent without its host: deterministic, synchronous, driven by inputs and time.
///
/// `now_ms` is a monotonic clock in milliseconds that runs on while the agent restarts (CLOCK_BOOTTIME); it must never
/// go back. After every [`Self::handle`] and [`Self::tick`] take all actions with [`Self::poll_action`]; call `tick` no
/// later than [`Self::next_deadline_ms`].
#[derive(Clone, Debug)]
pub struct Agent {
    config: AgentConfig,
    session: Session,
    pods: BTreeMap<ObjectId, Pod>,
    /// Volumes that are to be deleted.
    deletions: Deletions,
    /// What else is to be done with volumes.
    tasks: Tasks,
    /// What is to be told of the machine's devices.
    devices: DeviceNews,
    /// What the machine's cards did when the host said so last, in milliseconds, and that.
    cards: (u64, Vec<DeviceUsage>),
    /// The same of its images.
    images: ImageNews,
    /// What NICs shall be, as it was asked for last; `None` before an intent said so.
    nics: Option<Vec<SriovInterface>>,
    /// Generation of the last accepted intent.
    generation: Revision,
    /// An intent was accepted since the lease was last invalid and a session began.
    intent_is_fresh: bool,
    /// The end of the lease was noticed.
    lease_end_handled: bool,
    /// The last [`Action::PersistLease`].
    persisted_lease: Option<u64>,
    actions: VecDeque<Action>,
    /// What the host had no room for.
    backlog: Backlog,
}

impl Agent {
    /// An agent that knows nothing yet; give it [`Input::Recovered`] first.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        Self {
            config,
            session: Session::new(),
            pods: BTreeMap::new(),
            deletions: Deletions::default(),
            tasks: Tasks::default(),
            devices: DeviceNews::default(),
            cards: (0, Vec::new()),
            images: ImageNews::default(),
            nics: None,
            generation: 0,
            intent_is_fresh: false,
            lease_end_handled: true,
            persisted_lease: None,
            actions: VecDeque::new(),
            backlog: Backlog::default(),
        }
    }

    /// Takes one observation and decides what follows.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        // An end of the lease that nobody noticed (this process was stopped) comes before whatever would renew it.
        self.watch_lease(now_ms);
        match input {
            Input::Recovered { vms, lease_until_ms } => self.recover(now_ms, &vms, lease_until_ms),
            Input::Joined(joined) => self.join(now_ms, joined),
            Input::Intent(intent) => self.accept(&intent),
            Input::Ack(ack) => self.acknowledge(now_ms, ack),
            Input::Disconnected if self.session.joined().is_some() => self.rejoin(),
            Input::Disconnected => {}
            Input::Usage(usage) => {
                if let Some(pod) = self.pods.get_mut(&usage.pod) {
                    pod.set_usage(now_ms, usage);
                }
            }
            Input::VolumeDeleted { claim } => self.deletions.deleted(claim),
            Input::VolumeTask(result) => self.tasks.answered(now_ms, self.config.retry_ms, result),
            Input::Devices(devices) => self.devices.set(now_ms, devices),
            Input::DeviceUsage(usage) => self.cards = (now_ms, usage),
            Input::Images(images) => self.images.set(images),
            Input::Allocatable(allocatable) => self.config.allocatable = allocatable,
            Input::GpuMode { mode, devices } => self.devices.set_mode(now_ms, mode, devices),
            Input::DeviceFault(fault) => self.devices.fault(fault),
            Input::DeviceReset { device } => self.devices.reset(device),
            observation => self.observe(now_ms, observation),
        }
        self.tick(now_ms);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ms: u64) {
        if self.session.is_away() {
            return;
        }
        // Before anything that is asked for now.
        for action in self.backlog.take_due(now_ms).into_iter().rev() {
            self.actions.push_front(action);
        }
        self.watch_lease(now_ms);
        if self.session.give_up_ms().is_some_and(|at| now_ms >= at) {
            self.rejoin();
        }
        self.tasks.step(now_ms, &self.holders(), &mut self.actions);
        self.step_all(now_ms);
        let held = self.volumes_held();
        self.deletions.step(now_ms, self.config.retry_ms, &held, &mut self.actions);
        self.persist_lease();
        self.devices.tick(now_ms);
        self.report(now_ms);
        self.pods.retain(|_, pod| !pod.is_forgettable());
    }

    /// The next thing to do, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        while let Some(action) = self.actions.pop_front() {
            // Those about one pod are done in the order given.
            if let Some(action) = self.backlog.divert(action) {
                return Some(action);
            }
        }
        None
    }

    /// The host had no room for an action that it was just given. It is given it again later, before anything else that is about the
    /// same pod. False when that is not so, because the action is about no pod, or is answered with why it was not done.
    pub fn refused(&mut self, now_ms: u64, action: Action) -> bool {
        self.backlog.refused(action, now_ms.saturating_add(self.config.retry_ms.max(1)))
    }

    /// When [`Self::tick`] must be called at the latest, in milliseconds on the clock of `now_ms`.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let pods = self.pods.values().filter_map(Pod::deadline_ms);
        let lease = self.session.lease_until_ms().filter(|_| !self.lease_end_handled);
        let changes = self.session.changes_due_ms().and_then(|earliest| {
            let has_news = self.deletions.has_news() || self.tasks.has_news() || self.devices.has_news();
            let others = has_news.then_some(earliest);
            let due = self.pods.values().filter_map(Pod::report_due_ms).chain(others).min()?;
            Some(due.max(earliest))
        });
        pods.chain(lease)
            .chain(self.backlog.deadline_ms())
            .chain(self.deletions.deadline_ms(&self.volumes_held()))
            .chain(self.tasks.deadline_ms(&self.holders()))
            .chain(changes)
            .chain(self.devices.deadline_ms().filter(|_| !self.session.is_away()))
            .chain(self.session.heartbeat_due_ms())
            .chain(self.session.give_up_ms())
            .min()
    }

    /// The session, while there is one.
    #[must_use]
    pub fn joined(&self) -> Option<Joined> {
        self.session.joined()
    }

    /// Until when the lease runs, on the clock of `now_ms`, in milliseconds.
    #[must_use]
    pub fn lease_until_ms(&self) -> Option<u64> {
        self.session.lease_until_ms()
    }

    /// Generation of the last accepted intent.
    #[must_use]
    pub fn observed_generation(&self) -> Revision {
        self.generation
    }

    /// Every pod that the agent knows, with its status now and whether a guest's process may exist.
    pub fn pods(&self) -> impl Iterator<Item = (ObjectId, PodStatus, bool)> + '_ {
        self.pods.values().map(|pod| (pod.id, pod.current_status(), pod.process_may_exist()))
    }

    /// Whether anything is known of this pod.
    #[must_use]
    pub fn knows(&self, pod: ObjectId) -> bool {
        self.pods.contains_key(&pod)
    }

    /// What existing guests hold together.
    #[must_use]
    pub fn held(&self) -> Resources {
        self.pods.values().filter_map(Pod::held).fold(Resources::ZERO, Resources::plus)
    }

    /// The volumes that guests have, or with which something is being done.
    fn volumes_held(&self) -> BTreeSet<Uuid> {
        let mut held = self.tasks.busy();
        held.extend(self.pods.values().flat_map(|pod| pod.volumes_held().iter().chain(pod.volumes_read())));
        held
    }

    /// Which guest has which volume for itself: what is only read is copied beside those that read.
    fn holders(&self) -> BTreeMap<Uuid, Holder> {
        let of_pod = |pod: &Pod| {
            let holder = Holder { pod: pod.id, instance: pod.instance(), speaks: pod.speaks() };
            pod.volumes_held().iter().map(move |volume| (*volume, holder)).collect::<Vec<_>>()
        };
        self.pods.values().flat_map(of_pod).collect()
    }

    fn recover(&mut self, now_ms: u64, vms: &[RecoveredVm], lease_until_ms: Option<u64>) {
        if !self.session.is_away() {
            return;
        }
        self.session.recover_lease(lease_until_ms);
        self.lease_end_handled = !self.session.lease_valid(now_ms);
        self.rejoin();
        for vm in vms.iter().filter(|_| !planted!("canary_agent_forgets_guests")) {
            let mut pod = Pod::from_record(vm, now_ms, &self.config);
            if vm.running {
                let note = Note::Adopted { pod: pod.id, instance: vm.record.instance };
                self.actions.push_back(Action::Note(note));
            } else {
                pod.found_dead(vm, &mut self.env(now_ms));
            }
            self.pods.insert(pod.id, pod);
        }
        self.keep_addresses_apart();
    }

    /// The record of a pod of which nothing was left may name an address that was another's by then: whoever lives has it.
    fn keep_addresses_apart(&mut self) {
        let lives = |pod: &Pod| pod.process_may_exist();
        let mut taken: BTreeSet<_> =
            self.pods.values().filter(|pod| lives(pod)).filter_map(Pod::address).collect();
        for pod in self.pods.values_mut().filter(|pod| !lives(pod)) {
            if pod.address().is_some_and(|address| !taken.insert(address)) {
                pod.forget_address();
            }
        }
    }

    fn join(&mut self, now_ms: u64, joined: Joined) {
        if self.session.is_away() {
            return;
        }
        self.session.connect(joined, now_ms);
        self.intent_is_fresh = false;
        self.devices.forget_reports();
        self.images.forget_reports();
        self.tasks.forget_reports();
        self.pods.values_mut().for_each(Pod::forget_reports);
    }

    fn rejoin(&mut self) {
        self.session.rejoin();
        self.actions.push_back(Action::Join);
    }

    fn accept(&mut self, intent: &Intent) {
        let Some(joined) = self.session.joined() else { return };
        if intent.incarnation != joined.incarnation || intent.node != joined.node {
            let note =
                Note::IntentOfOtherSession { incarnation: intent.incarnation, ours: joined.incarnation };
            return self.actions.push_back(Action::Note(note));
        }
        if intent.generation < self.generation && !planted!("canary_outdated_intent_obeyed") {
            let note = Note::IntentOutdated { generation: intent.generation, accepted: self.generation };
            return self.actions.push_back(Action::Note(note));
        }
        self.generation = intent.generation;
        self.intent_is_fresh = true;
        self.deletions.set(&intent.deleted_volumes);
        self.tasks.set(&intent.volume_orders);
        self.actions.extend(self.devices.want(intent.gpu.as_ref()).map(Action::SetGpuMode));
        if self.nics.as_ref() != Some(&intent.nics) {
            self.nics = Some(intent.nics.clone());
            self.actions.push_back(Action::SetNics(intent.nics.clone()));
        }
        let wanted: BTreeMap<ObjectId, &PodIntent> = intent.pods.iter().map(|pod| (pod.id, pod)).collect();
        for pod in self.pods.values_mut() {
            let entry = wanted.get(&pod.id).copied();
            if entry.is_none() && pod.is_intended() && pod.process_may_exist() {
                self.actions.push_back(Action::Note(Note::Unintended { pod: pod.id }));
            }
            pod.set_intent(entry);
            pod.set_pools(intent.cpu_pools.as_ref());
        }
        for (id, entry) in wanted {
            self.pods.entry(id).or_insert_with(|| {
                let mut pod = Pod::from_intent(entry);
                pod.set_intent(Some(entry));
                pod.set_pools(intent.cpu_pools.as_ref());
                pod
            });
        }
    }

    fn acknowledge(&mut self, now_ms: u64, ack: bulkhead_types::AgentAck) {
        let Some(reports) = self.session.acknowledge(ack, now_ms) else { return };
        self.devices.acknowledge(ack.sent_at_ms, ack.devices_unknown);
        for (id, sequence) in reports {
            if let Some(pod) = self.pods.get_mut(&id) {
                pod.acknowledge(sequence);
            }
        }
        if self.session.lease_valid(now_ms) {
            self.lease_end_handled = false;
        }
    }

    fn persist_lease(&mut self) {
        let until_ms = self.session.lease_until_ms();
        if until_ms != self.persisted_lease && self.pods.values().any(Pod::is_unique_and_lives) {
            self.persisted_lease = until_ms;
            self.actions.extend(until_ms.map(|until_ms| Action::PersistLease { until_ms }));
        }
    }

    /// When the lease ends, unique pods end with it (each in its own step), and none starts before a new session.
    fn watch_lease(&mut self, now_ms: u64) {
        if self.lease_end_handled || self.session.lease_valid(now_ms) {
            return;
        }
        self.lease_end_handled = true;
        self.intent_is_fresh = false;
        let killed = self.pods.values().filter(|pod| pod.is_unique_and_lives()).map(|pod| pod.id).collect();
        self.actions.push_back(Action::Note(Note::LeaseExpired { killed }));
        if self.session.joined().is_some() {
            self.rejoin();
        }
    }

    fn observe(&mut self, now_ms: u64, input: Input) {
        let Some(id) = subject(&input) else { return };
        // The pod leaves the map while it looks at what the others hold.
        let Some(mut pod) = self.pods.remove(&id) else { return };
        let mut env = self.env(now_ms);
        match input {
            Input::ImageReady { container, digest, .. } => pod.image_ready(&container, &digest),
            Input::ImageFailed { container, reason, message, .. } => {
                pod.image_failed(&container, &reason, &message, &mut env);
            }
            Input::VmStarted { instance, started_at_ms, .. } => pod.vm_started(instance, started_at_ms, &env),
            Input::VmStartFailed { instance, reason, message, .. } => {
                pod.vm_start_failed(instance, &reason, &message, &mut env);
            }
            Input::GuestHello { instance, .. } => pod.guest_hello(instance, &env),
            Input::GuestBoots { instance, .. } => pod.guest_boots(instance, &env),
            Input::GuestWithoutRoom { instance, volume, .. } => pod.guest_without_room(instance, volume),
            Input::GuestGoesOn { instance, .. } => pod.guest_goes_on(instance),
            Input::GuestSilent { instance, .. } => pod.is_silent(instance, Cause::GuestSilent, &mut env),
            Input::QemuSilent { instance, .. } => pod.is_silent(instance, Cause::QemuSilent, &mut env),
            Input::GuestContainer { instance, status, unready_because, .. } => {
                pod.guest_container(instance, status, &unready_because, &mut env);
            }
            Input::GuestPod { instance, phase, reason, message, .. } => {
                pod.guest_pod(instance, phase, &reason, &message, &env);
            }
            Input::VmOutOfMemory { instance, limit_bytes, .. } => pod.vm_out_of_memory(instance, limit_bytes),
            Input::VmExited { instance, status, at_ms, last_console, .. } => {
                let exit = Exit { status: &status, at_ms, last_console: &last_console };
                pod.vm_exited(instance, &exit, &mut env);
            }
            Input::VmResized(answer) => pod.resized(*answer, &mut env),
            Input::VmGone { .. } => pod.vm_gone(&mut env),
            _ => {}
        }
        self.pods.insert(id, pod);
    }

    fn step_all(&mut self, now_ms: u64) {
        let mut pods = std::mem::take(&mut self.pods);
        let held = pods.values().filter_map(Pod::held).fold(Resources::ZERO, Resources::plus);
        let guests = pods.values().filter(|pod| pod.held().is_some()).count();
        let allocatable = self.config.allocatable;
        let volumes = pods.values().flat_map(Pod::volumes_held).copied().collect();
        let volumes_read = pods.values().flat_map(Pod::volumes_read).copied().collect();
        let busy = self.tasks.busy();
        let dying = pods.values().any(Pod::is_unique_and_dying);
        let mut env = self.env(now_ms);
        // What was killed by the end of a lease may be wanted anew here, under another key: it must not meet itself.
        env.unique_may_start &= !dying;
        // More may be held than is allocatable, when the configuration changed while guests ran.
        // Who holds more of one thing than there is by now, such as huge pages, keeps nobody from the others.
        env.free = allocatable.max(held).checked_minus(held).expect("the larger of both");
        env.free_slots = env.config.pods_max.saturating_sub(u32::try_from(guests).unwrap_or(u32::MAX));
        env.volumes = volumes;
        env.volumes_read = volumes_read;
        env.addresses = pods.values().filter_map(Pod::address).collect();
        env.busy = busy;
        pods.values_mut().for_each(|pod| pod.step(&mut env));
        self.pods = pods;
    }

    /// The surroundings of a pod that starts nothing: no room, until `step_all` counts it.
    fn env(&mut self, now_ms: u64) -> Env<'_> {
        let lease_valid = self.session.lease_valid(now_ms);
        Env {
            now_ms,
            config: &self.config,
            lease_valid,
            lease_until_ms: self.session.lease_until_ms(),
            unique_may_start: lease_valid && self.intent_is_fresh,
            generation: self.generation,
            free: Resources::ZERO,
            free_slots: 0,
            volumes: BTreeSet::new(),
            volumes_read: BTreeSet::new(),
            addresses: BTreeSet::new(),
            busy: BTreeSet::new(),
            actions: &mut self.actions,
        }
    }

    fn report(&mut self, now_ms: u64) {
        let Some(joined) = self.session.joined() else { return };
        let heartbeat = self.session.heartbeat_due_ms().is_some_and(|due| now_ms >= due);
        let may_send = self.session.changes_due_ms().is_some_and(|due| now_ms >= due);
        let changed = |pod: &Pod| pod.report_due_ms().is_some_and(|due| due <= now_ms);
        let has_news = self.deletions.has_news()
            || self.tasks.has_news()
            || self.devices.has_news()
            || self.pods.values().any(changed);
        if !(heartbeat || (may_send && has_news)) {
            return;
        }
        let session = &mut self.session;
        let pods: Vec<_> = self
            .pods
            .values_mut()
            .filter_map(|pod| pod.take_report(now_ms, || session.next_sequence()))
            .take(REPORT_PODS_MAX)
            .collect();
        let usage = self.pods.values().filter_map(|pod| pod.usage(now_ms)).collect();
        let sent = pods.iter().map(|report| (report.pod, report.sequence)).collect();
        let deleted_volumes = self.deletions.take_report();
        let devices = if may_send { self.devices.take_report(now_ms) } else { None };
        let images = if heartbeat { self.images.take_report(now_ms) } else { None };
        let volume_results = self.tasks.take_report();
        let has_changes = !pods.is_empty()
            || !deleted_volumes.is_empty()
            || !volume_results.is_empty()
            || devices.is_some();
        session.sent(now_ms, sent, has_changes);
        self.actions.push_back(Action::Report(AgentReport {
            node: joined.node,
            incarnation: joined.incarnation,
            sent_at_ms: now_ms,
            observed_generation: self.generation,
            pods,
            usage,
            deleted_volumes,
            devices: devices.into(),
            images: images.into(),
            volume_results,
            device_usage: self.card_usage(now_ms),
            has_pci_facts: self.devices.has_pci_facts(),
        }));
    }
}

impl Agent {
    /// What the machine's cards do, with their age now.
    fn card_usage(&self, now_ms: u64) -> Vec<DeviceUsage> {
        let (said_at_ms, cards) = &self.cards;
        let since_ms = now_ms.saturating_sub(*said_at_ms);
        let aged =
            |one: &DeviceUsage| DeviceUsage { age_ms: one.age_ms.saturating_add(since_ms), ..one.clone() };
        cards.iter().take(DEVICE_USAGES_MAX).map(aged).collect()
    }
}

/// Which pod an observation is about.
fn subject(input: &Input) -> Option<ObjectId> {
    match input {
        Input::ImageReady { pod, .. }
        | Input::ImageFailed { pod, .. }
        | Input::VmStarted { pod, .. }
        | Input::VmStartFailed { pod, .. }
        | Input::GuestHello { pod, .. }
        | Input::GuestBoots { pod, .. }
        | Input::GuestWithoutRoom { pod, .. }
        | Input::GuestGoesOn { pod, .. }
        | Input::GuestSilent { pod, .. }
        | Input::QemuSilent { pod, .. }
        | Input::GuestContainer { pod, .. }
        | Input::GuestPod { pod, .. }
        | Input::VmOutOfMemory { pod, .. }
        | Input::VmExited { pod, .. }
        | Input::VmGone { pod } => Some(*pod),
        Input::VolumeDeleted { .. }
        | Input::VolumeTask(_)
        | Input::Devices(_)
        | Input::DeviceUsage(_)
        | Input::Images(_)
        | Input::Allocatable(_)
        | Input::GpuMode { .. }
        | Input::DeviceFault(_)
        | Input::DeviceReset { .. } => None,
        Input::Usage(usage) => Some(usage.pod),
        Input::VmResized(answer) => Some(answer.pod),
        Input::Recovered { .. }
        | Input::Joined(_)
        | Input::Intent(_)
        | Input::Ack(_)
        | Input::Disconnected => None,
    }
}
