//! The frame around every record's value, and the little-endian numbers inside.
//!
//! ```text
//! value = length u32 | crc32c(tree, key, length) u32 | body | crc32c(tree, key, body) u32
//! ```
//!
//! The length has its own checksum so that a record that ends early (torn) can be told from one whose bytes changed
//! (corrupt): only the first may ever be cut back. Tree and key enter both checksums, so that a value that turns up
//! under another key is found out.

use crate::{StorageError, keys, keys::Tree};

/// Bytes that the frame adds to a body.
pub(crate) const FRAME_BYTES: usize = 12;
const HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// Why a value could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The value is a proper prefix of a whole one.
    Torn,
    /// The bytes differ from what was written.
    Corrupt(String),
}

impl Damage {
    /// The error for a place where a torn record is as bad as a corrupt one.
    pub(crate) fn into_error(self, tree: Tree, key: &[u8]) -> StorageError {
        let reason = match self {
            Self::Torn => "the record ends early".to_owned(),
            Self::Corrupt(reason) => reason,
        };
        corrupt(tree, key, reason)
    }
}

/// Names a damaged record.
pub(crate) fn corrupt(tree: Tree, key: &[u8], reason: impl Into<String>) -> StorageError {
    StorageError::Corrupt { tree: tree.name(), record: keys::describe(tree, key), reason: reason.into() }
}

fn checksum(tree: Tree, key: &[u8], bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&[tree.number()]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), bytes)
}

/// Checksum of a part inside a body, bound to a position as well.
pub(crate) fn part_checksum(position: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), bytes)
}

/// Wraps a body into its frame.
///
/// # Panics
/// When the body is 4 GiB or longer; callers bound it far below.
pub(crate) fn seal(tree: Tree, key: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a record is bounded far below 4 GiB").to_le_bytes();
    let mut value = Vec::with_capacity(body.len() + FRAME_BYTES);
    value.extend_from_slice(&length);
    value.extend_from_slice(&checksum(tree, key, &length).to_le_bytes());
    value.extend_from_slice(body);
    value.extend_from_slice(&checksum(tree, key, body).to_le_bytes());
    value
}

/// Checks a value's frame and returns its body.
pub(crate) fn unseal<'a>(tree: Tree, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damage> {
    let Some((head, rest)) = value.split_at_checked(HEAD_BYTES) else { return Err(Damage::Torn) };
    let (length, head_crc) = head.split_at(4);
    if checksum(tree, key, length).to_le_bytes() != head_crc {
        return Err(Damage::Corrupt("the checksum of its length does not match".to_owned()));
    }
    let length = length.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let whole = length + CRC_BYTES;
    if rest.len() < whole {
        return Err(Damage::Torn);
    }
    if rest.len() > whole {
        return Err(Damage::Corrupt("it is longer than it should be".to_owned()));
    }
    let (body, crc) = rest.split_at(length);
    if checksum(tree, key, body).to_le_bytes() != crc {
        return Err(Damage::Corrupt("its checksum does not match".to_owned()));
    }
    Ok(body)
}

/// The bytes of a frame whose length is right but whose body may be damaged: to say *what* in it is damaged.
pub(crate) fn body_unchecked(value: &[u8]) -> &[u8] {
    value.get(HEAD_BYTES..value.len().saturating_sub(CRC_BYTES)).unwrap_or(&[])
}

/// Reads numbers and byte strings off the front of a body.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// A byte string with its length before it.
    pub(crate) fn blob(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.bytes(length)
    }
}

/// Appends a byte string with its length before it.
pub(crate) fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a record is bounded far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"one body of a record";

    #[test]
    fn a_whole_value_is_read_back() {
        for body in [BODY, b""] {
            assert_eq!(unseal(Tree::Log, b"key", &seal(Tree::Log, b"key", body)), Ok(body));
        }
    }

    #[test]
    fn every_proper_prefix_is_torn() {
        let value = seal(Tree::Log, b"key", BODY);
        for end in 0..value.len() {
            assert_eq!(unseal(Tree::Log, b"key", &value[..end]), Err(Damage::Torn), "{end}");
        }
    }

    #[test]
    fn every_flipped_bit_is_corrupt_and_never_torn() {
        let value = seal(Tree::Log, b"key", BODY);
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unseal(Tree::Log, b"key", &bad), Err(Damage::Corrupt(_))), "{bit}");
        }
    }

    #[test]
    fn a_value_of_another_key_or_tree_is_corrupt() {
        let value = seal(Tree::Log, b"key", BODY);
        assert!(matches!(unseal(Tree::Log, b"kez", &value), Err(Damage::Corrupt(_))));
        assert!(matches!(unseal(Tree::Events, b"key", &value), Err(Damage::Corrupt(_))));
        assert!(matches!(unseal(Tree::Log, b"key", &[&value[..], b"x"].concat()), Err(Damage::Corrupt(_))));
    }
}
