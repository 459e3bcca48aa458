//! Records of the snapshots tree: the meta of finished and unfinished snapshots. (A chunk's record is its bytes.)
//!
//! ```text
//! body = version u8 | index u64 | term u64 | revision u64 | extra blob | chunks u32 | bytes u64 | digest u32
//! ```
//! An unfinished snapshot has zeros in the last three.

use crate::{
    SnapshotInfo, SnapshotMeta, StorageError,
    codec::{self, Damage, Reader, put_blob},
    engine::Pair,
    keys::Tree,
};

const VERSION: u8 = 1;

/// Value of a meta record under its key.
pub(crate) fn seal(key: &[u8], info: &SnapshotInfo) -> Vec<u8> {
    let meta = &info.meta;
    let mut body = vec![VERSION];
    for number in [meta.index, meta.term, meta.revision] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    put_blob(&mut body, &meta.extra);
    body.extend_from_slice(&info.chunks.to_le_bytes());
    body.extend_from_slice(&info.bytes.to_le_bytes());
    body.extend_from_slice(&info.digest.to_le_bytes());
    codec::seal(Tree::Snapshots, key, &body)
}

/// Reads a meta record.
pub(crate) fn unseal((key, value): &Pair) -> Result<SnapshotInfo, Damage> {
    let body = codec::unseal(Tree::Snapshots, key, value)?;
    decode(body).ok_or_else(|| Damage::Corrupt("it is malformed".to_owned()))
}

/// Reads a meta record that has to be whole.
pub(crate) fn unseal_whole(pair: &Pair) -> Result<SnapshotInfo, StorageError> {
    unseal(pair).map_err(|damage| damage.into_error(Tree::Snapshots, &pair.0))
}

fn decode(body: &[u8]) -> Option<SnapshotInfo> {
    let mut reader = Reader(body);
    if reader.u8()? != VERSION {
        return None;
    }
    let (index, term, revision) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let meta = SnapshotMeta { index, term, revision, extra: reader.blob()?.to_vec() };
    let info = SnapshotInfo { meta, chunks: reader.u32()?, bytes: reader.u64()?, digest: reader.u32()? };
    reader.0.is_empty().then_some(info)
}
