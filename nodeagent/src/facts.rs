//! What this machine has.

use std::path::Path;

use bulkhead_nodeagent_core::hardware::{
    self as hardware, DRIVERS_PROBE, HUGE_PAGE_POOLS, Inventory, KvmTrial, MachineSettings as _,
    cpu_topology, discover, has_devices, huge_pages, missing_for_devices, node_preconditions,
    total_memory_bytes,
};
use bulkhead_nodeagent_core::{Readiness, VM_TEMPLATE_BYTES, VM_TEMPLATES_MAX};
use bulkhead_types::{
    CpuTopology, HugePages, LABEL_FENCE_GUARD, LABEL_HOST_PORTS, LABEL_LOCAL_VOLUMES, NamedDeviceClass,
    NodeFacts, Rare, Resources, StringMap,
};
use smol_str::SmolStr;

use crate::machine::MachineTree;
use crate::probe::Accelerator;
use crate::vf_settings;
use crate::vm::affinity;
use crate::{AgentConfig, MemorySharing};

/// Memory that stays with the host, as a share of everything and at least, in bytes.
const HOST_MEMORY_SHARE: u64 = 20;
const HOST_MEMORY_BYTES_MIN: u64 = 256 << 20;
/// Disk that stays with the host, as a share of everything.
const HOST_DISK_SHARE: u64 = 10;

/// The machine's boot id: changes with every boot. Tests boot by saying so.
pub(crate) fn boot_id() -> String {
    if cfg!(debug_assertions)
        && let Ok(id) = std::env::var("BULKHEAD_TEST_BOOT_ID")
    {
        return id;
    }
    hardware::boot_id(&MachineTree::new("/"))
}

/// Finds out everything, and applies what the configuration says instead.
pub(crate) fn gather(config: &AgentConfig, address: &str, accelerator: &Accelerator) -> NodeFacts {
    let tree = MachineTree::new("/");
    let pages = huge_pages(&tree, HUGE_PAGE_POOLS);
    let found = Resources {
        cpu_millis: std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1000,
        memory_bytes: memory_bytes(),
        ephemeral_storage_bytes: disk_bytes(&config.data_dir),
        huge_pages: pages,
        pinned_memory_bytes: 0,
    };
    let memory = OrdinaryMemory::of(config, found.memory_bytes);
    let (cpus, problem) = cpus(config);
    let reserved = cpus.as_ref().map_or(0, |cpus| u64::from(cpus.reserved.len()) * 1000);
    let allocatable = Resources {
        cpu_millis: config.cpu_millis.unwrap_or(found.cpu_millis.saturating_sub(reserved)),
        memory_bytes: memory.said_bytes.unwrap_or(memory.without(pages)),
        ephemeral_storage_bytes: found.ephemeral_storage_bytes
            - found.ephemeral_storage_bytes / HOST_DISK_SHARE,
        huge_pages: pages,
        // Whatever an operator says that pods may have: no more than that is there to be pinned.
        pinned_memory_bytes: memory.without(pages),
    };
    let facts = NodeFacts {
        capacity: found.max(allocatable),
        allocatable,
        pods_max: config.pods_max,
        address: SmolStr::new(address),
        boot_id: SmolStr::new(boot_id()),
        agent_version: SmolStr::new_static(env!("CARGO_PKG_VERSION")),
        kernel_version: rustix::system::uname()
            .release()
            .to_str()
            .map_or_else(|_| SmolStr::default(), SmolStr::new),
        accelerator: SmolStr::new(accelerator.name()),
        warnings: accelerator.warnings.iter().chain(&problem).map(SmolStr::new).collect(),
        labels: labels(config),
        // Pods may reserve no more than there is, or the pools would not be enough for them.
        cpus: Rare::from(cpus.filter(|cpus| allocatable.cpu_millis <= u64::from(cpus.cpus().len()) * 1000)),
        preconditions: Rare::NONE,
    };
    readiness(&accelerator.kvm).added_to(facts)
}

/// The memory of the machine that pods may use but for huge pages. How much that is with other pages is found from here and not from
/// what was told: what pages leave is never less than nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OrdinaryMemory {
    /// If there were no huge pages, in bytes.
    most_bytes: u64,
    /// What an operator said, whatever the pages are, in bytes.
    said_bytes: Option<u64>,
}

impl OrdinaryMemory {
    /// Of this machine.
    pub(crate) fn now(config: &AgentConfig) -> Self {
        Self::of(config, memory_bytes())
    }

