//! Opening and creating a data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    SledOptions,
    engine::{Database, SledEngine, caught},
    space::SpaceCheck,
};
use crate::{
    Identity, Operation, StorageError, Stores,
    acknowledged::{Acknowledged, AcknowledgedFile},
    engine::Engine,
    keys::{ACKNOWLEDGED_FILE, DATABASE_DIR, IDENTITY_FILE, IDENTITY_KEY, LOCK_FILE, Tree},
};

/// Opens the stores in a data directory with the default options, see [`open_with`].
///
/// # Errors
/// See [`open_with`].
pub fn open(path: impl AsRef<Path>, expected: Option<Identity>) -> Result<Stores, StorageError> {
    open_with(path, expected, &SledOptions::default())
}

/// Opens the stores in a data directory.
///
/// With an identity, an empty (or missing) directory is created and becomes its own, and a directory of another
/// cluster or member is refused; the `storage_uid` is used only for creation. Without one, only an existing data
/// directory is accepted. [`Stores::identity`] says who it belongs to.
///
/// # Errors
/// [`StorageError::NotInitialised`], [`ForeignCluster`](StorageError::ForeignCluster),
/// [`ForeignMember`](StorageError::ForeignMember), [`NewerFormat`](StorageError::NewerFormat),
/// [`Locked`](StorageError::Locked), [`Corrupt`](StorageError::Corrupt), [`Full`](StorageError::Full), or a failure of
/// the device. Damage inside the log is found by [`LogStore::load`](crate::LogStore::load).
pub fn open_with(
    path: impl AsRef<Path>,
    expected: Option<Identity>,
    options: &SledOptions,
) -> Result<Stores, StorageError> {
    let directory = Directory(path.as_ref().to_owned());
    let found = directory.read_identity()?;
    match (&found, &expected) {
        (Some(found), Some(expected)) => found.check_owner(&directory.name(), expected)?,
        (None, None) => return Err(StorageError::NotInitialised { path: directory.name() }),
        _ => {}
    }
    std::fs::create_dir_all(&directory.0).map_err(open_failed)?;
    let locked = directory.lock()?;
    // Once more under the lock: another process may have created it meanwhile.
    let (identity, database, acknowledged) = match (directory.read_identity()?, expected) {
        (Some(found), _) => {
            let (database, acknowledged) = directory.open_existing(found, options)?;
            (found, database, acknowledged)
        }
        (None, Some(identity)) => {
            let (database, acknowledged) = directory.create(identity, options)?;
            (identity, database, acknowledged)
        }
        (None, None) => return Err(StorageError::NotInitialised { path: directory.name() }),
    };
    if let Some(expected) = expected {
        identity.check_owner(&directory.name(), &expected)?;
    }
    let space = SpaceCheck::new(&directory.0, options);
    let engine: Arc<dyn Engine> = Arc::new(SledEngine::new(database, acknowledged, space, locked));
    Stores::assemble(identity, &engine)
}

fn open_failed(error: io::Error) -> StorageError {
    StorageError::from_io(Operation::Open.name(), &error)
}

struct Directory(PathBuf);

impl Directory {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn corrupt(&self, file: &str, reason: &str) -> StorageError {
        let record = self.file(file).display().to_string();
        StorageError::Corrupt { tree: "meta", record, reason: reason.to_owned() }
    }

    fn read_identity(&self) -> Result<Option<Identity>, StorageError> {
        match std::fs::read(self.file(IDENTITY_FILE)) {
            Ok(text) => Identity::decode(&self.name(), &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(open_failed(error)),
        }
    }

    fn lock(&self) -> Result<File, StorageError> {
        let path = self.file(LOCK_FILE);
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(open_failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: self.name() }),
            Err(TryLockError::Error(error)) => Err(open_failed(error)),
        }
    }

    fn open_existing(
        &self,
        identity: Identity,
        options: &SledOptions,
    ) -> Result<(Database, AcknowledgedFile), StorageError> {
        if !self.file(DATABASE_DIR).is_dir() {
            return Err(self.corrupt(DATABASE_DIR, "the database is missing"));
        }
        let acknowledged = AcknowledgedFile::open(&self.file(ACKNOWLEDGED_FILE))?;
        let database = Database::open(&self.file(DATABASE_DIR), options)?;
        let stored = caught(Operation::Open, || database.tree(Tree::Meta).get(IDENTITY_KEY))?;
        if stored.as_deref() != Some(identity.encode().as_bytes()) {
            return Err(
                self.corrupt(DATABASE_DIR, "the database carries another identity than the directory")
            );
        }
        Ok((database, acknowledged))
    }

    /// Creates everything; the identity file comes last. A creation that was cut short is started over.
    fn create(
        &self,
        identity: Identity,
        options: &SledOptions,
    ) -> Result<(Database, AcknowledgedFile), StorageError> {
        let acknowledged_path = self.file(ACKNOWLEDGED_FILE);
        let database = Database::open(&self.file(DATABASE_DIR), options)?;
        let is_used = caught(Operation::Open, || {
            Ok([Tree::Log, Tree::Events, Tree::Snapshots]
                .into_iter()
                .any(|tree| !database.tree(tree).is_empty()))
        })?;
        // A file that was never completed is as good as none.
        let promised = AcknowledgedFile::open(&acknowledged_path)
            .is_ok_and(|file| file.positions() != Acknowledged::default());
        if is_used || promised {
            return Err(self.corrupt(IDENTITY_FILE, "the file is missing, but the directory holds data"));
        }
        let acknowledged = AcknowledgedFile::create(&acknowledged_path).map_err(open_failed)?;
        caught(Operation::Open, || {
            database.tree(Tree::Meta).insert(IDENTITY_KEY, identity.encode().as_bytes())?;
            database.flush()
        })?;
        self.write_identity(&identity).map_err(open_failed)?;
        Ok((database, acknowledged))
    }

    fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        for name in [DATABASE_DIR, ""] {
            File::open(self.file(name))?.sync_all()?;
        }
        let unfinished = self.file("identity.unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(identity.encode().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.file(IDENTITY_FILE))?;
        File::open(&self.0)?.sync_all()?;
        if let Some(parent) = self.0.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}
