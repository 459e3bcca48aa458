//! StorageClasses: what volumes of a name are like; as in `storage.k8s.io/v1`.
//!
//! Source: "Storage Classes" in the Kubernetes documentation. A claim takes over what its class says when it is created;
//! whether it may grow is asked of the class each time. Classes `local` and `local-retain` are always there, without objects.

use serde::{Deserialize, Serialize};

use crate::{BuiltinClass, ObjectMeta};

/// What makes the volumes of every class.
pub const PROVISIONER: &str = "local.bulkhead.io";
/// The annotation of the class of claims that name none (Kubernetes' name): `true`.
pub const ANNOTATION_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What volumes of a name are like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StorageClass {
    /// Standard metadata; there is no namespace.
    pub meta: ObjectMeta,
    /// What they are like; nothing of it can change after creation but whether they may grow.
    pub spec: StorageClassSpec,
}

/// What volumes of a class are like. They are made when their first pod has a node (`WaitForFirstConsumer`), by
/// [`PROVISIONER`], as files with an ext4 file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StorageClassSpec {
    /// What becomes of the data of a claim that is deleted: `Local` is `Delete`, `LocalRetain` is `Retain`.
    pub reclaim: BuiltinClass,
    /// Claims of it may ask for more.
    pub allow_volume_expansion: bool,
}

impl StorageClass {
    /// Whether it is that of claims that name none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.meta.annotations.get(ANNOTATION_DEFAULT_CLASS).is_some_and(|value| value == "true")
    }
}
