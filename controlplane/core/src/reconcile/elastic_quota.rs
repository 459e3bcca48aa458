//! What the elastic quota tree says of its use. Nothing relies on it: `decide` looks for itself.

use bulkhead_types::{
    Command, ElasticQuotaTree, ElasticQuotaTreeStatus, ElasticQuotaUse, Object, ObjectStatus, QuotaAmounts,
};

use super::{Queue, Reconciler, View, work_off};
use crate::{Change, ChangeType, State};

/// The tree is told no more often than so, in milliseconds.
const TELL_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ElasticQuotas {
    queue: Queue,
    /// Whether there is a tree.
    is_there: bool,
    /// A pod came, went, or got a node.
    touched: bool,
    /// When it was told last, milliseconds since the epoch.
    told_ms: u64,
}

impl Reconciler for ElasticQuotas {
    fn name(&self) -> &'static str {
        "elastic-quota"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for tree in state.elastic_quota_trees().iter() {
            self.is_there = true;
            self.queue.mark(tree.meta.id);
        }
    }

    fn observe(&mut self, change: &Change) {
        match &change.object {
            Object::ElasticQuotaTree(tree) => {
                self.is_there = change.change_type != ChangeType::Deleted;
                match self.is_there {
                    true => self.queue.mark(tree.meta.id),
                    false => self.queue.forget(tree.meta.id),
                }
            }
            Object::Pod(_) | Object::DeviceClass(_) => self.touched |= self.is_there,
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        if std::mem::take(&mut self.touched) {
            view.state.elastic_quota_trees().iter().for_each(|tree| self.queue.keep(tree.meta.id));
        }
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some(tree) = view.state.elastic_quota_trees().get(id) else { return };
                let status = status_of(view.state, tree);
                if status == tree.status {
                    return;
                }
                let is_seen = status.observed_generation == tree.status.observed_generation;
                let next_ms = this.told_ms + TELL_MS;
                if is_seen && view.now_ms < next_ms {
                    this.queue.wake_at(id, next_ms);
                    return;
                }
                this.told_ms = view.now_ms;
                commands.push(Command::SetStatus { id, status: ObjectStatus::ElasticQuotaTree(status) });
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.touched { Some(0) } else { self.queue.next_wake_ms() }
    }
}

fn status_of(state: &State, tree: &ElasticQuotaTree) -> ElasticQuotaTreeStatus {
    let root = &tree.spec.root;
    let levels = root.levels().enumerate().map(|(key, (_, level))| {
        let used = root.max.iter().map(|(resource, _)| {
            let levels = state.elastic_use.levels();
            let at = levels.and_then(|all| all.measures.iter().position(|one| one == resource.measure()));
            let sum = at.and_then(|at| state.elastic_use.placed.get(&(key as u32)).map(|sum| sum[at]));
            (resource.clone(), u64::try_from(sum.unwrap_or(0)).unwrap_or(u64::MAX))
        });
        ElasticQuotaUse { name: level.name.clone(), used: used.collect::<QuotaAmounts>() }
    });
    ElasticQuotaTreeStatus { observed_generation: tree.meta.generation, levels: levels.collect() }
}
