//! sled as an engine: real durability, caught failures, refused writes on a full disk.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{File, TryLockError},
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{SledOptions, space::SpaceCheck};
use crate::{
    Operation, StorageError,
    acknowledged::{Acknowledged, AcknowledgedFile, Position},
    engine::{Batch, Engine, KeyRange, Pair},
    keys::Tree,
};

/// sled's unit of writing. A page of up to 16 values that is longer than a quarter of it goes to a file of its own,
/// which costs another sync; at 8 MiB that starts at values of 128 KiB.
const SEGMENT_BYTES: usize = 8 << 20;

/// How often, and how long each time, to wait for sled's threads to let go of a database that was just closed.
const RELEASE_ATTEMPTS: u32 = 1000;
const RELEASE_WAIT: Duration = Duration::from_millis(5);

/// An open sled database.
pub(super) struct Database {
    db: sled::Db,
    trees: [sled::Tree; 4],
    /// The file that sled writes, opened once more to sync it.
    file: File,
    file_name: String,
    large_values: PathBuf,
    /// Files of large values that are known to be durable.
    synced_large_values: Mutex<BTreeSet<OsString>>,
}

impl Database {
    /// Opens or creates it.
    pub(super) fn open(path: &Path, options: &SledOptions) -> Result<Self, StorageError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(options.cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None);
        wait_for_release(&path.join("db")).map_err(|e| StorageError::from_io(Operation::Open.name(), &e))?;
        caught(Operation::Open, || {
            let db = config.open()?;
            let [a, b, c, d] = Tree::ALL.map(|tree| db.open_tree(tree.name()));
            let file = File::open(path.join("db"))?;
            let file_name = path.join("db").display().to_string();
            let large_values = path.join("blobs");
            // Nothing is known of files that an earlier process wrote: the first flush syncs them all.
            let synced_large_values = Mutex::default();
            Ok(Self { db, trees: [a?, b?, c?, d?], file, file_name, large_values, synced_large_values })
        })
    }

    pub(super) fn tree(&self, tree: Tree) -> &sled::Tree {
        match tree {
            Tree::Meta => &self.trees[0],
            Tree::Log => &self.trees[1],
            Tree::Events => &self.trees[2],
            Tree::Snapshots => &self.trees[3],
        }
    }

    /// Makes everything durable that was applied before the call.
    pub(super) fn flush(&self) -> Result<(), sled::Error> {
        self.db.flush()?;
        self.sync_large_values()?;
        Ok(self.file.sync_data()?)
    }

    fn sync_large_values(&self) -> io::Result<()> {
        let mut synced = lock(&self.synced_large_values);
        let mut present = BTreeSet::new();
        let mut any_new = false;
        for file in std::fs::read_dir(&self.large_values)? {
            let name = file?.file_name();
            if !synced.contains(&name) {
                match File::open(self.large_values.join(&name)) {
                    Ok(file) => file.sync_all()?,
                    // sled removes files of values that were replaced.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                any_new = true;
            }
            present.insert(name);
        }
        if any_new {
            File::open(&self.large_values)?.sync_all()?;
        }
        *synced = present;
        Ok(())
    }
}

/// Waits until no handle of an earlier use of the database is left. The caller holds the directory's own lock, so only
/// sled's threads of the process that had it before can hold one, for the moment that they need to end; sled offers
/// nothing else to wait for.
fn wait_for_release(file: &Path) -> io::Result<()> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for _ in 0..RELEASE_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) => std::thread::sleep(RELEASE_WAIT),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the database file is still locked by its last user"))
}

/// The engine over it.
pub(super) struct SledEngine {
    database: Database,
    acknowledged: Mutex<AcknowledgedFile>,
    space: SpaceCheck,
    /// The first failure that leaves it open what is durable; every later call gets it.
    failure: Mutex<Option<StorageError>>,
    /// Held until everything above is closed: fields are dropped in order.
    _lock: File,
}

