//! Operations on nodes: proposes the next step whenever there is one. What it is is `decide`'s; where an operation stands is
//! in its status, so any leader goes on with it.

use bulkhead_types::{Command, Object, POOLS_LEVEL};

use super::{Queue, Reconciler, View, work_off};
use crate::node_operation::step;
use crate::{Change, ChangeType, State};

/// How often an operation that goes on is looked at although nothing of it changed, in milliseconds: its nodes, their pods
/// and budgets may have.
const LOOK_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NodeOperations {
    queue: Queue,
}

impl Reconciler for NodeOperations {
    fn name(&self) -> &'static str {
        "node-operation"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        let active = state.node_operations().iter().filter(|one| !one.status.phase.is_terminal());
        active.for_each(|operation| self.queue.mark(operation.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let Object::NodeOperation(operation) = &change.object else { return };
        if change.change_type == ChangeType::Deleted || operation.status.phase.is_terminal() {
            self.queue.forget(operation.meta.id);
        } else {
            self.queue.mark(operation.meta.id);
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        if view.state.feature_level() < POOLS_LEVEL {
            return Vec::new();
        }
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some(operation) = view.state.node_operations().get(id) else { return };
                if operation.status.phase.is_terminal() {
                    return;
                }
                this.queue.wake_at(id, view.now_ms + LOOK_MS);
                if step(view.state, operation, view.now_ms).is_some() {
                    commands.push(Command::AdvanceNodeOperation { operation: id });
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}
