//! LimitRanges: what one container, pod or claim of a namespace may ask for, and gets when it does not say.
//!
//! Source: "Limit Ranges" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};

use crate::{ObjectMeta, ResourceRequirements};

/// Most items of a LimitRange.
pub const LIMIT_RANGE_ITEMS_MAX: usize = 16;

/// Bounds and defaults of a namespace. Several are looked at in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LimitRange {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: LimitRangeSpec,
}

/// What is wanted of a LimitRange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LimitRangeSpec {
    /// At least one.
    pub limits: Vec<LimitRangeItem>,
}

/// What bounds are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LimitType {
    /// Each container, init containers included.
    Container = 1,
    /// All containers of a pod together.
    Pod = 2,
    /// Each claim.
    PersistentVolumeClaim = 3,
}

impl LimitType {
    /// The name as in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "Container",
            Self::Pod => "Pod",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
        }
    }
}

/// Bounds and defaults for one type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LimitRangeItem {
    /// What it is about.
    pub limit_type: LimitType,
    /// The least of requests, and of limits that are given. A minimum must be requested.
    pub min: LimitAmounts,
    /// The most of limits, and of requests that are given. A limit must be given.
    pub max: LimitAmounts,
    /// Limits of containers that give none; `max` when unset. Only with [`LimitType::Container`].
    pub default: ResourceRequirements,
    /// Requests of containers that give neither request nor limit; the default limit when unset, else `min`. Only with
    /// [`LimitType::Container`].
    pub default_request: ResourceRequirements,
    /// How many times the request a limit may be. Not with [`LimitType::PersistentVolumeClaim`].
    pub max_limit_request_ratio: LimitRatios,
}

/// Bounds of amounts; what is not given is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LimitAmounts {
    /// Of containers and pods.
    pub compute: ResourceRequirements,
    /// Of claims, in bytes.
    pub storage_bytes: Option<u64>,
}

/// Ratios of limits to requests, in thousandths, at least 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LimitRatios {
    /// Of processor time.
    pub cpu: Option<u64>,
    /// Of memory.
    pub memory: Option<u64>,
    /// Of writable disk.
    pub ephemeral_storage: Option<u64>,
}

impl LimitRangeItem {
    /// The limits of a container that gives none.
    #[must_use]
    pub fn default_limits(&self) -> ResourceRequirements {
        self.default.or(self.max.compute)
    }

    /// The requests of a container that gives neither them nor limits.
    #[must_use]
    pub fn default_requests(&self) -> ResourceRequirements {
        self.default_request.or(self.default_limits()).or(self.min.compute)
    }
}
