//! What happens to the agent.

use bulkhead_types::{
    AgentAck, ContainerStatus, Device, DeviceFault, DeviceUsage, Intent, Joined, NodeImages, ObjectId,
    PodPhase, PodUsage, Resources, VolumeResult,
};
use smol_str::SmolStr;

use crate::VmRecord;

/// One guest found on the node after the agent's own restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredVm {
    /// Its record.
    pub record: VmRecord,
    /// Whether its process lives. (If its record says that it ended, it must not.)
    pub running: bool,
    /// When its process started, milliseconds since the epoch; 0 when unknown.
    pub started_at_ms: u64,
    /// The end of its console, when its process is gone.
    pub last_console: String,
    /// Its process was killed for want of the host's memory: what it might use, in bytes.
    pub out_of_memory: Option<u64>,
}

/// One observation. Those about a guest name its instance: what is about another instance is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The inventory of the node, also when it is empty. **Must be the first input**: before it, nothing is joined or
    /// started.
    Recovered {
        /// Every record on disk.
        vms: Vec<RecoveredVm>,
        /// The last [`crate::Action::PersistLease`] of this boot of the machine.
        lease_until_ms: Option<u64>,
    },
    /// A server registered the node; answers [`crate::Action::Join`].
    Joined(Joined),
    /// What should run.
    Intent(Intent),
    /// A report was acknowledged.
    Ack(AgentAck),
    /// The session is lost.
    Disconnected,
    /// The devices that the machine has now: all of them, whenever they are looked at.
    Devices(Vec<Device>),
    /// What pods may use of the machine has changed, because its huge pages have; the next registration says so.
    Allocatable(Resources),
    /// The images that the machine has now.
    Images(NodeImages),
    /// The cards are in this mode now; answers [`crate::Action::SetGpuMode`].
    GpuMode {
        /// Its name.
        mode: SmolStr,
        /// The devices that the machine has in that mode; unset: those that it had.
        devices: Option<Vec<Device>>,
    },
    /// A device had a fault.
    DeviceFault(DeviceFault),
    /// A device was reset.
    DeviceReset {
        /// Its id.
        device: SmolStr,
    },
    /// An image is on the node.
    ImageReady {
        /// For which pod.
        pod: ObjectId,
        /// For which container.
        container: SmolStr,
        /// Its digest.
        digest: SmolStr,
    },
    /// An image cannot be had.
    ImageFailed {
        /// For which pod.
        pod: ObjectId,
        /// For which container.
        container: SmolStr,
        /// `ErrImagePull`, `ImageDigestMismatch`, …
        reason: SmolStr,
        /// The same for people.
        message: String,
    },
    /// The guest's process runs.
    VmStarted {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// When, milliseconds since the epoch.
        started_at_ms: u64,
    },
    /// The guest's process could not be started; no process is left.
    VmStartFailed {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// `QemuMissing`, `KernelMissing`, …
        reason: SmolStr,
        /// The same for people.
        message: String,
    },
    /// The guest said its first word.
    GuestHello {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// The guest wrote to its console; what it does after its first word is of no interest.
    GuestBoots {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// QEMU has the guest stand still: what it wrote found no room on the host. It is let go on again and again.
    GuestWithoutRoom {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// The volume that it wrote to; `None` for a container's own disk, and where nobody knows.
        volume: Option<SmolStr>,
    },
    /// It goes on.
    GuestGoesOn {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// The guest's channel is open, and it answered none of [`crate::SILENT_QUESTIONS`] questions. Told again and again.
    GuestSilent {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// The same of QEMU and its control socket.
    QemuSilent {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
    },
    /// A container changed. Times are the agent's; `image_digest` is ignored.
    GuestContainer {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// The container's status; `restart_count` counts from 0 in every guest.
        status: ContainerStatus,
        /// Why it runs and is not ready, for people; may be empty.
        unready_because: String,
    },
    /// The guest's view of the whole pod.
    GuestPod {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// Succeeded and Failed announce that the guest powers off.
        phase: PodPhase,
        /// One CamelCase word; may be empty.
        reason: SmolStr,
        /// The same for people; may be empty.
        message: String,
    },
    /// The kernel killed the guest's process because it used more of the host's memory than it may; comes before `VmExited`.
    VmOutOfMemory {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// What it might use, in bytes; 0 when unknown.
        limit_bytes: u64,
    },
    /// The guest's process ended; answers [`crate::Action::KillVm`] too, when there was none (any more).
    VmExited {
        /// Whose guest.
        pod: ObjectId,
        /// Which of its guests.
        instance: u32,
        /// How the process ended, for people: `exit status 0`, `signal 9`.
        status: String,
        /// When, milliseconds since the epoch.
        at_ms: u64,
        /// The end of its console.
        last_console: String,
    },
    /// Answers [`crate::Action::ResizeVm`].
    VmResized(Box<crate::Resized>),
    /// Answers [`crate::Action::CleanUp`].
    VmGone {
        /// Whose guest.
        pod: ObjectId,
    },
    /// Answers [`crate::Action::DeleteVolume`].
    VolumeDeleted {
        /// Which claim it was of.
        claim: ObjectId,
    },
    /// Answers [`crate::Action::VolumeTask`].
    VolumeTask(VolumeResult),
    /// What a pod uses now; `age_ms` is set when it is reported.
    Usage(PodUsage),
    /// What the machine's cards do now, all of them; `age_ms` is their age now.
    DeviceUsage(Vec<DeviceUsage>),
}
