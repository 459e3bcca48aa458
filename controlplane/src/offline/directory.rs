//! Making a data directory the beginning of another cluster, so that a crash in between is noticed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_disk::found;
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{Identity, open};
use bulkhead_types::MemberId;
use smol_str::SmolStr;
use uuid::Uuid;

use super::{OfflineError, Origin, io_at};

/// While it is there the directory is not finished; a server refuses it and shows its text.
pub(crate) const MARKER: &str = "unfinished";
/// A file system's own folder, in the root of a disk of its own.
const LOST_AND_FOUND: &str = "lost+found";

/// Why the directory is not finished, if it is not.
pub(crate) fn read_marker(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(MARKER)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Something that is in a directory; `None` when it is empty or missing.
pub(super) fn content(dir: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOST_AND_FOUND {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The beginning of a cluster, as one of its founders has it.
pub(super) struct Beginning<'a> {
    pub(super) dir: &'a Path,
    pub(super) state: &'a State,
    pub(super) cluster_id: Uuid,
    pub(super) member: MemberId,
    pub(super) founders: &'a [(MemberId, SmolStr)],
    /// Where the State came from, for people.
    pub(super) source: String,
    /// What to do when this was cut short.
    pub(super) remedy: String,
}

impl Beginning<'_> {
    /// Writes it to a directory that is empty, or that was made so with [`empty`] and has the marker already.
    /// Everything is durable on return. Gives the State that the new cluster begins with.
    pub(super) fn write(&self) -> Result<State, OfflineError> {
        fs::create_dir_all(self.dir).map_err(io_at(self.dir))?;
        self.mark()?;
        let identity = Identity {
            cluster_id: self.cluster_id.into_bytes(),
            member_id: self.member.0,
            storage_uid: Uuid::new_v4().into_bytes(),
        };
        let stores = open(self.dir, Some(identity))?;
        let state = found(&stores, &ProtoCodec, self.state, self.cluster_id, self.founders)?;
        drop(stores);
        Origin::new(self.cluster_id, self.founders, &self.source).write(self.dir).map_err(io_at(self.dir))?;
        let marker = self.dir.join(MARKER);
        fs::remove_file(&marker).map_err(io_at(&marker))?;
        sync_dir(self.dir).map_err(io_at(self.dir))?;
        Ok(state)
    }

    pub(super) fn mark(&self) -> Result<(), OfflineError> {
        write_durably(self.dir, MARKER, &format!("{}\n", self.remedy)).map_err(io_at(self.dir))
    }
}

/// Removes everything but the marker.
pub(super) fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == MARKER || name == LOST_AND_FOUND {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    sync_dir(dir)
}

/// Copies a directory with everything in it, durably. Links and sockets have no place in a data directory.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            bytes += copy(&source, &target)?;
        } else {
            bytes += fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_dir(to)?;
    Ok(bytes)
}

/// A file that is there whole or not at all.
pub(super) fn write_durably(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let partial = dir.join(format!(".{name}.partial"));
    let mut file = File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, dir.join(name))?;
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
