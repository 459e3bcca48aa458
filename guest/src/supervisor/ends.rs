//! How containers, and the pod, are made to end.
//!
//! ```text
//!  running ─► PreStop (its hook) ─► Turn (sidecars: all that end before it are gone) ─► Terminated ─► Killed
//!                     └────────────── the grace is over ──────┴──────────────────────────────┘
//! ```
//! Source: "Pod termination flow" and "Sidecar Containers" in the Kubernetes documentation.

use bulkhead_guest_protocol::guest::PodPhase;

use super::container::{Ending, Stage, Status};
use super::{Action, KILL_WAIT_MS, Now, Supervisor, TERMINATION_MIN_MS, Task};

/// Why everything ends.
#[derive(Clone, Debug)]
pub(super) enum Closing {
    /// Somebody asked.
    Asked,
    /// Nothing is left to do.
    Over { phase: PodPhase, reason: &'static str, message: String },
}

impl Closing {
    pub(super) fn over(phase: PodPhase, reason: &'static str, message: String) -> Self {
        Self::Over { phase, reason, message }
    }
}

impl Supervisor {
    /// The host asks for the end; a second time it can only shorten the grace.
    pub(super) fn stop(&mut self, grace_ms: Option<u64>, now: Now) {
        let grace_ms = grace_ms.unwrap_or(self.grace_ms);
        let closing = self.closing.clone().unwrap_or(Closing::Asked);
        self.close(closing, grace_ms, now);
        if !self.powered_off {
            self.tick(now);
        }
    }

    /// The pod fails and ends without grace, unless it ends already (the kubelet's eviction by local storage).
    pub(super) fn evict(&mut self, message: String, now: Now) {
        if self.closing.is_some() {
            return;
        }
        self.close(Closing::over(PodPhase::Failed, "Evicted", message), 0, now);
        if !self.powered_off {
            self.tick(now);
        }
    }

    /// Everything ends.
    pub(super) fn close(&mut self, closing: Closing, grace_ms: u64, now: Now) {
        self.closing = Some(closing);
        for index in 0..self.containers.len() {
            if matches!(self.containers[index].status, Status::BackingOff { .. }) {
                self.containers[index].status = Status::Ended;
            }
            self.end(index, grace_ms, now);
        }
        self.advance_ends(now);
        self.maybe_close();
    }

    /// One container is made to end, because of this; then its restart policy holds.
    pub(super) fn end_because(&mut self, index: usize, why: String, grace_ms: u64, now: Now) {
        self.containers[index].ended_because = why;
        self.end(index, grace_ms, now);
        self.advance_ends(now);
    }

    /// Begins the end of a container that lives, or shortens it.
    fn end(&mut self, index: usize, grace_ms: u64, now: Now) {
        let kill_at_ms = now.monotonic_ms.saturating_add(grace_ms);
        let container = &mut self.containers[index];
        if !container.status.is_alive() {
            return;
        }
        if let Some(ending) = &mut container.ending {
            ending.kill_at_ms = ending.kill_at_ms.min(kill_at_ms);
            return;
        }
        let executes = container.status != Status::Starting;
        let has_hook = executes && container.pre_stop.is_some() && grace_ms > 0;
        let stage = if has_hook { Stage::PreStop } else { Stage::Turn };
        container.ending = Some(Ending { kill_at_ms, stage, waited: has_hook });
        self.end_checks(index);
        if has_hook {
            self.begin_hook(index, Task::PreStop, now);
        }
    }

    /// Takes every container that ends as far as it can come now.
    pub(super) fn advance_ends(&mut self, now: Now) {
        for index in 0..self.containers.len() {
            while self.advance_end(index, now) {}
        }
    }

    /// One step; false when there was none to take.
    fn advance_end(&mut self, index: usize, now: Now) -> bool {
        let Some(ending) = self.containers[index].ending else { return false };
        let is_late = now.monotonic_ms >= ending.kill_at_ms;
        let next = match ending.stage {
            Stage::PreStop if is_late || self.containers[index].hook.is_none() => {
                self.end_checks(index);
                Ending { stage: Stage::Turn, ..ending }
            }
            Stage::Turn if self.is_its_turn(index) || is_late => {
                self.actions.push(Action::Terminate { index });
                let least_ms = now.monotonic_ms.saturating_add(TERMINATION_MIN_MS);
                let kill_at_ms =
                    if ending.waited { ending.kill_at_ms.max(least_ms) } else { ending.kill_at_ms };
                Ending { stage: Stage::Terminated, kill_at_ms, ..ending }
            }
            Stage::Turn if !ending.waited => {
                self.containers[index].ending = Some(Ending { waited: true, ..ending });
                return false;
            }
            Stage::Terminated if is_late => {
                self.actions.push(Action::Kill { index });
                Ending { stage: Stage::Killed { at_ms: now.monotonic_ms }, ..ending }
            }
            Stage::PreStop | Stage::Turn | Stage::Terminated | Stage::Killed { .. } => return false,
        };
        self.containers[index].ending = Some(next);
        true
    }

    /// When all of the pod ends, a sidecar ends after all others and after the sidecars that started later.
    fn is_its_turn(&self, index: usize) -> bool {
        let waits_for = |(at, other): (usize, &super::Container)| {
            other.status.is_alive() && (!other.sidecar || at > index)
        };
        let is_sidecar = self.containers[index].sidecar;
        self.closing.is_none() || !is_sidecar || !self.containers.iter().enumerate().any(waits_for)
    }

    /// A signal that came before the command executed is lost: its process had no handler yet.
    pub(super) fn repeat_signal(&mut self, index: usize) {
        match self.containers[index].ending.map(|ending| ending.stage) {
            Some(Stage::Terminated) => self.actions.push(Action::Terminate { index }),
            Some(Stage::Killed { .. }) => self.actions.push(Action::Kill { index }),
            Some(Stage::PreStop | Stage::Turn) | None => {}
        }
    }

    /// Powers off once nothing lives.
    pub(super) fn maybe_close(&mut self) {
        if self.powered_off || self.containers.iter().any(|c| c.status.is_alive()) {
            return;
        }
        match self.closing.clone() {
            None => {}
            Some(Closing::Asked) => self.end_pod(self.outcome(), "Stopped", "Stopped"),
            Some(Closing::Over { phase, reason, message }) => {
                self.pod_message = message;
                self.end_pod(phase, reason, "Completed");
            }
        }
    }

    /// Powers off although something lives that not even SIGKILL ended.
    pub(super) fn maybe_give_up(&mut self, now: Now) {
        let survives = |container: &super::Container| match container.ending.map(|ending| ending.stage) {
            Some(Stage::Killed { at_ms }) => now.monotonic_ms >= at_ms.saturating_add(KILL_WAIT_MS),
            _ => false,
        };
        if !self.powered_off && self.closing.is_some() && self.containers.iter().any(survives) {
            self.pod_message = "a process did not end after SIGKILL".into();
            self.end_pod(PodPhase::Failed, "Stopped", "Stopped");
        }
    }

    fn end_pod(&mut self, phase: PodPhase, pod_reason: &'static str, reason: &'static str) {
        self.powered_off = true;
        self.phase = phase;
        self.pod_reason = pod_reason;
        self.report_pod();
        self.actions.push(Action::PowerOff { reason });
    }
}
