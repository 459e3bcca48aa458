//! The ledgers of what pods have of a node beside room, as they are and as they would be.

use bulkhead_types::{ObjectId, Pod, PublishedPort};

use crate::cpus::{Chosen, NodeCpus};
use crate::devices::NodeDevices;
use crate::ports::NodePorts;

/// The ledgers of a node; `None` of one whose agent reports no such thing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LedgerView<'a> {
    pub(crate) devices: Option<&'a NodeDevices>,
    pub(crate) cpus: Option<&'a NodeCpus>,
    pub(crate) ports: Option<&'a NodePorts>,
}

/// Copies, as far as they are others than the node's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    devices: Option<NodeDevices>,
    cpus: Option<NodeCpus>,
    ports: Option<NodePorts>,
}

/// Which ledgers matter to who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Matters {
    pub(crate) devices: bool,
    pub(crate) cpus: bool,
    pub(crate) ports: bool,
}

impl Matters {
    /// What matters to either of two.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            devices: self.devices || other.devices,
            cpus: self.cpus || other.cpus,
            ports: self.ports || other.ports,
        }
    }
}

impl Ledgers {
    /// Copies of those of a node that matter.
    pub(crate) fn copy(own: LedgerView<'_>, matters: Matters) -> Self {
        Self {
            devices: own.devices.filter(|_| matters.devices).cloned(),
            cpus: own.cpus.filter(|_| matters.cpus).cloned(),
            ports: own.ports.filter(|_| matters.ports).cloned(),
        }
    }

    /// Whether nothing was copied.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_none() && self.cpus.is_none() && self.ports.is_none()
    }

    /// These, and a node's own where there is no copy.
    pub(crate) fn over<'a>(&'a self, own: LedgerView<'a>) -> LedgerView<'a> {
        LedgerView {
            devices: self.devices.as_ref().or(own.devices),
            cpus: self.cpus.as_ref().or(own.cpus),
            ports: self.ports.as_ref().or(own.ports),
        }
    }

    /// These alone.
    pub(crate) fn view(&self) -> LedgerView<'_> {
        self.over(LedgerView::default())
    }

    /// A pod would get this of a node whose own ledgers are `own`.
    pub(crate) fn take(
        &mut self,
        own: LedgerView<'_>,
        (pod, ports): (ObjectId, &[PublishedPort]),
        chosen: &Chosen,
    ) {
        if !ports.is_empty() {
            let present = || own.ports.cloned().unwrap_or_default();
            self.ports.get_or_insert_with(present).take(pod, ports.iter().copied());
        }
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
        if let Some(ports) = &mut self.ports {
            match is_there {
                true => ports.take(pod.meta.id, pod.spec.host_ports()),
                false => ports.release(pod.meta.id, pod.spec.host_ports()),
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
