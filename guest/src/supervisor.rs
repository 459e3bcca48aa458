//! Which container runs when, and what is asked of it: the whole decision logic of the guest, without IO.
//!
//! ```text
//!  Begin ─► init 0 ─► init 1 ─► … ─► all containers ─► every one ended for good ─► sidecars end ─► PowerOff
//!             │ failed: back-off and again, or (Never) the pod fails
//!  Started ─► hook ─► Running ─► startup probe ─► readiness and liveness probes            (checks.rs, prober.rs)
//!  Ended ─► restart policy ─► at once (first time), then 10 s, 20 s, … 300 s after each end
//!  Stop  ─► hooks ─► SIGTERM to all, sidecars last ─► grace ─► SIGKILL ─► PowerOff         (ends.rs)
//! ```
//!
//! Entry points: [`Supervisor::handle`] and [`Supervisor::next_deadline_ms`]. The time is a parameter.

mod checks;
mod container;
mod ends;
mod prober;
mod report;

use bulkhead_guest_protocol::guest::{GuestMessage, PodPhase};
use bulkhead_guest_protocol::host::{PodConfig, RestartPolicy};

use container::{Container, Status};
use ends::Closing;
pub(crate) use report::bounded;

/// Kubernetes' first back-off delay (kubelet: 10 s).
const BACKOFF_BASE_MS: u64 = 10_000;
/// Kubernetes' largest back-off delay (kubelet: 5 min).
const BACKOFF_MAX_MS: u64 = 300_000;
/// After SIGKILL a process is gone at once unless the kernel holds it; power-off does not wait longer than this.
const KILL_WAIT_MS: u64 = 5_000;
/// A container that had to wait for its hook, or for others, has at least this long from SIGTERM to SIGKILL (kubelet: 2 s).
const TERMINATION_MIN_MS: u64 = 2_000;

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

/// Something that is done with a running container by somebody else than the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Startup,
    Readiness,
    Liveness,
    PostStart,
    PreStop,
}

/// What happened. `index` counts init containers first, then containers, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It does not begin yet, and that is why.
    Preparing {
        message: String,
    },
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
    /// A task is done, well or not.
    Done {
        index: usize,
        task: Task,
        number: u64,
        outcome: Result<(), String>,
    },
    /// A probe was not done, as nobody was there to do it: it counts neither way.
    NotDone {
        index: usize,
        task: Task,
        number: u64,
    },
    Stop {
        grace_ms: Option<u64>,
    },
    /// The pod used more than it may, and ends for that.
    Evict {
        message: String,
    },
    /// What the container may use changed, and it must begin anew for that.
    Restart {
        index: usize,
    },
    /// Time passed.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Start {
        index: usize,
        instance: u32,
    },
    Terminate {
        index: usize,
    },
    Kill {
        index: usize,
    },
    /// Do this, and tell the end as [`Event::Done`] with the same number.
    Do {
        index: usize,
        task: Task,
        number: u64,
    },
    /// Its end matters no more: stop it, and tell nothing.
    Abandon {
        number: u64,
    },
    Report(GuestMessage),
    PowerOff {
        reason: &'static str,
    },
}

/// The decision logic for one pod.
#[derive(Debug)]
pub(crate) struct Supervisor {
    containers: Vec<Container>,
    init_count: usize,
    /// The init container that the next one waits for.
    init_at: usize,
    policy: RestartPolicy,
    backoff_base_ms: u64,
    backoff_max_ms: u64,
    grace_ms: u64,
    phase: PodPhase,
    pod_reason: &'static str,
    pod_message: String,
    closing: Option<Closing>,
    powered_off: bool,
    /// Numbers of tasks so far.
    tasks: u64,
    actions: Vec<Action>,
}

