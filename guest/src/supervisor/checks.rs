//! Probes and hooks: when they are done, and what their ends mean.

use super::container::{Hook, HookKind, Status};
use super::prober::Verdict;
use super::{Action, Now, Supervisor, Task};

/// The probes, in the order in which they are looked at.
const PROBES: [Task; 3] = [Task::Startup, Task::Readiness, Task::Liveness];

impl Task {
    /// Its name in texts.
    fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup probe",
            Self::Readiness => "readiness probe",
            Self::Liveness => "liveness probe",
            Self::PostStart => "postStart hook",
            Self::PreStop => "preStop hook",
        }
    }
}

impl Supervisor {
    fn next_number(&mut self) -> u64 {
        self.tasks += 1;
        self.tasks
    }

    /// A container runs: its startup probe begins and holds the others back, or there is none and they begin.
    pub(super) fn begin_probes(&mut self, index: usize, now: Now) {
        let container = &mut self.containers[index];
        container.started_up = container.probers.startup.is_none();
        container.serves = container.probers.readiness.is_none();
        container.unready_because.clear();
        let started_ms = container.started.monotonic_ms;
        let first = if container.started_up { &PROBES[1..] } else { &PROBES[..1] };
        for task in first {
            if let Some(prober) = container.probers.of(*task) {
                prober.start(started_ms, now.monotonic_ms);
            }
        }
    }

    /// Nothing more is asked of a container, and nothing that was matters any more.
    pub(super) fn end_checks(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let hook = container.hook.take().and_then(|hook| hook.number);
        let asked = PROBES.map(|task| container.probers.of(task).and_then(super::prober::Prober::stop));
        let abandoned = asked.into_iter().flatten().chain(hook);
        self.actions.extend(abandoned.map(|number| Action::Abandon { number }));
    }

    pub(super) fn begin_hook(&mut self, index: usize, task: Task, now: Now) {
        let container = &self.containers[index];
        let kind = if task == Task::PreStop { container.pre_stop } else { container.post_start };
        let hook = match kind.expect("only a hook that is there begins") {
            HookKind::Task => {
                let number = self.next_number();
                self.actions.push(Action::Do { index, task, number });
                Hook { task, number: Some(number), until_ms: None }
            }
            HookKind::Sleep { sleep_ms } => {
                Hook { task, number: None, until_ms: Some(now.monotonic_ms.saturating_add(sleep_ms)) }
            }
        };
        self.containers[index].hook = Some(hook);
    }

    /// Time passes for the probes and hooks of a container.
    pub(super) fn tick_checks(&mut self, index: usize, now: Now) {
        let now_ms = now.monotonic_ms;
        if let Some(hook) = self.containers[index].hook
            && hook.until_ms.is_some_and(|until_ms| now_ms >= until_ms)
        {
            self.hook_done(index, hook.task, Ok(()), now);
        }
        for task in PROBES {
            let Some(prober) = self.containers[index].probers.of(task) else { continue };
            if let Some(number) = prober.overdue(now_ms) {
                let text = format!("no answer within {} ms", prober.timeout_ms());
                self.actions.push(Action::Abandon { number });
                self.answered(index, task, Err(text), now);
            }
            let Some(prober) = self.containers[index].probers.of(task) else { continue };
            if prober.is_due(now_ms) {
                self.tasks += 1;
                let number = self.tasks;
                prober.ask(number, now_ms);
                self.actions.push(Action::Do { index, task, number });
            }
        }
    }

    /// A task is done; one that was abandoned has an old number.
    pub(super) fn on_done(
        &mut self,
        index: usize,
        task: Task,
        number: u64,
        outcome: Result<(), String>,
        now: Now,
    ) {
        let container = &mut self.containers[index];
        if container.hook.is_some_and(|hook| hook.number == Some(number)) {
            self.hook_done(index, task, outcome, now);
        } else if container.probers.of(task).is_some_and(|prober| prober.awaits(number)) {
            self.answered(index, task, outcome, now);
        }
    }

    /// A question was not asked: the next one comes with the next period.
    pub(super) fn on_not_done(&mut self, index: usize, task: Task, number: u64) {
        if let Some(prober) = self.containers[index].probers.of(task) {
            prober.withdraw(number);
        }
    }

    fn hook_done(&mut self, index: usize, task: Task, outcome: Result<(), String>, now: Now) {
        let container = &mut self.containers[index];
        container.hook = None;
        let failure = outcome.err().map(|text| super::joined(&format!("{} failed", task.as_str()), &text));
        match (task, failure) {
            (Task::PostStart, None) => self.run(index, now),
            (Task::PostStart, Some(failure)) => self.end_because(index, failure, self.grace_ms, now),
            (_, failure) => {
                container.hook_failure = failure.unwrap_or_default();
                self.advance_ends(now);
            }
        }
    }

    fn answered(&mut self, index: usize, task: Task, outcome: Result<(), String>, now: Now) {
        let Some(prober) = self.containers[index].probers.of(task) else { return };
        let verdict = prober.answer(outcome.is_ok());
        let (threshold, grace_ms) = (prober.failure_threshold(), prober.grace_ms());
        let times = if threshold == 1 { String::new() } else { format!(" {threshold} times") };
        let failure = || {
            let what = format!("{} failed{times}", task.as_str());
            super::joined(&what, outcome.as_ref().err().map_or("", String::as_str))
        };
        match (task, verdict) {
            (_, Verdict::None) => {}
            (Task::Startup, Verdict::Succeeded) => self.started_up(index, now),
            (Task::Readiness, verdict) => {
                let serves = verdict == Verdict::Succeeded;
                let because = if serves { String::new() } else { failure() };
                let container = &mut self.containers[index];
                (container.serves, container.unready_because) = (serves, because);
                self.report(index);
            }
            (_, Verdict::Succeeded) => {}
            (_, Verdict::Failed) => {
                let failure = failure();
                self.end_because(index, failure, grace_ms.unwrap_or(self.grace_ms), now);
            }
        }
    }

    /// The startup probe succeeded: the others begin, and what waits for the container.
    fn started_up(&mut self, index: usize, now: Now) {
        let container = &mut self.containers[index];
        assert_eq!(container.status, Status::Running, "only a container that runs is asked");
        container.started_up = true;
        let started_ms = container.started.monotonic_ms;
        for task in PROBES {
            match (task, container.probers.of(task)) {
                (_, None) => {}
                (Task::Startup, Some(prober)) => {
                    prober.stop();
                }
                (_, Some(prober)) => prober.start(started_ms, now.monotonic_ms),
            }
        }
        self.report(index);
        self.pass_sidecar(index);
    }
}
