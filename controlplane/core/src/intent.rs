//! Intents: what should run on one node, read from State.

use bulkhead_types::{Intent, ObjectId, Pod, PodIntent};
use uuid::Uuid;

use crate::{Change, State};

/// What should run on a node now; `None` when there is no such node.
#[must_use]
pub fn intent_of(state: &State, node: ObjectId) -> Option<Intent> {
    let incarnation = state.nodes().get(node)?.status.incarnation;
    let cluster_id = state.cluster_id()?;
    let pods = state.pods_on(node).map(|pod| pod_intent(pod, cluster_id)).collect();
    Some(Intent { node, incarnation, generation: state.revision(), pods })
}

fn pod_intent(pod: &Pod, cluster_id: Uuid) -> PodIntent {
    PodIntent {
        id: pod.meta.id,
        uid: pod.meta.id.uid(cluster_id),
        namespace: pod.meta.namespace.clone().expect("pods live in a namespace"),
        name: pod.meta.name.clone(),
        spec: pod.spec.clone(),
        deletion: pod.meta.deletion.as_deref().copied(),
        ended: pod.status.phase.is_terminal(),
        unique: pod.is_unique(),
        trace_context: pod.meta.trace_context.clone(),
    }
}

/// The node whose intent a change touches, if any.
#[must_use]
pub fn node_touched(change: &Change) -> Option<ObjectId> {
    use bulkhead_types::Object;
    let touched = |object: &Object| match object {
        Object::Pod(pod) => pod.node,
        Object::Node(node) => Some(node.meta.id),
        _ => None,
    };
    let changed = match (&change.object, &change.former) {
        // A status report does not change what should run, unless the pod ended by it.
        (Object::Pod(present), Some(Object::Pod(former))) => {
            present.node != former.node
                || present.meta.deletion != former.meta.deletion
                || present.status.phase.is_terminal() != former.status.phase.is_terminal()
                || matches!(change.change_type, crate::ChangeType::Deleted)
        }
        (Object::Node(present), Some(Object::Node(former))) => {
            present.status.incarnation != former.status.incarnation
        }
        _ => true,
    };
    changed.then(|| touched(&change.object)).flatten()
}
