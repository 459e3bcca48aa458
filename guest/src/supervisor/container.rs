//! One container as the supervisor knows it.

use bulkhead_guest_protocol::host::{Check, CheckConfig, ContainerConfig, ProbeConfig};

use super::prober::Prober;
use super::{Now, Outcome, Task};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Never started.
    Pending,
    /// Start was ordered, the command does not execute yet.
    Starting,
    /// The command executes, the hook after the start is not done yet.
    PostStart,
    Running,
    BackingOff {
        until_ms: u64,
    },
    /// Ended, and will not start again unless something says so now.
    Ended,
}

impl Status {
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::PostStart | Self::Running)
    }
}

/// How a hook is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookKind {
    /// By somebody who tells its end.
    Task,
    /// By waiting.
    Sleep { sleep_ms: u64 },
}

impl HookKind {
    fn new(config: &CheckConfig) -> Self {
        match config.kind {
            Some(Check::Sleep(sleep)) => Self::Sleep { sleep_ms: sleep.sleep_ms },
            _ => Self::Task,
        }
    }
}

/// A hook that is not done yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    pub(super) task: Task,
    /// Its number, when somebody else does it.
    pub(super) number: Option<u64>,
    /// When it is over, when it is a sleep.
    pub(super) until_ms: Option<u64>,
}

/// How far the end of a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its hook before the end is not done yet.
    PreStop,
    /// Others end before it.
    Turn,
    /// It was asked to end.
    Terminated,
    /// It was killed.
    Killed { at_ms: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) kill_at_ms: u64,
    pub(super) stage: Stage,
    /// Some of the grace went by before it was asked to end.
    pub(super) waited: bool,
}

/// The probes of a container.
#[derive(Debug)]
pub(super) struct Probers {
    pub(super) startup: Option<Prober>,
    pub(super) readiness: Option<Prober>,
    pub(super) liveness: Option<Prober>,
}

impl Probers {
    /// The probe that asks by this task.
    pub(super) fn of(&mut self, task: Task) -> Option<&mut Prober> {
        match task {
            Task::Startup => self.startup.as_mut(),
            Task::Readiness => self.readiness.as_mut(),
            Task::Liveness => self.liveness.as_mut(),
            Task::PostStart | Task::PreStop => None,
        }
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        let all = [&self.startup, &self.readiness, &self.liveness];
        all.into_iter().flatten().filter_map(Prober::due_ms).min()
    }
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    /// An init container that runs beside the others.
    pub(super) sidecar: bool,
    pub(super) status: Status,
    pub(super) restart_count: u32,
    /// Delay before the next restart; 0 until the first one.
    pub(super) backoff_ms: u64,
    /// When it was started again last.
    pub(super) restarted_at_ms: u64,
    pub(super) started: Now,
    pub(super) finished: Now,
    pub(super) last: Option<Outcome>,
    pub(super) probers: Probers,
    /// The startup probe succeeded, or there is none.
    pub(super) started_up: bool,
    /// The readiness probe succeeds, or there is none.
    pub(super) serves: bool,
    /// Why it does not serve; may be empty.
    pub(super) unready_because: String,
    pub(super) post_start: Option<HookKind>,
    pub(super) pre_stop: Option<HookKind>,
    pub(super) hook: Option<Hook>,
    pub(super) ending: Option<Ending>,
    /// Why it is made to end while the pod goes on; empty when it is not.
    pub(super) ended_because: String,
    /// How its hook before the end failed; empty when it did not.
    pub(super) hook_failure: String,
}

impl Container {
    pub(super) fn new(config: &ContainerConfig) -> Self {
        let prober = |probe: &Option<ProbeConfig>| probe.as_ref().map(Prober::new);
        Self {
            name: config.name.clone(),
            sidecar: config.sidecar,
            status: Status::Pending,
            restart_count: 0,
            backoff_ms: 0,
            restarted_at_ms: 0,
            started: Now::default(),
            finished: Now::default(),
            last: None,
            probers: Probers {
                startup: prober(&config.startup_probe),
                readiness: prober(&config.readiness_probe),
                liveness: prober(&config.liveness_probe),
            },
            started_up: false,
            serves: false,
            unready_because: String::new(),
            post_start: config.post_start.as_ref().map(HookKind::new),
            pre_stop: config.pre_stop.as_ref().map(HookKind::new),
            hook: None,
            ending: None,
            ended_because: String::new(),
            hook_failure: String::new(),
        }
    }

    /// Whether it runs and its probes say that it serves.
    pub(super) fn is_ready(&self) -> bool {
        self.status == Status::Running && self.started_up && self.serves
    }

    /// Whether it ended well.
    pub(super) fn succeeded(&self) -> bool {
        matches!(&self.last, Some(last) if last.reason == super::Reason::Completed)
    }

    /// When time alone makes something happen, in monotonic milliseconds; `pod_ends` when all of it should end.
    pub(super) fn due_ms(&self, pod_ends: bool) -> Option<u64> {
        let back_off = match self.status {
            Status::BackingOff { until_ms } => Some(until_ms),
            _ => None,
        };
        let ending = self.ending.and_then(|ending| match ending.stage {
            Stage::Killed { at_ms } => pod_ends.then_some(at_ms.saturating_add(super::KILL_WAIT_MS)),
            _ => Some(ending.kill_at_ms),
        });
        let hook = self.hook.and_then(|hook| hook.until_ms);
        [back_off, ending, hook, self.probers.due_ms()].into_iter().flatten().min()
    }
}
