//! One log record: a whole [`LogBatch`](crate::LogBatch) under one key.
//!
//! ```text
//! body = version u8 | flags u8 | seq u64 | follows u64 | first_index u64 | last_index u64
//!        | truncate_from u64 (flag 1) | hard state blob (flag 2) | count u32 | entries
//! entry = index u64 | length u32 | crc32c(index, bytes) u32 | bytes
//! ```
//!
//! Records are keyed by a sequence number, never by index: a truncation inside an older record is then just a number
//! in the newer one, nothing written earlier is ever rewritten, and a batch with only a hard state is a record like
//! every other. `follows` chains the records, so that a lost one is noticed; `first_index` and `last_index` are the
//! bounds of the log *after* the batch, so that replaying it can be checked. A record that moves the first index
//! carries the current hard state as well, so that all records before it may go.

use crate::{
    LogEntry,
    codec::{Reader, part_checksum, put_blob},
};

const VERSION: u8 = 1;
const HAS_TRUNCATE: u8 = 1;
const HAS_HARD_STATE: u8 = 2;
const IS_RESET: u8 = 4;
const KNOWN_FLAGS: u8 = HAS_TRUNCATE | HAS_HARD_STATE | IS_RESET;
/// Bytes that an entry takes beside its own.
const ENTRY_HEAD_BYTES: usize = 16;
const HEAD_BYTES: usize = 64;

/// Decoded form of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRecord {
    pub(crate) seq: u64,
    /// Sequence number of the record before it in the store; 0 for the first ever.
    pub(crate) follows: u64,
    /// First and last index after this record; `last_index` is `first_index - 1` for an empty log.
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    /// All earlier entries are void.
    pub(crate) reset: bool,
    pub(crate) truncate_from: Option<u64>,
    pub(crate) hard_state: Option<Vec<u8>>,
    pub(crate) entries: Vec<LogEntry>,
}

/// What an encoder needs, borrowed.
pub(crate) struct LogRecordRef<'a> {
    pub(crate) seq: u64,
    pub(crate) follows: u64,
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    pub(crate) reset: bool,
    pub(crate) truncate_from: Option<u64>,
    pub(crate) hard_state: Option<&'a [u8]>,
    pub(crate) entries: &'a [LogEntry],
}

impl LogRecordRef<'_> {
    /// The body to seal.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let payload: usize = self.entries.iter().map(|entry| ENTRY_HEAD_BYTES + entry.bytes.len()).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES + payload + self.hard_state.map_or(0, <[u8]>::len));
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(VERSION);
        out.push(
            flag(self.truncate_from.is_some(), HAS_TRUNCATE)
                | flag(self.hard_state.is_some(), HAS_HARD_STATE)
                | flag(self.reset, IS_RESET),
        );
        for number in [self.seq, self.follows, self.first_index, self.last_index] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(from) = self.truncate_from {
            out.extend_from_slice(&from.to_le_bytes());
        }
        if let Some(hard_state) = self.hard_state {
            put_blob(&mut out, hard_state);
        }
        let count = u32::try_from(self.entries.len()).expect("a batch is bounded far below 2^32 entries");
        out.extend_from_slice(&count.to_le_bytes());
        for entry in self.entries {
            let length = u32::try_from(entry.bytes.len()).expect("an entry is bounded far below 4 GiB");
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&part_checksum(entry.index, &entry.bytes).to_le_bytes());
            out.extend_from_slice(&entry.bytes);
        }
        out
    }
}

impl LogRecord {
    /// Reads a body; the error says what is wrong in it, down to the entry.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(body);
        let (mut record, count) = Self::decode_head(&mut reader)?;
        for _ in 0..count {
            record.entries.push(Self::decode_entry(&mut reader, record.entries.last())?);
        }
        if !reader.0.is_empty() {
            return Err("there are bytes behind its last entry".to_owned());
        }
        Ok(record)
    }

    fn decode_head(reader: &mut Reader<'_>) -> Result<(Self, u32), String> {
        let short = || "its head is malformed".to_owned();
        let version = reader.u8().ok_or_else(short)?;
        if version != VERSION {
            return Err(format!("it has version {version}, this binary reads {VERSION}"));
        }
        let flags = reader.u8().filter(|flags| flags & !KNOWN_FLAGS == 0).ok_or_else(short)?;
        let mut number = || reader.u64().ok_or_else(short);
        let (seq, follows, first_index, last_index) = (number()?, number()?, number()?, number()?);
        let truncate_from = if flags & HAS_TRUNCATE != 0 { Some(number()?) } else { None };
        let hard_state =
            if flags & HAS_HARD_STATE != 0 { Some(reader.blob().ok_or_else(short)?.to_vec()) } else { None };
        let count = reader.u32().ok_or_else(short)?;
        if first_index == 0 || last_index < first_index - 1 || follows >= seq {
            return Err(short());
        }
        let reset = flags & IS_RESET != 0;
        let entries = Vec::new();
        Ok((Self { seq, follows, first_index, last_index, reset, truncate_from, hard_state, entries }, count))
    }

    fn decode_entry(reader: &mut Reader<'_>, before: Option<&LogEntry>) -> Result<LogEntry, String> {
        let place = || match before {
            Some(entry) => format!("the entry after index {} is malformed", entry.index),
            None => "its first entry is malformed".to_owned(),
        };
        let index = reader.u64().ok_or_else(place)?;
        if before.is_some_and(|entry| entry.index + 1 != index) {
            return Err(place());
        }
        let length = reader.u32().and_then(|length| usize::try_from(length).ok()).ok_or_else(place)?;
        let crc = reader.u32().ok_or_else(place)?;
        let bytes = reader.bytes(length).ok_or_else(place)?;
        if part_checksum(index, bytes) != crc {
            return Err(format!("the checksum of entry {index} does not match"));
        }
        Ok(LogEntry { index, bytes: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        hard_state: Option<&[u8]>,
        truncate_from: Option<u64>,
        reset: bool,
        entries: &[LogEntry],
    ) -> Vec<u8> {
        let last_index = entries.last().map_or(8, |entry| entry.index);
        let record = LogRecordRef {
            seq: 4,
            follows: 3,
            first_index: 5,
            last_index,
            reset,
            truncate_from,
            hard_state,
            entries,
        };
        let body = record.encode();
        let decoded = LogRecord::decode(&body).expect("round trip");
        assert_eq!((decoded.seq, decoded.follows), (4, 3));
        assert_eq!((decoded.first_index, decoded.last_index, decoded.reset), (5, last_index, reset));
        assert_eq!((decoded.hard_state.as_deref(), decoded.truncate_from), (hard_state, truncate_from));
        assert_eq!(decoded.entries, entries);
        body
    }

    fn entries() -> Vec<LogEntry> {
        (9..12).map(|index| LogEntry { index, bytes: vec![7; 20] }).collect()
    }

    #[test]
    fn records_are_read_back() {
        check(None, None, false, &[]);
        check(Some(b"hard"), None, true, &[]);
        check(Some(b""), Some(9), false, &entries());
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let mut body = check(None, None, false, &entries());
        let end = body.len();
        body[end - 1] ^= 1;
        assert_eq!(LogRecord::decode(&body), Err("the checksum of entry 11 does not match".to_owned()));
    }

    #[test]
    fn no_prefix_is_taken_for_whole() {
        let body = check(Some(b"hard"), Some(9), false, &entries());
        for end in 0..body.len() {
            assert!(LogRecord::decode(&body[..end]).is_err(), "{end}");
        }
    }
}
