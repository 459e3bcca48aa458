//! Templates that a StatefulSet or DaemonSet has, or had.

use serde::{Deserialize, Serialize};

use crate::{ObjectMeta, PodTemplate};

/// The label that ties a pod to the template that it was made from: the name of a [`ControllerRevision`]
/// (Kubernetes' name).
pub const LABEL_CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// One template of a StatefulSet or DaemonSet, kept while pods have it and for undo. Its owner made it; nobody changes
/// it, but its `revision` grows when the template is wanted again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ControllerRevision {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// Counts the owner's rollouts, from 1; the highest is the wanted one.
    pub revision: u64,
    /// The template.
    pub template: PodTemplate,
}
