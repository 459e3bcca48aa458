//! The physical truth of one node: its guests, what is on its disk, and what it can hold.
//!
//! Guests live on when the agent dies, and die when the machine does. Nothing here asks the agent what it
//! believes.

use std::collections::BTreeMap;

use bulkhead_nodeagent_core::{Guard, RecoveredVm, VmRecord};
use bulkhead_types::{
    AllocatedDevice, Container, ContainerState, ContainerStatus, ContainerTermination, CpuSet, Name,
    ObjectId, PodSpec, Resources, RestartPolicy, Shared, VolumeOrder,
};
use smol_str::SmolStr;
use uuid::Uuid;

/// One guest's process.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Which of its pod's guests.
    pub instance: u32,
    /// What it runs.
    pub spec: Shared<PodSpec>,
    /// What it has of the machine's cards.
    pub devices: Vec<AllocatedDevice>,
    /// The CPUs that it has for itself.
    pub cpus: Option<CpuSet>,
    /// Its addresses, on its node's network and in SR-IOV networks.
    pub addresses: Vec<std::net::IpAddr>,
    /// The volumes of its claims that it has for itself.
    pub volumes: Vec<Uuid>,
    /// Those that it reads, beside others.
    pub volumes_read: Vec<Uuid>,
    /// Its namespace and name, when no other of that name may live.
    pub unique: Option<(Name, Name)>,
    /// What ends it with the lease although the agent may be dead: a process of its own on the host.
    pub guard: Option<Guard>,
    /// When its process started, milliseconds since the epoch.
    pub started_at_ms: u64,
    /// It has said its first word.
    pub speaks: bool,
    /// It ends only by force.
    pub stubborn: bool,
    /// It was asked to end.
    pub stopping: bool,
    /// Init containers and containers, in spec order, as the guest knows them.
    pub containers: Vec<ContainerStatus>,
}

impl Guest {
    /// A guest whose process has just started.
    #[must_use]
    pub(crate) fn new(instance: u32, spec: Shared<PodSpec>, started_at_ms: u64, stubborn: bool) -> Self {
        let all = spec.init_containers.iter().chain(&spec.containers);
        let containers = all.map(waiting).collect();
        let (unique, guard) = (None, None);
        Self {
            instance,
            spec,
            devices: Vec::new(),
            cpus: None,
            addresses: Vec::new(),
            volumes: Vec::new(),
            volumes_read: Vec::new(),
            unique,
            guard,
            started_at_ms,
            speaks: false,
            stubborn,
            stopping: false,
            containers,
        }
    }

    /// What it holds of its node.
    #[must_use]
    pub(crate) fn holds(&self) -> Resources {
        self.spec.scheduling_request()
    }

    /// How many of its containers are init containers.
    #[must_use]
    pub(crate) fn init_count(&self) -> usize {
        self.spec.init_containers.len()
    }

    /// A container runs now, and serves unless a probe has to say so.
    pub(crate) fn begin(&mut self, container: usize, started_at_ms: u64, ready: bool) -> ContainerStatus {
        let status = &mut self.containers[container];
        if let ContainerState::Terminated(end) = &status.state {
            status.last_termination = Some(end.clone());
            status.restart_count += 1;
        }
        status.state = ContainerState::Running { started_at_ms };
        status.ready = ready;
        status.clone()
    }

    /// What a container's probe says; `None` when that run of it is over.
    pub(crate) fn probe(&mut self, container: usize, restarts: u32, ready: bool) -> Option<ContainerStatus> {
        let status = &mut self.containers[container];
        let runs = matches!(status.state, ContainerState::Running { .. }) && status.restart_count == restarts;
        runs.then(|| {
            status.ready = ready;
            status.clone()
        })
    }

    /// A container has ended.
    pub(crate) fn end(&mut self, container: usize, exit_code: i32, at_ms: u64) -> ContainerStatus {
        let status = &mut self.containers[container];
        let started_at_ms = match status.state {
            ContainerState::Running { started_at_ms } => started_at_ms,
            _ => at_ms,
        };
        status.ready = false;
        status.state = ContainerState::Terminated(Box::new(ContainerTermination {
            exit_code,
            signal: 0,
            reason: SmolStr::new_static(if exit_code == 0 { "Completed" } else { "Error" }),
            message: String::new(),
            started_at_ms,
            finished_at_ms: at_ms,
        }));
        status.clone()
    }

