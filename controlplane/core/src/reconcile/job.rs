//! Jobs: pods that run to completion, replaced when they fail, until the job has succeeded or failed.
//!
//! Source: "Jobs" in the Kubernetes documentation. Ends of pods are counted by the commands that report them
//! (`decide/job_ends.rs`); this looks at the counts, and at the pods that have not ended.

mod backoff;
mod verdict;

use std::sync::Arc;

use bulkhead_types::{
    Command, ConditionStatus, JOB_COMPLETE, JOB_FAILED, JOB_FAILURE_TARGET, JOB_SUCCESS_CRITERIA_MET,
    JOB_SUSPENDED, Job, JobStatus, Kind, Name, Object, ObjectId, ObjectMeta, ObjectStatus, OwnerRef, Pod,
    PodStamp, Rejection,
};
use smol_str::SmolStr;

use self::verdict::Verdict;
use super::blocked::{self, Blocked, stamp_refusal};
use super::{Queue, Reconciler, View, is_active, names, work_off};
use crate::conditions::set_condition;
use crate::decide::expires_at_ms;
use crate::job_pods::{JobPods, restarts};
use crate::{Change, ChangeType, State};

/// Pods created or deleted by one command, at most.
const PODS_PER_COMMAND: usize = 500;
/// Pods of one Job created or deleted per run, at most.
const PODS_PER_RUN: usize = 4000;
/// Names tried for each pod.
const NAME_TRIES: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    queue: Queue,
    blocked: Blocked,
}

/// Whether a change of a pod matters to its Job.
fn matters(former: &Pod, present: &Pod) -> bool {
    is_active(former) != is_active(present)
        || former.status.phase != present.status.phase
        || former.status.ready != present.status.ready
        || restarts(former) != restarts(present)
}

