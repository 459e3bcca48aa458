//! What readers see: the State after the last applied entry, and what the server is.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::server::ServerStatus;
use tokio::sync::watch;

/// A consistent moment of this replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The State; copying it is O(1).
    pub(crate) state: State,
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
