//! Volumes that the control plane wants to be deleted: what stands in an intent, and nothing else.
//!
//! ```text
//!  Kept ── no guest has it ──► Asked ── deleted ──► Deleted, told with every report until no intent names it
//!            ▲                   │
//!            └──── retry ────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_types::{DeletedVolume, ITEMS_MAX, ObjectId};
use uuid::Uuid;

use crate::Action;

/// The volumes that the last accepted intent wants to be deleted, by claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletions(BTreeMap<ObjectId, Deletion>);

#[derive(Clone, Debug)]
struct Deletion {
    volume: Uuid,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was done yet.
    Kept,
    /// The host was asked; it is asked again at this time, in milliseconds.
    Asked { retry_at_ms: u64 },
    /// Nothing is left of it; whether a report has said so.
    Deleted { told: bool },
}

impl Deletions {
    /// Takes over what an accepted intent says.
    pub(crate) fn set(&mut self, wanted: &[DeletedVolume]) {
        let ids: BTreeSet<ObjectId> = wanted.iter().map(|one| one.id).collect();
        self.0.retain(|id, _| ids.contains(id));
        for DeletedVolume { id, uid } in wanted {
            self.0.entry(*id).or_insert(Deletion { volume: *uid, stage: Stage::Kept });
        }
    }

    /// Asks for what no guest has, and again for what was not done.
    pub(crate) fn step(
        &mut self,
        now_ms: u64,
        retry_ms: u64,
        held: &BTreeSet<Uuid>,
        actions: &mut VecDeque<Action>,
    ) {
        for (claim, Deletion { volume, stage }) in &mut self.0 {
            let is_due = match *stage {
                Stage::Kept => true,
                Stage::Asked { retry_at_ms } => now_ms >= retry_at_ms,
                Stage::Deleted { .. } => false,
            };
            if is_due && !held.contains(volume) {
                *stage = Stage::Asked { retry_at_ms: now_ms.saturating_add(retry_ms.max(1)) };
                actions.push_back(Action::DeleteVolume { claim: *claim, volume: *volume });
            }
        }
    }

    /// The host has nothing of it any more.
    pub(crate) fn deleted(&mut self, claim: ObjectId) {
        if let Some(Deletion { stage, .. }) = self.0.get_mut(&claim)
            && matches!(stage, Stage::Asked { .. })
        {
            *stage = Stage::Deleted { told: false };
        }
    }

    /// Whether something is to be told that no report has said.
    pub(crate) fn has_news(&self) -> bool {
        self.0.values().any(|one| one.stage == Stage::Deleted { told: false })
    }

    /// What a report says: reports may be lost, so all of it each time.
    pub(crate) fn take_report(&mut self) -> Vec<ObjectId> {
        let mut told = Vec::new();
        for (claim, Deletion { stage, .. }) in &mut self.0 {
            if matches!(stage, Stage::Deleted { .. }) && told.len() < ITEMS_MAX {
                *stage = Stage::Deleted { told: true };
                told.push(*claim);
            }
        }
        told
    }

    /// When the host is asked again, in milliseconds; what a guest has waits for that instead.
    pub(crate) fn deadline_ms(&self, held: &BTreeSet<Uuid>) -> Option<u64> {
        let due = |one: &Deletion| match one.stage {
            Stage::Asked { retry_at_ms } if !held.contains(&one.volume) => Some(retry_at_ms),
            _ => None,
        };
        self.0.values().filter_map(due).min()
    }
}
