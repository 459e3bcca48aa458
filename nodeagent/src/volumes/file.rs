//! Volumes as files of the host.
//!
//! ```text
//!  <data>/volumes/<uuid>.img    a volume: a sparse file with an ext4 file system; deleted by name only
//!  <data>/volumes/<uuid>.snap   a snapshot: a copy of such a file
//!  <data>/volumes/<uuid>.new    one that is being made
//! ```
//!
//! Raw and not qcow2: a snapshot is then a file of its own, so that neither it nor its volume ever needs the other, and the
//! order of their ends does not matter; growing is one call; and volumes that earlier versions made are like those of today.
//! A copy shares its blocks with the original where the file system can do that (XFS, Btrfs: `FICLONE`), else what was
//! written is copied and holes stay holes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use bulkhead_nodeagent_core::qemu::BlockDriver;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use uuid::Uuid;

use super::driver::{Capabilities, Content, Published, VolumeDriver, VolumeError};
use crate::disk;
use crate::image::{create_volume, volume_length};
use crate::steps::{Step, passed, reached};

/// Bytes copied at a time.
const PART_LENGTH: u64 = 1 << 20;
/// What `stat` counts blocks in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct FileDriver {
    dir: PathBuf,
    /// Found out once: whether files below can share blocks.
    shares_blocks: OnceLock<bool>,
}

impl FileDriver {
    pub(super) fn new(data: &Path) -> Self {
        Self { dir: data.join("volumes"), shares_blocks: OnceLock::new() }
    }

    fn path(&self, volume: Uuid) -> PathBuf {
        self.dir.join(format!("{volume}.img"))
    }

    fn snapshot_path(&self, snapshot: Uuid) -> PathBuf {
        self.dir.join(format!("{snapshot}.snap"))
    }

    /// Puts a file in its place, made by `make` beside it, unless it is there.
    fn make_once(
        &self,
        path: &Path,
        make: impl FnOnce(&Path) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        // Pods that read one volume together may all be its first.
        let _alone = Making::of(path);
        if path.try_exists()? {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        disk::sync_parent(&self.dir)?;
        let fresh = path.with_extension("new");
        disk::remove_file(&fresh)?;
        passed(Step::VolumeBegun);
        let finish = || {
            make(&fresh)?;
            reached(Step::VolumeFilled)?;
            File::open(&fresh)?.sync_all()?;
            passed(Step::VolumeSynced);
            fs::rename(&fresh, path)?;
            passed(Step::VolumePlaced);
            disk::sync_parent(path)?;
            passed(Step::VolumeDurable);
            Ok(())
        };
        finish().inspect_err(|_| {
            // It takes room, and the next try removes it anyway.
            let _ = disk::remove_file(&fresh);
        })
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        disk::remove_file(&path.with_extension("new"))?;
        disk::remove_file(path)?;
        passed(Step::VolumeRemoved);
        if self.dir.is_dir() {
            disk::sync_parent(path)?;
        }
        passed(Step::VolumeRemovalDurable);
        Ok(())
    }

    /// Tries it with two files of its own, of which an agent that ends meanwhile leaves the names for the next one that tries.
    fn probe_sharing(&self) -> io::Result<bool> {
        fs::create_dir_all(&self.dir)?;
        let mut from = tempfile_in(&self.dir, "probe-from")?;
        from.0.write_all(&[1; 4096])?;
        let to = tempfile_in(&self.dir, "probe-to")?;
        passed(Step::SharingTried);
        Ok(rustix::fs::ioctl_ficlone(&to.0, &from.0).is_ok())
    }
}

/// What is being made in this process, whichever driver does it.
static MAKING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static MADE: Condvar = Condvar::new();

/// Nobody else makes this file.
struct Making<'a>(&'a Path);

