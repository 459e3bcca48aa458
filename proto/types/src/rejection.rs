//! Refusals: values with field, reason and remedy.

use serde::{Deserialize, Serialize};

/// What kind of refusal it is; decides the gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejectionCode {
    /// A field's value is not acceptable (INVALID_ARGUMENT).
    Invalid = 1,
    /// The object does not exist (NOT_FOUND).
    NotFound = 2,
    /// The name is taken (ALREADY_EXISTS).
    AlreadyExists = 3,
    /// A precondition does not hold: read again and retry (ABORTED).
    Conflict = 4,
    /// The object's state does not allow it (FAILED_PRECONDITION).
    NotAllowed = 5,
    /// The agent's session was replaced by a newer one (FAILED_PRECONDITION).
    StaleIncarnation = 6,
}

/// Why a submission was refused. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}{}{remedy}", if remedy.is_empty() { "" } else { "; " })]
pub struct Rejection {
    /// What kind of refusal.
    pub code: RejectionCode,
    /// Which field or object, such as `Deployment default/web: spec.replicas`.
    pub field: String,
    /// Why.
    pub reason: String,
    /// What would help; may be empty.
    pub remedy: String,
}

impl Rejection {
    /// A refusal without a remedy.
    #[must_use]
    pub fn new(code: RejectionCode, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code, field: field.into(), reason: reason.into(), remedy: String::new() }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}
