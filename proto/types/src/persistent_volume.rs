//! PersistentVolumes: what claims left behind that were to be retained; as in `v1`.
//!
//! Source: "Persistent Volumes", sections "Reclaiming", "Reserving a PersistentVolume" and "Phase", in the Kubernetes
//! documentation. There are no others: a bound claim is its volume. One comes with the end of its claim, in the same
//! transaction, and goes when somebody deletes it (its node deletes the data first) or when a new claim takes it over by name
//! (`volumeName`), again in one transaction.
//!
//! ```text
//!  claim ends ──► Released ── claimRef removed by an operator ──► Available
//!                    │ a claim of the same namespace                  │ a claim of any namespace
//!                    └──────────────── volumeName ────────────────────┘
//! ```

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{Name, ObjectId, ObjectMeta, Rare};

/// A volume that no claim has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PersistentVolume {
    /// Standard metadata; there is no namespace.
    pub meta: ObjectMeta,
    /// What it is; nothing of it ever changes but that the claim may be struck out.
    pub spec: PersistentVolumeSpec,
}

/// What a retained volume is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PersistentVolumeSpec {
    /// The node that keeps it.
    pub node: ObjectId,
    /// That node's name.
    pub node_name: SmolStr,
    /// What its file is named by.
    pub volume: Uuid,
    /// Its size, in bytes.
    pub capacity_bytes: u64,
    /// The namespace of the claim that it was of (`claimRef`); empty when an operator removed that.
    pub claim_namespace: SmolStr,
    /// That namespace itself: another one of its name, made later, is another tenant's.
    pub claim_namespace_id: ObjectId,
    /// The name of that claim; empty together with its namespace.
    pub claim_name: SmolStr,
    /// That claim's class, beside the one that is always there: `local-retain`.
    pub class: Rare<SmolStr>,
    /// When a container with it was first reported to have begun, in Unix milliseconds of log time.
    pub first_used_at_ms: Rare<u64>,
}

impl PersistentVolume {
    /// The name of the object of a volume, as Kubernetes makes it.
    ///
    /// # Panics
    /// Never: it is a name whatever the UUID.
    #[must_use]
    pub fn name_of(volume: Uuid) -> Name {
        Name::new(format!("pvc-{volume}")).expect("40 characters of a name")
    }

    /// Kubernetes' word for where it stands.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.spec.is_claimed() {
            true => "Released",
            false => "Available",
        }
    }
}

impl PersistentVolumeSpec {
    /// Whether it is still the data of its former claim's namespace, and of nobody else.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        !self.claim_namespace.is_empty()
    }

    /// The name of its class.
    #[must_use]
    pub fn class_name(&self) -> &str {
        self.class.get().map_or("local-retain", SmolStr::as_str)
    }
}
