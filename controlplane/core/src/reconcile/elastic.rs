//! ElasticWorkloads: proposes that their replicas spread whenever they would. What changes is `decide`'s.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Command, ElasticWorkload, Object, ObjectId, ObjectRef};

use super::blocked::Blocked;
use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::elastic::{names_of, plan};
use crate::quota::REASON_FAILED_CREATE;
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ElasticWorkloads {
    queue: Queue,
    blocked: Blocked,
    /// Who looks at Deployments of these names, whether or not they are there.
    watched: BTreeMap<ObjectRef, BTreeSet<ObjectId>>,
}

impl ElasticWorkloads {
    fn watch(&mut self, workload: &ElasticWorkload) {
        for name in names_of(workload) {
            self.watched.entry(name).or_default().insert(workload.meta.id);
        }
    }

    fn forget(&mut self, workload: &ElasticWorkload) {
        for name in names_of(workload) {
            let Some(ids) = self.watched.get_mut(&name) else { continue };
            ids.remove(&workload.meta.id);
            if ids.is_empty() {
                self.watched.remove(&name);
            }
        }
    }
}

impl Reconciler for ElasticWorkloads {
    fn name(&self) -> &'static str {
        "elastic-workload"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for workload in state.elastic_workloads().iter() {
            self.watch(workload);
            self.queue.mark(workload.meta.id);
        }
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        match &change.object {
            Object::ElasticWorkload(workload) => {
                if let Some(Object::ElasticWorkload(former)) = &change.former {
                    self.forget(former);
                }
                if change.change_type == ChangeType::Deleted {
                    self.forget(workload);
                    self.queue.forget(workload.meta.id);
                } else {
                    self.watch(workload);
                    self.queue.mark(workload.meta.id);
                }
            }
            Object::Deployment(_) if !self.watched.is_empty() => {
                let ids = self.watched.get(&change.object.object_ref());
                ids.into_iter().flatten().for_each(|id| self.queue.mark(*id));
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
                let found = view.state.elastic_workloads().get(id);
                let Some(workload) = found.filter(|one| stays(view.state, &one.meta)) else { return };
                let waits = workload.status.conditions.iter().any(|c| c.reason == REASON_FAILED_CREATE);
                let place = (id, workload.meta.namespace.as_ref());
                this.blocked.set(&mut this.queue, view, place, waits);
                if !plan(view.state, workload, view.now_ms).is_empty() {
                    let generation = workload.meta.generation;
                    commands.push(Command::SpreadReplicas { workload: id, generation });
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}
