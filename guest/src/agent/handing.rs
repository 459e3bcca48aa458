//! What the host does for the guest: see [`crate::handed_over`].

use bulkhead_guest_protocol::guest::{self, GuestMessage};

use super::Agent;
use crate::handed_over::Handed;
use crate::supervisor::{Event, Task};

impl Agent {
    /// No answer comes any more to what the host was asked: probes were not done, hooks wait for another host.
    pub(super) fn host_is_gone(&mut self) {
        for (number, index, task) in self.handed_over.host_left() {
            self.supervise(Event::NotDone { index, task, number });
        }
    }

    /// Has the host do a probe or hook; what to tell when it cannot.
    pub(super) fn hand_over(&mut self, index: usize, task: Task, number: u64) -> Option<Event> {
        match self.handed_over.take(number, index, task) {
            Handed::Ask => self.ask_host(index, task, number),
            Handed::Wait => {}
            Handed::NotDone => return Some(Event::NotDone { index, task, number }),
        }
        None
    }

    pub(super) fn ask_host(&mut self, index: usize, task: Task, number: u64) {
        let Some(pod) = &self.pod else { return };
        let container = pod.containers[index].config.name.clone();
        let task = task.of_host().into();
        self.channel.send(&GuestMessage::AskHost(guest::AskHost { number, container, task }));
    }
}
