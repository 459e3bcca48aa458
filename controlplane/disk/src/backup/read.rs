//! File to State, with everything that can be wrong with a file named by what and where.

use std::io::{self, Read};

use bulkhead_controlplane_core::{Restorer, State};
use bulkhead_types::{DIGEST_VERSION, LogCodec};
use sha2::{Digest, Sha256};

use super::{BACKUP_FORMAT, BackupHeader, CHUNK_BYTES_MAX, MAGIC, chunk_checksum};
use crate::framing::Unframer;

/// Why a file is no usable backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It does not begin like one.
    #[error("this is no backup: it does not begin with {:?}", String::from_utf8_lossy(MAGIC).trim_end())]
    NoBackup,
    /// Written by a newer version.
    #[error(
        "this backup has format {found}, this build reads up to {BACKUP_FORMAT}; use the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// Its format.
        found: u32,
    },
    /// It ends too early.
    #[error(
        "this backup is truncated: it ends at byte {offset}, in {part}; it was never completed or lost its end: use another one"
    )]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// What should be there.
        part: String,
    },
    /// Bytes are not what was written.
    #[error("this backup is damaged at byte {offset}, in {part}: {reason}; use another one")]
    Damaged {
        /// Where, to the chunk.
        offset: u64,
        /// In what.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read.
    #[error("this backup cannot be read at byte {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// A backup that was read and checked.
#[derive(Debug)]
pub struct Backup {
    /// What it says about itself.
    pub header: BackupHeader,
    /// What it holds.
    pub state: State,
    /// Its hash: names it among all others.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub bytes: u64,
}

/// Reads a backup through and checks everything in it.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_backup(input: &mut dyn Read, codec: &dyn LogCodec) -> Result<Backup, BackupError> {
    let mut file = File { input, offset: 0, hash: Sha256::new() };
    let header = read_header(&mut file)?;
    let (mut unframer, mut restorer) = (Unframer::default(), Restorer::default());
    let (mut chunks, mut total, mut records) = (0u64, 0u64, 0u64);
    loop {
        let part = format!("chunk {chunks}");
        let start = file.offset;
        let damaged = |reason: String| BackupError::Damaged { offset: start, part: part.clone(), reason };
        let length = u32::from_le_bytes(file.array(&part)?) as usize;
        if length == 0 {
            break;
        }
        if length > CHUNK_BYTES_MAX {
            return Err(damaged(format!("its length of {length} bytes is beyond {CHUNK_BYTES_MAX}")));
        }
        let noted = u32::from_le_bytes(file.array(&part)?);
        let data = file.take(length, &part)?;
        if chunk_checksum(chunks, &data) != noted {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        unframer.feed(&data);
        while let Some(record) = unframer.next().map_err(|e| damaged(e.to_owned()))? {
            let decoded = codec.decode_snapshot_record(record);
            let pushed =
                decoded.map_err(|e| e.to_string()).and_then(|r| restorer.push(r).map_err(|e| e.to_string()));
            pushed.map_err(|e| damaged(format!("record {records}: {e}")))?;
            records += 1;
        }
        (chunks, total) = (chunks + 1, total + length as u64);
    }
    let start = file.offset;
    let damaged = |reason: String| BackupError::Damaged { offset: start, part: "its end".to_owned(), reason };
    let noted = (u64::from_le_bytes(file.array("its end")?), u64::from_le_bytes(file.array("its end")?));
    if noted != (chunks, total) {
        let (c, b) = noted;
        return Err(damaged(format!("it should have {c} chunks of {b} bytes, and has {chunks} of {total}")));
    }
    let sha256 = file.finish()?;
    if unframer.is_inside() {
        return Err(damaged("the last record is cut off".to_owned()));
    }
    let state = restorer.finish().map_err(|e| damaged(e.to_string()))?;
    check_same(&header, &state).map_err(damaged)?;
    Ok(Backup { header, state, sha256, bytes: file.offset })
}

/// Reads only what a backup says about itself; whether the rest is whole is not looked at.
///
/// # Errors
/// When it is no backup, a newer one, or damaged there already.
pub fn read_backup_header(input: &mut dyn Read) -> Result<BackupHeader, BackupError> {
    read_header(&mut File { input, offset: 0, hash: Sha256::new() })
}

fn read_header(file: &mut File<'_>) -> Result<BackupHeader, BackupError> {
    const HEAD: usize = 4 + BackupHeader::BYTES;
    let mut magic = [0; MAGIC.len()];
    let found = file.fill(&mut magic)?;
    if found == 0 || !MAGIC.starts_with(&magic[..found]) {
        return Err(BackupError::NoBackup);
    }
    if found < MAGIC.len() {
        return Err(BackupError::Truncated { offset: file.offset, part: "its first line".to_owned() });
    }
    file.hash.update(magic);
    let start = file.offset;
    let format: [u8; 4] = file.array("the header")?;
    let found = u32::from_le_bytes(format);
    // Judged before the checksum: a newer header may have another length.
    if found > BACKUP_FORMAT {
        return Err(BackupError::NewerFormat { found });
    }
    let header: [u8; BackupHeader::BYTES] = file.array("the header")?;
    let noted = u32::from_le_bytes(file.array("the header")?);
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&format);
    head.extend_from_slice(&header);
    if crc32c::crc32c(&head) != noted {
        let reason = "its checksum does not match".to_owned();
        return Err(BackupError::Damaged { offset: start, part: "the header".to_owned(), reason });
    }
    Ok(BackupHeader::decode(&header))
}

/// The State must be the one that the header speaks of.
fn check_same(header: &BackupHeader, state: &State) -> Result<(), String> {
    let of = |state: &State| (state.cluster_id(), state.revision(), state.feature_level());
    let noted = (Some(header.cluster_id), header.revision, header.feature_level);
    if of(state) != noted {
        return Err(format!("the header says {noted:?}, the state says {:?}", of(state)));
    }
    if header.digest_version == DIGEST_VERSION && header.digest != state.digest() {
        return Err(format!(
            "the state has digest {:032x}, the header says {:032x}",
            state.digest(),
            header.digest
        ));
    }
    Ok(())
}

/// Reads with a position and a hash.
struct File<'a> {
    input: &'a mut dyn Read,
    offset: u64,
    hash: Sha256,
}

impl File<'_> {
    /// Reads as much as there is, up to `buffer`'s length.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, BackupError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BackupError::Io { offset: self.offset, source }),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn take(&mut self, length: usize, part: &str) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; length];
        if self.fill(&mut bytes)? < length {
            return Err(BackupError::Truncated { offset: self.offset, part: part.to_owned() });
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, part: &str) -> Result<[u8; N], BackupError> {
        Ok(self.take(N, part)?.try_into().expect("as long as asked for"))
    }

    /// Compares the hash, and insists that nothing follows.
    fn finish(&mut self) -> Result<[u8; 32], BackupError> {
        let found: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let (start, part) = (self.offset, "its end".to_owned());
        let noted: [u8; 32] = self.array(&part)?;
        if noted != found {
            let reason = "the hash of the whole file does not match".to_owned();
            return Err(BackupError::Damaged { offset: start, part, reason });
        }
        if self.fill(&mut [0; 1])? > 0 {
            let reason = "something follows its end".to_owned();
            return Err(BackupError::Damaged { offset: self.offset - 1, part, reason });
        }
        Ok(found)
    }
}
