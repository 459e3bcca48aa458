//! A pod's conditions, which follow from what is known of it.
//!
//! Source: "Pod conditions" in the Kubernetes documentation.

use crate::{ContainerState, ContainerStatus, Pod, PodPhase, ResizeStage};

/// One condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCondition {
    /// `PodScheduled`, `Initialized`, `ContainersReady`, `Ready`, `DisruptionTarget`, `PodResizePending` or
    /// `PodResizeInProgress`.
    pub condition_type: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Since when, milliseconds since the epoch; 0 when that is not known.
    pub since_ms: u64,
    /// One CamelCase word on why it does not hold; may be empty.
    pub reason: &'static str,
    /// The same for people; may be empty.
    pub message: String,
}

/// A container that waits with this waits for init containers.
const POD_INITIALIZING: &str = "PodInitializing";

impl Pod {
    /// Its conditions, in the order in which they come to hold.
    #[must_use]
    pub fn conditions(&self) -> Vec<PodCondition> {
        let all = [
            self.scheduled(),
            self.initialized(),
            self.readiness("ContainersReady"),
            self.readiness("Ready"),
        ];
        all.into_iter().chain(self.disruption()).chain(self.resizing()).collect()
    }

    /// That it waits for a resize, or that one is under way (Kubernetes' `PodResizePending`, `PodResizeInProgress`).
    fn resizing(&self) -> Option<PodCondition> {
        let resize = self.resize().filter(|_| !self.status.phase.is_terminal())?;
        let failure = self.status.actual.get().filter(|actual| actual.wanted == resize.desired);
        let (condition_type, reason) = match resize.stage {
            ResizeStage::Deferred => ("PodResizePending", "Deferred"),
            ResizeStage::Infeasible => ("PodResizePending", "Infeasible"),
            ResizeStage::InProgress if failure.is_some() => ("PodResizeInProgress", "Error"),
            ResizeStage::InProgress => ("PodResizeInProgress", ""),
        };
        let message = match (resize.stage, failure) {
            (ResizeStage::InProgress, Some(failure)) if failure.message.is_empty() => {
                failure.reason.to_string()
            }
            (ResizeStage::InProgress, Some(failure)) => format!("{}: {}", failure.reason, failure.message),
            _ => resize.message.clone(),
        };
        Some(PodCondition { condition_type, holds: true, since_ms: resize.since_ms, reason, message })
    }

    /// That it ends for the sake of another pod, if it does.
    fn disruption(&self) -> Option<PodCondition> {
        let deletion = self.meta.deletion.as_ref().filter(|deletion| deletion.preemptor.is_some())?;
        Some(PodCondition {
            condition_type: "DisruptionTarget",
            holds: true,
            since_ms: deletion.requested_at_ms,
            reason: "PreemptionByScheduler",
            message: "preempted to make room for a pod of higher priority".to_owned(),
        })
    }

    fn scheduled(&self) -> PodCondition {
        let holds = self.node.is_some();
        PodCondition {
            condition_type: "PodScheduled",
            holds,
            since_ms: self.status.bound_at_ms,
            reason: if holds || self.status.reason != "Unschedulable" { "" } else { "Unschedulable" },
            message: if holds { String::new() } else { self.status.message.clone() },
        }
    }

    fn initialized(&self) -> PodCondition {
        let status = &self.status;
        let incomplete: Vec<&str> = self
            .spec
            .init_containers
            .iter()
            .filter(|c| !self.is_initialized(&c.name))
            .map(|c| c.name.as_str())
            .collect();
        let has_run = |c: &ContainerStatus| {
            c.last_termination.is_some() || !matches!(c.state, ContainerState::Waiting { .. })
        };
        let waits = |c: &ContainerStatus| matches!(&c.state, ContainerState::Waiting { reason, .. } if reason == POD_INITIALIZING);
        let holds = if status.containers.iter().any(has_run) {
            true
        } else {
            self.node.is_some() && incomplete.is_empty() && !status.containers.iter().any(waits)
        };
        let ends = status.init_containers.iter().filter_map(|c| match &c.state {
            ContainerState::Terminated(end) => Some(end.finished_at_ms),
            ContainerState::Running { started_at_ms } => Some(*started_at_ms),
            ContainerState::Waiting { .. } => None,
        });
        let completed = holds && status.phase == PodPhase::Succeeded;
        PodCondition {
            condition_type: "Initialized",
            holds,
            since_ms: if holds { ends.max().unwrap_or(status.bound_at_ms) } else { status.bound_at_ms },
            reason: match (holds, completed) {
                (false, _) => "ContainersNotInitialized",
                (true, true) => "PodCompleted",
                (true, false) => "",
            },
            message: if holds {
                String::new()
            } else {
                named("containers with incomplete status", &incomplete)
            },
        }
    }

