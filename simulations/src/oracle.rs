//! What clients know: what they asked for, what they were told, and what is uncertain.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Outcome, Revision, Stamped};
use uuid::Uuid;

/// Everything that clients know together.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Submissions, as they were asked for first.
    submitted: BTreeMap<Uuid, Stamped>,
    acknowledged: BTreeMap<Uuid, Outcome>,
    refused: BTreeSet<Uuid>,
    unknown: BTreeSet<Uuid>,
    /// The highest revision that any client has heard of.
    floor: Revision,
    /// Reads that were answered.
    pub reads: u64,
}

impl Oracle {
    /// A client is about to ask for this.
    pub(crate) fn submit(&mut self, stamped: &Stamped) {
        self.submitted.insert(stamped.request_id, stamped.clone());
    }

    /// A submission as it was asked for; `None` when no client asked for it.
    #[must_use]
    pub(crate) fn submission(&self, request_id: Uuid) -> Option<&Stamped> {
        self.submitted.get(&request_id)
    }

    /// A client was told the outcome.
    pub(crate) fn acknowledge(&mut self, request_id: Uuid, outcome: Outcome) {
        if let Ok(revision) = outcome {
            self.see(revision);
        }
        self.unknown.remove(&request_id);
        self.acknowledged.insert(request_id, outcome);
    }

    /// A client was told, each time that it asked, that nothing was done.
    pub(crate) fn refuse(&mut self, request_id: Uuid) {
        self.refused.insert(request_id);
    }

    /// A client gave up without knowing.
    pub(crate) fn give_up(&mut self, request_id: Uuid) {
        self.unknown.insert(request_id);
    }

    /// A client heard of a revision.
    pub(crate) fn see(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
    }

    /// The highest revision that any client has heard of.
    #[must_use]
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// What was acknowledged.
    #[must_use]
    pub(crate) fn acknowledged(&self) -> &BTreeMap<Uuid, Outcome> {
        &self.acknowledged
    }

    /// What must never happen.
    #[must_use]
    pub(crate) fn refused(&self) -> &BTreeSet<Uuid> {
        &self.refused
    }

    /// How many clients gave up on without knowing.
    #[must_use]
    pub(crate) fn unknown_count(&self) -> usize {
        self.unknown.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_follows_what_clients_hear() {
        let mut oracle = Oracle::default();
        let id = Uuid::from_u128(1);
        oracle.give_up(id);
        assert_eq!((oracle.floor(), oracle.unknown_count()), (0, 1));
        oracle.acknowledge(id, Ok(7));
        oracle.see(3);
        assert_eq!((oracle.floor(), oracle.unknown_count()), (7, 0));
    }
}
