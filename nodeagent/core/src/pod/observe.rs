//! What images, processes and guests say, taken into a pod.

use bulkhead_types::{ContainerStatus, PodPhase, PodUsage, RestartPolicy};
use smol_str::SmolStr;

use super::{Boot, Cause, Env, Phase, Pod, Want, containers};
use crate::{Action, Note, RecoveredVm, reason, text};

/// How long an adopted guest may take to tell the states of its containers before its pod is reported anyway, in
/// milliseconds.
const ADOPTION_TELLS_MS: u64 = 1_000;

/// What QEMU says when the kernel does not give it memory for the guest.
const NO_HUGE_PAGES: &str = "unable to map backing store for guest RAM";
/// What Linux writes to its console in the end (kernel/panic.c).
const KERNEL_PANIC: &str = "Kernel panic - not syncing";

/// How a guest's process ended.
pub(crate) struct Exit<'a> {
    pub(crate) status: &'a str,
    pub(crate) at_ms: u64,
    pub(crate) last_console: &'a str,
}

impl Pod {
    pub(crate) fn image_ready(&mut self, container: &str, digest: &str) {
        let Phase::Preparing { missing } = &mut self.phase else { return };
        if !missing.remove(container) {
            return;
        }
        let complete = missing.is_empty();
        for known in self.init_containers.iter_mut().chain(&mut self.containers) {
            if known.name == container {
                known.image_digest = text::digest(digest);
            }
        }
        if complete {
            self.image_failures = 0;
            self.phase = Phase::Ready;
            if [
                reason::ERR_IMAGE_PULL,
                reason::IMAGE_PULL_BACK_OFF,
                reason::IMAGE_DIGEST_MISMATCH,
                reason::DISK_PRESSURE,
            ]
            .contains(&self.reason.as_str())
            {
                self.clear_reason();
                self.start_over(reason::CONTAINER_CREATING);
            }
        }
    }

    pub(crate) fn image_failed(&mut self, container: &str, why: &str, message: &str, env: &mut Env<'_>) {
        let Phase::Preparing { missing } = &self.phase else { return };
        if !missing.contains(container) {
            return;
        }
        self.image_failures = self.image_failures.saturating_add(1);
        let wait_ms = env.config.backoff_ms(self.image_failures);
        let why = match text::reason(why) {
            word if word == reason::ERR_IMAGE_PULL && self.image_failures > 1 => {
                SmolStr::new_static(reason::IMAGE_PULL_BACK_OFF)
            }
            word => word,
        };
        let message = text::message(&format!("{message} (attempt {})", self.image_failures));
        for known in self.init_containers.iter_mut().chain(&mut self.containers) {
            if known.name == container {
                known.waits(&why, &message);
            }
        }
        self.reason = why;
        self.message = message;
        self.phase = Phase::ImageBackOff { until_ms: env.now_ms.saturating_add(wait_ms) };
    }

    pub(crate) fn vm_started(&mut self, instance: u32, started_at_ms: u64, env: &Env<'_>) {
        if instance != self.instance {
            return;
        }
        self.started_at_ms = started_at_ms;
        if matches!(self.phase, Phase::Starting) {
            let patience_ms = self.boot_patience_ms(env.config);
            self.phase = Phase::Booting(Boot::begin(env.now_ms, patience_ms, false));
        }
    }

    pub(crate) fn vm_start_failed(&mut self, instance: u32, why: &str, message: &str, env: &mut Env<'_>) {
        // Also while it is being killed: there is no process either way.
        if instance != self.instance || !matches!(self.phase, Phase::Starting | Phase::Killing { .. }) {
            return;
        }
        if let Want::Stop { keep_logs, .. } = self.want() {
            self.clean(keep_logs, env);
            return;
        }
        self.back_off(&text::reason(why), text::message(message), env);
    }

    pub(crate) fn guest_hello(&mut self, instance: u32, env: &Env<'_>) {
        if instance != self.instance {
            return;
        }
        if let Phase::Booting(boot) = self.phase {
            self.forget_boot();
            if boot.adopted {
                self.report.hold_until(env.now_ms.saturating_add(ADOPTION_TELLS_MS));
            }
            self.phase = Phase::Running { since_ms: env.now_ms, exit_by_ms: None };
        }
    }

    /// The guest stands still, which is neither its silence nor its end: whoever frees room on the host has it go on.
    pub(crate) fn guest_without_room(&mut self, instance: u32, volume: Option<SmolStr>) {
        if instance == self.instance {
            self.without_room = Some(match volume {
                Some(volume) => format!("volume {volume}"),
                None => "its disk".to_owned(),
            });
        }
    }

    pub(crate) fn guest_goes_on(&mut self, instance: u32) {
        if instance == self.instance {
            self.without_room = None;
        }
    }

    /// A guest that spoke, or its QEMU, answers nothing any more: it is of no use to anybody, and is killed. What boots has a
    /// deadline of its own, and so has what was asked to end.
    pub(crate) fn is_silent(&mut self, instance: u32, cause: Cause, env: &mut Env<'_>) {
        if instance == self.instance && matches!(self.phase, Phase::Running { .. }) {
            self.kill(cause, env);
        }
    }