    fn is_initialized(&self, name: &str) -> bool {
        let status = self.status.init_containers.iter().find(|status| status.name == name);
        match status.map(|status| &status.state) {
            Some(ContainerState::Terminated(end)) => end.exit_code == 0,
            Some(ContainerState::Running { .. }) => self.spec.sidecars().any(|sidecar| sidecar.name == name),
            _ => false,
        }
    }

    fn readiness(&self, condition_type: &'static str) -> PodCondition {
        let status = &self.status;
        let unready: Vec<&str> = self
            .spec
            .sidecars()
            .map(|c| (c, &status.init_containers))
            .chain(self.spec.containers.iter().map(|c| (c, &status.containers)))
            .filter(|(c, known)| !known.iter().any(|status| status.name == c.name && status.ready))
            .map(|(c, _)| c.name.as_str())
            .collect();
        let (reason, message) = match (status.ready, status.phase) {
            (true, _) => ("", String::new()),
            (false, PodPhase::Succeeded) => ("PodCompleted", String::new()),
            (false, PodPhase::Failed) => ("PodFailed", String::new()),
            (false, _) => ("ContainersNotReady", named("containers with unready status", &unready)),
        };
        PodCondition { condition_type, holds: status.ready, since_ms: status.ready_since_ms, reason, message }
    }
}

fn named(what: &str, names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("{what}: [{}]", names.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Container, ContainerOptions, ContainerTermination, Name, ObjectId, ObjectMeta, PodSpec, PodStatus,
        Rare, Shared,
    };

    /// `w` waiting, `i` waiting for init containers, `r` running and ready, `u` running and unready, `0` ended well.
    fn statuses(names: &[&str], letters: &str) -> Vec<ContainerStatus> {
        let state = |letter| match letter {
            'i' => ContainerState::Waiting { reason: POD_INITIALIZING.into(), message: String::new() },
            'r' | 'u' => ContainerState::Running { started_at_ms: 3 },
            '0' => ContainerState::Terminated(Box::new(ContainerTermination {
                exit_code: 0,
                signal: 0,
                reason: "Completed".into(),
                message: String::new(),
                started_at_ms: 4,
                finished_at_ms: 5,
            })),
            _ => ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() },
        };
        let one = |(name, letter): (&&str, char)| ContainerStatus {
            name: (*name).into(),
            state: state(letter),
            last_termination: None,
            restart_count: 0,
            ready: letter == 'r',
            image_digest: "".into(),
        };
        names.iter().zip(letters.chars()).map(one).collect()
    }

    /// Init container `init`, sidecar `side`, containers `a` and `b`.
    fn check(init: &str, main: &str, phase: PodPhase, expected: [&str; 4]) {
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        let options = ContainerOptions { sidecar: true, ..ContainerOptions::default() };
        let side = Container { options: Rare::some(options), ..container("side") };
        let spec = PodSpec {
            init_containers: vec![container("init"), side],
            containers: vec![container("a"), container("b")],
            ..PodSpec::default()
        };
        let (init, containers) = (statuses(&["init", "side"], init), statuses(&["a", "b"], main));
        let ready = containers.len() == 2 && init[1..].iter().chain(&containers).all(|c| c.ready);
        let status = PodStatus { phase, ready, init_containers: init, containers, ..PodStatus::default() };
        let name = |text| Name::new(text).expect("a name");
        let pod = Pod {
            meta: ObjectMeta::new(Some(name("default")), name("p")),
            spec: Shared::new(spec),
            node: Some(ObjectId(1)),
            status,
        };
        let shown: Vec<_> = pod
            .conditions()
            .into_iter()
            .map(|c| format!("{} {} {}", c.holds, c.reason, c.message).trim().to_owned())
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn conditions_follow_from_containers() {
        use PodPhase::{Pending, Running, Succeeded};
        let not_ready = "false ContainersNotReady containers with unready status: [side a b]";
        check(
            "",
            "",
            Pending,
            [
                "true",
                "false ContainersNotInitialized containers with incomplete status: [init side]",
                not_ready,
                not_ready,
            ],
        );
        check(
            "rw",
            "ii",
            Pending,
            [
                "true",
                "false ContainersNotInitialized containers with incomplete status: [init side]",
                not_ready,
                not_ready,
            ],
        );
        let not_ready = "false ContainersNotReady containers with unready status: [a b]";
        check("0r", "ii", Pending, ["true", "false ContainersNotInitialized", not_ready, not_ready]);
        check("0r", "ww", Pending, ["true", "true", not_ready, not_ready]);
        let not_ready = "false ContainersNotReady containers with unready status: [b]";
        check("0r", "ru", Running, ["true", "true", not_ready, not_ready]);
        check("0r", "rr", Running, ["true", "true", "true", "true"]);
        check(
            "00",
            "00",
            Succeeded,
            ["true", "true PodCompleted", "false PodCompleted", "false PodCompleted"],
        );
    }
}
