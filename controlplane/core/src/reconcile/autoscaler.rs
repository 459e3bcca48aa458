//! HorizontalPodAutoscalers: every 15 s each looks at what its workload's pods use, and sets its size.
//!
//! What it decides, and by which figures, is a command: `decide` checks it again, and it stays in the log. Source:
//! "Horizontal Pod Autoscaling" in the Kubernetes documentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{AUTOSCALER_PERIOD_MS, Command, HorizontalPodAutoscaler, Object, ObjectId};

use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::autoscale::{Look, look, read_figures, workload_pods};
use crate::decide::workload_size;
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Autoscalers {
    queue: Queue,
    /// The generation that was looked at last, and when the next look is due, milliseconds since the epoch.
    looked: BTreeMap<ObjectId, (u64, u64)>,
}

impl Reconciler for Autoscalers {
    fn name(&self) -> &'static str {
        "autoscaler"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.horizontal_pod_autoscalers().iter().for_each(|one| self.queue.mark(one.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let Object::HorizontalPodAutoscaler(autoscaler) = &change.object else { return };
        let id = autoscaler.meta.id;
        if change.change_type == ChangeType::Deleted {
            self.queue.forget(id);
            self.looked.remove(&id);
        } else {
            self.queue.mark(id);
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let found = view.state.horizontal_pod_autoscalers().get(id);
                let Some(autoscaler) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                let generation = autoscaler.meta.generation;
                // Agents have told a new leader what they know when one period is over.
                let first_ms = view.soft.leader_since_ms() + AUTOSCALER_PERIOD_MS;
                let due_ms = match this.looked.get(&id) {
                    Some((seen, due_ms)) if *seen == generation => (*due_ms).max(first_ms),
                    _ => first_ms,
                };
                if view.now_ms < due_ms {
                    this.queue.wake_at(id, due_ms);
                    return;
                }
                commands.extend(decide(view, autoscaler));
                let next_ms = view.now_ms + AUTOSCALER_PERIOD_MS;
                this.looked.insert(id, (generation, next_ms));
                this.queue.wake_at(id, next_ms);
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

/// One look; a command when it says something new.
fn decide(view: &View<'_>, autoscaler: &Arc<HorizontalPodAutoscaler>) -> Option<Command> {
    let HorizontalPodAutoscaler { meta, spec, status } = &**autoscaler;
    let namespace = meta.namespace.as_ref();
    let replicas = workload_size(view.state, &spec.target, namespace);
    let mut metrics = Vec::new();
    if let (Some(replicas), Some(id)) =
        (replicas.filter(|size| *size > 0), view.state.find(spec.target.kind, namespace, &spec.target.name))
    {
        let pods = workload_pods(view.state, spec.target.kind, id);
        let read = |metric| read_figures(autoscaler, metric, &pods, view.soft, view.now_ms, replicas);
        metrics = spec.metrics.iter().map(read).collect();
    }
    let seen = Look { spec, generation: meta.generation, status, now_ms: view.now_ms, replicas };
    let decision = look(&seen, metrics);
    let (autoscaler, generation, to, status) = (meta.id, meta.generation, decision.to, decision.status);
    decision.is_news.then_some(Command::Autoscale { autoscaler, generation, from: replicas, to, status })
}