impl<'a> Making<'a> {
    /// Waits until nobody else does.
    fn of(path: &'a Path) -> Self {
        let all = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = MADE.wait_while(all, |all| all.contains(path)).unwrap_or_else(PoisonError::into_inner);
        all.insert(path.to_owned());
        Self(path)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        MAKING.lock().unwrap_or_else(PoisonError::into_inner).remove(self.0);
        MADE.notify_all();
    }
}

/// A file that goes when it is dropped.
struct Scratch(File, PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
    }
}

fn tempfile_in(dir: &Path, name: &str) -> io::Result<Scratch> {
    let path = dir.join(format!(".{name}"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    Ok(Scratch(file, path))
}

fn missing(what: &'static str, id: Uuid) -> impl FnOnce(io::Error) -> VolumeError {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => VolumeError::Missing { what, id },
        _ => VolumeError::Io(error),
    }
}

/// Copies a file as it is now.
pub(super) fn copy(from: &File, to: &Path) -> io::Result<()> {
    let length = from.metadata()?.len();
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    if rustix::fs::ioctl_ficlone(&target, from).is_ok() {
        return Ok(());
    }
    target.set_len(length)?;
    reached(Step::VolumeCopyBegun)?;
    let mut buffer = vec![0; usize::try_from(PART_LENGTH).expect("a small constant")];
    let mut end = 0;
    loop {
        // The next bytes that were ever written, up to the next hole (lseek(2)).
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(length);
        if start >= length {
            return Ok(());
        }
        copy_part(from, &mut target, start, end, &mut buffer)?;
    }
}

fn copy_part(mut from: &File, target: &mut File, start: u64, end: u64, buffer: &mut [u8]) -> io::Result<()> {
    rustix::fs::seek(from, SeekFrom::Start(start))?;
    rustix::fs::seek(&*target, SeekFrom::Start(start))?;
    let mut left = end - start;
    while left > 0 {
        let length = usize::try_from(left.min(PART_LENGTH)).expect("at most a part");
        from.read_exact(&mut buffer[..length])?;
        target.write_all(&buffer[..length])?;
        reached(Step::VolumePartCopied)?;
        left -= length as u64;
    }
    Ok(())
}

impl VolumeDriver for FileDriver {
    fn capabilities(&self) -> Capabilities {
        let copies_at_once = *self.shares_blocks.get_or_init(|| self.probe_sharing().unwrap_or(false));
        Capabilities { expand_online: true, copies_at_once, grows_beside_guest: false }
    }

    fn keeps_volume(&self, volume: Uuid) -> io::Result<bool> {
        self.path(volume).try_exists()
    }

    fn keeps_snapshot(&self, snapshot: Uuid) -> io::Result<bool> {
        self.snapshot_path(snapshot).try_exists()
    }

    fn create_volume(&self, volume: Uuid, size_bytes: u64, content: Content) -> Result<(), VolumeError> {
        self.make_once(&self.path(volume), |fresh| match content {
            Content::Empty => Ok(create_volume(fresh, size_bytes)?),
            Content::Snapshot(source) => {
                let file = File::open(self.snapshot_path(source)).map_err(missing("snapshot", source))?;
                Ok(copy(&file, fresh)?)
            }
            Content::Volume(source) => {
                let file = File::open(self.path(source)).map_err(missing("volume", source))?;
                Ok(copy(&file, fresh)?)
            }
        })
    }

    fn has_volume(&self, volume: Uuid) -> io::Result<bool> {
        self.path(volume).try_exists()
    }

    /// QEMU's lock on the file keeps everybody else away.
    fn stage_volume(&self, volume: Uuid, _writes: bool) -> Result<(), VolumeError> {
        fs::metadata(self.path(volume)).map(drop).map_err(missing("volume", volume))
    }

    fn publish(&self, volume: Uuid) -> Published {
        Published { file: self.path(volume), driver: BlockDriver::Raw }
    }

    fn way_back(&self, volume: Uuid) -> Option<String> {
        Some(format!("put volumes/{volume}.img back into the agent's data directory"))
    }

    fn disk_bytes(&self, size_bytes: u64) -> u64 {
        volume_length(size_bytes)
    }

    fn length(&self, volume: Uuid) -> Result<u64, VolumeError> {
        Ok(fs::metadata(self.path(volume)).map_err(missing("volume", volume))?.len())
    }

    fn written_bytes(&self, volume: Uuid) -> Result<u64, VolumeError> {
        let metadata = fs::metadata(self.path(volume)).map_err(missing("volume", volume))?;
        Ok(metadata.blocks().saturating_mul(BLOCK_BYTES))
    }

    fn expand_volume(&self, volume: Uuid, size_bytes: u64) -> Result<(), VolumeError> {
        let file =
            OpenOptions::new().write(true).open(self.path(volume)).map_err(missing("volume", volume))?;
        let wanted = self.disk_bytes(size_bytes);
        if file.metadata()?.len() < wanted {
            file.set_len(wanted)?;
            reached(Step::VolumeLengthened)?;
            file.sync_all()?;
            passed(Step::VolumeLengthDurable);
        }
        Ok(())
    }

    fn delete_volume(&self, volume: Uuid) -> io::Result<()> {
        self.delete(&self.path(volume))
    }

    fn create_snapshot(&self, source: Uuid, snapshot: Uuid) -> Result<(), VolumeError> {
        self.make_once(&self.snapshot_path(snapshot), |fresh| {
            let file = File::open(self.path(source)).map_err(missing("volume", source))?;
            Ok(copy(&file, fresh)?)
        })
    }

    fn delete_snapshot(&self, snapshot: Uuid) -> io::Result<()> {
        self.delete(&self.snapshot_path(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_make_one_volume_make_it_once() {
        use std::sync::mpsc::{RecvTimeoutError, channel};
        use std::time::Duration;
        let dir = tempfile::tempdir().expect("temporary directory");
        // Every pod's task has a driver of its own.
        let drivers = [FileDriver::new(dir.path()), FileDriver::new(dir.path())];
        let path = drivers[0].path(Uuid::from_u128(1));
        let ((begun, has_begun), (go, may_go), (done, is_done)) = (channel(), channel(), channel());
        std::thread::scope(|scope| {
            let path = &path;
            let [first, second] = &drivers;
            scope.spawn(move || {
                let make = |fresh: &Path| {
                    fs::write(fresh, "half")?;
                    begun.send(()).expect("heard");
                    may_go.recv().expect("told");
                    Ok(fs::write(fresh, "whole")?)
                };
                first.make_once(path, make).expect("made");
            });
            has_begun.recv().expect("it begins");
            scope.spawn(move || {
                let made = second.make_once(path, |fresh| Ok(fs::write(fresh, "another")?));
                made.expect("it is there");
                done.send(()).expect("heard");
            });
            let early = is_done.recv_timeout(Duration::from_millis(100));
            go.send(()).expect("it waits");
            assert_eq!(early, Err(RecvTimeoutError::Timeout), "half of a volume is none");
        });
        assert_eq!(fs::read_to_string(&path).expect("there"), "whole");
    }

    #[test]
    fn a_copy_keeps_holes_and_every_byte() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create_new(&from).expect("made");
        file.set_len(64 << 20).expect("sparse");
        for at in [0_u64, (5 << 20) + 4096, (64 << 20) - 4096] {
            rustix::fs::seek(&file, SeekFrom::Start(at)).expect("there");
            (&file).write_all(&[u8::try_from(at % 251).expect("small"); 4096]).expect("written");
        }
        copy(&File::open(&from).expect("open"), &to).expect("copied");
        assert!(fs::read(&from).expect("read") == fs::read(&to).expect("read"));
        assert!(fs::metadata(&to).expect("there").blocks() * BLOCK_BYTES < 8 << 20, "holes stay holes");
        copy(&File::open(&from).expect("open"), &to).expect_err("nothing is written over");
    }
}