impl Reconciler for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.jobs().iter().for_each(|job| self.queue.mark(job.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        match (&change.object, &change.former) {
            (Object::Job(job), _) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(job.meta.id);
            }
            (Object::Job(job), _) => self.queue.mark(job.meta.id),
            (Object::Pod(pod), former) => {
                let Some(owner) = pod.meta.owner.filter(|owner| owner.kind == Kind::Job) else { return };
                let passed_over = match former {
                    Some(Object::Pod(former)) if change.change_type == ChangeType::Modified => {
                        !matters(former, pod)
                    }
                    _ => false,
                };
                if !passed_over {
                    self.queue.mark(owner.id);
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some(job) = view.state.jobs().get(id).filter(|job| stays(view.state, &job.meta)) else {
                    return;
                };
                let wake_at_ms = match expires_at_ms(job) {
                    Some(at_ms) if at_ms <= view.now_ms => {
                        commands.push(Command::CollectGarbage { objects: vec![(Kind::Job, id)] });
                        return;
                    }
                    expires_at_ms => {
                        let (wake_at_ms, waits) = Pass::new(view, job).run(commands);
                        let place = (id, job.meta.namespace.as_ref());
                        this.blocked.set(&mut this.queue, view, place, waits);
                        wake_at_ms.or(expires_at_ms)
                    }
                };
                if let Some(at_ms) = wake_at_ms {
                    this.queue.wake_at(id, at_ms);
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

/// Whether an object and everything above it stay: else what it owns is the garbage collector's.
pub(super) fn stays(state: &State, meta: &ObjectMeta) -> bool {
    let orphan = meta.owner.is_some_and(|owner| state.object(owner.kind, owner.id).is_none());
    let namespace = meta.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let namespace = namespace.and_then(|id| state.namespaces().get(id));
    !orphan && !meta.is_deleting() && namespace.is_some_and(|ns| !ns.meta.is_deleting())
}

/// One look at one Job.
struct Pass<'a> {
    view: &'a View<'a>,
    job: &'a Arc<Job>,
    pods: JobPods,
    /// The Job as it is once what this pass finds is said of it.
    status: JobStatus,
    wake_at_ms: Option<u64>,
    /// Why the next pod does not fit, if it does not.
    refusal: Option<Rejection>,
}

impl<'a> Pass<'a> {
    fn new(view: &'a View<'a>, job: &'a Arc<Job>) -> Self {
        let pods = JobPods::of(view.state, job);
        let status = JobStatus {
            observed_generation: job.meta.generation,
            active: pods.active,
            ready: pods.ready,
            terminating: pods.terminating,
            ..job.status.clone()
        };
        Self { view, job, pods, status, wake_at_ms: None, refusal: None }
    }

    /// Says what is to be done; returns when to look again, and whether it waits for room in a quota.
    fn run(mut self, commands: &mut Vec<Command>) -> (Option<u64>, bool) {
        if self.job.end().is_none() {
            let verdict = verdict::find(self.job, &self.pods, self.view.now_ms);
            match verdict {
                Some(verdict) => self.end(&verdict, commands),
                None if self.job.spec.suspend => self.suspend(commands),
                None => self.go_on(commands),
            }
            match &self.refusal {
                Some(refusal) => blocked::tell(&mut self.status.conditions, refusal, self.view.now_ms),
                None => blocked::untell(&mut self.status.conditions),
            }
        }
        if self.status != self.job.status {
            let status = ObjectStatus::Job(self.status);
            commands.push(Command::SetStatus { id: self.job.meta.id, status });
        }
        (self.wake_at_ms, self.refusal.is_some())
    }

    /// The job's result is certain: its pods end, then it is told.
    fn end(&mut self, verdict: &Verdict, commands: &mut Vec<Command>) {
        let (target, last) = match verdict.success {
            true => (JOB_SUCCESS_CRITERIA_MET, JOB_COMPLETE),
            false => (JOB_FAILURE_TARGET, JOB_FAILED),
        };
        let Verdict { reason, message, .. } = verdict;
        self.set((target, ConditionStatus::True), reason, message);
        if self.pods.active == 0 && self.pods.terminating == 0 {
            self.set((last, ConditionStatus::True), reason, message);
            if verdict.success {
                self.status.completed_at_ms = self.view.now_ms;
            }
        } else if self.job.verdict().is_some() {
            let reason = if verdict.success { "JobComplete" } else { "JobFailed" };
            self.delete_surplus(reason, commands);
        }
    }

    fn suspend(&mut self, commands: &mut Vec<Command>) {
        self.status.started_at_ms = 0;
        self.set((JOB_SUSPENDED, ConditionStatus::True), "JobSuspended", "Job suspended");
        self.delete_surplus("JobSuspended", commands);
    }

    fn go_on(&mut self, commands: &mut Vec<Command>) {
        if self.job.status.condition(JOB_SUSPENDED).is_some() {
            self.set((JOB_SUSPENDED, ConditionStatus::False), "JobResumed", "Job resumed");
        }
        // Not before its log time: what follows from it is checked by that.
        if self.status.started_at_ms == 0 {
            self.status.started_at_ms = self.view.now_ms;
        }
        if let Some(limit_ms) = self.job.spec.active_deadline_ms {
            self.look_at(self.status.started_at_ms.saturating_add(limit_ms));
        }
        self.delete_surplus("TooManyActivePods", commands);
        if self.pods.room > 0 {
            self.create(commands);
        }
    }

    fn create(&mut self, commands: &mut Vec<Command>) {
        let room = (self.pods.room as usize).min(PODS_PER_RUN);
        let found = backoff::ready_for_pods(self.job, &self.pods, room, self.view.now_ms);
        found.next_ms.into_iter().for_each(|at_ms| self.look_at(at_ms));
        let stamps = self.stamps(&found.places);
        if let Some(first) = stamps.first() {
            self.refusal = stamp_refusal(self.view.state, &Object::Job(Arc::clone(self.job)), first);
            if self.refusal.is_some() {
                return;
            }
        }
        let owner = OwnerRef { kind: Kind::Job, id: self.job.meta.id };
        let generation = self.job.meta.generation;
        for pods in stamps.chunks(PODS_PER_COMMAND) {
            commands.push(Command::CreateOwnedPods { owner, generation, pods: pods.to_vec() });
        }
    }

    /// Names that no pod has, derived from the job and the revision.
    fn stamps(&self, places: &[Option<u32>]) -> Vec<PodStamp> {
        let (state, meta) = (self.view.state, &self.job.meta);
        let is_free = |name: &Name| state.find(Kind::Pod, meta.namespace.as_ref(), name).is_none();
        let name = |position: u64, index: Option<u32>| {
            let seed = |attempt: u64| (meta.id, state.revision(), position, attempt);
            let made = (0..NAME_TRIES).map(|attempt| names::job_pod_name(&meta.name, index, &seed(attempt)));
            made.into_iter().find(is_free)
        };
        let stamp = |(position, index): (usize, &Option<u32>)| {
            let name = name(position as u64, *index)?;
            Some(PodStamp { name, index: *index, node: None, revision: None })
        };
        places.iter().enumerate().filter_map(stamp).collect()
    }

    fn delete_surplus(&self, reason: &'static str, commands: &mut Vec<Command>) {
        let surplus: &[ObjectId] = &self.pods.surplus;
        for pods in surplus[..surplus.len().min(PODS_PER_RUN)].chunks(PODS_PER_COMMAND) {
            commands.push(Command::DeletePods {
                pods: pods.to_vec(),
                surplus_of: Some(self.job.meta.id),
                reason: SmolStr::new_static(reason),
            });
        }
    }

    fn set(&mut self, condition: (&'static str, ConditionStatus), reason: &str, message: &str) {
        set_condition(&mut self.status.conditions, self.view.now_ms, condition, reason, message);
    }

    fn look_at(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |present| present.min(at_ms)));
    }
}
