//! CronHorizontalPodAutoscalers: a run for each time of their schedules. What a run does is `decide`'s.

use bulkhead_schedule::Schedule;
use bulkhead_types::{Command, CronHorizontalPodAutoscaler, Object};
use smol_str::SmolStr;

use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::decide::last_cron_run;
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CronAutoscalers {
    queue: Queue,
}

impl Reconciler for CronAutoscalers {
    fn name(&self) -> &'static str {
        "cron-autoscaler"
    }

    fn reset(&mut self, state: &State) {
        self.queue = Queue::default();
        state.cron_horizontal_pod_autoscalers().iter().for_each(|one| self.queue.mark(one.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let Object::CronHorizontalPodAutoscaler(scaler) = &change.object else { return };
        match change.change_type {
            ChangeType::Deleted => self.queue.forget(scaler.meta.id),
            ChangeType::Added | ChangeType::Modified => self.queue.mark(scaler.meta.id),
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let found = view.state.cron_horizontal_pod_autoscalers().get(id);
                let Some(scaler) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                let (due, next_ms) = due(scaler, view.now_ms);
                let generation = scaler.meta.generation;
                commands.extend(due.into_iter().map(|(scheduled_ms, job)| Command::ScaleBySchedule {
                    scaler: id,
                    generation,
                    job,
                    scheduled_ms,
                }));
                if let Some(next_ms) = next_ms {
                    this.queue.wake_at(id, next_ms);
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

/// The last missed run of each job, in the order of their times, and when the next one is due. Times not after the last
/// run of any job are over: what came later holds.
fn due(scaler: &CronHorizontalPodAutoscaler, now_ms: u64) -> (Vec<(u64, SmolStr)>, Option<u64>) {
    let CronHorizontalPodAutoscaler { meta, spec, status } = scaler;
    let last_ms = status.runs.iter().map(|run| run.scheduled_ms).max().unwrap_or(0);
    let (mut due, mut next_ms) = (Vec::new(), None::<u64>);
    for job in &spec.jobs {
        let own = last_cron_run(status, &job.name);
        if job.run_once && own.is_some() {
            continue;
        }
        // What is in State was checked, but by a build that may have known other zones.
        let Ok(schedule) = Schedule::new(&job.schedule, spec.time_zone.as_deref()) else { continue };
        // Jobs of one time all run: the last one of the spec holds.
        let others_ms = last_ms.saturating_sub(u64::from(own.is_none_or(|run| run.scheduled_ms < last_ms)));
        let since_ms = meta.created_at_ms.max(others_ms);
        due.extend(schedule.last_between(since_ms, now_ms).map(|at_ms| (at_ms, job.name.clone())));
        next_ms = next_ms.into_iter().chain(schedule.next_after(now_ms)).min();
    }
    // A stable sort: jobs of one time keep their order.
    due.sort_by_key(|(at_ms, _)| *at_ms);
    (due, next_ms)
}
