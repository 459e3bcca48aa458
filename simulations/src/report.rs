//! What a run tells.

use std::collections::BTreeMap;

use crate::invariants::Violation;
use crate::invariants::linearizability::Checked;
use crate::options::Options;
use crate::script::Script;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing bad happened, everything good did.
    Passed,
    /// Too little happened to say anything.
    Void(String),
    /// Clocks were worse than is promised: whatever happened says nothing about the system.
    OutOfContract(String),
    /// Something that must never be.
    Failed(Violation),
}

/// What a run tells.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the seed decided.
    pub options: Options,
    /// How it ended.
    pub outcome: Outcome,
    /// How many things happened.
    pub steps: u64,
    /// How long it lasted, in virtual milliseconds.
    pub virtual_ms: u64,
    /// How many commands clients asked for.
    pub submitted: u64,
    /// How many commands were acknowledged.
    pub acknowledged: u64,
    /// How many entries the log has.
    pub entries: u64,
    /// How many reads were answered.
    pub reads: u64,
    /// How many commands clients gave up on without knowing what became of them.
    pub unknown: usize,
    /// How many guests were started.
    pub guests: u64,
    /// How many guests were started of pods that must be unique.
    pub unique: u64,
    /// How much watchers were told.
    pub watched: u64,
    /// How often a watcher was told that what it wants is not kept any more.
    pub watches_refused: u64,
    /// What the checker of linearizability looked at.
    pub linearizability: Checked,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Stands for everything that happened.
    pub trace_hash: u128,
    /// Everything that was decided, when it was kept.
    pub script: Option<Script>,
    /// The last lines of the trace, when they were kept.
    pub tail: Vec<String>,
}

impl std::fmt::Display for Report {
    /// One line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {} {} steps {} virtual {:.1} s acked {}/{} unknown {} reads {} entries {} guests {} unique {} watched {} refused {} registers {}/{} unchecked {} faults",
            self.options.seed,
            self.options,
            self.steps,
            self.virtual_ms as f64 / 1000.0,
            self.acknowledged,
            self.submitted,
            self.unknown,
            self.reads,
            self.entries,
            self.guests,
            self.unique,
            self.watched,
            self.watches_refused,
            self.linearizability.linearizable,
            self.linearizability.operations,
            self.linearizability.unchecked,
        )?;
        for (kind, count) in self.faults.iter().filter(|(_, count)| **count > 0) {
            write!(f, " {}={count}", kind.replace(' ', "-"))?;
        }
        write!(f, " trace {:032x}", self.trace_hash)?;
        match &self.outcome {
            Outcome::Passed => Ok(()),
            Outcome::Void(why) => write!(f, " void: {why}"),
            Outcome::OutOfContract(why) => write!(f, " out of contract: {why}"),
            Outcome::Failed(violation) => write!(f, " FAILED {violation}"),
        }
    }
}
