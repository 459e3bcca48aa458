//! What is done to data directories and backups while no server runs on them: verify, restore, recover.
//!
//! ```text
//!   backup file ─► verify_backup ─► Backup
//!   backup file ─► restore ─┐
//!                           ├─► new identity, new members ─► an empty directory ─► a server of a new cluster
//!   a survivor's directory ─► recover (archives it first) ─┘
//! ```

mod directory;
mod origin;
mod recover;
mod restore;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use bulkhead_controlplane_core::server::TooOld;
use bulkhead_controlplane_disk::{Backup, BackupError, DiskError, read_backup};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::StorageError;
use bulkhead_types::MemberId;
use smol_str::SmolStr;

pub(crate) use directory::{MARKER, read_marker};
pub(crate) use origin::Origin;
pub use recover::{RecoverOptions, Recovered, recover};
pub use restore::{RestoreOptions, Restored, restore};

/// Why something offline was not done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The backup is none that can be used.
    #[error("{}: {source}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BackupError,
    },
    /// The backup needs a newer server.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The directory holds something.
    #[error(
        "{} is not empty (it holds {found}); a restore writes only into an empty directory: move it away, or name another one",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The members of the new cluster make no sense.
    #[error("{0}")]
    Members(String),
    /// The archive would overwrite something.
    #[error("{} exists already; name another place with --archive", path.display())]
    ArchiveExists {
        /// Where.
        path: PathBuf,
    },
    /// The survivor's data belongs to no cluster.
    #[error("{} holds no cluster: nothing was ever written to its log, so there is nothing to recover", path.display())]
    NoCluster {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The storage says why.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the disk holds cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn io_at(path: &Path) -> impl FnOnce(std::io::Error) -> OfflineError + '_ {
    move |source| OfflineError::Io { path: path.to_owned(), source }
}

/// Reads a backup through and checks everything in it.
///
/// # Errors
/// What is wrong with the file, and where.
pub fn verify_backup(path: &Path) -> Result<Backup, OfflineError> {
    /// Read at a time.
    const BUFFER_BYTES: usize = 1 << 20;
    let file = File::open(path).map_err(io_at(path))?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
    read_backup(&mut input, &ProtoCodec)
        .map_err(|source| OfflineError::Backup { path: path.to_owned(), source })
}

/// Members in the form of the command line, `1=host:port,2=host:port`, in id order.
fn members_text(members: &[(MemberId, SmolStr)]) -> String {
    let mut members: Vec<_> = members.to_vec();
    members.sort();
    members.iter().map(|(member, address)| format!("{member}={address}")).collect::<Vec<_>>().join(",")
}
