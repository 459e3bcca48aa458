//! Feature levels: which records a cluster may write, so that every member can read them.
//!
//! The level is in State and is raised by a command once every member supports it; it never goes back. A record
//! of a higher level is refused before it is proposed, so a mixed cluster runs at what its oldest member knows.

use crate::{Command, LogRecord, MembershipChange, NodePhase, Object};

/// The highest level that this build knows.
pub const FEATURE_LEVEL_MAX: u32 = 3;

/// From this level on the log may say that a change of the membership was forced.
pub const FORCED_MEMBERSHIP_LEVEL: u32 = 2;

/// From this level on nodes are fenced, and what that means for pods that must be unique holds.
pub const FENCING_LEVEL: u32 = 3;

impl Command {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        // What is not named here is as old as the log's format.
        match self {
            Self::SetNodePhase { phase: NodePhase::Fenced, .. } => FENCING_LEVEL,
            Self::Create(Object::Node(node)) | Self::Apply(Object::Node(node))
                if node.status.phase == NodePhase::Fenced =>
            {
                FENCING_LEVEL
            }
            _ => 1,
        }
    }
}

impl MembershipChange {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        if self.force_unsafe { FORCED_MEMBERSHIP_LEVEL } else { 1 }
    }
}

impl LogRecord {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::Batch(batch) => {
                batch.iter().flat_map(|s| &s.commands).map(Command::feature_level).max().unwrap_or(1)
            }
            Self::Membership(change) => change.feature_level(),
        }
    }
}
