//! Questions and answers about a guest's sizes.

use std::collections::BTreeMap;

use bulkhead_guest_protocol::host::Resize;
use bulkhead_guest_protocol::{HostMessage, guest};
use tokio::sync::oneshot;

/// Most questions that wait for an answer of one guest; one that gave none before is not asked more.
const WAITING_MAX: usize = 8;

/// What a guest says of a resize.
#[derive(Debug)]
pub(crate) enum GuestAnswer {
    /// It did what could be done.
    Resized(guest::Resized),
    /// It is of an earlier version and cannot.
    Cannot,
}

/// A question to a guest; its number is given when it is asked.
#[derive(Debug)]
pub(crate) struct ResizeOrder {
    pub(crate) resize: Resize,
    pub(crate) answer: oneshot::Sender<GuestAnswer>,
}

/// Who waits in one conversation.
#[derive(Debug, Default)]
pub(super) struct Resizing {
    pub(super) can: bool,
    asked: u64,
    waiting: BTreeMap<u64, oneshot::Sender<GuestAnswer>>,
}

impl Resizing {
    /// What the guest is asked, if it can answer.
    pub(super) fn ask(&mut self, order: ResizeOrder) -> Option<HostMessage> {
        if !self.can {
            // Who asked may have given up.
            let _ = order.answer.send(GuestAnswer::Cannot);
            return None;
        }
        while self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_first();
        }
        self.asked += 1;
        self.waiting.insert(self.asked, order.answer);
        Some(HostMessage::Resize(Resize { number: self.asked, ..order.resize }))
    }

    /// What nobody asked for is passed over.
    pub(super) fn hear(&mut self, resized: guest::Resized) {
        if let Some(answer) = self.waiting.remove(&resized.number) {
            let _ = answer.send(GuestAnswer::Resized(resized));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> (ResizeOrder, oneshot::Receiver<GuestAnswer>) {
        let (answer, answered) = oneshot::channel();
        (ResizeOrder { resize: Resize::default(), answer }, answered)
    }

    #[test]
    fn answers_find_their_questions_and_no_others() {
        let mut talk = Resizing::default();
        let (first, mut answered) = order();
        assert!(talk.ask(first).is_none(), "it said nothing of resizes");
        assert!(matches!(answered.try_recv(), Ok(GuestAnswer::Cannot)));
        talk.can = true;
        let (first, mut answered) = order();
        let (second, mut other) = order();
        assert!(matches!(talk.ask(first), Some(HostMessage::Resize(Resize { number: 1, .. }))));
        assert!(matches!(talk.ask(second), Some(HostMessage::Resize(Resize { number: 2, .. }))));
        talk.hear(guest::Resized { number: 7, ..Default::default() });
        talk.hear(guest::Resized { number: 2, cpus: 3, ..Default::default() });
        assert!(matches!(other.try_recv(), Ok(GuestAnswer::Resized(guest::Resized { cpus: 3, .. }))));
        assert!(answered.try_recv().is_err(), "it waits");
        (0..WAITING_MAX).for_each(|_| assert!(talk.ask(order().0).is_some()));
        assert!(
            matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed)),
            "it waited too long"
        );
    }
}