    pub(crate) fn guest_container(
        &mut self,
        instance: u32,
        status: ContainerStatus,
        unready_because: &str,
        env: &mut Env<'_>,
    ) {
        if instance != self.instance || !self.guest_speaks() {
            return;
        }
        let mut all = self.init_containers.iter_mut().chain(&mut self.containers);
        let Some(known) = all.find(|c| c.name == status.name) else { return };
        let started = known.observe(status, unready_because);
        if started && !self.started {
            self.started = true;
            if self.plan.restart_policy == RestartPolicy::Never {
                // It must not start again, whatever becomes of this agent.
                self.persist(env);
            }
        }
        if self.all_run() {
            self.clear_reason();
        }
    }

    pub(crate) fn guest_pod(
        &mut self,
        instance: u32,
        phase: PodPhase,
        why: &str,
        message: &str,
        env: &Env<'_>,
    ) {
        if instance != self.instance || !self.guest_speaks() {
            return;
        }
        self.guest_phase = Some(phase);
        self.report.hold_until(0);
        self.guest_waits_for =
            if phase == PodPhase::Pending { text::message(message) } else { String::new() };
        if phase.is_terminal() {
            self.reason = text::reason(why);
            self.message = text::message(message);
            let by = env.now_ms.saturating_add(env.config.power_off_deadline_ms);
            if let Phase::Running { exit_by_ms, .. } = &mut self.phase {
                exit_by_ms.get_or_insert(by);
            }
        }
    }

    pub(crate) fn set_usage(&mut self, now_ms: u64, usage: PodUsage) {
        if self.guest_speaks() {
            self.usage = Some((now_ms, usage));
        }
    }

    /// Its process was killed for want of memory; that it ended is told next.
    pub(crate) fn vm_out_of_memory(&mut self, instance: u32, limit_bytes: u64) {
        if instance == self.instance && self.process_may_exist() {
            self.out_of_memory = Some(limit_bytes);
        }
    }

    /// A guest's process ended, for whatever reason.
    pub(crate) fn vm_exited(&mut self, instance: u32, exit: &Exit<'_>, env: &mut Env<'_>) {
        if instance != self.instance || !self.process_may_exist() {
            return;
        }
        self.usage = None;
        self.without_room = None;
        self.forget_boot();
        self.forget_resize();
        let cause = match &self.phase {
            Phase::Killing { cause, .. } => Some(*cause),
            Phase::Stopping { .. } => Some(Cause::Asked),
            _ => None,
        };
        if let Phase::Running { since_ms, .. } = self.phase {
            let long_ms = env.config.backoff_max_ms.saturating_mul(2);
            if env.now_ms.saturating_sub(since_ms) >= long_ms {
                self.failures = 0;
            }
        }
        let outcome = self.outcome();
        let (why, message) = self.explain(cause, exit);
        for container in self.init_containers.iter_mut().chain(&mut self.containers) {
            container.guest_ended(why, &message, exit.at_ms);
        }
        let stop = match self.want() {
            Want::Stop { keep_logs, .. } => Some(keep_logs),
            Want::Wait | Want::Run => None,
        };
        match (outcome, stop) {
            // A terminal outcome counts even when the pod is being deleted at the same moment.
            (Some(phase), stop) => {
                let (why, message) = (self.reason.clone(), std::mem::take(&mut self.message));
                self.end(phase, &why, message, env);
                self.clean(stop.unwrap_or(true), env);
            }
            (None, None) if cause == Some(Cause::DeviceLost) => {
                self.end(PodPhase::Failed, why, message, env);
                self.clean(true, env);
            }
            (None, Some(_)) if self.runs_other_spec() => self.replace(),
            (None, Some(keep_logs)) => {
                self.clean(keep_logs, env);
            }
            (None, None) if cause == Some(Cause::Asked) => self.replace(),
            (None, None) if self.started && self.plan.restart_policy == RestartPolicy::Never => {
                let note = Note::GuestFailed { pod: self.id, reason: why.into(), retry_in_ms: None };
                env.actions.push_back(Action::Note(note));
                self.end(PodPhase::Failed, why, message, env);
                self.clean(true, env);
            }
            (None, None) => {
                self.sandbox_restarts = self.sandbox_restarts.saturating_add(1);
                self.start_over(why);
                self.back_off(why, message, env);
            }
        }
    }

    pub(crate) fn vm_gone(&mut self, env: &mut Env<'_>) {
        let Phase::Cleaning { keep_logs, .. } = self.phase else { return };
        if !keep_logs {
            env.actions.push_back(Action::ForgetRecord { pod: self.id });
            if self.intent.is_some() {
                // Told again although it was told when the pod ended: only now that its deletion is asked for does
                // the control plane act on it.
                self.forget_reports();
            }
        }
        self.phase = Phase::Clean { logs_kept: keep_logs };
        self.gone = true;
        // Neither process nor tap is left that could send from it.
        self.forget_address();
    }

