//! Which logical volume a volume or snapshot is: a small file each, so that neither another `--volume-group` nor none loses one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Kind, ThinPoolName};
use crate::disk;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) volume_group: String,
    pub(super) thin_pool: String,
    /// It was made to its end; before that, the logical volume may be there or not, and half made.
    pub(super) made: bool,
}

impl Note {
    pub(super) fn new(pool: &ThinPoolName, made: bool) -> Self {
        Self { volume_group: pool.group.clone(), thin_pool: pool.pool.clone(), made }
    }

    pub(super) fn pool(&self) -> ThinPoolName {
        ThinPoolName { group: self.volume_group.clone(), pool: self.thin_pool.clone() }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Notes {
    dir: PathBuf,
}

impl Notes {
    pub(super) fn new(data: &Path) -> Self {
        Self { dir: data.join("volumes") }
    }

    fn path(&self, kind: Kind, id: Uuid) -> PathBuf {
        let end = match kind {
            Kind::Volume => "lv",
            Kind::Snapshot => "snap-lv",
        };
        self.dir.join(format!("{id}.{end}"))
    }

    pub(super) fn is_there(&self, kind: Kind, id: Uuid) -> io::Result<bool> {
        self.path(kind, id).try_exists()
    }

    pub(super) fn read(&self, kind: Kind, id: Uuid) -> io::Result<Option<Note>> {
        let path = self.path(kind, id);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let note = serde_json::from_slice(&bytes);
        note.map(Some).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    }

    pub(super) fn write(&self, kind: Kind, id: Uuid, note: &Note) -> io::Result<()> {
        if !self.dir.is_dir() {
            fs::create_dir_all(&self.dir)?;
            disk::sync_parent(&self.dir)?;
        }
        let bytes = serde_json::to_vec(note).map_err(io::Error::other)?;
        disk::replace(&self.path(kind, id), &bytes)
    }

    pub(super) fn forget(&self, kind: Kind, id: Uuid) -> io::Result<()> {
        let path = self.path(kind, id);
        disk::remove_file(&path)?;
        if self.dir.is_dir() { disk::sync_parent(&path) } else { Ok(()) }
    }
}
