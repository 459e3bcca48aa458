//! The way in to the node thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_controlplane_core::server::{Input, Reply, Ticket};
use tokio::sync::{mpsc, oneshot};

/// Most messages that wait for the node thread: about what it handles in a tenth of a second. Senders wait
/// beyond it, so clients feel the back-pressure.
pub(crate) const INBOX_MAX: usize = 16_384;

/// A message to the node thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something happened.
    Input(Input),
    /// Something is asked; the answer goes to the sender.
    Ask(Ticket, Input, oneshot::Sender<Reply>),
    /// The node thread shall end.
    Stop,
}

/// A cheap way in to the node thread.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
    tickets: Arc<AtomicU64>,
}

/// The node thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is shutting down")]
pub(crate) struct Stopped;

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (inbox, outbox) = mpsc::channel(INBOX_MAX);
        (Self { inbox, tickets: Arc::new(AtomicU64::new(1)) }, outbox)
    }

    /// Tells the node thread that something happened.
    pub(crate) async fn tell(&self, input: Input) -> Result<(), Stopped> {
        self.inbox.send(Message::Input(input)).await.map_err(|_| Stopped)
    }

    /// The same, from a thread that may block.
    pub(crate) fn tell_blocking(&self, input: Input) -> Result<(), Stopped> {
        self.inbox.blocking_send(Message::Input(input)).map_err(|_| Stopped)
    }

    /// Asks the node thread and waits for its answer.
    pub(crate) async fn ask(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Reply, Stopped> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.inbox.send(Message::Ask(ticket, input(ticket), sender)).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Whether the node thread has ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Asks the node thread to end.
    pub(crate) async fn stop(&self) {
        // When it has ended already there is nothing to do.
        let _ = self.inbox.send(Message::Stop).await;
    }
}
