//! The files of the store, which an agent and imports beside it share.
//!
//! Whoever changes what is published holds the lock of the directory meanwhile: a name or an image is either there as a
//! whole or not at all, and nobody undoes what another process did.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, SeekFrom, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ImageConfig;
use super::digest::ImageDigest;
use super::error::{ImageError, IoContext as _};
use super::store::Image;

/// Longest /etc/passwd or /etc/group that is read.
const ACCOUNTS_LENGTH_MAX: u64 = 1 << 20;
/// The file of the names.
const NAMES: &str = "names.json";

/// Which image each name means.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Names(pub(super) BTreeMap<String, ImageDigest>);

/// The file of the private images. It has no extension: earlier versions clear away what ends in `.json` and is no record.
const PRIVATE: &str = "private";

/// From which repository each image is that was had with a pod's credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Private(pub(super) BTreeMap<ImageDigest, String>);

/// What is kept of an image besides its file system.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) digest: ImageDigest,
    pub(super) config: ImageConfig,
    /// Checksums of file system and configuration; earlier versions made none.
    #[serde(default)]
    pub(super) checksums: Option<Checksums>,
}

/// By which it is noticed that the disk gives back something else than was written (CRC32C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    pub(super) file_system: u32,
    pub(super) config: u32,
}

impl Record {
    /// The record of an image that was just built.
    pub(super) fn new(digest: ImageDigest, config: ImageConfig, built: &Path) -> Result<Self, ImageError> {
        let file_system = file_checksum(built).at("read", built)?;
        let written = serde_json::to_value(&config).expect("strings and numbers always fit in JSON");
        let checksums = Some(Checksums { file_system, config: config_checksum(&written) });
        Ok(Self { digest, config, checksums })
    }
}

/// Over what is written, not over what this version reads of it: another one may know more.
fn config_checksum(config: &Value) -> u32 {
    crc32c::crc32c(config.to_string().as_bytes())
}

/// A checksum over what is in a file, and where. Most of an image is empty: holes are not read, and blocks of zeros count as holes,
/// because what is one is up to the file system.
pub(super) fn file_checksum(path: &Path) -> io::Result<u32> {
    const BLOCK: usize = 4096;
    let file = File::open(path)?;
    let (mut sum, mut at) = (0, 0);
    let mut buffer = vec![0; 256 * BLOCK];
    loop {
        at = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data - data % BLOCK as u64,
            // No data beyond.
            Err(rustix::io::Errno::NXIO) => return Ok(sum),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(at))?.max(at + 1);
        while at < end {
            let length = file.read_at(&mut buffer, at)?;
            if length == 0 {
                return Ok(sum);
            }
            for (index, block) in buffer[..length].chunks(BLOCK).enumerate() {
                if block.iter().any(|&byte| byte != 0) {
                    let place = at + (index * BLOCK) as u64;
                    sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &place.to_le_bytes()), block);
                }
            }
            at += length as u64;
        }
    }
}

/// One state of the file of the names: another process replaces it by another file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, i64, i64)>);

impl Stamp {
    pub(super) fn of(dir: &Path) -> Self {
        let metadata = fs::metadata(dir.join(NAMES)).ok();
        Self(metadata.map(|m| (m.ino(), m.mtime(), m.mtime_nsec())))
    }
}

/// Waits until no other process changes what is published; the lock ends with the file.
pub(super) fn lock_published(dir: &Path) -> Result<File, ImageError> {
    lock_file(dir, "lock", FlockOperation::LockExclusive)
}

/// Work in progress of one process, in a folder of its own.
#[derive(Debug)]
pub(super) struct WorkPlace {
    pub(super) path: PathBuf,
    /// Held by all imports; whoever gets it alone clears away what dead ones left.
    _imports: Option<File>,
}

impl WorkPlace {
    /// The agent's, emptied.
    pub(super) fn of_agent(dir: &Path) -> Result<Self, ImageError> {
        if let Ok(_alone) = lock_file(dir, "imports", FlockOperation::NonBlockingLockExclusive) {
            remove_tree(&dir.join("incoming"))?;
        }
        let path = dir.join("tmp");
        remove_tree(&path)?;
        make_private(&path)?;
        Ok(Self { path, _imports: None })
    }

    /// That of an import which may run beside the agent.
    pub(super) fn of_import(dir: &Path) -> Result<Self, ImageError> {
        let imports = lock_file(dir, "imports", FlockOperation::LockShared)?;
        let path = dir.join("incoming").join(uuid::Uuid::new_v4().to_string());
        make_private(&path)?;
        Ok(Self { path, _imports: Some(imports) })
    }
}

