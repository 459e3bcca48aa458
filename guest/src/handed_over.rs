//! Probes and hooks that the host does for the guest, because they need TLS, without which this program is a quarter smaller.
//!
//! While there is no host that does them, a probe is not done at all, as it is with a node whose kubelet is away; a hook waits for one.

use std::collections::BTreeMap;

use bulkhead_guest_protocol::guest::HostTask;

use crate::supervisor::Task;

/// What becomes of one that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The host is asked now.
    Ask,
    /// It waits for a host.
    Wait,
    /// Nobody does it.
    NotDone,
}

/// What the host was asked and has not answered.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    /// There is a host that does them.
    has_host: bool,
    waiting: BTreeMap<u64, (usize, Task)>,
}

impl HandedOver {
    /// A host said Hello.
    pub(crate) fn host_came(&mut self, asks_by_https: bool) {
        self.has_host = asks_by_https;
    }

    /// The host is gone. What it was asked and will not be done.
    pub(crate) fn host_left(&mut self) -> Vec<(u64, usize, Task)> {
        self.has_host = false;
        let lost: Vec<_> = self.all().into_iter().filter(|(.., task)| !is_hook(*task)).collect();
        self.waiting.retain(|_, (_, task)| is_hook(*task));
        lost
    }

    /// Takes one over.
    pub(crate) fn take(&mut self, number: u64, index: usize, task: Task) -> Handed {
        if !self.has_host && !is_hook(task) {
            return Handed::NotDone;
        }
        self.waiting.insert(number, (index, task));
        if self.has_host { Handed::Ask } else { Handed::Wait }
    }

    /// An answer came, or none is waited for any more: whose it is.
    pub(crate) fn answered(&mut self, number: u64) -> Option<(usize, Task)> {
        self.waiting.remove(&number)
    }

    /// All that a host is to be asked.
    pub(crate) fn all(&self) -> Vec<(u64, usize, Task)> {
        let wanted = self.waiting.iter();
        wanted.map(|(number, (index, task))| (*number, *index, *task)).collect()
    }
}

fn is_hook(task: Task) -> bool {
    matches!(task, Task::PostStart | Task::PreStop)
}

impl Task {
    /// Its name on the channel.
    pub(crate) fn of_host(self) -> HostTask {
        match self {
            Self::Startup => HostTask::Startup,
            Self::Readiness => HostTask::Readiness,
            Self::Liveness => HostTask::Liveness,
            Self::PostStart => HostTask::PostStart,
            Self::PreStop => HostTask::PreStop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_not_done_without_a_host_and_hooks_wait_for_one() {
        let mut handed = HandedOver::default();
        assert_eq!(handed.take(1, 0, Task::Liveness), Handed::NotDone);
        assert_eq!(handed.take(2, 0, Task::PreStop), Handed::Wait);
        handed.host_came(false);
        assert_eq!(handed.take(3, 0, Task::Readiness), Handed::NotDone, "an agent of an earlier version");
        handed.host_came(true);
        assert_eq!(handed.all(), [(2, 0, Task::PreStop)]);
        assert_eq!(handed.take(4, 1, Task::Startup), Handed::Ask);
        assert_eq!(handed.take(5, 1, Task::PostStart), Handed::Ask);
        assert_eq!(handed.answered(5), Some((1, Task::PostStart)));
        assert_eq!(handed.answered(5), None, "an answer counts once");
        assert_eq!(handed.host_left(), [(4, 1, Task::Startup)]);
        assert_eq!(handed.answered(4), None);
        assert_eq!(handed.all(), [(2, 0, Task::PreStop)], "it waits on");
    }
}
