//! Hard quotas: how much of what a namespace, a project and a department may have at most.
//!
//! ```text
//!  Department ─► its Projects (spec.department) ─► their namespaces (label bulkhead.io/project) ─► their ResourceQuotas
//! ```
//!
//! Source: "Resource Quotas" in the Kubernetes documentation. Projects and departments are Bulkhead's own kinds.

use serde::{Deserialize, Serialize};

use crate::{Name, ObjectMeta, QuotaAmounts};

/// The label of a namespace that says to which Project it belongs.
pub const LABEL_PROJECT: &str = "bulkhead.io/project";
/// Most resources that one quota limits.
pub const QUOTA_RESOURCES_MAX: usize = 64;

/// What a namespace may have at most. All of a namespace's quotas must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceQuota {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: ResourceQuotaSpec,
    /// What is known.
    pub status: QuotaStatus,
}

/// What is wanted of a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceQuotaSpec {
    /// The most of each resource that is named; others are not limited.
    pub hard: QuotaAmounts,
}

/// What the namespaces of a project may have together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Project {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: ProjectSpec,
    /// What is known.
    pub status: QuotaStatus,
}

/// What is wanted of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProjectSpec {
    /// The department that it belongs to, if it does to one.
    pub department: Option<Name>,
    /// The most of each resource that is named; others are not limited here.
    pub hard: QuotaAmounts,
}

/// What the projects of a department may have together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Department {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DepartmentSpec,
    /// What is known.
    pub status: QuotaStatus,
}

/// What is wanted of a department.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DepartmentSpec {
    /// The most of each resource that is named; others are not limited here.
    pub hard: QuotaAmounts,
}

/// What is known at a level. What is created is checked against what is true then, not against this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// The most of each resource, as it was when it was counted.
    pub hard: QuotaAmounts,
    /// What there is of each of them; above `hard` when that was lowered.
    pub used: QuotaAmounts,
}
