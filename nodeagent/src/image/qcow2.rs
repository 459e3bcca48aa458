//! Makes an empty qcow2 file over a read-only image: four clusters, as `qemu-img create` writes them, without a process for it.
//!
//! Source: "Qcow2 Image File Format", version 3, in QEMU's documentation (docs/interop/qcow2.txt). Numbers are big-endian.
//!
//! ```text
//!  cluster 0  header, the name of the format below, end of extensions, path of the image below
//!  cluster 1  refcount table: one entry, cluster 2
//!  cluster 2  refcount block: clusters 0 to 3 and on are used once
//!  cluster 3… L1 table: nothing is written yet
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAGIC: u32 = 0x5146_49fb;
const VERSION: u32 = 3;
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// What one entry of the L1 table reaches: a cluster of entries of eight bytes, each for a cluster.
const L1_REACH: u64 = CLUSTER / 8 * CLUSTER;
/// Bits of a reference count, as a power of two.
const REFCOUNT_ORDER: u32 = 4;
const HEADER_LENGTH: u32 = 104;
/// Header extension: the name of the format of the file below.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Longest path of the file below.
const BACKING_LENGTH_MAX: usize = 1023;
/// Sizes are whole sectors.
const SECTOR: u64 = 512;
/// Largest disk, in bytes: 64 TiB, with an L1 table of 1 MiB, whose counts still are in one block.
const SIZE_MAX: u64 = 64 << 40;

/// Fills a new file with a disk of `size_bytes` over the raw image at `backing`, an absolute path.
///
/// # Errors
/// A path that is too long, a disk that is too large, or whatever the file system says.
pub(super) fn create(file: &File, backing: &str, size_bytes: u64) -> io::Result<()> {
    if backing.len() > BACKING_LENGTH_MAX || size_bytes > SIZE_MAX {
        let what = format!("a disk of {size_bytes} bytes over a path of {} bytes", backing.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no qcow2 file can hold {what}")));
    }
    let size = size_bytes.next_multiple_of(SECTOR);
    let l1_entries = size.div_ceil(L1_REACH).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    let mut header = Vec::with_capacity(256 + backing.len());
    let extension = u64::from(HEADER_LENGTH);
    // The extension's head, its eight bytes and the end of extensions come before the path.
    let path_at = extension + 8 + 8 + 8;
    let numbers32 = |header: &mut Vec<u8>, numbers: &[u32]| {
        numbers.iter().for_each(|number| header.extend(number.to_be_bytes()));
    };
    let numbers64 = |header: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|number| header.extend(number.to_be_bytes()));
    };
    let narrow = |number: u64| u32::try_from(number).expect("bounded by SIZE_MAX and BACKING_LENGTH_MAX");
    numbers32(&mut header, &[MAGIC, VERSION]);
    numbers64(&mut header, &[path_at]);
    numbers32(&mut header, &[narrow(backing.len() as u64), CLUSTER_BITS]);
    numbers64(&mut header, &[size]);
    // No encryption.
    numbers32(&mut header, &[0, narrow(l1_entries)]);
    numbers64(&mut header, &[3 * CLUSTER, CLUSTER]);
    // One cluster of refcount table, no snapshots.
    numbers32(&mut header, &[1, 0]);
    // No snapshots; no incompatible, compatible or automatically cleared features.
    numbers64(&mut header, &[0, 0, 0, 0]);
    numbers32(&mut header, &[REFCOUNT_ORDER, HEADER_LENGTH]);
    numbers32(&mut header, &[BACKING_FORMAT, 3]);
    header.extend(b"raw\0\0\0\0\0");
    numbers32(&mut header, &[0, 0]);
    header.extend(backing.as_bytes());
    file.write_all_at(&header, 0)?;
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&counts, 2 * CLUSTER)?;
    file.set_len(clusters * CLUSTER)
}