impl Drop for WorkPlace {
    fn drop(&mut self) {
        if self._imports.is_some() {
            // What is left is cleared by the next agent.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn lock_file(dir: &Path, name: &str, operation: FlockOperation) -> Result<File, ImageError> {
    let path = dir.join(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
    flock(&file, operation).map_err(|e| ImageError::io("lock", &path, e.into()))?;
    Ok(file)
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ImageError::io("empty", path, error)),
        _ => Ok(()),
    }
}

/// Unpacked images hold set-user-id programs of strangers: no user of the host may reach them.
fn make_private(path: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(path).at("make", path)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, private).at("protect", path)
}

pub(super) fn load(record: &Path) -> Result<Option<Image>, ImageError> {
    let path = record.with_extension("ext4");
    let written: Value = serde_json::from_slice(&fs::read(record).at("read", record)?).unwrap_or_default();
    let found = config_checksum(&written["config"]);
    let parsed: Option<Record> = serde_json::from_value(written).ok();
    match parsed {
        Some(Record { checksums: Some(checksums), .. }) if checksums.config != found => {
            tracing::warn!(record = %record.display(), "the configuration of an image is damaged; the image is fetched again");
            Ok(None)
        }
        Some(parsed) if path.exists() => {
            let (digest, config) = (parsed.digest, Arc::new(parsed.config));
            let checksum = parsed.checksums.map(|checksums| checksums.file_system);
            Ok(Some(Image { digest, config, path, checksum, lease: Arc::new(()) }))
        }
        // Of no use without the other; the image is fetched again when it is asked for.
        _ => Ok(None),
    }
}

pub(super) fn load_names(dir: &Path) -> Result<Names, ImageError> {
    let path = &dir.join(NAMES);
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Names::default()),
        Err(error) => Err(ImageError::io("read", path, error)),
    }
}

/// The private images. A damaged file is an error: nobody shall get what is somebody's.
pub(super) fn load_private(dir: &Path) -> Result<Private, ImageError> {
    let path = &dir.join(PRIVATE);
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| ImageError::io("read", path, error.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Private::default()),
        Err(error) => Err(ImageError::io("read", path, error)),
    }
}

/// Writes the file of the private images; the caller holds the lock of the directory.
pub(super) fn write_private(dir: &Path, work: &WorkPlace, private: &Private) -> Result<(), ImageError> {
    write_json(dir, work, PRIVATE, private)
}

/// An image is not here any more; the caller holds the lock of the directory.
pub(super) fn forget_private(dir: &Path, work: &WorkPlace, digest: &ImageDigest) -> Result<(), ImageError> {
    let mut private = load_private(dir)?;
    if private.0.remove(digest).is_some() { write_private(dir, work, &private) } else { Ok(()) }
}

/// Replaces a file as a whole, or not at all.
pub(super) fn write_json(
    dir: &Path,
    work: &WorkPlace,
    name: &str,
    value: &impl Serialize,
) -> Result<(), ImageError> {
    let target = dir.join(name);
    let temporary = work.path.join(format!("{name}.{}", uuid::Uuid::new_v4()));
    let bytes = serde_json::to_vec_pretty(value).expect("strings and numbers always fit in JSON");
    let mut file = File::create_new(&temporary).at("make", &temporary)?;
    file.write_all(&bytes).at("write", &temporary)?;
    file.sync_all().at("sync", &temporary)?;
    fs::rename(&temporary, &target).at("make", &target)?;
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// Writes the file of the names.
pub(super) fn write_names(dir: &Path, work: &WorkPlace, names: &Names) -> Result<(), ImageError> {
    write_json(dir, work, NAMES, names)
}

/// A file of the image, read as the container would see it; empty if there is none.
pub(super) fn read_accounts(root: impl std::os::fd::AsFd, path: &str) -> String {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(fd) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) else { return String::new() };
    let mut bytes = Vec::new();
    let _ = io::Read::read_to_end(&mut io::Read::take(File::from(fd), ACCOUNTS_LENGTH_MAX), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn disk_bytes(path: &Path) -> u64 {
    /// Unit of `st_blocks` (stat(2)).
    const STAT_BLOCK: u64 = 512;
    fs::metadata(path).map_or(0, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * STAT_BLOCK)
}

pub(super) fn last_used(record: &Path) -> SystemTime {
    fs::metadata(record).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A temporary directory that goes away with its owner.
#[derive(Debug)]
pub(super) struct WorkDir {
    pub(super) path: PathBuf,
}

impl WorkDir {
    /// Where its one layer is.
    pub(super) fn layer_path(&self) -> PathBuf {
        self.path.join("layer")
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What is left is cleared at the next open.
        let _ = fs::remove_dir_all(&self.path);
    }
}
