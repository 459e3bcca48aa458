//! HorizontalPodAutoscalers: every 15 s each looks at what its workload's pods use, and sets its size.
//!
//! What it decides, and by which figures, is a command: `decide` checks it again, and it stays in the log. Source:
//! "Horizontal Pod Autoscaling" in the Kubernetes documentation.

use std::sync::Arc;

use bulkhead_types::{AUTOSCALER_PERIOD_MS, Command, HorizontalPodAutoscaler, Object};

use super::job::stays;
use super::looks::Looks;
use super::{Reconciler, View, work_off};
use crate::autoscale::{Look, look, read_figures, workload_pods};
use crate::decide::workload_size;
use crate::{Change, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Autoscalers {
    looks: Looks,
}

impl Reconciler for Autoscalers {
    fn name(&self) -> &'static str {
        "autoscaler"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.horizontal_pod_autoscalers().iter().for_each(|one| self.looks.queue.mark(one.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        if let Object::HorizontalPodAutoscaler(_) = &change.object {
            self.looks.observe(change);
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.looks.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.looks.queue,
            |this, id, commands| {
                let found = view.state.horizontal_pod_autoscalers().get(id);
                let Some(autoscaler) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                if this.looks.begin(view, &autoscaler.meta, AUTOSCALER_PERIOD_MS) {
                    commands.extend(decide(view, autoscaler));
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.looks.queue.next_wake_ms()
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
