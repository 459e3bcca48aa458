//! What every object carries.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Kind, Managers, Name, ObjectId, Rare, Revision, StringMap};

/// The label that ties a pod to its ReplicaSet's template (Kubernetes' name).
pub const LABEL_POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The well-known label with a node's name.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// The label of a node whose agent guards guests that must be unique (`true`): see [`crate::NodeFacts::guards_unique`].
pub const LABEL_FENCE_GUARD: &str = "bulkhead.io/fence-guard";
/// The annotation with which `rollout restart` makes a template new.
pub const ANNOTATION_RESTARTED_AT: &str = "bulkhead.io/restartedAt";
/// The annotation that explains a rollout in `rollout history` (Kubernetes' name).
pub const ANNOTATION_CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// The annotation of a pod of which at most one instance may ever live, when it is `true`: its node ends it when the
/// lease runs out, and it is over once the node is fenced. A template hands it on to its pods; a pod keeps what it was
/// created with.
pub const ANNOTATION_UNIQUE: &str = "bulkhead.io/unique";
/// Most labels, or annotations, of one object.
pub const LABELS_MAX: usize = 256;
/// Most bytes of all annotations of one object together (Kubernetes' limit).
pub const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// An object's standard metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// The name, unique per kind and namespace at a time.
    pub name: Name,
    /// The namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<Name>,
    /// The compact key; never reused. Zero in a submitted object.
    pub id: ObjectId,
    /// The revision of the last change (`metadata.resourceVersion`). Zero in a submitted object.
    pub revision: Revision,
    /// Counts changes of the spec, from 1. Zero in a submitted object.
    pub generation: u64,
    /// Log time of creation, milliseconds since the epoch. Zero in a submitted object.
    pub created_at_ms: u64,
    /// Set once somebody asked for deletion.
    pub deletion: Option<Box<Deletion>>,
    /// Labels, for selection.
    pub labels: StringMap,
    /// Annotations, for everything else.
    pub annotations: StringMap,
    /// The controlling owner; the object goes when the owner goes.
    pub owner: Option<OwnerRef>,
    /// W3C `traceparent` of the command that last changed the spec; inherited by what the object owns.
    pub trace_context: Option<SmolStr>,
    /// Who manages which fields. Missing: nobody has applied or changed the object since its creation.
    #[serde(default)]
    pub managers: Rare<Managers>,
}

impl ObjectMeta {
    /// Metadata as a client submits it: a name, and everything else unset.
    #[must_use]
    pub fn new(namespace: Option<Name>, name: Name) -> Self {
        Self {
            name,
            namespace,
            id: ObjectId(0),
            revision: 0,
            generation: 0,
            created_at_ms: 0,
            deletion: None,
            labels: StringMap::new(),
            annotations: StringMap::new(),
            owner: None,
            trace_context: None,
            managers: Rare::NONE,
        }
    }

    /// Whether deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deletion.is_some()
    }
}

/// When deletion was asked for, and how long the object may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Log time of the request, milliseconds since the epoch.
    pub requested_at_ms: u64,
    /// Grace before the pod is killed, in milliseconds.
    pub grace_ms: u64,
    /// Whether a Job asked for the end of its own pod, which is then no failure. Of pods of Jobs only.
    #[serde(default)]
    pub by_job: bool,
    /// The pod of higher priority for whose room it ends. Of pods only.
    #[serde(default)]
    pub preemptor: Option<ObjectId>,
}

impl std::hash::Hash for Deletion {
    /// Replicas of before there were Jobs, or preemption, have the same digest of what has no part in them.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.requested_at_ms, self.grace_ms).hash(state);
        if self.by_job {
            self.by_job.hash(state);
        }
        if let Some(preemptor) = self.preemptor {
            preemptor.hash(state);
        }
    }
}

/// The controlling owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerRef {
    /// The owner's kind.
    pub kind: Kind,
    /// The owner's key.
    pub id: ObjectId,
}
