//! Changes that are made together: what waits while the packet filter is told something is told it next, at once. Which those are
//! is decided in the core ([`together`]).
//!
//! ```text
//!  pods ─► what waits ([`WAITING_MAX`]) ─► the network's thread: together() ─► Network::make ─► an answer to each
//! ```
//! One thread for all of them: who waits for its turn holds none, and what a change allocates is there for the next one.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bulkhead_nodeagent_core::network::{BATCH_MAX, Touched, together};
use bulkhead_types::ObjectId;
use tokio::sync::{mpsc, oneshot};

use super::{GuestCard, Guests, Network, StepError};

/// Changes that wait at most; further ones wait to wait.
const WAITING_MAX: usize = 1024;

/// What a pod asks of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A guest is about to start: it is connected, and what connected an earlier one of its pod is let go of. What fails leaves
    /// nothing behind.
    Attach {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// What the network knows of it.
        card: GuestCard,
    },
    /// The guests of a pod are gone, and what connected them goes; nothing there is fine.
    Release {
        /// Whose guests.
        pod: ObjectId,
    },
}

impl Change {
    pub(super) fn pod(self) -> ObjectId {
        match self {
            Self::Attach { pod, .. } | Self::Release { pod } => pod,
        }
    }

    /// What it changes where these guests are.
    fn touched(self, guests: &Guests) -> Touched {
        let held = guests.range((self.pod(), 0)..=(self.pod(), u32::MAX)).map(|(_, card)| card.address);
        let wanted = match self {
            Self::Attach { card, .. } => Some(card.address),
            Self::Release { .. } => None,
        };
        Touched { pod: self.pod(), addresses: held.chain(wanted).collect() }
    }
}

type Outcome = Result<(), StepError>;

/// A change that waits, and who waits for it.
#[derive(Debug)]
struct Asked {
    change: Change,
    answer: oneshot::Sender<Outcome>,
}

/// Where changes wait for the network's thread.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Option<mpsc::Sender<Asked>>>);

impl Queue {
    /// Of the thread, which begins with the first change and ends with the network.
    fn sender(&self, network: &Arc<Network>) -> io::Result<mpsc::Sender<Asked>> {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            return Ok(sender.clone());
        }
        let (new, asked) = mpsc::channel(WAITING_MAX);
        let network = Arc::downgrade(network);
        std::thread::Builder::new().name("network".to_owned()).spawn(move || serve(&network, asked))?;
        *sender = Some(new.clone());
        Ok(new)
    }
}

fn serve(network: &Weak<Network>, mut asked: mpsc::Receiver<Asked>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = asked.blocking_recv() else { return };
            waiting.push_back(first);
        }
        while waiting.len() < BATCH_MAX
            && let Ok(another) = asked.try_recv()
        {
            waiting.push_back(another);
        }
        let Some(network) = network.upgrade() else { return };
        make_some(&network, &mut waiting);
    }
}

/// Makes the first changes that wait, all that go together.
fn make_some(network: &Network, waiting: &mut VecDeque<Asked>) {
    let count = {
        let guests = network.guests();
        // Whoever does not wait any more wants nothing.
        waiting.retain(|asked| !asked.answer.is_closed());
        together(waiting.iter().map(|asked| asked.change.touched(&guests)))
    };
    let batch: Vec<Asked> = waiting.drain(..count).collect();
    let changes: Vec<Change> = batch.iter().map(|asked| asked.change).collect();
    // Whose change a panic ends gets no answer; others go on.
    let made = catch_unwind(AssertUnwindSafe(|| network.make(&changes)));
    for (asked, outcome) in batch.into_iter().zip(made.unwrap_or_default()) {
        // The change is made all the same: it is undone by the next one of its pod.
        let _ = asked.answer.send(outcome);
    }
}

impl Network {
    /// Makes a change after all that were asked for before, together with others that wait.
    ///
    /// # Errors
    /// When the network's thread cannot start, or the change ended in a panic.
    pub(crate) async fn change(self: &Arc<Self>, change: Change) -> io::Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        let sender = self.queue.sender(self)?;
        sender.send(Asked { change, answer }).await.map_err(io::Error::other)?;
        answered.await.map_err(|_| io::Error::other("the change of the network ended in a panic"))
    }
}