    /// What the agent's last life left of a pod whose process is gone.
    pub(crate) fn found_dead(&mut self, vm: &RecoveredVm, env: &mut Env<'_>) {
        if self.ended.is_some() {
            self.clean(true, env);
            return;
        }
        let (why, sentence) = match vm.out_of_memory {
            Some(limit_bytes) => (reason::GUEST_OOM_KILLED, out_of_memory(limit_bytes)),
            None => (reason::GUEST_DIED, "the guest ended while the agent was away".to_owned()),
        };
        let message = text::with_console(&sentence, &vm.last_console);
        if self.started && self.plan.restart_policy == RestartPolicy::Never {
            self.end(PodPhase::Failed, why, message, env);
            self.clean(true, env);
        } else {
            self.sandbox_restarts = self.sandbox_restarts.saturating_add(1);
            self.start_over(why);
            self.back_off(why, message, env);
        }
    }

    fn guest_speaks(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Stopping { .. } | Phase::Killing { .. })
    }

    /// The terminal phase, if the pod is over: by its containers or, for what ends at all, by the guest's word.
    fn outcome(&self) -> Option<PodPhase> {
        let policy = self.plan.restart_policy;
        let derived = containers::phase(&self.init_containers, &self.containers, policy);
        let evicted = self.guest_phase == Some(PodPhase::Failed) && self.reason == reason::EVICTED;
        let told = self.guest_phase.filter(|_| policy != RestartPolicy::Always || evicted);
        // Whatever its containers' ends looked like: they were killed for it.
        let told_first = if evicted { [told, None] } else { [Some(derived), told] };
        told_first.into_iter().flatten().find(|phase| phase.is_terminal())
    }

    fn explain(&self, cause: Option<Cause>, exit: &Exit<'_>) -> (&'static str, String) {
        let (why, sentence) = match cause {
            Some(Cause::NotReporting) => (reason::GUEST_NOT_REPORTING, self.message.clone()),
            Some(Cause::GuestSilent) => (reason::GUEST_NOT_RESPONDING, self.message.clone()),
            Some(Cause::QemuSilent) => (reason::QEMU_NOT_RESPONDING, self.message.clone()),
            Some(Cause::LeaseExpired) => (reason::LEASE_EXPIRED, self.message.clone()),
            Some(Cause::DeviceLost) => (bulkhead_types::REASON_DEVICE_LOST, self.message.clone()),
            Some(Cause::Asked) => return (reason::STOPPED, String::new()),
            _ if let Some(limit_bytes) = self.out_of_memory => {
                (reason::GUEST_OOM_KILLED, out_of_memory(limit_bytes))
            }
            // QEMU's own words, where others took the pages after they were looked for and before it did.
            _ if self.takes_huge_pages() && exit.last_console.contains(NO_HUGE_PAGES) => {
                let pools = self.plan.request.huge_pages.sizes().map(|(size, _)| size.resource());
                let pools = pools.collect::<Vec<_>>().join(", ");
                (reason::HUGE_PAGES_NOT_ALLOCATED, format!("QEMU was not given the huge pages of {pools}"))
            }
            // A guest can write that whenever it likes; it is only its own end that it explains.
            _ if exit.last_console.contains(KERNEL_PANIC) => {
                (reason::GUEST_PANICKED, "the guest's kernel panicked".to_owned())
            }
            _ => (reason::GUEST_DIED, format!("the guest's process ended with {}", exit.status)),
        };
        (why, text::with_console(&sentence, exit.last_console))
    }

    fn takes_huge_pages(&self) -> bool {
        !self.plan.request.huge_pages.is_none()
    }

    /// It was stopped only to run anew.
    fn replace(&mut self) {
        self.start_over(reason::CONTAINER_CREATING);
        self.phase = Phase::Idle;
        if let Some(intent) = self.intent.clone() {
            self.adopt_spec(&intent.spec, intent.unique);
        }
    }

    fn back_off(&mut self, why: &str, message: String, env: &mut Env<'_>) {
        self.failures = self.failures.saturating_add(1);
        let wait_ms = env.config.backoff_ms(self.failures);
        for container in self.init_containers.iter_mut().chain(&mut self.containers) {
            container.waits(why, "");
        }
        self.reason = SmolStr::new(why);
        self.message = message;
        self.phase = Phase::BackOff { until_ms: env.now_ms.saturating_add(wait_ms) };
        let note = Note::GuestFailed { pod: self.id, reason: SmolStr::new(why), retry_in_ms: Some(wait_ms) };
        env.actions.push_back(Action::Note(note));
    }
}

/// What a guest's process was killed for by the kernel.
fn out_of_memory(limit_bytes: u64) -> String {
    let mib = limit_bytes >> 20;
    format!(
        "the kernel killed the guest's process: it used more than the {mib} MiB of the host's memory that the guest and QEMU need"
    )
}
