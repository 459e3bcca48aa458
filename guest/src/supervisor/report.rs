//! What the supervisor tells the host.

use bulkhead_guest_protocol::TEXT_LENGTH_MAX;
use bulkhead_guest_protocol::guest::{ContainerState, ContainerStateKind, GuestMessage, PodPhase, PodState};

use super::container::Status;
use super::{Action, Supervisor};

impl Supervisor {
    /// Every container's state and then the pod's: the answer to a Hello.
    pub(crate) fn states(&self) -> Vec<GuestMessage> {
        let containers =
            (0..self.containers.len()).map(|index| GuestMessage::ContainerState(self.container_state(index)));
        containers.chain([GuestMessage::PodState(self.pod_state())]).collect()
    }

    pub(super) fn report(&mut self, index: usize) {
        let state = self.container_state(index);
        self.actions.push(Action::Report(GuestMessage::ContainerState(state)));
    }

    pub(super) fn report_pod(&mut self) {
        let state = self.pod_state();
        self.actions.push(Action::Report(GuestMessage::PodState(state)));
    }

    fn pod_state(&self) -> PodState {
        PodState {
            phase: self.phase as i32,
            reason: self.pod_reason.into(),
            message: self.pod_message.clone(),
        }
    }

    pub(super) fn container_state(&self, index: usize) -> ContainerState {
        let container = &self.containers[index];
        let last = container.last.as_ref();
        let last_reason = last.map_or("", |last| last.reason.as_str());
        let last_message = last.map_or("", |last| last.message.as_str());
        let initializing = self.phase == PodPhase::Initializing && index >= self.init_count;
        let (kind, reason, message) = match container.status {
            Status::Pending if initializing => {
                (ContainerStateKind::Waiting, "PodInitializing", String::new())
            }
            Status::Pending | Status::Starting | Status::PostStart => {
                (ContainerStateKind::Waiting, "ContainerCreating", last_message.into())
            }
            Status::Running => (ContainerStateKind::Running, "", container.unready_because.clone()),
            Status::BackingOff { .. } => {
                let text = format!("back-off {} ms before the next start", container.backoff_ms);
                (ContainerStateKind::Waiting, "CrashLoopBackOff", super::joined(&text, last_message))
            }
            Status::Ended => (ContainerStateKind::Terminated, last_reason, last_message.into()),
        };
        ContainerState {
            container: container.name.clone(),
            kind: kind as i32,
            restart_count: container.restart_count,
            exit_code: last.map(|last| last.exit_code),
            signal: last.map_or(0, |last| last.signal),
            reason: reason.into(),
            message: bounded(message),
            started_at_ms: container.started.wall_ms,
            finished_at_ms: container.finished.wall_ms,
            started_monotonic_ms: container.started.monotonic_ms,
            finished_monotonic_ms: container.finished.monotonic_ms,
            init: index < self.init_count,
            last_reason: last_reason.into(),
            last_message: bounded(last_message.to_owned()),
            unready: container.status == Status::Running && !container.is_ready(),
        }
    }
}

/// Cuts a text to what the protocol takes, at a character's end.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > TEXT_LENGTH_MAX {
        text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX));
    }
    text
}
