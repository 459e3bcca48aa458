//! The quorum is lost for good: what one survivor has becomes a cluster of one.

use std::fs::File;
use std::path::{Path, PathBuf};

use bulkhead_controlplane_disk::{Survivor, survivor};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{StorageError, Stores, open};
use bulkhead_types::MemberId;
use smol_str::SmolStr;
use uuid::Uuid;

use super::directory::{Beginning, content, copy, empty};
use super::{MARKER, OfflineError, io_at};

/// The storage's own lock, tried before anything is copied.
const LOCK_FILE: &str = "lock";

/// What to recover.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The survivor's data directory; its server must not run.
    pub data_dir: PathBuf,
    /// Where the new cluster's only member is reached, `host:port`.
    pub address: SmolStr,
    /// A place that does not exist yet, for a copy of the directory as it was.
    pub archive: PathBuf,
}

/// What was recovered.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The cluster that is lost.
    pub old_cluster: Uuid,
    /// The cluster that goes on.
    pub cluster_id: Uuid,
    /// Its only member.
    pub member: MemberId,
    /// The last entry that the survivor knew a quorum to have.
    pub committed: u64,
    /// Its last entry; those after `committed` are kept, acknowledged or not.
    pub last: u64,
    /// The last revision that it had.
    pub old_revision: u64,
    /// Its log time at that entry, milliseconds since the epoch.
    pub log_time_ms: u64,
    /// The revision that the new cluster begins at.
    pub revision: u64,
    /// Those of the old cluster that do not go on.
    pub lost_members: Vec<MemberId>,
    /// Bytes in the archive.
    pub archived_bytes: u64,
}

/// Copies the directory to the archive, and then makes it a cluster of one with everything that the survivor has.
///
/// # Errors
/// When the directory is in use, cannot be archived or cannot be read: then it is as it was, except that opening it
/// may have cut off a torn tail, as a start of the server would have.
pub fn recover(options: &RecoverOptions) -> Result<Recovered, OfflineError> {
    let (dir, archive) = (&options.data_dir, &options.archive);
    if content(dir).map_err(io_at(dir))?.is_none() {
        return Err(StorageError::NotInitialised { path: dir.display().to_string() }.into());
    }
    if let Some(text) = super::read_marker(dir).map_err(io_at(dir))? {
        return Err(OfflineError::Members(format!("{}: {text}", dir.join(MARKER).display())));
    }
    check_unused(dir)?;
    if archive.exists() {
        return Err(OfflineError::ArchiveExists { path: archive.clone() });
    }
    let archived_bytes = copy(dir, archive).map_err(io_at(archive))?;
    let mut stores = open(dir, None)?;
    let found = survivor(&mut stores, &ProtoCodec)?;
    let member = MemberId(stores.identity.member_id);
    close(stores);
    let Some(old_cluster) = found.state.cluster_id() else {
        return Err(OfflineError::NoCluster { path: dir.clone() });
    };
    let cluster_id = Uuid::new_v4();
    let founders = [(member, options.address.clone())];
    let Survivor { state, committed, last, term } = &found;
    let beginning = Beginning {
        dir,
        state,
        cluster_id,
        member,
        founders: &founders,
        source: format!(
            "recovered from member {member} of cluster {old_cluster} at index {last}, term {term}, revision {}",
            state.revision()
        ),
        remedy: format!(
            "a recovery of this directory was cut short; empty it, copy {} back into it, and recover again",
            archive.display()
        ),
    };
    beginning.mark()?;
    empty(dir).map_err(io_at(dir))?;
    let revision = beginning.write()?.revision();
    let present = state.members().filter(|m| m.role != bulkhead_types::MemberRole::Removed);
    Ok(Recovered {
        old_cluster,
        cluster_id,
        member,
        committed: *committed,
        last: *last,
        old_revision: state.revision(),
        log_time_ms: state.now_ms(),
        revision,
        lost_members: present.map(|m| m.member).filter(|m| *m != member).collect(),
        archived_bytes,
    })
}

/// A running server's files must not be copied: half of a change could be in them.
fn check_unused(dir: &Path) -> Result<(), OfflineError> {
    let path = dir.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_at(&path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(_) => Err(StorageError::Locked { path: dir.display().to_string() }.into()),
    }
}

/// Every handle must be gone before the files go.
fn close(stores: Stores) {
    drop(stores);
}
