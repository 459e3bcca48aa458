//! When snapshots are taken, and what happens when one arrives.

use bulkhead_canary::planted;
use bulkhead_types::MemberId;
use raft::eraftpb::Message;

use super::output::{SaveSnapshot, SendSnapshot};
use super::{Server, State};
use crate::Machine;
use crate::replica::{Persist, SnapshotPoint, decode_message, encode, snapshot_point};

/// Snapshots under way.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Somebody asked for one.
    requested: bool,
    /// One is being written, for so many bytes of entries.
    saving: Option<(SnapshotPoint, u64)>,
    /// Bytes of entries applied since the last one.
    log_bytes: u64,
    /// When the last one was begun, or the first entry after it was applied if that is later.
    since_ms: Option<u64>,
    /// A received State, until raft installs it.
    received: Option<(SnapshotPoint, State)>,
}

impl Snapshots {
    pub(super) fn request(&mut self) {
        self.requested = true;
    }

    /// An entry was applied.
    pub(super) fn count(&mut self, bytes: usize) {
        self.log_bytes = self.log_bytes.saturating_add(bytes as u64);
    }
}

impl Server {
    /// Asks for a snapshot when enough entries have been applied since the last one.
    pub(super) fn maybe_save_snapshot(&mut self) {
        let wanted = self.replica.take_snapshot_wanted();
        let since = self.applied_index - self.replica.log().snapshot_point().index.min(self.applied_index);
        let since_ms = match (since, self.snapshots.since_ms) {
            (0, _) => None,
            (_, known) => Some(known.unwrap_or(self.now_ms)),
        };
        self.snapshots.since_ms = since_ms;
        let old = since_ms.is_some_and(|at| self.now_ms.saturating_sub(at) >= self.config.snapshot_age_ms);
        let large = self.snapshots.log_bytes >= self.config.snapshot_log_bytes;
        let due = since >= self.config.snapshot_entries
            || (since > 0 && (wanted || large || old || self.snapshots.requested));
        if !due || self.snapshots.saving.is_some() || self.output.fatal.is_some() {
            return;
        }
        // The term of an applied entry is known: entries are kept until a snapshot covers them.
        let Some(term) = self.replica.log().term_at(self.applied_index) else { return };
        self.snapshots.requested = false;
        let index = self.applied_index - u64::from(planted!("canary_snapshot_one_entry_early"));
        let point = SnapshotPoint { index, term, conf_state: self.replica.conf_state() };
        if planted!("canary_log_cut_before_snapshot") {
            let compact_to = self.replica.on_snapshot_saved(point.clone(), self.config.keep_entries);
            self.output.persist.push(Persist { compact_to: Some(compact_to), ..Persist::default() });
        }
        self.snapshots.saving = Some((point.clone(), std::mem::take(&mut self.snapshots.log_bytes)));
        self.snapshots.since_ms = Some(self.now_ms);
        self.output.save_snapshot = Some(SaveSnapshot { point, state: self.machine.state().clone() });
    }

    pub(super) fn handle_snapshot_saved(&mut self, index: Option<u64>) {
        let Some((point, log_bytes)) = self.snapshots.saving.take() else { return };
        if index != Some(point.index) {
            self.snapshots.log_bytes = self.snapshots.log_bytes.saturating_add(log_bytes);
            return;
        }
        let compact_to = self.replica.on_snapshot_saved(point, self.config.keep_entries);
        self.output.persist.push(Persist { compact_to: Some(compact_to), ..Persist::default() });
    }

    pub(super) fn send_snapshot(&mut self, to: MemberId, message: &Message) {
        let index = message.get_snapshot().get_metadata().index;
        self.output.send_snapshots.push(SendSnapshot { to, index, message: encode(message) });
    }

    pub(super) fn handle_snapshot_received(&mut self, message: &[u8], state: State) {
        let Ok(message) = decode_message(message) else {
            self.output.dropped_messages += 1;
            return;
        };
        self.snapshots.received = Some((snapshot_point(message.get_snapshot()), state));
        self.replica.step(message);
    }

    /// Raft installed a snapshot: the State that came with it takes the place of the present one.
    ///
    /// # Panics
    /// When no State came with it: snapshot messages reach raft only together with theirs.
    pub(super) fn install(&mut self, point: SnapshotPoint) {
        let (received, state) =
            self.snapshots.received.take().expect("a snapshot message comes with its State");
        assert_eq!(
            (received.index, received.term),
            (point.index, point.term),
            "raft installs the snapshot that came"
        );
        self.applied_index = point.index;
        self.machine = Machine::new(state.clone());
        self.digests.reset();
        self.snapshots.saving = None;
        self.snapshots.log_bytes = 0;
        self.output.installed = Some(state);
        // What was applied but not yet handed out belongs to the State that is gone.
        self.output.applied.clear();
        self.check_own_membership();
    }
}
