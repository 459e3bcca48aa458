//! Identities: compact integers inside, UUIDs derived from them outside.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The compact, never reused key of an object: the revision at which it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The UUID shown to users (`metadata.uid`): UUIDv5 of the creating revision in the cluster's name space.
    #[must_use]
    pub fn uid(self, cluster_id: Uuid) -> Uuid {
        Uuid::new_v5(&cluster_id, &self.0.to_be_bytes())
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A server's Raft id: at least 1, never reused after the member was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The position of an event in the cluster's history. 0 is "before everything".
pub type Revision = u64;
