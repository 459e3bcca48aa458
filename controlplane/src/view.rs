//! What readers see: the State after the last applied entry, and what the server is.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::server::ServerStatus;
use bulkhead_controlplane_disk::BackupHeader;
use bulkhead_types::MemberId;
use tokio::sync::watch;

use crate::node::now_ms;

/// A consistent moment of this replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The State; copying it is O(1).
    pub(crate) state: State,
    /// The last entry in it.
    pub(crate) index: u64,
    /// The term of that entry.
    pub(crate) term: u64,
}

impl View {
    /// What a backup of it says about itself; `None` before the cluster has an identity.
    pub(crate) fn backup_header(&self, member: MemberId) -> Option<BackupHeader> {
        BackupHeader::of(&self.state, self.index, self.term, member, now_ms())
    }
}

/// Readers' end of what the node thread publishes.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) status: watch::Receiver<Option<ServerStatus>>,
}

impl Views {
    /// The newest State.
    pub(crate) fn state(&self) -> State {
        self.view.borrow().state.clone()
    }

    /// Waits until the State has this revision. `false` when the server ends first.
    pub(crate) async fn at_least(&mut self, revision: u64) -> bool {
        self.view.wait_for(|view| view.state.revision() >= revision).await.is_ok()
    }
}