impl SledEngine {
    pub(super) fn new(
        database: Database,
        acknowledged: AcknowledgedFile,
        space: SpaceCheck,
        locked: File,
    ) -> Self {
        let (acknowledged, failure) = (Mutex::new(acknowledged), Mutex::new(None));
        Self { database, acknowledged, space, failure, _lock: locked }
    }

    fn run<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Database) -> Result<T, sled::Error>,
    ) -> Result<T, StorageError> {
        if let Some(cause) = &*lock(&self.failure) {
            return Err(StorageError::Poisoned { cause: cause.to_string() });
        }
        let result = caught(operation, || work(&self.database));
        if let Err(error) = &result {
            lock(&self.failure).get_or_insert_with(|| error.clone());
        }
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something of sled, turning its errors and panics into ours.
pub(super) fn caught<T>(
    operation: Operation,
    work: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, StorageError> {
    let name = operation.name();
    // What sled leaves half done after a panic is never used again: the caller poisons itself or drops it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(StorageError::from_io(name, &error)),
        Ok(Err(sled::Error::Corruption { at, .. })) => Err(StorageError::Corrupt {
            tree: "database",
            record: at.map_or_else(|| "its own files".to_owned(), |at| format!("place {at:?} in its file")),
            reason: format!("sled found it damaged during {name}"),
        }),
        Ok(Err(error)) => Err(StorageError::Engine { operation: name, detail: error.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(StorageError::Engine { operation: name, detail: format!("it panicked: {text}") })
        }
    }
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let (start, end) = range;
    (Bound::Included(start), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
}

impl Engine for SledEngine {
    fn apply(&self, operation: Operation, tree: Tree, batch: Batch) -> Result<(), StorageError> {
        self.space.check(operation, batch.put_bytes(), batch.is_maintenance())?;
        self.run(operation, |database| {
            let tree = database.tree(tree);
            // A single change is atomic by itself, and cheaper without a batch around it.
            match (batch.puts.as_slice(), batch.deletes.as_slice()) {
                ([(key, value)], []) => tree.insert(key, value.as_slice()).map(drop),
                ([], [key]) => tree.remove(key).map(drop),
                _ => {
                    let mut all = sled::Batch::default();
                    batch.puts.into_iter().for_each(|(key, value)| all.insert(key, value));
                    batch.deletes.into_iter().for_each(|key| all.remove(key));
                    tree.apply_batch(all)
                }
            }
        })
    }

    fn get(&self, operation: Operation, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.run(operation, |database| Ok(database.tree(tree).get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Pair>, StorageError> {
        self.run(operation, |database| {
            let pairs = database.tree(tree).range::<&[u8], _>(bounds(range));
            pairs.take(limit).map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    fn keys(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        self.run(operation, |database| {
            let keys = database.tree(tree).range::<&[u8], _>(bounds(range)).keys();
            keys.take(limit).map(|key| key.map(|key| key.to_vec())).collect()
        })
    }

    fn last(&self, operation: Operation, tree: Tree) -> Result<Option<Pair>, StorageError> {
        let last = self.run(operation, |database| database.tree(tree).last())?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn flush(&self, operation: Operation) -> Result<(), StorageError> {
        self.run(operation, Database::flush)
    }

    fn acknowledged(&self) -> Result<Acknowledged, StorageError> {
        Ok(lock(&self.acknowledged).positions())
    }

    fn acknowledge(&self, operation: Operation, position: Position) -> Result<(), StorageError> {
        self.run(operation, |_| {
            let mut file = lock(&self.acknowledged);
            let next = file.positions().with(position);
            Ok(file.advance(next)?)
        })
    }

    fn file(&self) -> Option<&str> {
        Some(&self.database.file_name)
    }

    fn check_space(&self) -> Result<(), StorageError> {
        self.space.check(Operation::LogWrite, 0, false)
    }
}
