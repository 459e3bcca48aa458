//! Intents: what should run on one node, read from State.

use bulkhead_types::{
    Deletion, ENV_JOB_COMPLETION_INDEX, EnvVar, Intent, Kind, ObjectId, Pod, PodIntent, PodSpec, Shared,
};
use uuid::Uuid;

use crate::{Change, State, owned_pod};

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
        spec: with_index(pod),
        // Why a pod ends is nothing to its agent.
        deletion: pod.meta.deletion.map(|deletion| Deletion { by_job: false, ..deletion }),
        ended: pod.status.phase.is_terminal(),
        unique: pod.is_unique(),
        trace_context: pod.meta.trace_context.clone(),
    }
}

/// The pod's spec; one of an indexed Job has its index in the environment of each container. All pods of the Job
/// share one spec but for that, so it is added here.
fn with_index(pod: &Pod) -> Shared<PodSpec> {
    let of_job = pod.meta.owner.is_some_and(|owner| owner.kind == Kind::Job);
    let Some(index) = owned_pod::completion_index(pod).filter(|_| of_job) else { return pod.spec.clone() };
    let mut spec = PodSpec::clone(&pod.spec);
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        if container.env.iter().all(|var| var.name != ENV_JOB_COMPLETION_INDEX) {
            let (name, value) = (ENV_JOB_COMPLETION_INDEX.to_owned(), index.to_string());
            container.env.push(EnvVar { name, value });
        }
    }
    Shared::new(spec)
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