    /// Whether a container that ended with this code is started again.
    #[must_use]
    pub(crate) fn restarts(&self, container: usize, exit_code: i32) -> bool {
        if container < self.init_count() {
            return exit_code != 0 && self.spec.restart_policy != RestartPolicy::Never;
        }
        match self.spec.restart_policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// Whether everything in it has ended for good; then: whether all of it well.
    #[must_use]
    pub(crate) fn outcome(&self) -> Option<bool> {
        let end = |status: &ContainerStatus| match &status.state {
            ContainerState::Terminated(end) => Some(end.exit_code),
            _ => None,
        };
        let (init, main) = self.containers.split_at(self.init_count());
        if self.spec.restart_policy == RestartPolicy::Never
            && init.iter().filter_map(end).any(|code| code != 0)
        {
            return Some(false);
        }
        let codes: Option<Vec<i32>> = main.iter().map(end).collect();
        let codes = codes?;
        let over = match self.spec.restart_policy {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => codes.iter().all(|code| *code == 0),
            RestartPolicy::Never => true,
        };
        over.then(|| codes.iter().all(|code| *code == 0))
    }
}

fn waiting(container: &Container) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        state: ContainerState::Waiting { reason: SmolStr::default(), message: String::new() },
        last_termination: None,
        restart_count: 0,
        ready: false,
        image_digest: SmolStr::default(),
    }
}

/// One node's guests and disk.
#[derive(Debug, Default)]
pub(crate) struct Hypervisor {
    /// Guests whose process lives, by pod.
    pub guests: BTreeMap<ObjectId, Guest>,
    /// What the agent wrote down.
    pub records: BTreeMap<ObjectId, VmRecord>,
    /// The agent's lease, as it wrote it down; lost with the machine's boot.
    pub lease_until_ms: Option<u64>,
    /// The sizes of volumes and snapshots, in bytes, by what their files are named by.
    pub volumes: BTreeMap<Uuid, u64>,
    /// What the agent does with them now, by what it is for; ends with the agent.
    pub tasks: BTreeMap<ObjectId, VolumeOrder>,
}

impl Hypervisor {
    /// A guest of this pod and instance, if its process lives.
    pub(crate) fn guest(&mut self, pod: ObjectId, instance: u32) -> Option<&mut Guest> {
        self.guests.get_mut(&pod).filter(|guest| guest.instance == instance)
    }

    /// What all guests hold together.
    #[must_use]
    pub(crate) fn held(&self) -> Resources {
        self.guests.values().map(Guest::holds).fold(Resources::ZERO, Resources::plus)
    }

    /// The inventory that an agent finds when it starts.
    #[must_use]
    pub(crate) fn inventory(&self) -> Vec<RecoveredVm> {
        let recovered = |record: &VmRecord| {
            let guest = self.guests.get(&record.pod).filter(|guest| guest.instance == record.instance);
            RecoveredVm {
                record: record.clone(),
                running: guest.is_some(),
                started_at_ms: guest.map_or(0, |guest| guest.started_at_ms),
                last_console: String::new(),
                out_of_memory: None,
            }
        };
        self.records.values().map(recovered).collect()
    }

    /// The machine loses power.
    pub(crate) fn reboot(&mut self) {
        self.guests.clear();
        self.lease_until_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(policy: RestartPolicy) -> Guest {
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        let spec = PodSpec {
            restart_policy: policy,
            init_containers: vec![container("init")],
            containers: vec![container("a"), container("b")],
            ..PodSpec::default()
        };
        Guest::new(1, Shared::new(spec), 5, false)
    }

    #[test]
    fn a_guest_is_over_when_nothing_in_it_will_start_again() {
        let check = |policy, codes: [i32; 3], expected| {
            let mut guest = guest(policy);
            for (n, code) in codes.into_iter().enumerate() {
                guest.begin(n, 6, true);
                guest.end(n, code, 7);
            }
            assert_eq!(guest.outcome(), expected, "{policy:?} {codes:?}");
        };
        check(RestartPolicy::Never, [0, 0, 0], Some(true));
        check(RestartPolicy::Never, [0, 0, 1], Some(false));
        check(RestartPolicy::Never, [1, 0, 0], Some(false));
        check(RestartPolicy::OnFailure, [0, 0, 0], Some(true));
        check(RestartPolicy::OnFailure, [0, 1, 0], None);
        check(RestartPolicy::Always, [0, 0, 0], None);
    }

    #[test]
    fn a_restart_remembers_how_it_ended() {
        let mut guest = guest(RestartPolicy::Always);
        guest.begin(1, 10, true);
        guest.end(1, 3, 20);
        let status = guest.begin(1, 30, true);
        assert_eq!(status.restart_count, 1);
        assert_eq!(status.last_termination.map(|end| end.exit_code), Some(3));
    }
}
