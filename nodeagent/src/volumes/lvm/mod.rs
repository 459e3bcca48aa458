//! Volumes as thin logical volumes of LVM.
//!
//! ```text
//!  ThinDriver ── Lvm ──┬── Commands   lvm2's own, each bounded in time
//!      │               └── FakeLvm    in memory, for tests
//!      ├── note.rs     <data>/volumes/<uuid>.lv, <uuid>.snap-lv: which logical volume it is; written before that is made
//!      └── report.rs   what lvs says, and what is wrong with a pool
//!
//!  VG/bulkhead-volume-<uuid>      tag bulkhead.making ─ mkfs.ext4 ─► tag bulkhead.volume
//!  VG/bulkhead-snapshot-<uuid>    tag bulkhead.snapshot; not active, because nobody opens it
//! ```
//!
//! A logical volume is this agent's when name and tag say so; any other is never changed, whatever its name. LVM's metadata change as a
//! whole or not at all, so a tag tells what is half made. Copies are thin snapshots: they share blocks with what they are of and need
//! nothing else of it. Sources: lvm(8), lvmthin(7), lvcreate(8), lvmreport(7).

mod commands;
mod driver;
#[cfg(test)]
mod fake;
mod note;
#[cfg(debug_assertions)]
mod real;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use commands::Commands;
pub(super) use driver::ThinDriver;
pub use driver::thin_pool_precondition;
#[cfg(debug_assertions)]
pub(super) use real::check;
use report::{LogicalVolume, PoolState};

/// Names of volume groups and logical volumes may have any length below 128; with a volume's name, which dashes make longer, the
/// kernel's name of the device must not be longer than that (lvm(8), "Valid names").
const NAME_LENGTH_MAX: usize = 50;

/// What a logical volume carries while it is made.
const MAKING: &str = "bulkhead.making";

/// A volume or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Volume,
    Snapshot,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Volume, Self::Snapshot];

    fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }

    /// What a logical volume carries once it is made.
    fn tag(self) -> &'static str {
        match self {
            Self::Volume => "bulkhead.volume",
            Self::Snapshot => "bulkhead.snapshot",
        }
    }

    /// What its name begins with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Volume => "bulkhead-volume-",
            Self::Snapshot => "bulkhead-snapshot-",
        }
    }
}

/// A thin pool, as lvm2 names it: `VG/THINPOOL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinPoolName {
    group: String,
    pool: String,
}

impl fmt::Display for ThinPoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.pool)
    }
}

impl FromStr for ThinPoolName {
    type Err = String;

    /// # Errors
    /// When it is not two names that lvm2 takes (lvm(8), "Valid names"), of at most 50 bytes each.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
            !name.is_empty()
                && name.len() <= NAME_LENGTH_MAX
                && !name.starts_with('-')
                && !matches!(name, "." | "..")
                && name.bytes().all(known)
        };
        match text.split_once('/') {
            Some((group, pool)) if is_name(group) && is_name(pool) => {
                Ok(Self { group: group.to_owned(), pool: pool.to_owned() })
            }
            _ => Err("expected VG/THINPOOL, such as vg0/bulkhead".to_owned()),
        }
    }
}

/// Why LVM did not do something.
#[derive(Debug, Error)]
enum LvmError {
    /// lvm2 is not installed.
    #[error("lvm2 is missing; run: apt-get install lvm2 thin-provisioning-tools")]
    NoProgram,
    /// There is no such volume group.
    #[error("there is no volume group {0}")]
    NoGroup(String),
    /// A command failed.
    #[error("{command}: {status}: {said}")]
    Failed {
        /// With its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it said on standard error.
        said: String,
    },
    /// A command took too long, and was killed. What it was about may be done or not.
    #[error("{command}: did not end within {seconds} s")]
    TimedOut {
        /// With its arguments.
        command: String,
        /// How long it had.
        seconds: u64,
    },
    /// What it said is not what lvm2 says.
    #[error("{command}: its report cannot be read: {reason}")]
    Report {
        /// With its arguments.
        command: String,
        /// Why.
        reason: String,
    },
    /// It cannot be run.
    #[error("lvm cannot be run")]
    Run(#[source] io::Error),
}

impl From<LvmError> for io::Error {
    fn from(error: LvmError) -> Self {
        Self::other(error)
    }
}

/// What is wanted of LVM. Names are of this crate's making or of a [`ThinPoolName`].
trait Lvm: fmt::Debug + Send + Sync {
    /// The thin volumes of a group: those of this crate's prefixes, or the one of a name.
    fn volumes(&self, group: &str, name: Option<&str>) -> Result<Vec<LogicalVolume>, LvmError>;

    /// A pool; `None`: the group has no logical volume of that name.
    fn pool(&self, pool: &ThinPoolName) -> Result<Option<PoolState>, LvmError>;

    /// Makes an empty thin volume, active, of at least so many bytes.
    fn create(&self, pool: &ThinPoolName, name: &str, size_bytes: u64, tag: &str) -> Result<(), LvmError>;

    /// Makes a thin snapshot of one; it is a volume like others if it is made active.
    fn copy(&self, group: &str, of: &str, name: &str, tag: &str, active: bool) -> Result<(), LvmError>;

    /// Makes one active whose activation may be skipped by default.
    fn activate(&self, group: &str, name: &str) -> Result<(), LvmError>;

    /// Takes one tag off and puts another one on.
    fn change_tag(&self, group: &str, name: &str, from: &str, to: &str) -> Result<(), LvmError>;

    /// Makes one larger, also while it is open: at least so many bytes.
    fn extend(&self, group: &str, name: &str, size_bytes: u64) -> Result<(), LvmError>;

    /// Removes one if it carries a tag.
    fn remove(&self, group: &str, name: &str, tag: &str) -> Result<(), LvmError>;

    /// Where an active one is.
    fn device(&self, group: &str, name: &str) -> PathBuf;

    /// Whether one is active.
    fn is_active(&self, group: &str, name: &str) -> bool;
}
