//! The ledgers of what pods have of a node beside room, as they are and as they would be.

use bulkhead_types::{ObjectId, Pod};

use crate::cpus::{Chosen, NodeCpus};
use crate::devices::NodeDevices;

/// The ledgers of a node; `None` of one whose agent reports no such thing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LedgerView<'a> {
    pub(crate) devices: Option<&'a NodeDevices>,
    pub(crate) cpus: Option<&'a NodeCpus>,
}

/// Copies, as far as they are others than the node's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    devices: Option<NodeDevices>,
    cpus: Option<NodeCpus>,
}

impl Ledgers {
    /// Copies of those of a node that matter.
    pub(crate) fn copy(own: LedgerView<'_>, with_devices: bool, with_cpus: bool) -> Self {
        Self {
            devices: own.devices.filter(|_| with_devices).cloned(),
            cpus: own.cpus.filter(|_| with_cpus).cloned(),
        }
    }

    /// Whether nothing was copied.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_none() && self.cpus.is_none()
    }

    /// These, and a node's own where there is no copy.
    pub(crate) fn over<'a>(&'a self, own: LedgerView<'a>) -> LedgerView<'a> {
        LedgerView { devices: self.devices.as_ref().or(own.devices), cpus: self.cpus.as_ref().or(own.cpus) }
    }

    /// These alone.
    pub(crate) fn view(&self) -> LedgerView<'_> {
        self.over(LedgerView::default())
    }

    /// A pod would get this of a node whose own ledgers are `own`.
    pub(crate) fn take(&mut self, own: LedgerView<'_>, pod: ObjectId, chosen: &Chosen) {
        if !chosen.devices.is_empty() {
            let present = || own.devices.cloned().unwrap_or_default();
            self.devices.get_or_insert_with(present).take(pod, &chosen.devices);
        }
        if let Some(given) = &chosen.cpus {
            if self.cpus.is_none() {
                self.cpus = own.cpus.cloned();
            }
            if let Some(cpus) = &mut self.cpus {
                cpus.take(pod, given);
            }
        }
    }

    /// A pod would have what it has, or nothing any more; of what was copied only.
    pub(crate) fn count(&mut self, pod: &Pod, is_there: bool) {
        if let Some(devices) = &mut self.devices {
            match is_there {
                true => devices.take(pod.meta.id, pod.devices()),
                false => devices.release(pod.meta.id, pod.devices()),
            }
        }
        if let Some((cpus, given)) = self.cpus.as_mut().zip(pod.cpus()) {
            match is_there {
                true => cpus.take(pod.meta.id, given),
                false => cpus.release(pod.meta.id),
            }
        }
    }
}
