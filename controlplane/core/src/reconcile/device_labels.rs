//! Labels of nodes by their devices: proposes that a node gets them whenever it lacks any. What changes is `decide`'s.

use bulkhead_types::{Command, DEVICE_RULES_LEVEL, Object};

use super::{Queue, Reconciler, View, work_off};
use crate::devices::synced_labels;
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NodeLabels {
    /// Nodes to look at.
    queue: Queue,
    /// Whether all nodes with devices are to be looked at.
    all: bool,
}

impl Reconciler for NodeLabels {
    fn name(&self) -> &'static str {
        "device-labels"
    }

    fn reset(&mut self, state: &State) {
        *self = Self { all: !state.resource_slices().is_empty(), ..Self::default() };
    }

    fn observe(&mut self, change: &Change) {
        let is_gone = change.change_type == ChangeType::Deleted;
        match (&change.object, &change.former) {
            (Object::DeviceClass(class), former) => {
                let rule = |object: &Object| match object {
                    Object::DeviceClass(class) => class.spec.node_labels.get().is_some(),
                    _ => false,
                };
                self.all |= class.spec.node_labels.get().is_some() || former.as_ref().is_some_and(rule);
            }
            (Object::ResourceSlice(slice), Some(Object::ResourceSlice(former)))
                if !is_gone && slice.devices == former.devices => {}
            (Object::ResourceSlice(slice), _) => self.queue.mark(slice.node),
            (Object::Node(node), _) if is_gone => self.queue.forget(node.meta.id),
            (Object::Node(node), Some(Object::Node(former)))
                if node.meta.labels != former.meta.labels && node.status.device_labels.get().is_some() =>
            {
                self.queue.mark(node.meta.id);
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        if view.state.feature_level() < DEVICE_RULES_LEVEL {
            // What there is then is looked at with the classes that come with that level.
            *self = Self::default();
            return Vec::new();
        }
        self.queue.begin(view.now_ms);
        if std::mem::take(&mut self.all) {
            view.state.resource_slices().iter().for_each(|slice| self.queue.keep(slice.node));
        }
        work_off(
            self,
            |this| &mut this.queue,
            |_, id, commands| {
                let node = view.state.nodes().get(id);
                if node.is_some_and(|node| synced_labels(view.state, node).is_some()) {
                    commands.push(Command::SyncDeviceLabels { node: id });
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.all { Some(0) } else { self.queue.next_wake_ms() }
    }
}
