//! What the agent wants done.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_types::{AgentReport, GpuIntent, ObjectId, PodIntent, SriovInterface, VolumeFiles, VolumeOrder};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{Note, ResizeVm, RunsOn, VmRecord};

/// One thing to do. Actions about one pod are done in the order given; those about different pods may overlap. Each is
/// idempotent: it may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register with a server (another one than last time, if there are several) and open a session. Ends any earlier
    /// session. Answer: `Joined` or, when the session is lost later, `Disconnected`. Retry for ever.
    Join,
    /// Send this report in the session. It may be lost; it is repeated.
    Report(AgentReport),
    /// Fetch the images of all containers. Answer: `ImageReady` for each, or `ImageFailed`.
    Prepare {
        /// For which pod.
        pod: PodIntent,
    },
    /// Make this record durable before anything else is done for the pod. If that fails, answer the `StartVm` that
    /// follows with `VmStartFailed`.
    PersistRecord(Box<VmRecord>),
    /// Forget the record durably.
    ForgetRecord {
        /// Of which pod.
        pod: ObjectId,
    },
    /// Start a guest with fresh disks. Answer: `VmStarted` or `VmStartFailed`; then `GuestHello` …, at last `VmExited`.
    StartVm(Box<StartVm>),
    /// Give a running guest the files of its volumes, all of them; those that it has already change nothing. Repeated
    /// after a restart of the agent.
    UpdateFiles {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// Every volume that has files.
        volumes: Vec<VolumeFiles>,
    },
    /// Let a guest's process run on these CPUs only, all of its threads. Repeated after a restart of the agent, and whenever
    /// others have CPUs for themselves that were in its pool, or have them no more.
    SetCpus {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// Its own CPUs, or those of its pool.
        runs_on: RunsOn,
    },
    /// Bring a running guest to other sizes, and its containers with it. Whatever is so already changes nothing. Answer, always and
    /// once: `VmResized`. Asked for again when there is none for [`crate::RESIZE_ANSWER_MS`], and after a restart of the agent.
    ResizeVm(Box<ResizeVm>),
    /// Ask the guest to end: SIGTERM to its containers, SIGKILL after the grace, power off.
    StopVm {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// Grace, in milliseconds.
        grace_ms: u64,
    },
    /// Kill the guest's process. Answer: `VmExited`, also when there was none.
    KillVm {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// Remove everything of the pod: preparation, disks, sockets. Answer: `VmGone`.
    CleanUp {
        /// Of which pod.
        pod: ObjectId,
        /// The logs stay readable.
        keep_logs: bool,
    },
    /// Remove the file of a volume for good; one that is not there is fine. Answer: `VolumeDeleted`. Concerns no pod.
    DeleteVolume {
        /// Which claim it was of.
        claim: ObjectId,
        /// What its file is named by.
        volume: Uuid,
    },
    /// Do something with a volume. What is done already is fine. Answer, always and once: `VolumeTask`. Concerns no pod but
    /// the one that has the volume.
    VolumeTask {
        /// What.
        order: VolumeOrder,
        /// The pod whose running guest has the volume that is to grow, or to be copied, and which of its guests; no guest has
        /// it when there is none, and none gets it before the answer.
        guest: Option<(ObjectId, u32)>,
    },
    /// Tell all guards until when the lease runs, and remember it for `Recovered`. Need not survive a crash of the machine.
    PersistLease {
        /// On the agent's monotonic clock, in milliseconds.
        until_ms: u64,
    },
    /// Bring the cards into a mode, with exactly the partitions that it says. Answer: `GpuMode` once they are in it; none as long
    /// as they are not. It may be asked for again. Concerns no pod.
    SetGpuMode(GpuIntent),
    /// Bring these NICs to where they shall be, and leave all others as they are: their virtual functions, with the drivers of
    /// those. What becomes of it is told with the devices. Concerns no pod.
    SetNics(Vec<SriovInterface>),
    /// Something for the log.
    Note(Note),
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartVm {
    /// The pod.
    pub pod: PodIntent,
    /// Counts the guests of this pod on this node, from 1.
    pub instance: u32,
    /// How large the guest is.
    pub size: GuestSize,
    /// Digest of each container's image.
    pub images: BTreeMap<SmolStr, SmolStr>,
    /// Set for a guest that must be unique: it starts under a guard ([`crate::Guard`]) that ends it at this time, on the
    /// agent's monotonic clock in milliseconds, or at a later one that it was told since. Once that is over it must not
    /// start: `VmStartFailed`.
    pub lease_until_ms: Option<u64>,
    /// The guest's address; unset: it has no network.
    pub address: Option<Ipv4Addr>,
    /// Its node's, which its containers may be told.
    pub host_ip: Option<IpAddr>,
}

/// How large a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestSize {
    /// Virtual processors; at least 1.
    pub cpus: u32,
    /// Memory, in bytes: what the containers may use, and the sandbox's overhead; without the huge pages that they ask for
    /// ([`crate::qemu::GuestPages`]).
    pub memory_bytes: u64,
}

/// Most virtual processors of one guest (q35 without an IOMMU addresses 255).
pub const CPUS_MAX: u64 = 255;
/// QEMU sizes memory in steps of this; also the least that a guest gets for its containers, in bytes.
const MEMORY_STEP_BYTES: u64 = 1 << 20;
/// Memory for the containers when the spec limits none, in bytes.
const MEMORY_UNLIMITED_BYTES: u64 = bulkhead_types::GUEST_MEMORY_UNSAID_BYTES;

impl GuestSize {
    /// The size for a spec: the sum of limits (requests where there is none) plus overhead.
    #[must_use]
    pub fn new(spec: &bulkhead_types::PodSpec) -> Self {
        Self::of(spec.guest_size())
    }

    /// The size for containers that may use this together; no memory means that nobody says how much.
    #[must_use]
    pub fn of(size: bulkhead_types::Resources) -> Self {
        let memory = if size.memory_bytes == 0 { MEMORY_UNLIMITED_BYTES } else { size.memory_bytes };
        let (of_pages, _) = size.huge_pages.guest_overhead();
        let memory = memory
            .saturating_add(bulkhead_types::sandbox_overhead(memory).memory_bytes)
            .saturating_add(of_pages);
        let cpus = size.cpu_millis.div_ceil(1000).clamp(1, CPUS_MAX);
        Self {
            cpus: u32::try_from(cpus).expect("clamped to CPUS_MAX"),
            memory_bytes: memory.div_ceil(MEMORY_STEP_BYTES).saturating_mul(MEMORY_STEP_BYTES),
        }
    }
}