    fn of(config: &AgentConfig, all_bytes: u64) -> Self {
        let host = (all_bytes / HOST_MEMORY_SHARE).max(HOST_MEMORY_BYTES_MIN);
        // What guests of the pool hold is no pod's until one has it; then another is booted.
        let pooled =
            config.vm_pool.map_or(0, |pool| u64::from(pool.guests).saturating_mul(pool.size.memory_bytes));
        let templates = match config.memory_sharing {
            MemorySharing::Template => VM_TEMPLATES_MAX as u64 * VM_TEMPLATE_BYTES,
            MemorySharing::None | MemorySharing::Ksm => 0,
        };
        let set_aside = pooled.saturating_add(templates);
        Self {
            most_bytes: all_bytes.saturating_sub(host).saturating_sub(set_aside),
            said_bytes: config.memory_bytes.map(|said| said.saturating_sub(set_aside)),
        }
    }

    /// What these pages leave of it: they are nobody's ordinary memory any more (Kubernetes' rule).
    fn without(self, pages: HugePages) -> u64 {
        self.most_bytes.saturating_sub(pages.total_bytes())
    }
}

/// The huge pages that the machine has set aside now.
pub(crate) fn huge_pages_now() -> HugePages {
    huge_pages(&MachineTree::new("/"), HUGE_PAGE_POOLS)
}

/// What is told once the machine has other huge pages than were told.
pub(crate) fn follow_huge_pages(facts: &mut NodeFacts, pages: HugePages, memory: OrdinaryMemory) {
    facts.allocatable.pinned_memory_bytes = memory.without(pages);
    facts.allocatable.memory_bytes = memory.said_bytes.unwrap_or(memory.without(pages));
    facts.allocatable.huge_pages = pages;
    facts.capacity.huge_pages = pages;
    facts.capacity = facts.capacity.max(facts.allocatable);
    if let (Some(told), Some(found)) = (facts.cpus.get(), topology()) {
        let mut told = told.clone();
        for node in &mut told.numa_nodes {
            if let Some(found) = found.numa_nodes.iter().find(|one| one.id == node.id) {
                (node.memory_bytes, node.huge_pages) = (found.memory_bytes, found.huge_pages);
            }
        }
        facts.cpus = Rare::some(told);
    }
}

/// The processors on which this process may run, with what the operator says of them; or why they are not told.
fn cpus(config: &AgentConfig) -> (Option<CpuTopology>, Option<String>) {
    let found = match cpu_topology(&MachineTree::new("/"), affinity::own().as_ref()) {
        Ok(found) => found,
        Err(problem) => {
            return (None, Some(format!("CPUs are not told, and pods get none for themselves: {problem}")));
        }
    };
    let (all, wanted) = (found.cpus(), &config.reserved_cpus);
    let missing = wanted.minus(&all);
    let problem =
        (!missing.is_empty()).then(|| format!("CPUs {missing} are to be reserved and are not there"));
    let topology = CpuTopology { reserved: wanted.intersection(&all), policy: config.numa_policy, ..found };
    (Some(topology), problem)
}

/// The processors on which this process may run, if the machine says so.
pub(crate) fn topology() -> Option<CpuTopology> {
    cpu_topology(&MachineTree::new("/"), affinity::own().as_ref()).ok()
}

/// What keeps devices from guests.
struct Obstacles {
    is_ready: bool,
    /// What is missing, each with its remedy; nothing where the machine has no device that pods could have.
    warnings: Vec<String>,
}

fn obstacles_to_devices(
    tree: &MachineTree,
    inventory: &Inventory,
    classes: &[NamedDeviceClass],
) -> Obstacles {
    let missing = missing_for_devices(tree);
    let mut reasons: Vec<String> =
        missing.iter().map(|one| format!("{}: {}; {}", one.name, one.found, one.remedy)).collect();
    if missing.is_empty() && !tree.may_set(DRIVERS_PROBE) {
        reasons.push("the agent may not write to /sys/bus/pci; run it as root".to_owned());
    }
    let is_ready = reasons.is_empty();
    if is_ready || !has_devices(tree, inventory, classes) {
        return Obstacles { is_ready, warnings: Vec::new() };
    }
    let warn = |reason| format!("devices cannot be attached to guests: {reason}");
    Obstacles { is_ready, warnings: reasons.into_iter().map(warn).collect() }
}

