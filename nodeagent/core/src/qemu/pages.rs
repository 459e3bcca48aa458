//! Guests with memory of huge pages of the host.
//!
//! ```text
//!  ordinary memory              node 0 … of the guest, as without: with CPUs
//!  hugepages-2Mi of the pod     one more NUMA node, without CPUs, of pages of 2 MiB of the host
//!  hugepages-1Gi of the pod     one more NUMA node, without CPUs, of pages of 1 GiB of the host, at a multiple of 1 GiB
//! ```
//!
//! The guest's kernel sets pages of 1 GiB aside from its last NUMA node as it boots (`hugepages=NODE:COUNT`), those of 2 MiB are
//! set aside by the guest program. What the kernel's tables take of a node with pages of 2 MiB is made up for from ordinary
//! memory, which has as much overhead; with pages of 1 GiB there is one more ([`HugePages::guest_overhead`]).

use bulkhead_types::{HugePageSize, HugePages, PodSpec};

use super::option::Opts;
use super::{HostMemPolicy, MemoryBackendRam, QemuCommand, Ram};

/// Most memory below 4 GiB on a q35 board with more than that, in bytes.
const BELOW_4G_BYTES_MAX: u64 = 2 << 30;
const GIB: u64 = 1 << 30;

/// What a guest has of the host's huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestPages {
    /// Those that its containers ask for, and the overhead of those.
    pub pages: HugePages,
    /// Those that its containers ask for.
    pub asked: HugePages,
    /// Its ordinary memory is of pages of 2 MiB as well.
    pub whole: bool,
}

impl GuestPages {
    /// What the guest of a pod has.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let asked = spec.huge_pages();
        let (_, more) = asked.guest_overhead();
        let pages = asked.zip(more, u64::saturating_add);
        Self { pages, asked, whole: spec.guest_memory().huge_pages }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// All that it takes of the host's pools, given its ordinary memory in bytes.
    #[must_use]
    pub fn needed(&self, memory_bytes: u64) -> HugePages {
        let ordinary = if self.whole { in_pages(memory_bytes) } else { 0 };
        let two_mib_bytes = self.pages.two_mib_bytes.saturating_add(ordinary);
        HugePages { two_mib_bytes, ..self.pages }
    }
}

/// Rounded up to whole pages of 2 MiB.
fn in_pages(bytes: u64) -> u64 {
    let page = HugePageSize::TwoMib.bytes();
    bytes.div_ceil(page).saturating_mul(page)
}

/// Whether pools have the pages that a guest takes at its start.
///
/// # Errors
/// Which pool has too few, for people.
pub fn check_huge_pages(free: HugePages, needed: HugePages) -> Result<(), String> {
    match needed.sizes().find(|(size, bytes)| free.of(*size) < *bytes) {
        None => Ok(()),
        Some((size, bytes)) => Err(format!(
            "the guest takes {} pages of {}, and the machine's pool {} has {} left: others use it, or it was made smaller",
            bytes / size.bytes(),
            size.name(),
            size.resource(),
            free.of(size) / size.bytes()
        )),
    }
}

/// Memory of huge pages of the host, all of it had before the guest starts (`-object memory-backend-memfd`): it needs no mounted
/// file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBackendMemfd {
    /// Its name.
    pub id: String,
    /// How much, in bytes; whole pages.
    pub size_bytes: u64,
    /// The size of the pages.
    pub hugetlbsize: HugePageSize,
    /// The host's NUMA node, and how strictly; anywhere when unset.
    pub host_node: Option<(u32, HostMemPolicy)>,
}

impl MemoryBackendMemfd {
    /// The switch and its value.
    #[must_use]
    pub fn to_args(&self) -> [String; 2] {
        let page = match self.hugetlbsize {
            HugePageSize::TwoMib => "2M",
            HugePageSize::OneGib => "1G",
        };
        let mut value = Opts::new("memory-backend-memfd")
            .set("id", &self.id)
            .set("size", format!("{}M", self.size_bytes >> 20))
            .flag("hugetlb", true)
            .set("hugetlbsize", page)
            .flag("prealloc", true);
        if let Some((node, policy)) = self.host_node {
            value = value.set("host-nodes", node).set("policy", policy.name());
        }
        ["-object".to_owned(), value.finish()]
    }
}

/// Memory that is, in part or as a whole, of huge pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedRam {
    /// Where the ordinary memory is.
    pub plain: Ram,
    /// How many CPUs the guest has.
    pub cpus: u32,
    /// How much ordinary memory, in bytes.
    pub memory_bytes: u64,
    /// That is of pages of 2 MiB as well.
    pub whole: bool,
    /// A NUMA node of the guest each, without CPUs, in order.
    pub backends: Vec<MemoryBackendMemfd>,
}

