//! What nodes keep of volumes, and what becomes of what their agents want done with them.
//!
//! A copy takes its time, and ends with the agent: nothing of it is left then, as on a real host.

use bulkhead_nodeagent_core::Input;
use bulkhead_types::{ObjectId, PodIntent, VolumeOrder, VolumeResult, VolumeTask, digest128};
use uuid::Uuid;

use crate::guest_life::GuestEvent;
use crate::hypervisor::Hypervisor;
use crate::invariants::volumes::{self, Disks};
use crate::network::Host;
use crate::world::World;

/// A command about a volume takes at most so long, in microseconds.
const TASK_US_MAX: u64 = 400_000;

impl Hypervisor {
    /// What is on the node's disk, and who has it.
    pub(crate) fn disks(&self) -> Disks<'_> {
        let had = |read: bool| {
            let guests = self.guests.values();
            let volumes =
                guests.flat_map(move |guest| if read { &guest.volumes_read } else { &guest.volumes });
            volumes.copied().collect()
        };
        let busy = self.tasks.values().flat_map(|order| [order.volume, order.source]);
        Disks { sizes: &self.volumes, held: had(false), read: had(true), busy: busy.collect() }
    }
}

impl World {
    /// A guest is about to start with these volumes; those that are not there are made for their first use. What it has for
    /// itself, and what it reads beside others.
    pub(crate) fn give_volumes(&mut self, number: u32, pod: &PodIntent) -> (Vec<Uuid>, Vec<Uuid>) {
        let rightly = volumes::reads(self.chronicle.state(), pod);
        self.judge(rightly);
        let hypervisor = &mut self.agents[number as usize].hypervisor;
        let verdict = volumes::starts(pod.id, &pod.claims, &hypervisor.disks());
        for claim in &pod.claims {
            hypervisor.volumes.entry(claim.uid).or_insert(claim.size_bytes);
        }
        self.judge(verdict);
        let of = |read_only| {
            let claims = pod.claims.iter().filter(move |claim| claim.read_only == read_only);
            claims.map(|claim| claim.uid).collect()
        };
        (of(false), of(true))
    }

    /// A volume or snapshot goes for good.
    pub(crate) fn delete_volume(&mut self, number: u32, claim: ObjectId, volume: Uuid) {
        let verdict = volumes::deleted(
            self.chronicle.state(),
            volume,
            &self.agents[number as usize].hypervisor.disks(),
        );
        self.judge(verdict);
        self.agents[number as usize].hypervisor.volumes.remove(&volume);
        self.note(Host::Agent(number), "volume deleted", volume.as_u128(), || volume.to_string());
        self.tell_agent(number, Input::VolumeDeleted { claim });
    }

    /// Something is begun with a volume.
    pub(crate) fn begin_volume_task(
        &mut self,
        number: u32,
        order: VolumeOrder,
        guest: Option<(ObjectId, u32)>,
    ) {
        let host = &mut self.agents[number as usize];
        let (life, after_us) = (host.life, host.rng.range(1000, TASK_US_MAX));
        let verdict = volumes::begins(&order, guest.is_some(), &host.hypervisor.disks());
        host.hypervisor.tasks.insert(order.id, order);
        self.judge(verdict);
        self.later(number, after_us, GuestEvent::VolumeTask { life, order, guest });
    }

    /// It is done, or cannot be.
    pub(crate) fn end_volume_task(
        &mut self,
        number: u32,
        order: VolumeOrder,
        guest: Option<(ObjectId, u32)>,
    ) {
        let failure = self.failures(self.options.node.start_failure_permille);
        let hypervisor = &mut self.agents[number as usize].hypervisor;
        hypervisor.tasks.remove(&order.id);
        let is_gone = guest.is_some_and(|(pod, instance)| hypervisor.guest(pod, instance).is_none());
        let fails = self.agents[number as usize].rng.chance(failure);
        let hypervisor = &mut self.agents[number as usize].hypervisor;
        let wanted = match order.task {
            VolumeTask::Expand => order.volume,
            VolumeTask::Snapshot | VolumeTask::Restore | VolumeTask::Clone => order.source,
        };
        let found = hypervisor.volumes.get(&wanted).copied().filter(|_| !is_gone && !fails);
        let VolumeOrder { id, task, size_bytes, volume, .. } = order;
        let result = match found {
            None => VolumeResult { id, task, size_bytes: 0, done: false, message: "simulated".into() },
            Some(present) => {
                let made = if task == VolumeTask::Expand { present.max(size_bytes) } else { present };
                let size = hypervisor.volumes.entry(volume).or_insert(made);
                *size = made.max(*size);
                let done = task != VolumeTask::Expand || guest.is_some();
                VolumeResult { id, task, size_bytes, done, message: Default::default() }
            }
        };
        self.note(Host::Agent(number), "volume task", digest128(&(id, task, result.done)), || {
            format!("{} {volume}: {result:?}", task.as_str())
        });
        self.tell_agent(number, Input::VolumeTask(result));
    }
}

/// The names of what is on a disk.
#[cfg(test)]
pub(crate) fn names(volumes: &[u128]) -> std::collections::BTreeSet<Uuid> {
    volumes.iter().map(|volume| Uuid::from_u128(*volume)).collect()
}