impl Supervisor {
    pub(crate) fn new(pod: &PodConfig) -> Self {
        let or_default = |value, default| if value == 0 { default } else { value };
        let backoff_max_ms = or_default(pod.backoff_max_ms, BACKOFF_MAX_MS);
        Self {
            containers: pod.init_containers.iter().chain(&pod.containers).map(Container::new).collect(),
            init_count: pod.init_containers.len(),
            init_at: 0,
            policy: pod.restart_policy(),
            backoff_base_ms: or_default(pod.backoff_base_ms, BACKOFF_BASE_MS).min(backoff_max_ms),
            backoff_max_ms,
            grace_ms: pod.termination_grace_ms,
            phase: PodPhase::Initializing,
            pod_reason: "",
            pod_message: String::new(),
            closing: None,
            powered_off: false,
            tasks: 0,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened and says what to do.
    pub(crate) fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        if self.powered_off {
            return Vec::new();
        }
        match event {
            Event::Preparing { message } => self.prepare(message),
            Event::Begin => self.begin(),
            Event::Started { index } => self.on_started(index, now),
            Event::Ended { index, outcome } => self.on_ended(index, outcome, now),
            Event::Done { index, task, number, outcome } => self.on_done(index, task, number, outcome, now),
            Event::NotDone { index, task, number } => self.on_not_done(index, task, number),
            Event::Stop { grace_ms } => self.stop(grace_ms, now),
            Event::Evict { message } => self.evict(message, now),
            Event::Restart { index } => self.restart_for_resize(index, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, in monotonic milliseconds.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        if self.powered_off {
            return None;
        }
        self.containers.iter().filter_map(|container| container.due_ms(self.closing.is_some())).min()
    }

    /// How many containers there are, init containers included.
    pub(crate) fn container_count(&self) -> usize {
        self.containers.len()
    }

    fn prepare(&mut self, message: String) {
        if self.pod_message != message {
            self.pod_message = message;
            self.report_pod();
        }
    }

    fn begin(&mut self) {
        self.pod_message.clear();
        for index in 0..self.containers.len() {
            self.report(index);
        }
        self.report_pod();
        self.start_next_stage(0);
    }

    /// Starts the init container with this index, or all containers if there is none.
    fn start_next_stage(&mut self, index: usize) {
        self.init_at = index;
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
        container.ended_because.clear();
        container.hook_failure.clear();
        self.actions.push(Action::Start { index, instance: container.restart_count });
    }

    /// A container that lives ends with its grace and starts again; one that does not begins with its new limits anyway.
    fn restart_for_resize(&mut self, index: usize, now: Now) {
        if self.closing.is_none() && self.containers[index].status.is_alive() {
            self.end_because(index, "its resources changed".to_owned(), self.grace_ms, now);
        }
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
        container.started = now;
        if container.ending.is_none() && container.post_start.is_some() {
            container.status = Status::PostStart;
            self.begin_hook(index, Task::PostStart, now);
            return;
        }
        self.run(index, now);
        self.repeat_signal(index);
    }

    /// The container counts as running from now on.
    fn run(&mut self, index: usize, now: Now) {
        self.containers[index].status = Status::Running;
        if self.containers[index].ending.is_none() {
            self.begin_probes(index, now);
        }
        self.report(index);
        self.pass_sidecar(index);
    }

    /// The init containers behind a sidecar start once it has started.
    fn pass_sidecar(&mut self, index: usize) {
        let container = &self.containers[index];
        if container.sidecar && container.started_up && self.init_at == index && self.closing.is_none() {
            self.start_next_stage(index + 1);
        }
    }

    fn on_ended(&mut self, index: usize, mut outcome: Outcome, now: Now) {
        let container = &mut self.containers[index];
        assert!(container.status.is_alive(), "container {} ended without running", container.name);
        if container.status == Status::Starting {
            container.started = now;
        }
        let success = outcome.reason == Reason::Completed;
        let forced = !container.ended_because.is_empty();
        for why in [&container.hook_failure, &container.ended_because] {
            outcome.message = joined(why, &outcome.message);
        }
        container.status = Status::Ended;
        container.finished = now;
        container.last = Some(outcome);
        container.ending = None;
        self.end_checks(index);
        self.report(index);
        if self.closing.is_some() {
            self.advance_ends(now);
            self.maybe_close();
        } else if self.containers[index].sidecar {
            self.back_off(index, now);
        } else if index < self.init_count {
            self.on_init_ended(index, success, now);
        } else {
            self.on_main_ended(index, success, forced, now);
        }
    }

    fn on_init_ended(&mut self, index: usize, success: bool, now: Now) {
        if success {
            self.start_next_stage(index + 1);
        } else if self.policy == RestartPolicy::Never {
            let message = format!("init container {} failed", self.containers[index].name);
            self.close(Closing::over(PodPhase::Failed, "InitContainerFailed", message), self.grace_ms, now);
        } else {
            self.back_off(index, now);
        }
    }

    fn on_main_ended(&mut self, index: usize, success: bool, forced: bool, now: Now) {
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !success || forced,
            RestartPolicy::Never | RestartPolicy::Unspecified => false,
        };
        if again {
            self.back_off(index, now);
        } else if self.containers[self.init_count..].iter().all(|c| c.status == Status::Ended) {
            self.close(Closing::over(self.outcome(), "", String::new()), self.grace_ms, now);
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
        for index in 0..self.containers.len() {
            if let Status::BackingOff { until_ms } = self.containers[index].status
                && now.monotonic_ms >= until_ms
            {
                self.restart(index, now);
            }
            self.tick_checks(index, now);
        }
        self.advance_ends(now);
        self.maybe_give_up(now);
    }

    /// Succeeded or Failed, by how everything but the sidecars ended.
    fn outcome(&self) -> PodPhase {
        let succeeded = self.containers.iter().all(|c| c.sidecar || c.succeeded());
        if succeeded { PodPhase::Succeeded } else { PodPhase::Failed }
    }
}

/// Two texts, with a colon between them where there are both.
fn joined(first: &str, second: &str) -> String {
    let parts: Vec<&str> = [first, second].into_iter().filter(|text| !text.is_empty()).collect();
    parts.join(": ")
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
