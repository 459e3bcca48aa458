//! Who a data directory belongs to, and its one text form.

use crate::{StorageError, keys::FORMAT};

const CHECKSUM_FIELD: &str = "crc32c";

/// Owner of a data directory.
///
/// A server that lost its disk comes back with another `storage_uid`, which is how its peers notice that it must not
/// continue under its old member id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Cluster, a UUID.
    pub cluster_id: [u8; 16],
    /// Raft member id, never 0 and never reused.
    pub member_id: u64,
    /// Random; drawn by the caller when the directory is created.
    pub storage_uid: [u8; 16],
}

impl Identity {
    /// The text that is stored: one `name = value` per line, with a checksum at the end.
    #[must_use]
    pub(crate) fn encode(&self) -> String {
        let body = format!(
            "format = {FORMAT}\ncluster_id = {}\nmember_id = {}\nstorage_uid = {}\n",
            hex(&self.cluster_id),
            self.member_id,
            hex(&self.storage_uid)
        );
        format!("{body}{CHECKSUM_FIELD} = {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    /// Reads the stored text. The format number is judged before anything else, because a newer format may look
    /// different in every other way.
    pub(crate) fn decode(path: &str, text: &[u8]) -> Result<Self, StorageError> {
        let corrupt = |reason: &str| StorageError::Corrupt {
            tree: "meta",
            record: format!("identity in {path}"),
            reason: reason.to_owned(),
        };
        let text = std::str::from_utf8(text).map_err(|_| corrupt("it is not text"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.split_once(" = ").filter(|(found, _)| *found == name))
                .map(|(_, v)| v)
        };
        let found: u32 = field("format")
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| corrupt("it has no format number"))?;
        if found > FORMAT {
            return Err(StorageError::NewerFormat { path: path.to_owned(), found, supported: FORMAT });
        }
        let read = || {
            Some(Self {
                cluster_id: unhex(field("cluster_id")?)?,
                member_id: field("member_id")?.parse().ok()?,
                storage_uid: unhex(field("storage_uid")?)?,
            })
        };
        let identity = read().ok_or_else(|| corrupt("a field is missing or malformed"))?;
        if identity.encode() != text {
            return Err(corrupt("its checksum does not match"));
        }
        Ok(identity)
    }

    /// Refuses a directory of another cluster or member. `storage_uid` is not compared: the caller learns the
    /// stored one from the directory.
    pub(crate) fn check_owner(&self, path: &str, expected: &Self) -> Result<(), StorageError> {
        let path = path.to_owned();
        if self.cluster_id != expected.cluster_id {
            let (found, expected) = (hex(&self.cluster_id), hex(&expected.cluster_id));
            return Err(StorageError::ForeignCluster { path, found, expected });
        }
        if self.member_id != expected.member_id {
            let (found, expected) = (self.member_id, expected.member_id);
            return Err(StorageError::ForeignMember { path, found, expected });
        }
        Ok(())
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { cluster_id: [0x0a; 16], member_id: 3, storage_uid: [0xfe; 16] };

    #[test]
    fn text_is_read_back() {
        assert_eq!(Identity::decode("d", IDENTITY.encode().as_bytes()), Ok(IDENTITY));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let text = IDENTITY.encode().into_bytes();
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 1;
            let error = Identity::decode("d", &bad).expect_err("damaged");
            assert!(error.is_fatal(), "{at}: {error}");
        }
    }

    #[test]
    fn a_newer_format_is_named_even_if_nothing_else_is_understood() {
        assert_eq!(
            Identity::decode("d", b"format = 2\nshards = 7\n"),
            Err(StorageError::NewerFormat { path: "d".into(), found: 2, supported: FORMAT })
        );
    }
}
