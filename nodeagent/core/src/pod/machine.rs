//! The phase machine: what is wanted, where the pod stands and the time decide what is done next.
//!
//! ```text
//!  Idle ─► Preparing ─► Ready ─► Starting ─► Booting ─► Running ─► Stopping ─► Killing
//!   ▲         │ ▲                   │           │          │           │          │
//!   │         ▼ │                   └───────────┴──────────┴─── exit ──┴──────────┘
//!   │     ImageBackOff                                           │
//!   ├──────────────────────────── BackOff ◄── should run ────────┤
//!   └──── wanted again ── Clean ◄── Cleaning ◄── should not ─────┘
//! ```

use std::collections::BTreeSet;

use bulkhead_canary::planted;
use bulkhead_types::{ContainerState, PodIntent, PodPhase};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Boot, Cause, Env, Phase, Pod, Want};
use crate::{Action, GuestSize, Note, StartVm, reason, text};

/// Why a pod that is ready to start waits; over when it starts.
const WAITING: [&str; 4] = [
    reason::WAITING_FOR_LEASE,
    reason::WAITING_FOR_RESOURCES,
    reason::WAITING_FOR_VOLUME,
    reason::WAITING_FOR_ADDRESS,
];

/// More steps in a row than any path through the machine takes.
const STEPS_MAX: usize = 16;

/// Who has a volume in a way that keeps a guest from it, for people: one that has it for itself keeps everybody away, those
/// that read keep away who might write.
fn taken_volume(intent: &PodIntent, env: &Env<'_>) -> Option<String> {
    intent.claims.iter().find_map(|claim| {
        let name = &claim.claim_name;
        if env.volumes.contains(&claim.uid) {
            Some(format!("another guest on this node has PersistentVolumeClaim {name}"))
        } else if !claim.read_only && env.volumes_read.contains(&claim.uid) {
            Some(format!(
                "guests on this node read PersistentVolumeClaim {name}, and this pod may write to it"
            ))
        } else {
            None
        }
    })
}

/// Why a guest cannot start yet by its volumes, for people.
fn missing_volume(intent: &PodIntent, busy: &BTreeSet<Uuid>) -> Option<String> {
    // What has to be made of something is told once it is.
    let has = |name: &&SmolStr| intent.claims.iter().any(|claim| claim.claim_name == ***name);
    if let Some(name) = intent.spec.claims().find(|name| !has(name)) {
        return Some(format!("PersistentVolumeClaim {name} is still to be made of its dataSource"));
    }
    let claim = intent.claims.iter().find(|claim| busy.contains(&claim.uid))?;
    Some(format!("PersistentVolumeClaim {} is being copied, or grows", claim.claim_name))
}

impl Pod {
    /// Takes steps until nothing more follows from what is known now.
    ///
    /// # Panics
    /// When the steps do not end, which is a mistake in the machine.
    pub(crate) fn step(&mut self, env: &mut Env<'_>) {
        for _ in 0..STEPS_MAX {
            if !self.step_once(env) {
                return;
            }
        }
        panic!("pod {} takes no end of steps in {:?}", self.id, self.phase);
    }

