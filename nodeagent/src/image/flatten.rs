//! From an unpacked image to an ext4 file, and from that to a container's writable disk: mkfs.ext4, and [`qcow2`].

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::digest::ImageDigest;
use super::error::{ImageError, IoContext as _};
use super::qcow2;

const BLOCK_LENGTH: u64 = 4096;
/// What an inode takes on disk, its table entry and a share of bitmaps and directories.
const INODE_OVERHEAD: u64 = 512;
/// Inodes that containers may use beside those of the image, of each group of blocks: one for 16 KiB, as mkfs.ext4 has it. Groups by which
/// the disk is larger have as many, and their tables take of its room.
const FREE_INODES_OF_GROUP: u64 = 8192;
/// A group of blocks: as many as one block has bits.
const GROUP_LENGTH: u64 = 8 * BLOCK_LENGTH * BLOCK_LENGTH;
/// Room for superblocks, group descriptors and the rounding of everything.
const FIXED_OVERHEAD: u64 = 16 << 20;
/// The journal of a file system that outlives its guest: the least that ext4 has.
const JOURNAL_BYTES: u64 = 4 << 20;
/// Only the end of a program's output is kept for an error.
const OUTPUT_LENGTH_MAX: usize = 2_000;

/// How much a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TreeSize {
    bytes: u64,
    inodes: u64,
}

/// Makes an ext4 image with the content of `tree` and `free_bytes` of free space. Without a journal: the disk is made
/// new from this image for every container, so there is nothing to recover. UUID and hash seed come from the digest,
/// so they are the same on every node.
pub(super) fn make_ext4(
    tree: &Path,
    target: &Path,
    digest: &ImageDigest,
    free_bytes: u64,
) -> Result<(), ImageError> {
    let size = measure(tree)?;
    let groups = (size.bytes + free_bytes).div_ceil(GROUP_LENGTH);
    let inodes = size.inodes + groups * FREE_INODES_OF_GROUP;
    let length = size.bytes + inodes * INODE_OVERHEAD + size.bytes / 50 + FIXED_OVERHEAD + free_bytes;
    let length = length.next_multiple_of(BLOCK_LENGTH);
    let file = File::create_new(target).at("make", target)?;
    file.set_len(length).at("make", target)?;
    let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, digest.as_str().as_bytes()).to_string();
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", "^has_journal"]);
    command.args(["-N", &inodes.to_string(), "-U", &uuid]);
    // The file is sparse and so full of zeroes: nobody needs to write the inode tables, the guest's kernel included.
    command.args(["-E", &format!("hash_seed={uuid},root_owner=0:0,assume_storage_prezeroed=1,nodiscard")]);
    command.arg("-d").arg(tree).arg(target);
    command.env("E2FSPROGS_FAKE_TIME", "1");
    run(command, "mkfs.ext4", "e2fsprogs", target)?;
    file.sync_all().at("sync", target)
}

/// Makes an empty ext4 file system that takes `size_bytes`, as a sparse file.
///
/// # Errors
/// [`ImageError`] if mkfs.ext4 is missing or the disk is full. An existing file is an error as well.
pub fn create_empty(path: &Path, size_bytes: u64) -> Result<(), ImageError> {
    // It ends with its guest, so there is nothing to recover.
    create_file_system(path, size_bytes, &["-O", "^has_journal"])
}

/// The same with a journal, for what outlives its guest: guests may be killed at any time.
///
/// # Errors
/// As with [`create_empty`].
pub fn create_volume(path: &Path, size_bytes: u64) -> Result<(), ImageError> {
    create_file_system(path, size_bytes.saturating_add(JOURNAL_BYTES), &["-J", &journal()])
}

/// The same on a whole device that holds zeros only.
///
/// # Errors
/// As with [`create_empty`], but that the device must be there.
pub(crate) fn make_file_system(device: &Path) -> Result<(), ImageError> {
    mkfs(device, &["-J", &journal()])
}

fn journal() -> String {
    format!("size={}", JOURNAL_BYTES >> 20)
}

/// The length of the file of a volume that takes so many bytes.
#[must_use]
pub fn volume_length(size_bytes: u64) -> u64 {
    with_overhead(size_bytes.saturating_add(JOURNAL_BYTES))
}

fn with_overhead(size_bytes: u64) -> u64 {
    let length = size_bytes.saturating_add(size_bytes / 50).saturating_add(FIXED_OVERHEAD);
    length.next_multiple_of(BLOCK_LENGTH)
}

fn create_file_system(path: &Path, size_bytes: u64, journal: &[&str]) -> Result<(), ImageError> {
    let file = File::create_new(path).at("make", path)?;
    file.set_len(with_overhead(size_bytes)).at("make", path)?;
    mkfs(path, journal)
}

fn mkfs(path: &Path, journal: &[&str]) -> Result<(), ImageError> {
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0"]).args(journal);
    command.args(["-E", "root_owner=0:0,assume_storage_prezeroed=1,nodiscard"]).arg(path);
    run(command, "mkfs.ext4", "e2fsprogs", path)
}

/// Makes a writable disk on top of a read-only image, as a qcow2 file.
///
/// `size_bytes` caps what the disk can take, at least the size of the base. The base must stay where it is, and
/// unchanged, as long as the overlay is used.
///
/// # Errors
/// [`ImageError`] if the base is missing, or the disk is full. An existing overlay is an error as well: it
/// may belong to a running guest.
pub fn create_overlay(base: &Path, path: &Path, size_bytes: u64) -> Result<(), ImageError> {
    let base = fs::canonicalize(base).at("find", base)?;
    let base_length = fs::metadata(&base).at("look at", &base)?.len();
    let file = File::create_new(path).at("make", path)?;
    qcow2::create(&file, &base.to_string_lossy(), size_bytes.max(base_length)).map_err(|error| {
        match error.kind() {
            io::ErrorKind::StorageFull => ImageError::DiskFull { path: path.into() },
            _ => ImageError::io("make", path, error),
        }
    })
}

fn run(
    mut command: Command,
    program: &'static str,
    package: &'static str,
    target: &Path,
) -> Result<(), ImageError> {
    // Administration programs are not on every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::ProgramMissing { program, package });
        }
        Err(error) => return Err(ImageError::io("run", Path::new(program), error)),
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    if text.contains("No space left on device") {
        return Err(ImageError::DiskFull { path: target.into() });
    }
    let tail = text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_LENGTH_MAX));
    Err(ImageError::ProgramFailed { program, output: format!("{}: {}", output.status, &text[tail..]) })
}

/// Blocks and inodes that the tree takes in a file system; a file with several names counts several times.
fn measure(dir: &Path) -> Result<TreeSize, ImageError> {
    let mut size = TreeSize { bytes: BLOCK_LENGTH, inodes: 1 };
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let metadata = path.symlink_metadata().at("look at", &path)?;
            size.inodes += 1;
            size.bytes += metadata.size().next_multiple_of(BLOCK_LENGTH);
            if metadata.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(size)
}
