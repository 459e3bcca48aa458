//! State to snapshot records and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{DIGEST_VERSION, Object, Pod, PodSpec, PodTemplate, Shared, SnapshotRecord, digest128};

use super::State;

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
    /// Pod specs by digest: pods of one template share one again, as they did before.
    specs: BTreeMap<u128, Shared<PodSpec>>,
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
                self.state.feature_level = feature_level;
            }
            _ if self.position == 0 => return order("no header"),
            SnapshotRecord::Member(member) => self.state.put_member(member),
            SnapshotRecord::Object(object) => {
                if self.state.object(object.kind(), object.meta().id).is_some() {
                    return order("an object twice");
                }
                let object = self.intern(object);
                self.state.put(object);
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

    fn intern(&mut self, object: Object) -> Object {
        match object {
            Object::Pod(mut pod) => {
                let Pod { spec, .. } = Arc::make_mut(&mut pod);
                self.intern_spec(spec);
                Object::Pod(pod)
            }
            Object::ReplicaSet(mut set) => {
                self.intern_template(&mut Arc::make_mut(&mut set).spec.template);
                Object::ReplicaSet(set)
            }
            Object::Deployment(mut deployment) => {
                self.intern_template(&mut Arc::make_mut(&mut deployment).spec.template);
                Object::Deployment(deployment)
            }
            Object::StatefulSet(mut set) => {
                self.intern_template(&mut Arc::make_mut(&mut set).spec.template);
                Object::StatefulSet(set)
            }
            Object::DaemonSet(mut set) => {
                self.intern_template(&mut Arc::make_mut(&mut set).spec.template);
                Object::DaemonSet(set)
            }
            Object::Job(mut job) => {
                self.intern_template(&mut Arc::make_mut(&mut job).spec.template);
                Object::Job(job)
            }
            Object::CronJob(mut job) => {
                self.intern_template(&mut Arc::make_mut(&mut job).spec.job_template.spec.template);
                Object::CronJob(job)
            }
            Object::ControllerRevision(mut revision) => {
                self.intern_template(&mut Arc::make_mut(&mut revision).template);
                Object::ControllerRevision(revision)
            }
            other => other,
        }
    }

    fn intern_template(&mut self, template: &mut PodTemplate) {
        self.intern_spec(&mut template.spec);
    }

    fn intern_spec(&mut self, spec: &mut Shared<PodSpec>) {
        debug_assert_eq!(spec.digest(), digest128(&**spec));
        *spec = self.specs.entry(spec.digest()).or_insert_with(|| spec.clone()).clone();
    }
}
