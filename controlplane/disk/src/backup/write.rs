//! State to file.

use std::io::{self, Write};

use bulkhead_controlplane_core::State;
use bulkhead_types::LogCodec;
use sha2::{Digest, Sha256};

use super::{BACKUP_FORMAT, BackupHeader, MAGIC, chunk_checksum};
use crate::framing::push;
use crate::snapshot::CHUNK_BYTES;

/// Writes a backup of `state`. Making it durable is the caller's business.
///
/// # Errors
/// Whatever the writer says; what was written then is no backup, and [`super::read_backup`] says so.
pub fn write_backup(
    state: &State,
    header: &BackupHeader,
    codec: &dyn LogCodec,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut out = Hashed { out, hash: Sha256::new() };
    let mut head = BACKUP_FORMAT.to_le_bytes().to_vec();
    head.extend_from_slice(&header.encode());
    out.write(MAGIC)?;
    out.write(&head)?;
    out.write(&crc32c::crc32c(&head).to_le_bytes())?;
    let (mut chunks, mut bytes) = (0u64, 0u64);
    let mut write_chunk = |out: &mut Hashed<'_>, data: &[u8]| {
        let length = u32::try_from(data.len()).expect("chunks are short");
        out.write(&length.to_le_bytes())?;
        out.write(&chunk_checksum(chunks, data).to_le_bytes())?;
        (chunks, bytes) = (chunks + 1, bytes + u64::from(length));
        out.write(data)
    };
    let mut buffer = Vec::with_capacity(2 * CHUNK_BYTES);
    for record in state.records() {
        push(&mut buffer, &codec.encode_snapshot_record(&record));
        while buffer.len() >= CHUNK_BYTES {
            write_chunk(&mut out, &buffer[..CHUNK_BYTES])?;
            buffer.drain(..CHUNK_BYTES);
        }
    }
    if !buffer.is_empty() {
        write_chunk(&mut out, &buffer)?;
    }
    out.write(&0u32.to_le_bytes())?;
    out.write(&chunks.to_le_bytes())?;
    out.write(&bytes.to_le_bytes())?;
    let Hashed { out, hash } = out;
    out.write_all(&hash.finalize())
}

/// Hashes what passes through.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}
