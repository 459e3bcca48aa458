//! The containers of one pod, as its guests tell of them, and the phase that follows.

use bulkhead_types::{ContainerState, ContainerStatus, ContainerTermination, PodPhase, RestartPolicy};
use smol_str::SmolStr;

use crate::text;

/// Exit code of what was killed by SIGKILL (128 + 9), used for containers whose guest died.
const EXIT_CODE_KILLED: i32 = 137;
/// SIGKILL.
const SIGNAL_KILLED: i32 = 9;

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the others.
    Init,
    /// Runs beside the others from its start on; how it ends does not matter.
    Sidecar,
    Main,
}

/// One container over all guests of its pod.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: SmolStr,
    role: Role,
    pub(crate) state: ContainerState,
    last_termination: Option<Box<ContainerTermination>>,
    /// Restarts in earlier guests.
    pub(crate) restarts_before: u32,
    /// Restarts in this guest.
    restarts_here: u32,
    /// It started at least once in this guest.
    started_here: bool,
    pub(crate) image_digest: SmolStr,
    /// The guest says that it serves.
    serves: bool,
    /// Why it does not although it runs; may be empty.
    unready_because: String,
}

impl Container {
    pub(crate) fn new(name: SmolStr, role: Role, waiting_reason: &str) -> Self {
        Self {
            name,
            role,
            state: waiting(waiting_reason, String::new()),
            last_termination: None,
            restarts_before: 0,
            restarts_here: 0,
            started_here: false,
            image_digest: SmolStr::default(),
            serves: false,
            unready_because: String::new(),
        }
    }

    /// What the guest says. Everything in it is hostile: only bounded text and numbers are taken over.
    /// Returns whether the container has ever started.
    pub(crate) fn observe(&mut self, status: ContainerStatus, unready_because: &str) -> bool {
        self.serves = status.ready;
        self.unready_because = text::message(unready_because);
        self.state = match status.state {
            ContainerState::Waiting { reason, message } => {
                ContainerState::Waiting { reason: text::reason(&reason), message: text::message(&message) }
            }
            ContainerState::Running { started_at_ms } => ContainerState::Running { started_at_ms },
            ContainerState::Terminated(end) => ContainerState::Terminated(bounded(*end)),
        };
        if let Some(end) = status.last_termination {
            self.last_termination = Some(bounded(*end));
        }
        self.restarts_here = self.restarts_here.max(status.restart_count);
        self.started_here |= self.restarts_here > 0 || !matches!(self.state, ContainerState::Waiting { .. });
        self.started_here
    }

    /// Its guest ended: what still ran was killed with it.
    pub(crate) fn guest_ended(&mut self, why: &str, message: &str, at_ms: u64) {
        if let ContainerState::Running { started_at_ms } = self.state {
            self.state = ContainerState::Terminated(Box::new(ContainerTermination {
                exit_code: EXIT_CODE_KILLED,
                signal: SIGNAL_KILLED,
                reason: SmolStr::new(why),
                message: message.to_owned(),
                started_at_ms,
                finished_at_ms: at_ms,
            }));
        }
    }

    /// The pod gets a new guest, in which this container starts over.
    pub(crate) fn start_over(&mut self, why: &str) {
        if let ContainerState::Terminated(end) = &self.state {
            self.last_termination = Some(end.clone());
        }
        if self.started_here {
            self.restarts_before = self.restart_count().saturating_add(1);
        }
        self.restarts_here = 0;
        self.started_here = false;
        self.serves = false;
        self.state = waiting(why, String::new());
    }

    /// It cannot start, because of this.
    pub(crate) fn waits(&mut self, why: &str, message: &str) {
        self.state = waiting(why, message.to_owned());
    }

