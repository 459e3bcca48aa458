//! VerticalPodAutoscalers: every minute each counts what its workload's containers use, says what they should request,
//! and lets one pod be replaced that is far from it.
//!
//! What it recommends is a command, and so is each eviction: `decide` checks both again, and they stay in the log. What
//! was measured is the leader's own; a compact copy of it is in the status, once an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    Command, Container, Kind, Object, ObjectId, Pod, UpdateMode, VERTICAL_PERIOD_MS, VerticalPodAutoscaler,
};

use super::job::stays;
use super::looks::Looks;
use super::{Reconciler, View, work_off};
use crate::autoscale::workload_pods;
use crate::disruption::refusing;
use crate::vertical::{Models, check_eviction, is_misfit, look};
use crate::{Change, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct VerticalAutoscalers {
    looks: Looks,
    models: BTreeMap<ObjectId, Models>,
}

impl Reconciler for VerticalAutoscalers {
    fn name(&self) -> &'static str {
        "vertical-autoscaler"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.vertical_pod_autoscalers().iter().for_each(|one| self.looks.queue.mark(one.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let Object::VerticalPodAutoscaler(vertical) = &change.object else { return };
        if self.looks.observe(change) {
            self.models.remove(&vertical.meta.id);
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.looks.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.looks.queue,
            |this, id, commands| {
                let found = view.state.vertical_pod_autoscalers().get(id);
                let Some(vertical) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                if !this.looks.begin(view, &vertical.meta, VERTICAL_PERIOD_MS) {
                    return;
                }
                let models = this.models.entry(id);
                let models = models.or_insert_with(|| Models::restore(&vertical.status, view.now_ms));
                commands.extend(decide(view, vertical, models));
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.looks.queue.next_wake_ms()
    }
}

/// One look: a recommendation when it says something new, and an eviction by the present one.
fn decide(view: &View<'_>, vertical: &Arc<VerticalPodAutoscaler>, models: &mut Models) -> Vec<Command> {
    let VerticalPodAutoscaler { meta, spec, .. } = &**vertical;
    let workload = view.state.find(spec.target.kind, meta.namespace.as_ref(), &spec.target.name);
    let pods = workload.map(|id| workload_pods(view.state, spec.target.kind, id)).unwrap_or_default();
    let template = workload.and_then(|id| template(view.state, spec.target.kind, id));
    models.observe(template.unwrap_or_default(), &pods, view.soft, view.now_ms);
    let status = look(vertical, models, !pods.is_empty(), view.now_ms);
    let recommend =
        status.map(|status| Command::Recommend { autoscaler: meta.id, generation: meta.generation, status });
    // Not by what nobody has applied yet: a pod that ends for a figure must find that figure in the State.
    let evict = victim(view, vertical, &pods).map(|pod| Command::Evict {
        pod: Object::Pod(Arc::clone(pod)).object_ref(),
        grace_ms: None,
        autoscaler: Some(meta.id),
    });
    recommend.into_iter().chain(evict).collect()
}

/// Pods that are tried in one look, at most, of those that are ready and of those that are not: what stands in one's way
/// mostly stands in the way of all.
const CANDIDATES_MAX: usize = 4;

/// The pod to replace now, if any: those that are no loss first, then the oldest.
fn victim<'a>(
    view: &View<'_>,
    vertical: &Arc<VerticalPodAutoscaler>,
    pods: &[&'a Arc<Pod>],
) -> Option<&'a Arc<Pod>> {
    if vertical.spec.update_mode != UpdateMode::Auto {
        return None;
    }
    let mut misfits: Vec<&Arc<Pod>> = pods.to_vec();
    misfits.retain(|pod| is_misfit(vertical, pod, view.now_ms));
    misfits.sort_unstable_by_key(|pod| pod.meta.id);
    let (ready, unready): (Vec<_>, Vec<_>) = misfits.into_iter().partition(|pod| pod.status.ready);
    let may_go = |pod: &&Arc<Pod>| {
        check_eviction(view.state, vertical, pod, view.now_ms).is_ok() && refusing(view.state, pod).is_none()
    };
    let mut candidates =
        unready.into_iter().take(CANDIDATES_MAX).chain(ready.into_iter().take(CANDIDATES_MAX));
    candidates.find(may_go)
}

/// The containers that new pods of a workload have.
fn template(state: &State, kind: Kind, id: ObjectId) -> Option<&[Container]> {
    let template = match kind {
        Kind::Deployment => &state.deployments.get(id)?.spec.template,
        Kind::StatefulSet => &state.stateful_sets.get(id)?.spec.template,
        Kind::DaemonSet => &state.daemon_sets.get(id)?.spec.template,
        _ => return None,
    };
    Some(&template.spec.containers)
}
