//! State to snapshot records and back.

use bulkhead_canary::planted;
use bulkhead_types::{DIGEST_VERSION, SnapshotRecord};

use super::State;
use super::interner::Interner;

/// Why a snapshot cannot become a State.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record where it does not belong.
    #[error("snapshot record {position} is out of order: {what}")]
    Order {
        /// Its position from 0.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The end is missing.
    #[error("the snapshot ends after {0} records without its trailer: a part is missing; fetch it again")]
    Incomplete(u64),
    /// The number of records differs from the one noted.
    #[error("the snapshot has {found} records, its trailer says {noted}; fetch it again")]
    Count {
        /// Records read.
        found: u64,
        /// Records noted.
        noted: u64,
    },
    /// The State made from it has another digest.
    #[error(
        "the State made from the snapshot has digest {found:032x}, its trailer says {noted:032x}; fetch it again"
    )]
    Digest {
        /// Digest of the restored State.
        found: u128,
        /// Digest noted.
        noted: u128,
    },
}

impl State {
    /// Every record of a snapshot of this State, in order.
    pub fn records(&self) -> impl Iterator<Item = SnapshotRecord> + '_ {
        let header = SnapshotRecord::Header {
            cluster_id: self.cluster_id,
            revision: self.revision,
            now_ms: self.now_ms,
            feature_level: self.feature_level,
        };
        let members = self.members.values().map(|m| SnapshotRecord::Member((**m).clone()));
        let objects = self.objects().map(SnapshotRecord::Object);
        let requests = self.requests.iter().map(|(request_id, at_ms, outcome)| SnapshotRecord::Request {
            request_id,
            at_ms,
            outcome,
        });
        let requests = requests.filter(|_| !planted!("canary_snapshot_without_requests"));
        let kept = if planted!("canary_snapshot_without_requests") { 0 } else { self.requests.len() };
        let count = 1 + self.members.len() + self.objects_len() + kept;
        let trailer = SnapshotRecord::Trailer {
            digest_version: DIGEST_VERSION,
            digest: self.digest(),
            records: count as u64,
        };
        std::iter::once(header).chain(members).chain(objects).chain(requests).chain(std::iter::once(trailer))
    }
}

/// Builds a State from snapshot records, one at a time, and checks it at the end.
#[derive(Debug, Default)]
pub struct Restorer {
    state: State,
    position: u64,
    done: bool,
    /// Pods of one template share its parts again, as they did before.
    interner: Interner,
}

impl Restorer {
    /// Takes the next record.
    ///
    /// # Errors
    /// When it is out of order, or is a trailer that does not agree with what came before.
    pub fn push(&mut self, record: SnapshotRecord) -> Result<(), RestoreError> {
        let order = |what| Err(RestoreError::Order { position: self.position, what });
        if self.done {
            return order("a record after the trailer");
        }
        match record {
            SnapshotRecord::Header { cluster_id, revision, now_ms, feature_level } => {
                if self.position != 0 {
                    return order("a second header");
                }
                self.state.cluster_id = cluster_id;
                self.state.revision = revision;
                self.state.now_ms = now_ms;
                self.state.set_feature_level(feature_level);
            }
            _ if self.position == 0 => return order("no header"),
            SnapshotRecord::Member(member) => self.state.put_member(member),
            SnapshotRecord::Object(object) => {
                let object = self.interner.intern(object);
                if self.state.put(object).is_some() {
                    return order("an object twice");
                }
            }
            SnapshotRecord::Request { request_id, at_ms, outcome } => {
                if self.state.requests.get(request_id).is_some() {
                    return order("a request twice");
                }
                self.state.requests.record(request_id, at_ms, &outcome);
            }
            SnapshotRecord::Trailer { digest_version, digest, records } => {
                self.finish_checks(digest_version, digest, records)?;
            }
        }
        self.position += 1;
        Ok(())
    }

    /// The State, once the trailer has been seen.
    ///
    /// # Errors
    /// When the trailer is missing.
    pub fn finish(self) -> Result<State, RestoreError> {
        if self.done { Ok(self.state) } else { Err(RestoreError::Incomplete(self.position)) }
    }

    fn finish_checks(&mut self, digest_version: u32, noted: u128, records: u64) -> Result<(), RestoreError> {
        if records != self.position {
            return Err(RestoreError::Count { found: self.position, noted: records });
        }
        let found = self.state.digest();
        if digest_version == DIGEST_VERSION && found != noted {
            return Err(RestoreError::Digest { found, noted });
        }
        self.done = true;
        Ok(())
    }
}
