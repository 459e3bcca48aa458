//! What an operator should read in the agent's log.

use bulkhead_types::{ObjectId, Revision};

/// One noteworthy event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An intent of another session was refused.
    IntentOfOtherSession {
        /// Its session.
        incarnation: u64,
        /// Ours.
        ours: u64,
    },
    /// An intent older than the last accepted one was refused.
    IntentOutdated {
        /// Its generation.
        generation: Revision,
        /// The last accepted one.
        accepted: Revision,
    },
    /// The lease ran out.
    LeaseExpired {
        /// Pods that are killed because they must be unique.
        killed: Vec<ObjectId>,
    },
    /// A guest runs that no intent names; it is stopped.
    Unintended {
        /// Whose guest.
        pod: ObjectId,
    },
    /// A guest was found and adopted.
    Adopted {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// A guest did not end in its grace and is killed.
    GraceExceeded {
        /// Whose guest.
        pod: ObjectId,
    },
    /// A guest ended although nobody asked for it, or could not be started.
    GuestFailed {
        /// Whose guest.
        pod: ObjectId,
        /// Why.
        reason: smol_str::SmolStr,
        /// The next attempt, in milliseconds from now; `None` when there is none.
        retry_in_ms: Option<u64>,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IntentOfOtherSession { incarnation, ours } => {
                write!(f, "intent of session {incarnation} refused, this is session {ours}")
            }
            Self::IntentOutdated { generation, accepted } => {
                write!(f, "intent of generation {generation} refused, {accepted} was accepted before")
            }
            Self::LeaseExpired { killed } => {
                write!(f, "lease expired, {} pods that must be unique are killed", killed.len())
            }
            Self::Unintended { pod } => write!(f, "guest of pod {pod} is not intended and is stopped"),
            Self::Adopted { pod, instance } => write!(f, "guest {instance} of pod {pod} adopted"),
            Self::GraceExceeded { pod } => write!(f, "guest of pod {pod} exceeded its grace and is killed"),
            Self::GuestFailed { pod, reason, retry_in_ms: Some(ms) } => {
                write!(f, "guest of pod {pod} failed: {reason}; next attempt in {ms} ms")
            }
            Self::GuestFailed { pod, reason, retry_in_ms: None } => {
                write!(f, "guest of pod {pod} failed: {reason}; the pod is over")
            }
        }
    }
}
