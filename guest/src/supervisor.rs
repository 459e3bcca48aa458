//! Which container runs when: the whole decision logic of the guest, without IO.
//!
//! ```text
//!  Begin ─► init 0 ─► init 1 ─► … ─► all containers ─► every one ended for good ─► PowerOff
//!             │ failed: back-off and again, or (Never) the pod fails
//!  Ended ─► restart policy ─► at once (first time), then 10 s, 20 s, … 300 s after each end
//!  Stop  ─► SIGTERM to all ─► grace ─► SIGKILL to all ─► PowerOff
//! ```
//!
//! Entry points: [`Supervisor::handle`] and [`Supervisor::next_deadline_ms`]. The time is a parameter.

use bulkhead_guest_protocol::guest::{ContainerState, ContainerStateKind, GuestMessage, PodPhase, PodState};
use bulkhead_guest_protocol::host::{PodConfig, RestartPolicy};

/// Kubernetes' first back-off delay (kubelet: 10 s).
const BACKOFF_BASE_MS: u64 = 10_000;
/// Kubernetes' largest back-off delay (kubelet: 5 min).
const BACKOFF_MAX_MS: u64 = 300_000;
/// After SIGKILL a process is gone at once unless the kernel holds it; power-off does not wait longer than this.
const KILL_WAIT_MS: u64 = 5_000;

/// Time as the loop read it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since boot; all decisions use this.
    pub(crate) monotonic_ms: u64,
    /// Unix time in milliseconds; only reported.
    pub(crate) wall_ms: u64,
}

/// Why a run of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Completed,
    Error,
    OomKilled,
    ContainerCannotRun,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::ContainerCannotRun => "ContainerCannotRun",
        }
    }
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit_code: i32,
    /// 0 if no signal ended it.
    pub(crate) signal: i32,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// What happened. `index` counts init containers first, then containers, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Begin,
    /// The process of the container executes its command.
    Started {
        index: usize,
    },
    /// The process is gone, or could not be made.
    Ended {
        index: usize,
        outcome: Outcome,
    },
    Stop {
        grace_ms: Option<u64>,
    },
    /// Time passed.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Start { index: usize, instance: u32 },
    Terminate { index: usize },
    Kill { index: usize },
    Report(GuestMessage),
    PowerOff { reason: &'static str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Never started.
    Pending,
    /// Start was ordered, the command does not execute yet.
    Starting,
    Running,
    BackingOff {
        until_ms: u64,
    },
    /// Ended, and will not start again unless something says so now.
    Ended,
}

impl Status {
    fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }
}

