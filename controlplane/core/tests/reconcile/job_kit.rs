//! Jobs and CronJobs for tests, and how their pods end.

use std::sync::Arc;

use bulkhead_types::{
    Command, CompletionMode, ContainerState, ContainerStatus, ContainerTermination, CronJob, CronJobSpec,
    Job, JobSpec, JobTemplate, Kind, Object, ObjectId, ObjectMeta, Pod, PodPhase, PodReplacementPolicy,
    PodReport, PodStatus, RestartPolicy, StringMap,
};

use crate::kit::{Cluster, name, pod_spec, reference, template};

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    /// With an exit code.
    Fails(i32),
    /// Its agent says that nothing is left, as after a deletion.
    Gone,
}

/// A cluster with two nodes.
pub fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster
}

pub fn job_spec(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = pod_spec("job:1", 100, 64 << 20);
    spec.restart_policy = RestartPolicy::Never;
    let mut spec = JobSpec {
        parallelism: 1,
        completions: Some(1),
        completion_mode: CompletionMode::NonIndexed,
        backoff_limit: 6,
        backoff_limit_per_index: None,
        max_failed_indexes: None,
        active_deadline_ms: None,
        ttl_after_finished_ms: None,
        suspend: false,
        pod_replacement_policy: PodReplacementPolicy::TerminatingOrFailed,
        pod_failure_policy: Vec::new(),
        success_policy: Vec::new(),
        template: template("job", spec),
    };
    change(&mut spec);
    spec
}

pub fn job(app: &str, change: impl FnOnce(&mut JobSpec)) -> Object {
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::Job(Arc::new(Job { meta, spec: job_spec(change), status: Default::default() }))
}

pub fn cron_job(app: &str, schedule: &str, change: impl FnOnce(&mut CronJobSpec)) -> Object {
    let mut spec = CronJobSpec {
        schedule: schedule.into(),
        time_zone: None,
        concurrency_policy: Default::default(),
        starting_deadline_ms: None,
        suspend: false,
        successful_jobs_history_limit: 3,
        failed_jobs_history_limit: 1,
        job_template: JobTemplate {
            labels: StringMap::new(),
            annotations: StringMap::new(),
            spec: job_spec(|_| ()),
        },
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::CronJob(Arc::new(CronJob { meta, spec, status: Default::default() }))
}

impl Cluster {
    pub fn get_job(&self, app: &str) -> Arc<Job> {
        match self.state().find_object(&reference(Kind::Job, app)) {
            Some(Object::Job(job)) => job,
            _ => panic!("no Job {app}"),
        }
    }

    pub fn get_cron_job(&self, app: &str) -> Arc<CronJob> {
        match self.state().find_object(&reference(Kind::CronJob, app)) {
            Some(Object::CronJob(job)) => job,
            _ => panic!("no CronJob {app}"),
        }
    }

    /// A Job's active pods, in id order.
    pub fn job_pods(&self, app: &str) -> Vec<Arc<Pod>> {
        let id = self.get_job(app).meta.id;
        self.active_pods().into_iter().filter(|pod| pod.meta.owner.is_some_and(|o| o.id == id)).collect()
    }

    /// `active/succeeded/failed`, then the conditions that hold with their reasons.
    pub fn job_line(&self, app: &str) -> String {
        let job = self.get_job(app);
        let status = &job.status;
        let mut line = format!("{}/{}/{}", status.active, status.succeeded, status.failed);
        for c in &job.status.conditions {
            let no = if c.status == bulkhead_types::ConditionStatus::True { "" } else { "!" };
            line += &format!(" {no}{}({})", c.condition_type, c.reason);
        }
        line
    }

    /// How the pods of a node end, all in one report.
    pub fn fates(&mut self, fates: &[(ObjectId, Fate)]) {
        let node = self.state().pods().get(fates[0].0).and_then(|pod| pod.node);
        let Some(node) = node.and_then(|node| self.state().nodes().get(node)).cloned() else { return };
        let mut reports = Vec::new();
        for (pod, fate) in fates {
            self.sequence += 1;
            let state = match fate {
                Fate::Succeeds => terminated(0),
                Fate::Fails(code) => terminated(*code),
                Fate::Gone => ContainerState::Running { started_at_ms: 1 },
            };
            let phase = match fate {
                Fate::Succeeds => PodPhase::Succeeded,
                Fate::Fails(_) => PodPhase::Failed,
                Fate::Gone => PodPhase::Running,
            };
            let status = PodStatus { phase, containers: vec![container(state, 0)], ..PodStatus::default() };
            let (sequence, gone) = (self.sequence, *fate == Fate::Gone);
            reports.push(PodReport { pod: *pod, sequence, status, gone });
        }
        let incarnation = node.status.incarnation;
        self.ok(Command::ReportPods { node: node.meta.id, incarnation, reports });
    }

    pub fn fate(&mut self, pod: ObjectId, fate: Fate) {
        self.fates(&[(pod, fate)]);
    }

    /// All active pods of a Job end like this.
    pub fn all_end(&mut self, app: &str, fate: Fate) {
        for pod in self.job_pods(app) {
            self.fate(pod.meta.id, fate);
        }
        self.settle();
    }

    /// Time passes at once, and every node is heard after it.
    pub fn leap(&mut self, ms: u64) {
        self.now_ms += ms;
        let nodes: Vec<_> = self.state().nodes().iter().map(|node| node.meta.id).collect();
        nodes.into_iter().for_each(|node| self.soft.heartbeat(node, self.now_ms, self.up_ms()));
        self.settle();
    }

    /// What was asked to end is gone.
    pub fn stop_all(&mut self) {
        let ending: Vec<_> =
            self.state().pods().iter().filter(|p| p.meta.is_deleting()).map(|p| p.meta.id).collect();
        ending.into_iter().for_each(|pod| self.fate(pod, Fate::Gone));
        self.settle();
    }
}

pub fn container(state: ContainerState, restart_count: u32) -> ContainerStatus {
    ContainerStatus {
        name: "main".into(),
        state,
        last_termination: None,
        restart_count,
        ready: false,
        image_digest: "".into(),
    }
}

fn terminated(exit_code: i32) -> ContainerState {
    ContainerState::Terminated(Box::new(ContainerTermination {
        exit_code,
        signal: 0,
        reason: "Error".into(),
        message: String::new(),
        started_at_ms: 1,
        finished_at_ms: 2,
    }))
}
