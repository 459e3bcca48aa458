//! Where the guest's memory comes from: backends, and NUMA nodes that the guest sees.

use super::PagedRam;
use super::machine::Smp;
use super::option::Opts;

/// What the guest's memory is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ram {
    /// What the board makes of `-m`, wherever the kernel finds it.
    #[default]
    Board,
    /// All of it is this (`-machine memory-backend`).
    One(MemoryBackendRam),
    /// All of it is a file that guests have together (`-object memory-backend-file`).
    Template(TemplateMemory),
    /// NUMA nodes of the guest with memory each, in order; together they have all CPUs and all memory.
    Nodes(Vec<NumaNode>),
    /// One of these, with memory of huge pages.
    Paged(Box<PagedRam>),
}

/// Memory of a NUMA node of the host (`-object memory-backend-ram`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBackendRam {
    /// Its name.
    pub id: String,
    /// How much, in bytes; rounded up to whole MiB.
    pub size_bytes: u64,
    /// The host's NUMA node.
    pub host_node: u32,
    /// How strictly it is of that.
    pub policy: HostMemPolicy,
    /// Whether all of it is had before the guest starts.
    pub prealloc: bool,
}

/// How strictly memory is of a NUMA node (`policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMemPolicy {
    /// It is, or the guest ends.
    Bind,
    /// It is as long as there is some.
    Preferred,
}

impl HostMemPolicy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Preferred => "preferred",
        }
    }
}

/// A NUMA node of the guest (`-numa node`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// The number of its first CPU.
    pub first_cpu: u32,
    /// How many it has; at least 1.
    pub cpus: u32,
    /// Its memory.
    pub memdev: MemoryBackendRam,
}

/// The memory that guests began with together. The file has no name: QEMU has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateMemory {
    /// QEMU's descriptor of it.
    pub fd: i32,
    /// How much, in bytes; rounded up to whole MiB.
    pub size_bytes: u64,
    /// What the guest writes is its own, and the file stays as it is; else the file is what the guest's memory becomes.
    pub copy_on_write: bool,
}

impl TemplateMemory {
    const ID: &str = "template";

    fn args(&self) -> [String; 4] {
        // QEMU 7.2 opens it for writing whatever it does with it; so no path of the host can be shown to it read-only.
        let value = Opts::new("memory-backend-file")
            .set("id", Self::ID)
            .set("size", format!("{}M", self.size_bytes.div_ceil(1 << 20)))
            .set("mem-path", format!("/proc/self/fd/{}", self.fd))
            .flag("share", !self.copy_on_write);
        let machine = Opts::keyed("memory-backend", Self::ID).finish();
        ["-object".to_owned(), value.finish(), "-machine".to_owned(), machine]
    }
}

impl MemoryBackendRam {
    /// The switch and its value.
    #[must_use]
    pub fn to_args(&self) -> [String; 2] {
        let value = Opts::new("memory-backend-ram")
            .set("id", &self.id)
            .set("size", format!("{}M", self.size_bytes.div_ceil(1 << 20)))
            .set("host-nodes", self.host_node)
            .set("policy", self.policy.name())
            .flag("prealloc", self.prealloc);
        ["-object".to_owned(), value.finish()]
    }
}

impl Ram {
    /// The guest's NUMA node that stands for one of the host's; `None` where the guest sees no NUMA nodes, or not that one.
    pub(super) fn guest_node_of(&self, host_node: u32) -> Option<u32> {
        let Self::Nodes(nodes) = self else { return None };
        (0..).zip(nodes).find(|(_, node)| node.memdev.host_node == host_node).map(|(number, _)| number)
    }

    pub(super) fn args(&self) -> Vec<String> {
        match self {
            Self::Board => Vec::new(),
            Self::Template(memory) => memory.args().into(),
            Self::One(memory) => {
                let machine = ["-machine".to_owned(), Opts::keyed("memory-backend", &memory.id).finish()];
                memory.to_args().into_iter().chain(machine).collect()
            }
            Self::Nodes(nodes) => {
                (0..).zip(nodes).flat_map(|(number, node): (u32, _)| node.args(number)).collect()
            }
            Self::Paged(paged) => paged.args(),
        }
    }

    /// The CPUs with sockets that do not reach over NUMA nodes, which no guest's kernel believes.
    pub(super) fn smp_args(&self, smp: Smp) -> [String; 2] {
        let nodes = match self {
            Self::Nodes(nodes) => nodes,
            Self::Paged(paged) => return paged.plain.smp_args(smp),
            Self::Board | Self::Template(_) | Self::One(_) => return smp.args(),
        };
        let cores = nodes.iter().fold(0, |cores, node| gcd(cores, node.cpus)).max(1);
        let value = Opts::keyed("cpus", smp.cpus)
            .set("maxcpus", smp.cpus)
            .set("sockets", smp.cpus / cores)
            .set("cores", cores)
            .set("threads", 1);
        ["-smp".to_owned(), value.finish()]
    }
}

impl NumaNode {
    fn args(&self, number: u32) -> Vec<String> {
        let last = self.first_cpu + self.cpus.max(1) - 1;
        let value = Opts::new("node")
            .set("nodeid", number)
            .set("cpus", format!("{}-{last}", self.first_cpu))
            .set("memdev", &self.memdev.id);
        self.memdev.to_args().into_iter().chain(["-numa".to_owned(), value.finish()]).collect()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