    /// One step; false when there was none to take.
    fn step_once(&mut self, env: &mut Env<'_>) -> bool {
        let now = env.now_ms;
        if self.is_unique_and_lives() && !env.lease_valid && !matches!(self.phase, Phase::Killing { .. }) {
            return self.kill(Cause::LeaseExpired, env);
        }
        // An earlier version of the agent started it, or was not told that it must be unique: it starts anew, guarded.
        if self.is_unique_and_lives() && !self.guarded && !matches!(self.phase, Phase::Killing { .. }) {
            return self.kill(Cause::Asked, env);
        }
        if let Some(acted) = self.end_without_device(env) {
            return acted;
        }
        match (&self.phase, self.want()) {
            (
                Phase::Idle | Phase::Preparing { .. } | Phase::ImageBackOff { .. },
                Want::Stop { keep_logs, .. },
            )
            | (Phase::Ready | Phase::BackOff { .. }, Want::Stop { keep_logs, .. }) => {
                self.clean(keep_logs, env)
            }
            (Phase::Idle, Want::Run) => self.prepare(env),
            (Phase::Ready, Want::Run) => self.start(env),
            (Phase::ImageBackOff { until_ms } | Phase::BackOff { until_ms }, Want::Run)
                if now >= *until_ms =>
            {
                self.phase = Phase::Idle;
                true
            }
            (Phase::Starting | Phase::Booting(Boot { adopted: false, .. }), Want::Stop { .. }) => {
                self.kill(Cause::Asked, env)
            }
            (Phase::Booting(boot), _) if now >= boot.deadline_ms => self.kill(Cause::NotReporting, env),
            (
                Phase::Booting(Boot { adopted: true, .. }) | Phase::Running { .. },
                Want::Stop { grace_ms, keep_logs: _ },
            ) => self.stop(grace_ms, u64::MAX, env),
            (Phase::Running { exit_by_ms: Some(at), .. }, _) if now >= *at => self.kill(Cause::Lingers, env),
            (Phase::Stopping { kill_at_ms, .. }, _) if now >= *kill_at_ms => {
                env.actions.push_back(Action::Note(Note::GraceExceeded { pod: self.id }));
                self.kill(Cause::Asked, env)
            }
            (Phase::Stopping { grace_ms, kill_at_ms }, Want::Stop { grace_ms: shorter, .. })
                if shorter < *grace_ms =>
            {
                let kill_at_ms = *kill_at_ms;
                self.stop(shorter, kill_at_ms, env)
            }
            (Phase::Killing { cause, retry_at_ms }, _) if now >= *retry_at_ms => {
                let cause = *cause;
                self.kill(cause, env)
            }
            (Phase::Cleaning { keep_logs, retry_at_ms }, _) if now >= *retry_at_ms => {
                let keep_logs = *keep_logs;
                self.clean(keep_logs, env)
            }
            (
                Phase::Cleaning { keep_logs: true, .. } | Phase::Clean { logs_kept: true },
                Want::Stop { keep_logs: false, .. },
            ) => self.clean(false, env),
            (Phase::Clean { .. }, Want::Run) => {
                self.start_over(reason::CONTAINER_CREATING);
                self.gone = false;
                self.phase = Phase::Idle;
                true
            }
            (Phase::Booting(boot), Want::Run) if now >= boot.tell_at_ms => self.tell_of_boot(*boot, env),
            (Phase::Booting(_) | Phase::Running { .. }, Want::Run) => self.update_guest(env),
            // Others may have the CPUs by now on which it ends.
            (Phase::Stopping { .. }, _) => self.update_cpus(env),
            _ => false,
        }
    }

    /// A pod cannot go on without a device that it was given: its guest is killed, and then it has failed. `None` when it has
    /// all of them, or ends anyway.
    fn end_without_device(&mut self, env: &mut Env<'_>) -> Option<bool> {
        let device = self.lost_device().filter(|_| self.want() == Want::Run)?;
        let message =
            text::message(&format!("device {} of container {} is gone", device.device, device.container));
        match self.phase {
            Phase::Killing { .. } | Phase::Cleaning { .. } | Phase::Clean { .. } => None,
            _ if self.process_may_exist() => {
                self.reason = SmolStr::new_static(bulkhead_types::REASON_DEVICE_LOST);
                self.message = message;
                Some(self.kill(Cause::DeviceLost, env))
            }
            _ => {
                self.end(PodPhase::Failed, bulkhead_types::REASON_DEVICE_LOST, message, env);
                Some(self.clean(true, env))
            }
        }
    }

    fn prepare(&mut self, env: &mut Env<'_>) -> bool {
        self.adopt_sizes();
        let Some(intent) = &self.intent else { return false };
        if !self.plan.request.fits_in(env.config.allocatable) {
            let message = format!(
                "the pod needs {:?}, the whole node has {:?}: lower its requests",
                self.plan.request, env.config.allocatable
            );
            self.end(PodPhase::Failed, reason::OUT_OF_RESOURCES, message, env);
            return self.clean(true, env);
        }
        env.actions.push_back(Action::Prepare { pod: intent.clone() });
        let all = self.init_containers.iter().chain(&self.containers);
        self.phase = Phase::Preparing { missing: all.map(|c| c.name.clone()).collect() };
        true
    }

