//! Figures of a DaemonSet.

/// What a node adds to the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) desired: u32,
    pub(crate) scheduled: u32,
    pub(crate) misscheduled: u32,
    pub(crate) ready: u32,
    pub(crate) available: u32,
    pub(crate) updated: u32,
    /// Nodes with two pods that may run.
    pub(crate) surging: u32,
}

impl Figures {
    /// Adds, or takes away, another node's.
    pub(super) fn each(&mut self, other: Self, change: fn(u32, u32) -> u32) {
        let pairs = [
            (&mut self.desired, other.desired),
            (&mut self.scheduled, other.scheduled),
            (&mut self.misscheduled, other.misscheduled),
            (&mut self.ready, other.ready),
            (&mut self.available, other.available),
            (&mut self.updated, other.updated),
            (&mut self.surging, other.surging),
        ];
        pairs.into_iter().for_each(|(total, part)| *total = change(*total, part));
    }
}
