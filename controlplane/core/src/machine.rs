//! The replicated state machine: log records in, transactions and changes out.

use bulkhead_types::{LogRecord, MembershipChange, Stamped, Transaction};

use crate::decide::{decide_membership, execute};
use crate::evolve::evolve;
use crate::{Change, State};

/// What one submission did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its record for the event store. A repeated request has its first answer here, and no events.
    pub transaction: Transaction,
    /// What watchers see, in order.
    pub changes: Vec<Change>,
    /// Whether it was answered from memory: nothing was recorded.
    pub repeated: bool,
}

/// State plus the rules by which records change it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    state: State,
}

impl Machine {
    /// Goes on from a restored State.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state }
    }

    /// The present State. Cloning it is O(1).
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies a committed log record.
    pub fn apply(&mut self, record: &LogRecord) -> Vec<Applied> {
        match record {
            LogRecord::Batch(batch) => batch.iter().map(|stamped| self.apply_stamped(stamped)).collect(),
            LogRecord::Membership(change) => vec![self.apply_membership(change)],
        }
    }

    /// Applies one submission.
    pub fn apply_stamped(&mut self, stamped: &Stamped) -> Applied {
        if let Some(outcome) = self.state.request_outcome(stamped.request_id) {
            return Applied { transaction: repeated(stamped, outcome), changes: Vec::new(), repeated: true };
        }
        let (transaction, changes) = execute(&mut self.state, stamped);
        Applied { transaction, changes, repeated: false }
    }

    /// Applies a change of the membership. Whether it was refused is in the outcome; Raft must follow it.
    pub fn apply_membership(&mut self, change: &MembershipChange) -> Applied {
        if let Some(outcome) = self.state.request_outcome(change.request_id) {
            let transaction = Transaction {
                request_id: change.request_id,
                actor: change.actor.clone(),
                at_ms: self.state.now_ms(),
                trace_context: None,
                outcome,
                events: Vec::new(),
            };
            return Applied { transaction, changes: Vec::new(), repeated: true };
        }
        let transaction = decide_membership(&self.state, change);
        let changes = evolve(&mut self.state, &transaction);
        Applied { transaction, changes, repeated: false }
    }
}

fn repeated(stamped: &Stamped, outcome: bulkhead_types::Outcome) -> Transaction {
    Transaction {
        request_id: stamped.request_id,
        actor: stamped.actor.clone(),
        at_ms: stamped.proposed_at_ms,
        trace_context: None,
        outcome,
        events: Vec::new(),
    }
}
