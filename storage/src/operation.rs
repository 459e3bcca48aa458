//! The operations that errors name and that a fault plan chooses from.

/// What a caller is doing: names the place in errors, and is what a fault plan chooses by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening the stores.
    Open,
    /// Reading the log at start.
    LogLoad,
    /// `LogStore::write`.
    LogWrite,
    /// `LogStore::sync`.
    LogSync,
    /// `EventStore::append`, `compact` and `truncate_after`.
    EventWrite,
    /// `EventStore::sync`.
    EventSync,
    /// `EventStore::read` and `bounds`.
    EventRead,
    /// Every write of a snapshot.
    SnapshotWrite,
    /// The sync at the end of a snapshot.
    SnapshotSync,
    /// Every read of a snapshot.
    SnapshotRead,
}

impl Operation {
    /// Name for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::LogLoad => "log load",
            Self::LogWrite => "log write",
            Self::LogSync => "log sync",
            Self::EventWrite => "event write",
            Self::EventSync => "event sync",
            Self::EventRead => "event read",
            Self::SnapshotWrite => "snapshot write",
            Self::SnapshotSync => "snapshot sync",
            Self::SnapshotRead => "snapshot read",
        }
    }
}
