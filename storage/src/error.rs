//! What can go wrong, where, and what to do about it.

/// The remedy that every kind of lost or damaged data shares.
const RESYNC: &str = "remedy: run `bulkhead member replace` with this member's id against one of the other servers, move \
                      this data directory away, and start this server again as the command says: it joins under a new \
                      id and is re-synchronised from its peers";

/// Failure of a storage operation.
///
/// Three families, for the caller's decision:
/// - [`is_full`](Self::is_full): refuse writes, step down, try again later;
/// - [`is_fatal`](Self::is_fatal): the data is damaged or not ours, stop and tell the operator;
/// - everything else: a caller's mistake, or a failed device ([`Io`](Self::Io), [`Engine`](Self::Engine),
///   [`Poisoned`](Self::Poisoned)): drop the stores and open them again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No finished data directory there, and no identity given to create one.
    #[error(
        "{path} is not a Bulkhead data directory; remedy: initialise a cluster here or join one, or correct the path"
    )]
    NotInitialised {
        /// The data directory.
        path: String,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, this server was configured for cluster {expected}; remedy: correct the \
         configuration, or use an empty data directory"
    )]
    ForeignCluster {
        /// The data directory.
        path: String,
        /// Cluster id on disk, hexadecimal.
        found: String,
        /// Configured cluster id, hexadecimal.
        expected: String,
    },
    /// The directory belongs to another member of the same cluster.
    #[error(
        "{path} belongs to member {found}, this server was configured as member {expected}; remedy: correct the \
         configuration, or use an empty data directory and join as a fresh learner (two servers must never run under \
         one identity)"
    )]
    ForeignMember {
        /// The data directory.
        path: String,
        /// Member id on disk.
        found: u64,
        /// Configured member id.
        expected: u64,
    },
    /// Written by a newer version.
    #[error(
        "{path} has on-disk format {found}, this binary reads up to {supported}; remedy: run the version that wrote \
         it, or a newer one"
    )]
    NewerFormat {
        /// The data directory.
        path: String,
        /// Format number on disk.
        found: u32,
        /// Newest format number this binary reads.
        supported: u32,
    },
    /// Another process uses the directory.
    #[error(
        "{path} is in use by another process; remedy: stop the other server, or give this one its own data directory"
    )]
    Locked {
        /// The data directory.
        path: String,
    },
    /// A record does not match its checksum, or records do not fit together.
    #[error("tree {tree}, {record}: {reason}; {RESYNC}")]
    Corrupt {
        /// Tree (or file) that holds the record.
        tree: &'static str,
        /// Which record: sequence number, revision, or snapshot index and chunk.
        record: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A finished snapshot lacks a chunk.
    #[error("tree snapshots, snapshot {index}: chunk {chunk} of {chunks} is missing; {RESYNC}")]
    MissingChunk {
        /// Snapshot index.
        index: u64,
        /// The chunk that is not there.
        chunk: u32,
        /// How many there should be.
        chunks: u32,
    },
    /// The disk has no room. Nothing was written, unless the operation was a sync.
    #[error(
        "disk full during {operation}: {detail}; remedy: free space on the disk of the data directory, writes resume \
         then"
    )]
    Full {
        /// What was attempted.
        operation: &'static str,
        /// Free and needed bytes, or the system's message.
        detail: String,
    },
    /// The device or the file system failed.
    #[error(
        "{operation} failed: {detail}; remedy: check the disk and the system log, then restart this server"
    )]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The system's message.
        detail: String,
    },
    /// The storage engine failed inside itself.
    #[error(
        "storage engine failed during {operation}: {detail}; remedy: restart this server; if it fails again, {RESYNC}"
    )]
    Engine {
        /// What was attempted.
        operation: &'static str,
        /// The engine's message.
        detail: String,
    },
    /// An earlier failure left it unknown what is durable.
    #[error(
        "storage refuses further work after an earlier failure ({cause}); remedy: drop the stores and open them again"
    )]
    Poisoned {
        /// The earlier failure.
        cause: String,
    },
    /// The simulated disk under this handle was crashed or closed.
    #[error("this handle belongs to a process that is gone; remedy: open the disk again")]
    Closed,
    /// The caller asked for something that cannot be; nothing was changed.
    #[error("invalid {operation}: {reason}")]
    Invalid {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
    /// A record with the same position and other content is already there.
    #[error(
        "events record ending at revision {revision} is already stored with other content: this replica diverged; {RESYNC}"
    )]
    Conflict {
        /// Last revision of the record.
        revision: u64,
    },
    /// A chunk came out of order; nothing was changed.
    #[error("snapshot {index}: expected chunk {expected}, got {got}; remedy: continue at chunk {expected}")]
    ChunkOutOfOrder {
        /// Snapshot index.
        index: u64,
        /// The chunk to send next.
        expected: u32,
        /// The chunk that came.
        got: u32,
    },
    /// There is no finished snapshot at this index.
    #[error(
        "there is no finished snapshot at index {index}; remedy: list the snapshots, it may have been replaced"
    )]
    NoSnapshot {
        /// Snapshot index.
        index: u64,
    },
}

impl StorageError {
    /// The disk is full: refuse writes and recover when space returns.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// The data is damaged, or is not this server's: no retry helps.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::NotInitialised { .. }
                | Self::ForeignCluster { .. }
                | Self::ForeignMember { .. }
                | Self::NewerFormat { .. }
                | Self::Corrupt { .. }
                | Self::MissingChunk { .. }
                | Self::Conflict { .. }
        )
    }

    /// The operation was refused before anything was changed, and the store can go on as if it had not been asked.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::Invalid { .. }
                | Self::Conflict { .. }
                | Self::ChunkOutOfOrder { .. }
                | Self::NoSnapshot { .. }
        )
    }

    /// Classifies an error of the operating system.
    #[must_use]
    pub(crate) fn from_io(operation: &'static str, error: &std::io::Error) -> Self {
        let detail = error.to_string();
        match error.kind() {
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => Self::Full { operation, detail },
            _ => Self::Io { operation, detail },
        }
    }

    /// Says in which file a damaged record lies.
    #[must_use]
    pub(crate) fn within(mut self, file: Option<&str>) -> Self {
        if let (Self::Corrupt { record, .. }, Some(file)) = (&mut self, file) {
            *record = format!("{record} in {file}");
        }
        self
    }

    pub(crate) fn invalid(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { operation, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn check(kind: io::ErrorKind, full: bool) {
        let error = StorageError::from_io("write", &io::Error::from(kind));
        assert_eq!(error.is_full(), full, "{kind:?}");
        assert!(!error.is_fatal(), "{kind:?}");
        assert!(error.to_string().contains("remedy"), "{error}");
    }

    #[test]
    fn errors_of_the_system_are_classified() {
        check(io::Error::from_raw_os_error(28).kind(), true);
        check(io::ErrorKind::QuotaExceeded, true);
        check(io::ErrorKind::Other, false);
        check(io::ErrorKind::PermissionDenied, false);
    }
}