    pub(crate) fn restart_count(&self) -> u32 {
        self.restarts_before.saturating_add(self.restarts_here)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// Whether it is what its pod needs of it to be ready: an init container ended well, others run and serve.
    pub(crate) fn is_ready(&self) -> bool {
        match (self.role, &self.state) {
            (Role::Init, ContainerState::Terminated(end)) => end.exit_code == 0,
            (Role::Sidecar | Role::Main, ContainerState::Running { .. }) => self.serves,
            _ => false,
        }
    }

    /// Why it runs and is not ready, with its name; `None` when there is nothing to say.
    pub(crate) fn complaint(&self) -> Option<String> {
        let complains = self.is_running() && !self.serves && !self.unready_because.is_empty();
        complains.then(|| format!("{}: {}", self.name, self.unready_because))
    }

    pub(crate) fn status(&self, guest_runs: bool) -> ContainerStatus {
        ContainerStatus {
            name: self.name.clone(),
            state: self.state.clone(),
            last_termination: self.last_termination.clone(),
            restart_count: self.restart_count(),
            ready: self.is_ready() && (guest_runs || self.role == Role::Init),
            image_digest: self.image_digest.clone(),
        }
    }

    /// How it ended and has not started since.
    fn termination(&self) -> Option<&ContainerTermination> {
        match &self.state {
            ContainerState::Terminated(end) => Some(end),
            ContainerState::Waiting { .. } => self.last_termination.as_deref(),
            ContainerState::Running { .. } => None,
        }
    }
}

fn waiting(why: &str, message: String) -> ContainerState {
    ContainerState::Waiting { reason: SmolStr::new(why), message }
}

fn bounded(end: ContainerTermination) -> Box<ContainerTermination> {
    let (reason, message) = (text::reason(&end.reason), text::message(&end.message));
    Box::new(ContainerTermination { reason, message, ..end })
}

/// The phase that follows from the containers ("Pod Lifecycle" in the Kubernetes documentation).
pub(crate) fn phase(init: &[Container], containers: &[Container], policy: RestartPolicy) -> PodPhase {
    let failed = |c: &Container| c.termination().is_some_and(|end| end.exit_code != 0);
    let init = || init.iter().filter(|c| c.role == Role::Init);
    if policy == RestartPolicy::Never && init().any(failed) {
        return PodPhase::Failed;
    }
    let initialised =
        init().all(|c| matches!(&c.state, ContainerState::Terminated(end) if end.exit_code == 0));
    let started = |c: &Container| c.is_running() || c.termination().is_some();
    if containers.is_empty() || !containers.iter().all(started) {
        return PodPhase::Pending;
    }
    if containers.iter().any(Container::is_running) || policy == RestartPolicy::Always {
        return PodPhase::Running;
    }
    if !initialised {
        return PodPhase::Running;
    }
    match (containers.iter().any(failed), policy) {
        (false, _) => PodPhase::Succeeded,
        (true, RestartPolicy::Never) => PodPhase::Failed,
        (true, _) => PodPhase::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `w` waiting, `c` waiting after a crash, `r` running, `0` ended well, `1` ended badly, `s` a sidecar that runs, `f`
    /// one that ended badly.
    fn containers(letters: &str) -> Vec<Container> {
        let end = |exit_code| {
            Box::new(ContainerTermination {
                exit_code,
                signal: 0,
                reason: SmolStr::default(),
                message: String::new(),
                started_at_ms: 1,
                finished_at_ms: 2,
            })
        };
        letters
            .chars()
            .map(|letter| {
                let role = if matches!(letter, 's' | 'f') { Role::Sidecar } else { Role::Init };
                let mut container = Container::new(SmolStr::new("c"), role, "");
                match letter {
                    'r' | 's' => container.state = ContainerState::Running { started_at_ms: 1 },
                    '0' => container.state = ContainerState::Terminated(end(0)),
                    '1' | 'f' => container.state = ContainerState::Terminated(end(1)),
                    'c' => container.last_termination = Some(end(1)),
                    _ => assert_eq!(letter, 'w'),
                }
                container
            })
            .collect()
    }

    #[test]
    fn phases_follow_from_containers() {
        use PodPhase::{Failed, Pending, Running, Succeeded};
        use RestartPolicy::{Always, Never, OnFailure};
        let check = |init: &str, main: &str, expected: [PodPhase; 3]| {
            for (policy, expected) in [Always, OnFailure, Never].into_iter().zip(expected) {
                assert_eq!(
                    phase(&containers(init), &containers(main), policy),
                    expected,
                    "{init}|{main} {policy:?}"
                );
            }
        };
        check("", "w", [Pending, Pending, Pending]);
        check("", "rw", [Pending, Pending, Pending]);
        check("", "rr", [Running, Running, Running]);
        check("", "r1", [Running, Running, Running]);
        check("", "c", [Running, Running, Failed]);
        check("", "00", [Running, Succeeded, Succeeded]);
        check("", "01", [Running, Running, Failed]);
        check("r", "ww", [Pending, Pending, Pending]);
        check("1", "w", [Pending, Pending, Failed]);
        check("c", "w", [Pending, Pending, Failed]);
        check("0", "r", [Running, Running, Running]);
        check("0", "0", [Running, Succeeded, Succeeded]);
        check("s", "w", [Pending, Pending, Pending]);
        check("sf", "r", [Running, Running, Running]);
        check("f0s", "00", [Running, Succeeded, Succeeded]);
    }
}