    /// Starts a guest if the node has room for it and, for a pod that must be unique, the lease allows it.
    fn start(&mut self, env: &mut Env<'_>) -> bool {
        self.adopt_sizes();
        let Some(intent) = self.intent.clone() else { return false };
        if let Some(missing) = intent.resolved.get().map(|r| &r.missing).filter(|missing| !missing.is_empty())
        {
            return self.lacks(missing);
        }
        if self.reason == reason::CREATE_CONTAINER_CONFIG_ERROR {
            self.clear_reason();
            self.start_over(reason::CONTAINER_CREATING);
        }
        if self.plan.unique && !env.unique_may_start {
            self.waits(reason::WAITING_FOR_LEASE, "the node's lease must be confirmed first");
            return false;
        }
        if env.free_slots == 0 || !self.plan.request.fits_in(env.free) {
            self.waits(
                reason::WAITING_FOR_RESOURCES,
                "guests that end on this node still hold what it needs",
            );
            return false;
        }
        if let Some(message) = taken_volume(&intent, env) {
            self.waits(reason::WAITING_FOR_VOLUME, &message);
            return false;
        }
        if let Some(message) = missing_volume(&intent, &env.busy) {
            self.waits(reason::WAITING_FOR_VOLUME, &message);
            return false;
        }
        if !self.take_address(env) {
            return false;
        }
        env.free = env.free.checked_minus(self.plan.request).expect("just compared");
        env.free_slots -= 1;
        for claim in &intent.claims {
            let volumes = if claim.read_only { &mut env.volumes_read } else { &mut env.volumes };
            volumes.insert(claim.uid);
        }
        if WAITING.contains(&self.reason.as_str()) {
            self.clear_reason();
        }
        self.instance = self.instance.checked_add(1).expect("fewer than 2^32 guests of one pod");
        self.generation = env.generation;
        self.gone = false;
        self.guarded = self.plan.unique;
        self.guest_phase = None;
        self.guest_waits_for.clear();
        self.out_of_memory = None;
        self.usage = None;
        self.files_given = self.files;
        self.cpus_given = None;
        self.bandwidth = intent.bandwidth;
        self.persist(env);
        env.actions.push_back(Action::StartVm(Box::new(StartVm {
            instance: self.instance,
            size: GuestSize::new(&intent.spec),
            images: self.images(),
            lease_until_ms: env
                .lease_until_ms
                .filter(|_| self.guarded && !planted!("canary_guard_not_armed")),
            address: self.address,
            host_ip: self.host_ip,
            pod: intent,
        })));
        self.phase = Phase::Starting;
        true
    }

    /// Takes an address for the guest that is about to start, where guests have one: the pod's own, or the lowest that no pod has.
    /// False when there is none.
    fn take_address(&mut self, env: &mut Env<'_>) -> bool {
        let Some(range) = env.config.pod_range else {
            self.address = None;
            return true;
        };
        self.host_ip = env.config.host_ip;
        if self.address.is_some_and(|address| range.offers(address)) {
            return true;
        }
        self.address = range.lowest_free(&env.addresses);
        match self.address {
            Some(address) => env.addresses.insert(address),
            None => {
                let message = format!(
                    "guests of this node have all {} addresses of {range}: give the agent a larger --pod-cidr",
                    range.capacity()
                );
                self.waits(reason::WAITING_FOR_ADDRESS, &message);
                false
            }
        }
    }

    /// Waits for what the spec refers to: the next intent may have it.
    fn lacks(&mut self, missing: &str) -> bool {
        let message = text::message(missing);
        if self.reason != reason::CREATE_CONTAINER_CONFIG_ERROR || self.message != message {
            for container in self.init_containers.iter_mut().chain(&mut self.containers) {
                container.waits(reason::CREATE_CONTAINER_CONFIG_ERROR, &message);
            }
            self.reason = SmolStr::new_static(reason::CREATE_CONTAINER_CONFIG_ERROR);
            self.message = message;
        }
        false
    }

    /// Gives the guest the files of its volumes where they changed, or where nobody knows what it was given.
    fn update_files(&mut self, env: &mut Env<'_>) -> bool {
        let Some(volumes) = self.volumes().filter(|_| self.files != self.files_given) else { return false };
        let update = Action::UpdateFiles { pod: self.id, instance: self.instance, volumes: volumes.to_vec() };
        env.actions.push_back(update);
        self.files_given = self.files;
        true
    }

    /// Brings a running guest up to date; one thing at a time.
    fn update_guest(&mut self, env: &mut Env<'_>) -> bool {
        self.update_cpus(env) || self.update_files(env) || self.update_sizes(env)
    }

    /// Moves the guest where its CPUs are others, or where nobody knows on which it runs.
    fn update_cpus(&mut self, env: &mut Env<'_>) -> bool {
        let Some(runs_on) = self.cpus.clone().filter(|cpus| self.cpus_given.as_ref() != Some(cpus)) else {
            return false;
        };
        self.cpus_given = Some(runs_on.clone());
        env.actions.push_back(Action::SetCpus { pod: self.id, instance: self.instance, runs_on });
        true
    }