/// What is looked at again while the agent runs, but KVM, of which it is known what a guest told.
pub(crate) fn readiness(kvm: &KvmTrial) -> Readiness {
    let tree = MachineTree::new("/");
    let (inventory, classes) = (discover(&tree), bulkhead_types::builtin_device_classes());
    let Obstacles { is_ready, warnings } = obstacles_to_devices(&tree, &inventory, &classes);
    Readiness {
        attaches_devices: is_ready,
        // Whoever may bind devices is root, who may tell functions of NICs what networks want; the kernel has to let itself be asked.
        attaches_networks: is_ready && vf_settings::is_usable(),
        obstacles: warnings,
        kvm: None,
        volumes: None,
        preconditions: node_preconditions(&tree, &inventory, &classes, kvm),
    }
}

/// The operator's labels, and what this build does on any machine.
fn labels(config: &AgentConfig) -> StringMap {
    let mut labels = config.labels.clone();
    for own in [LABEL_FENCE_GUARD, LABEL_LOCAL_VOLUMES, LABEL_HOST_PORTS] {
        labels.insert(SmolStr::new_static(own), SmolStr::new_static("true"));
    }
    labels
}

fn memory_bytes() -> u64 {
    total_memory_bytes(&MachineTree::new("/"))
}

fn disk_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use bulkhead_types::PreconditionOutcome;

    use super::*;

    #[test]
    fn overrides_win() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut config = AgentConfig::new("n", vec![], dir.path());
        let accelerator =
            Accelerator::tcg(Some("no KVM".to_owned()), KvmTrial::Fails("it crawls".to_owned()));
        let found = gather(&config, "h:1", &accelerator);
        assert!(found.allocatable.fits_in(found.capacity) && found.allocatable.memory_bytes > 0, "{found:?}");
        assert_eq!((found.accelerator.as_str(), found.warnings.len()), ("tcg", 1));
        assert!(!found.boot_id.is_empty() && !found.kernel_version.is_empty());
        let told = found.preconditions.get().expect("this machine is looked at");
        assert_eq!(told.check(), Ok(()));
        let kvm = told.preconditions.iter().find(|one| one.name == "kvm").expect("there");
        assert!(kvm.outcome == PreconditionOutcome::Missing && !kvm.remedy.is_empty(), "{kvm:?}");
        let cpus = found.cpus.get().expect("this machine tells of its CPUs");
        let first = cpus.cpus().iter().next().expect("a CPU");
        config.reserved_cpus = [first, 1023].into_iter().collect();
        config.numa_policy = bulkhead_types::NumaPolicy::Restricted;
        let reserving = gather(&config, "h:1", &accelerator);
        let told = reserving.cpus.get().expect("CPUs");
        assert_eq!((told.reserved.to_string(), told.policy), (first.to_string(), config.numa_policy));
        assert_eq!(reserving.warnings.len(), 2, "{:?}", reserving.warnings);
        assert_eq!(reserving.allocatable.cpu_millis + 1000, found.allocatable.cpu_millis);
        // More than there are: what pods reserve says nothing of CPUs.
        config.cpu_millis = Some(6_400_000);
        config.memory_bytes = Some(5);
        let overridden = gather(&config, "h:1", &accelerator);
        assert_eq!((overridden.allocatable.cpu_millis, overridden.allocatable.memory_bytes), (6_400_000, 5));
        assert!(overridden.cpus.get().is_none());
        assert!(overridden.allocatable.fits_in(overridden.capacity));
    }

    #[test]
    fn memory_follows_the_pools() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let check = |said_bytes: Option<u64>, more: u64| {
            let mut config = AgentConfig::new("n", vec![], dir.path());
            config.memory_bytes = said_bytes;
            let found = gather(&config, "h:1", &Accelerator::tcg(None, KvmTrial::NotWanted));
            let memory = OrdinaryMemory::now(&config);
            let mut facts = found.clone();
            let mut pages = facts.allocatable.huge_pages;
            pages.two_mib_bytes += more;
            follow_huge_pages(&mut facts, pages, memory);
            let (before, now) = (found.allocatable, facts.allocatable);
            assert_eq!(now.huge_pages, pages);
            let less = more.min(before.pinned_memory_bytes);
            assert_eq!(before.memory_bytes - now.memory_bytes, if said_bytes.is_some() { 0 } else { less });
            assert_eq!(before.pinned_memory_bytes - now.pinned_memory_bytes, less);
            assert!(now.fits_in(facts.capacity), "{facts:?}");
            follow_huge_pages(&mut facts, found.allocatable.huge_pages, memory);
            assert_eq!(facts.allocatable, found.allocatable, "and back");
        };
        check(None, 64 << 20);
        check(Some(1 << 30), 64 << 20);
        // More than pods may have: what the host keeps is not theirs afterwards.
        check(None, 1 << 50);
    }
}
