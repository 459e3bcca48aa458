//! One record of a segment.
//!
//! ```text
//!  length u32 · crc32c u32 · stream u8 · guest u32 · restart u32 · time_ms u64 · offset u64 · data
//! ```
//! Little-endian; `length` counts what follows the checksum, which covers it. A record that is cut off ends a segment.

use std::io::{self, Read};

/// Bytes of a record before its data, without length and checksum.
const FIXED_LENGTH: usize = 25;
/// Longest record without length and checksum, in bytes.
const LENGTH_MAX: usize = FIXED_LENGTH + (64 << 10);

/// Which start of a container: its pod's guest, and the restart within that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) guest: u32,
    pub(crate) restart: u32,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) stderr: bool,
    pub(crate) run: Run,
    pub(crate) time_ms: u64,
    /// Offset of the first byte in everything that this guest's container wrote.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED_LENGTH + self.data.len());
        body.push(u8::from(self.stderr));
        body.extend(self.run.guest.to_le_bytes());
        body.extend(self.run.restart.to_le_bytes());
        body.extend(self.time_ms.to_le_bytes());
        body.extend(self.offset.to_le_bytes());
        body.extend(&self.data);
        let length = u32::try_from(body.len()).expect("a chunk of the guest protocol is short");
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// The next record, or `None` where whole records end.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 8];
        if !fill(from, &mut head)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let checksum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if !(FIXED_LENGTH..=LENGTH_MAX).contains(&length) {
            return Ok(None);
        }
        let mut body = vec![0; length];
        if !fill(from, &mut body)? || crc32c::crc32c(&body) != checksum {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Ok(Some(Self {
            stderr: body[0] != 0,
            run: Run { guest: word(1), restart: word(5) },
            time_ms: long(9),
            offset: long(17),
            data: body[FIXED_LENGTH..].to_vec(),
        }))
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

/// Reads the whole buffer; false when the source ends before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_until_one_is_cut_off_or_damaged() {
        let record = |n: u8| Record {
            stderr: n == 1,
            run: Run { guest: 2, restart: 3 },
            time_ms: 1 << 40,
            offset: 1 << 33,
            data: vec![n; n as usize],
        };
        let bytes: Vec<u8> = (0..3).flat_map(|n| record(n).encode()).collect();
        let read_all = |mut bytes: &[u8]| {
            std::iter::from_fn(|| Record::read(&mut bytes).expect("memory")).collect::<Vec<_>>()
        };
        assert_eq!(read_all(&bytes), [record(0), record(1), record(2)]);
        assert_eq!(read_all(&bytes[..bytes.len() - 1]), [record(0), record(1)]);
        let mut damaged = bytes.clone();
        let at = bytes.len() - 1;
        damaged[at] ^= 1;
        assert_eq!(read_all(&damaged), [record(0), record(1)]);
    }
}