    /// Asks the guest to end; with no grace it is killed.
    fn stop(&mut self, grace_ms: u64, at_latest_ms: u64, env: &mut Env<'_>) -> bool {
        if grace_ms == 0 {
            return self.kill(Cause::Asked, env);
        }
        let kill_at_ms = env.now_ms.saturating_add(grace_ms).saturating_add(env.config.stop_margin_ms);
        self.phase = Phase::Stopping { grace_ms, kill_at_ms: kill_at_ms.min(at_latest_ms) };
        env.actions.push_back(Action::StopVm { pod: self.id, instance: self.instance, grace_ms });
        if planted!("canary_cleaned_up_before_death") {
            return self.clean(false, env);
        }
        true
    }

    pub(super) fn kill(&mut self, cause: Cause, env: &mut Env<'_>) -> bool {
        let age_ms = self.boot_age_ms(env.now_ms);
        env.actions.push_back(Action::KillVm { pod: self.id, instance: self.instance });
        let retry_at_ms = env.now_ms.saturating_add(env.config.retry_ms.max(1));
        self.phase = Phase::Killing { cause, retry_at_ms };
        match cause {
            // It is killed again and again until it is gone; the first time says why.
            Cause::NotReporting if age_ms == 0 => {}
            Cause::NotReporting => {
                self.reason = SmolStr::new_static(reason::GUEST_NOT_REPORTING);
                self.message = format!("the guest said nothing for {age_ms} ms");
            }
            Cause::LeaseExpired => {
                self.reason = SmolStr::new_static(reason::LEASE_EXPIRED);
                self.message = "the node lost its lease; the pod must be unique and was killed".to_owned();
            }
            Cause::GuestSilent => {
                self.reason = SmolStr::new_static(reason::GUEST_NOT_RESPONDING);
                self.message = format!("the guest answered nothing for {} ms", env.config.silence_ms);
            }
            Cause::QemuSilent => {
                self.reason = SmolStr::new_static(reason::QEMU_NOT_RESPONDING);
                self.message = format!("QEMU answered nothing for {} ms", env.config.silence_ms);
            }
            Cause::Asked | Cause::Lingers | Cause::DeviceLost => {}
        }
        true
    }

    pub(super) fn clean(&mut self, keep_logs: bool, env: &mut Env<'_>) -> bool {
        env.actions.push_back(Action::CleanUp { pod: self.id, keep_logs });
        let retry_at_ms = env.now_ms.saturating_add(env.config.retry_ms.max(1));
        self.phase = Phase::Cleaning { keep_logs, retry_at_ms };
        true
    }

    /// The pod is over: its status stays as it is now.
    pub(super) fn end(&mut self, phase: PodPhase, why: &str, message: String, env: &mut Env<'_>) {
        self.reason = SmolStr::new(why);
        self.message = message;
        let mut status = self.current_status();
        status.phase = phase;
        status.ready = false;
        self.ended = Some(status);
        self.persist(env);
    }

    /// The next guest is a new one for all containers.
    pub(super) fn start_over(&mut self, why: &str) {
        for container in self.init_containers.iter_mut().chain(&mut self.containers) {
            container.start_over(why);
        }
        self.ended = None;
    }

    pub(super) fn waits(&mut self, why: &str, message: &str) {
        // One thing may be in the way after another, for the same reason.
        if self.reason != why || self.message != message {
            self.reason = SmolStr::new(why);
            message.clone_into(&mut self.message);
        }
    }

    pub(super) fn clear_reason(&mut self) {
        self.reason = SmolStr::default();
        self.message.clear();
    }

    /// When time alone makes a step possible, on the monotonic clock in milliseconds.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let runs = self.want() == Want::Run;
        let step = match &self.phase {
            Phase::ImageBackOff { until_ms } | Phase::BackOff { until_ms } => runs.then_some(*until_ms),
            Phase::Booting(boot) if runs => Some(boot.deadline_ms.min(boot.tell_at_ms)),
            Phase::Booting(boot) => Some(boot.deadline_ms),
            Phase::Running { exit_by_ms, .. } => *exit_by_ms,
            Phase::Stopping { kill_at_ms, .. } => Some(*kill_at_ms),
            Phase::Killing { retry_at_ms, .. } | Phase::Cleaning { retry_at_ms, .. } => Some(*retry_at_ms),
            Phase::Idle | Phase::Preparing { .. } | Phase::Ready | Phase::Starting | Phase::Clean { .. } => {
                None
            }
        };
        step.into_iter().chain(self.resize_deadline_ms().filter(|_| runs)).min()
    }

    /// Whether every container runs.
    pub(super) fn all_run(&self) -> bool {
        self.containers.iter().all(|c| matches!(c.state, ContainerState::Running { .. }))
    }
}