impl PagedRam {
    /// The backends of the ordinary memory, with the first CPU and the number of CPUs of each NUMA node of the guest.
    fn plain_nodes(&self) -> Vec<(Vec<String>, String, u32, u32)> {
        let own = |backend: &MemoryBackendRam, size_bytes: u64| match self.whole {
            false => backend.to_args().to_vec(),
            true => MemoryBackendMemfd {
                id: backend.id.clone(),
                size_bytes,
                hugetlbsize: HugePageSize::TwoMib,
                host_node: Some((backend.host_node, backend.policy)),
            }
            .to_args()
            .to_vec(),
        };
        match &self.plain {
            Ram::One(backend) => {
                vec![(own(backend, self.memory_bytes), backend.id.clone(), 0, self.cpus)]
            }
            Ram::Nodes(nodes) => {
                let page = HugePageSize::TwoMib.bytes();
                let mut left = self.memory_bytes;
                let number = nodes.len();
                let one = |(at, node): (usize, &super::NumaNode)| {
                    let part = node.memdev.size_bytes / page * page;
                    let size_bytes = if at + 1 == number { left } else { part.min(left) };
                    left -= size_bytes;
                    (own(&node.memdev, size_bytes), node.memdev.id.clone(), node.first_cpu, node.cpus)
                };
                nodes.iter().enumerate().map(one).collect()
            }
            // Guests with huge pages are no copies of others: `needs_own_boot`.
            Ram::Board | Ram::Template(_) | Ram::Paged(_) => {
                let id = "mem0".to_owned();
                let args = match self.whole {
                    true => MemoryBackendMemfd {
                        id: id.clone(),
                        size_bytes: self.memory_bytes,
                        hugetlbsize: HugePageSize::TwoMib,
                        host_node: None,
                    }
                    .to_args(),
                    false => {
                        let value = Opts::new("memory-backend-ram")
                            .set("id", &id)
                            .set("size", format!("{}M", self.memory_bytes.div_ceil(1 << 20)));
                        ["-object".to_owned(), value.finish()]
                    }
                };
                vec![(args.to_vec(), id, 0, self.cpus)]
            }
        }
    }

    pub(super) fn args(&self) -> Vec<String> {
        let mut args = Vec::new();
        let mut number = 0u32;
        for (backend, id, first_cpu, cpus) in self.plain_nodes() {
            let last = first_cpu + cpus.max(1) - 1;
            let node = Opts::new("node")
                .set("nodeid", number)
                .set("cpus", format!("{first_cpu}-{last}"))
                .set("memdev", id);
            args.extend(backend.into_iter().chain(["-numa".to_owned(), node.finish()]));
            number += 1;
        }
        for backend in &self.backends {
            let node = Opts::new("node").set("nodeid", number).set("memdev", &backend.id);
            args.extend(backend.to_args().into_iter().chain(["-numa".to_owned(), node.finish()]));
            number += 1;
        }
        if let Some(bytes) = self.below_4g_bytes() {
            args.extend(["-machine".to_owned(), Opts::keyed("max-ram-below-4g", bytes).finish()]);
        }
        args
    }

    fn of_one_gib(&self) -> Option<&MemoryBackendMemfd> {
        self.backends.iter().find(|backend| backend.hugetlbsize == HugePageSize::OneGib)
    }

    /// How much of the memory is below 4 GiB, so that what is of pages of 1 GiB begins at a multiple of that: it is the last, and
    /// what is not below begins at 4 GiB.
    fn below_4g_bytes(&self) -> Option<u64> {
        self.of_one_gib()?;
        let others = self.backends.iter().filter(|backend| backend.hugetlbsize != HugePageSize::OneGib);
        let before = self.memory_bytes + others.map(|backend| backend.size_bytes).sum::<u64>();
        Some(if before <= BELOW_4G_BYTES_MAX { before } else { GIB + before % GIB })
    }

    fn nodes(&self) -> usize {
        let plain = if let Ram::Nodes(nodes) = &self.plain { nodes.len() } else { 1 };
        plain + self.backends.len()
    }
}

impl QemuCommand {
    /// Gives the guest memory of huge pages. `free` says what pools of a NUMA node have left: where its ordinary memory is of one
    /// NUMA node the pages are of that as well, strictly so as long as it has enough of them.
    pub fn back_with_huge_pages(&mut self, pages: &GuestPages, free: impl Fn(u32) -> HugePages) {
        if pages.is_none() {
            return;
        }
        let memory_bytes = self.memory.size_bytes.div_ceil(1 << 20) << 20;
        let needed = pages.needed(memory_bytes);
        let host_node = |size: HugePageSize| {
            let Ram::One(memory) = &self.ram else { return None };
            let has_enough = free(memory.host_node).of(size) >= needed.of(size);
            let policy = if has_enough { HostMemPolicy::Bind } else { HostMemPolicy::Preferred };
            Some((memory.host_node, policy))
        };
        let backend = |(size, size_bytes): (HugePageSize, u64)| MemoryBackendMemfd {
            id: format!("pages{}", size.name()),
            size_bytes,
            hugetlbsize: size,
            host_node: host_node(size),
        };
        let ram = PagedRam {
            cpus: self.smp.cpus,
            memory_bytes: if pages.whole { in_pages(memory_bytes) } else { memory_bytes },
            whole: pages.whole,
            backends: pages.pages.sizes().map(backend).collect(),
            plain: match (&self.ram, host_node(HugePageSize::TwoMib)) {
                (Ram::One(memory), Some((_, policy))) if pages.whole => {
                    Ram::One(MemoryBackendRam { policy, ..memory.clone() })
                }
                (ram, _) => ram.clone(),
            },
        };
        self.memory.size_bytes = ram.memory_bytes + pages.pages.total_bytes();
        if pages.asked.one_gib_bytes > 0 {
            let (node, count) = (ram.nodes() - 1, pages.asked.one_gib_bytes / GIB);
            self.kernel.append.extend(["hugepagesz=1G".to_owned(), format!("hugepages={node}:{count}")]);
        }
        self.ram = Ram::Paged(Box::new(ram));
    }
}
