//! ElasticWorkloads: proposes that their replicas spread whenever they would. What changes is `decide`'s.

use std::collections::BTreeSet;

use bulkhead_types::{Command, Kind, Object, ObjectRef};

use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::elastic::plan;
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ElasticWorkloads {
    queue: Queue,
    /// Deployments that changed and may be some workload's source.
    sources: BTreeSet<ObjectRef>,
}

impl Reconciler for ElasticWorkloads {
    fn name(&self) -> &'static str {
        "elastic-workload"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.elastic_workloads().iter().for_each(|workload| self.queue.mark(workload.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        match &change.object {
            Object::ElasticWorkload(workload) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(workload.meta.id);
            }
            Object::ElasticWorkload(workload) => self.queue.mark(workload.meta.id),
            Object::Deployment(deployment) => match deployment.meta.owner {
                Some(owner) if owner.kind == Kind::ElasticWorkload => self.queue.mark(owner.id),
                Some(_) => {}
                None => _ = self.sources.insert(change.object.object_ref()),
            },
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        for source in std::mem::take(&mut self.sources) {
            if let Some(workload) = view.state.elastic_workload_of(&source) {
                self.queue.mark(workload.meta.id);
            }
        }
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |_, id, commands| {
                let found = view.state.elastic_workloads().get(id);
                let Some(workload) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                if !plan(view.state, workload, view.now_ms).is_empty() {
                    let generation = workload.meta.generation;
                    commands.push(Command::SpreadReplicas { workload: id, generation });
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}