#[derive(Debug)]
struct Container {
    name: String,
    status: Status,
    restart_count: u32,
    /// Delay before the next restart; 0 until the first one.
    backoff_ms: u64,
    /// When it was started again last.
    restarted_at_ms: u64,
    started: Now,
    finished: Now,
    last: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
struct Stopping {
    kill_at_ms: u64,
    killed: bool,
}

/// The decision logic for one pod.
#[derive(Debug)]
pub(crate) struct Supervisor {
    containers: Vec<Container>,
    init_count: usize,
    policy: RestartPolicy,
    backoff_base_ms: u64,
    backoff_max_ms: u64,
    grace_ms: u64,
    phase: PodPhase,
    pod_reason: &'static str,
    pod_message: String,
    stopping: Option<Stopping>,
    powered_off: bool,
    actions: Vec<Action>,
}

impl Supervisor {
    pub(crate) fn new(pod: &PodConfig) -> Self {
        let or_default = |value, default| if value == 0 { default } else { value };
        let backoff_max_ms = or_default(pod.backoff_max_ms, BACKOFF_MAX_MS);
        let containers = pod.init_containers.iter().chain(&pod.containers).map(|config| Container {
            name: config.name.clone(),
            status: Status::Pending,
            restart_count: 0,
            backoff_ms: 0,
            restarted_at_ms: 0,
            started: Now::default(),
            finished: Now::default(),
            last: None,
        });
        Self {
            containers: containers.collect(),
            init_count: pod.init_containers.len(),
            policy: pod.restart_policy(),
            backoff_base_ms: or_default(pod.backoff_base_ms, BACKOFF_BASE_MS).min(backoff_max_ms),
            backoff_max_ms,
            grace_ms: pod.termination_grace_ms,
            phase: PodPhase::Initializing,
            pod_reason: "",
            pod_message: String::new(),
            stopping: None,
            powered_off: false,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened and says what to do.
    pub(crate) fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        if self.powered_off {
            return Vec::new();
        }
        match event {
            Event::Begin => self.begin(),
            Event::Started { index } => self.on_started(index, now),
            Event::Ended { index, outcome } => self.on_ended(index, outcome, now),
            Event::Stop { grace_ms } => self.stop(grace_ms, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, in monotonic milliseconds.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        if self.powered_off {
            return None;
        }
        match self.stopping {
            Some(Stopping { kill_at_ms, killed: false }) => Some(kill_at_ms),
            Some(Stopping { kill_at_ms, killed: true }) => Some(kill_at_ms + KILL_WAIT_MS),
            None => self
                .containers
                .iter()
                .filter_map(|c| match c.status {
                    Status::BackingOff { until_ms } => Some(until_ms),
                    _ => None,
                })
                .min(),
        }
    }

    /// Every container's state and then the pod's: the answer to a Hello.
    pub(crate) fn states(&self) -> Vec<GuestMessage> {
        let containers =
            (0..self.containers.len()).map(|index| GuestMessage::ContainerState(self.container_state(index)));
        containers.chain([GuestMessage::PodState(self.pod_state())]).collect()
    }

    /// How many containers there are, init containers included.
    pub(crate) fn container_count(&self) -> usize {
        self.containers.len()
    }

    fn begin(&mut self) {
        for index in 0..self.containers.len() {
            self.report(index);
        }
        self.report_pod();
        self.start_next_stage(0);
    }

    /// Starts the init container with this index, or all containers if there is none.
    fn start_next_stage(&mut self, index: usize) {
        if index < self.init_count {
            self.start(index);
            return;
        }
        self.phase = PodPhase::Running;
        self.report_pod();
        for index in self.init_count..self.containers.len() {
            self.start(index);
        }
    }

    fn start(&mut self, index: usize) {
        let container = &mut self.containers[index];
        assert!(!container.status.is_alive(), "container {} must not run twice", container.name);
        container.status = Status::Starting;
        self.actions.push(Action::Start { index, instance: container.restart_count });
    }

    fn restart(&mut self, index: usize, now: Now) {
        let container = &mut self.containers[index];
        container.restart_count += 1;
        container.restarted_at_ms = now.monotonic_ms;
        let doubled = container.backoff_ms.saturating_mul(2).min(self.backoff_max_ms);
        container.backoff_ms = doubled.max(self.backoff_base_ms);
        self.start(index);
    }

    fn on_started(&mut self, index: usize, now: Now) {
        let container = &mut self.containers[index];
        assert_eq!(
            container.status,
            Status::Starting,
            "container {} was not ordered to start",
            container.name
        );
        container.status = Status::Running;
        container.started = now;
        self.report(index);
        match self.stopping {
            // A signal that came before the command executed is lost: its process had no handler yet.
            Some(Stopping { killed: false, .. }) => self.actions.push(Action::Terminate { index }),
            Some(_) => self.actions.push(Action::Kill { index }),
            None => {}
        }
    }

    fn on_ended(&mut self, index: usize, outcome: Outcome, now: Now) {
        let container = &mut self.containers[index];
        assert!(container.status.is_alive(), "container {} ended without running", container.name);
        if container.status == Status::Starting {
            container.started = now;
        }
        container.status = Status::Ended;
        container.finished = now;
        let success = outcome.reason == Reason::Completed;
        container.last = Some(outcome);
        self.report(index);
        if self.stopping.is_some() {
            self.maybe_finish_stop();
        } else if index < self.init_count {
            self.on_init_ended(index, success, now);
        } else {
            self.on_main_ended(index, success, now);
        }
    }

    fn on_init_ended(&mut self, index: usize, success: bool, now: Now) {
        if success {
            self.start_next_stage(index + 1);
        } else if self.policy == RestartPolicy::Never {
            let name = &self.containers[index].name;
            self.pod_message = format!("init container {name} failed");
            self.end_pod(PodPhase::Failed, "InitContainerFailed", "Completed");
        } else {
            self.back_off(index, now);
        }
    }

    fn on_main_ended(&mut self, index: usize, success: bool, now: Now) {
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !success,
            RestartPolicy::Never | RestartPolicy::Unspecified => false,
        };
        if again {
            self.back_off(index, now);
        } else if self.containers[self.init_count..].iter().all(|c| c.status == Status::Ended) {
            let phase = if self.all_succeeded() { PodPhase::Succeeded } else { PodPhase::Failed };
            self.end_pod(phase, "", "Completed");
        }
    }

    /// The kubelet's rule: the first restart is immediate, the n-th waits for base * 2^(n-2) after the end; all is
    /// forgotten when the container ended later than twice the largest delay after its last restart.
    fn back_off(&mut self, index: usize, now: Now) {
        let forget_after_ms = self.backoff_max_ms.saturating_mul(2);
        let container = &mut self.containers[index];
        if now.monotonic_ms.saturating_sub(container.restarted_at_ms) > forget_after_ms {
            container.backoff_ms = 0;
        }
        if container.backoff_ms == 0 {
            self.restart(index, now);
            return;
        }
        container.status = Status::BackingOff { until_ms: now.monotonic_ms + container.backoff_ms };
        self.report(index);
    }

    fn tick(&mut self, now: Now) {
        if let Some(stopping) = &mut self.stopping {
            if !stopping.killed && now.monotonic_ms >= stopping.kill_at_ms {
                stopping.killed = true;
                self.signal_alive(|index| Action::Kill { index });
            } else if stopping.killed && now.monotonic_ms >= stopping.kill_at_ms + KILL_WAIT_MS {
                self.pod_message = "a process did not end after SIGKILL".into();
                self.end_pod(PodPhase::Failed, "Stopped", "Stopped");
            }
            return;
        }
        for index in 0..self.containers.len() {
            if let Status::BackingOff { until_ms } = self.containers[index].status
                && now.monotonic_ms >= until_ms
            {
                self.restart(index, now);
            }
        }
    }

    fn stop(&mut self, grace_ms: Option<u64>, now: Now) {
        let kill_at_ms = now.monotonic_ms.saturating_add(grace_ms.unwrap_or(self.grace_ms));
        match &mut self.stopping {
            Some(stopping) if !stopping.killed => stopping.kill_at_ms = stopping.kill_at_ms.min(kill_at_ms),
            Some(_) => {}
            None => {
                self.stopping = Some(Stopping { kill_at_ms, killed: false });
                for container in &mut self.containers {
                    if matches!(container.status, Status::BackingOff { .. }) {
                        container.status = Status::Ended;
                    }
                }
                self.signal_alive(|index| Action::Terminate { index });
                self.maybe_finish_stop();
            }
        }
        if !self.powered_off {
            self.tick(now);
        }
    }

    fn signal_alive(&mut self, action: impl Fn(usize) -> Action) {
        let alive = (0..self.containers.len()).filter(|&index| self.containers[index].status.is_alive());
        let signals: Vec<Action> = alive.map(action).collect();
        self.actions.extend(signals);
    }

    fn maybe_finish_stop(&mut self) {
        if self.containers.iter().any(|c| c.status.is_alive()) {
            return;
        }
        let phase = if self.all_succeeded() { PodPhase::Succeeded } else { PodPhase::Failed };
        self.end_pod(phase, "Stopped", "Stopped");
    }

    fn all_succeeded(&self) -> bool {
        self.containers.iter().all(|c| matches!(&c.last, Some(last) if last.reason == Reason::Completed))
    }

    fn end_pod(&mut self, phase: PodPhase, pod_reason: &'static str, reason: &'static str) {
        self.powered_off = true;
        self.phase = phase;
        self.pod_reason = pod_reason;
        self.report_pod();
        self.actions.push(Action::PowerOff { reason });
    }

    fn report(&mut self, index: usize) {
        let state = self.container_state(index);
        self.actions.push(Action::Report(GuestMessage::ContainerState(state)));
    }

    fn report_pod(&mut self) {
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

    fn container_state(&self, index: usize) -> ContainerState {
        let container = &self.containers[index];
        let last = container.last.as_ref();
        let last_reason = last.map_or("", |last| last.reason.as_str());
        let last_message = last.map_or("", |last| &last.message);
        let initializing = self.phase == PodPhase::Initializing && index >= self.init_count;
        let (kind, reason, message) = match container.status {
            Status::Pending if initializing => {
                (ContainerStateKind::Waiting, "PodInitializing", String::new())
            }
            Status::Pending | Status::Starting => {
                (ContainerStateKind::Waiting, "ContainerCreating", last_message.into())
            }
            Status::Running => (ContainerStateKind::Running, "", String::new()),
            Status::BackingOff { .. } => {
                let text = format!("back-off {} ms before the next start", container.backoff_ms);
                let text = if last_message.is_empty() { text } else { format!("{text}: {last_message}") };
                (ContainerStateKind::Waiting, "CrashLoopBackOff", text)
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
            message,
            started_at_ms: container.started.wall_ms,
            finished_at_ms: container.finished.wall_ms,
            started_monotonic_ms: container.started.monotonic_ms,
            finished_monotonic_ms: container.finished.monotonic_ms,
            init: index < self.init_count,
            last_reason: last_reason.into(),
        }
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
