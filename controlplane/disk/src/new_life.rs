//! A State as the beginning of another cluster, and what the disk of a lost cluster's last server holds.

use bulkhead_controlplane_core::replica::{SnapshotPoint, decode_entry, decode_hard_state};
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_storage::Stores;
use bulkhead_types::{LogCodec, LogRecord, MemberId};
use raft::eraftpb::{ConfState, EntryType};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{DiskError, GENESIS_INDEX, GENESIS_TERM, Loaded, load, save_snapshot};

/// Writes the beginning of a cluster that goes on from `state` to fresh stores. Every founder of the cluster
/// must be given the same.
///
/// # Errors
/// When the disk refuses.
pub fn found(
    stores: &Stores,
    codec: &dyn LogCodec,
    state: &State,
    cluster_id: Uuid,
    founders: &[(MemberId, SmolStr)],
) -> Result<State, DiskError> {
    let mut conf_state = ConfState::default();
    conf_state.set_voters(founders.iter().map(|(member, _)| member.0).collect());
    let point = SnapshotPoint { index: GENESIS_INDEX, term: GENESIS_TERM, conf_state };
    let state = state.begin_again(cluster_id, founders);
    save_snapshot(&*stores.snapshots, codec, &point, &state)?;
    Ok(state)
}

/// Everything that one server knows of a cluster.
#[derive(Debug)]
pub struct Survivor {
    /// The State after its last entry.
    pub state: State,
    /// The last entry that it knew a quorum to have.
    pub committed: u64,
    /// Its last entry. Those after `committed` may have been acknowledged or not: nobody is left to ask.
    pub last: u64,
    /// The term of that entry.
    pub term: u64,
}

/// Reads what a server's disk holds and applies its whole log: an entry that it was not told to be committed may
/// have been, and leaving it out could lose what was acknowledged.
///
/// # Errors
/// When the disk cannot be read, or holds a record that this build does not know.
pub fn survivor(stores: &mut Stores, codec: &dyn LogCodec) -> Result<Survivor, DiskError> {
    let hard_state = stores.log.load()?.hard_state.as_deref().map(decode_hard_state).transpose()?;
    let Loaded { state, log, .. } = load(stores, codec)?;
    let point = log.snapshot_point().clone();
    let mut machine = Machine::new(state);
    let (mut last, mut term) = (point.index, point.term);
    for stored in stores.log.load()?.entries {
        let entry = decode_entry(&stored.bytes)?;
        if entry.get_index() <= point.index {
            continue;
        }
        (last, term) = (entry.get_index(), entry.get_term());
        let bytes = match entry.get_entry_type() {
            EntryType::EntryNormal => entry.get_data(),
            _ => entry.get_context(),
        };
        if bytes.is_empty() {
            continue;
        }
        let record: LogRecord = codec.decode_log(bytes)?;
        let _ = machine.apply(&record);
    }
    let committed = hard_state.map_or(0, |hard| hard.get_commit()).max(point.index);
    Ok(Survivor { state: machine.state().clone(), committed, last, term })
}
