//! Committed entries become State.

use bulkhead_canary::planted;
use bulkhead_types::LogRecord;
use raft::eraftpb::{Entry, EntryType};

use super::output::AppliedEntry;
use super::{Fatal, Server};
use crate::Applied;

impl Server {
    pub(super) fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if self.output.fatal.is_some() {
                return;
            }
            let index = entry.get_index();
            assert_eq!(index, self.applied_index + 1, "entries are applied in order, each once");
            match self.apply_entry(&entry) {
                Ok(applied) => {
                    self.after_apply(index, entry.get_data().len() + entry.get_context().len(), applied)
                }
                Err(fatal) => {
                    self.output.fatal = Some(fatal);
                    return;
                }
            }
        }
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<Vec<Applied>, Fatal> {
        let unknown = |reason: String| Fatal::UnknownRecord { index: entry.get_index(), reason };
        match entry.get_entry_type() {
            // A new leader's first entry is empty.
            EntryType::EntryNormal if entry.get_data().is_empty() => Ok(Vec::new()),
            EntryType::EntryNormal => {
                // Whoever proposed it has it still: equal records have equal bytes, and the other way round.
                let record = match self.proposals.take_record(entry.get_index(), entry.get_term()) {
                    Some(record) => record,
                    None => self.codec.decode_log(entry.get_data()).map_err(|e| unknown(e.to_string()))?,
                };
                self.check_known(&record).map_err(unknown)?;
                match record {
                    LogRecord::Batch(_) => Ok(self.machine.apply(&record)),
                    LogRecord::Membership(_) => {
                        Err(unknown("a change of the membership in a normal entry".to_owned()))
                    }
                }
            }
            // The leader leaves a joint configuration on its own, with an empty change.
            _ if entry.get_context().is_empty() => {
                self.replica.apply_conf_change(entry).map_err(|e| Fatal::Raft(e.to_string()))?;
                Ok(Vec::new())
            }
            _ => {
                let record =
                    self.codec.decode_log(entry.get_context()).map_err(|e| unknown(e.to_string()))?;
                self.check_known(&record).map_err(unknown)?;
                let LogRecord::Membership(change) = record else {
                    return Err(unknown("commands in a change of the membership".to_owned()));
                };
                let applied = self.machine.apply_membership(&change);
                if planted!("canary_conf_change_twice") {
                    self.replica.apply_conf_change(entry).map_err(|e| Fatal::Raft(e.to_string()))?;
                }
                if applied.transaction.outcome.is_ok() && !applied.repeated {
                    self.replica.apply_conf_change(entry).map_err(|e| Fatal::Raft(e.to_string()))?;
                }
                Ok(vec![applied])
            }
        }
    }

    /// A server that passes for an older one stops where the older one would not be able to read on.
    fn check_known(&self, record: &LogRecord) -> Result<(), String> {
        let (level, supported) = (record.feature_level(), self.config.feature_level_max);
        if level <= supported {
            return Ok(());
        }
        Err(format!("a record of feature level {level}, this server supports up to {supported}; upgrade it"))
    }

    fn after_apply(&mut self, index: u64, bytes: usize, applied: Vec<Applied>) {
        self.applied_index = index;
        self.snapshots.count(bytes);
        self.replica.on_applied(index);
        self.observe(&applied);
        self.settle_entry(index, &applied);
        self.note_digest(index);
        self.check_own_membership();
        self.output.applied.push(AppliedEntry { index, applied });
    }
}
