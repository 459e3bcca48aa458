//! The reasons that appear in statuses. Kubernetes' words where it has them.

/// QEMU is not installed or cannot be run.
pub const QEMU_MISSING: &str = "QemuMissing";
/// The guest kernel is not there.
pub const KERNEL_MISSING: &str = "KernelMissing";
/// The image could not be fetched.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
/// The image could not be fetched several times; the next attempt waits.
pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
/// What was fetched is not what the digest says.
pub const IMAGE_DIGEST_MISMATCH: &str = "ImageDigestMismatch";
/// The guest's process runs, but the guest never said a word.
pub const GUEST_NOT_REPORTING: &str = "GuestNotReporting";
/// The guest's process runs, the guest has not said its first word yet, and there is time left until it must.
pub const GUEST_BOOTING: &str = "GuestBooting";
/// The guest's program is of an earlier version, which cannot do what the pod asks for.
pub const GUEST_TOO_OLD: &str = "GuestTooOld";
/// The guest spoke once and answers nothing any more.
pub const GUEST_NOT_RESPONDING: &str = "GuestNotResponding";
/// QEMU's process is there and answers nothing any more.
pub const QEMU_NOT_RESPONDING: &str = "QemuNotResponding";
/// The guest's kernel panicked, as it says on its console.
pub const GUEST_PANICKED: &str = "GuestPanicked";
/// The guest's process ended although nobody asked for it.
pub const GUEST_DIED: &str = "GuestDied";
/// The guest's process on the host used more memory than the guest and QEMU should need, and the kernel killed it. A container that
/// uses more than its own limit is `OOMKilled` by the guest, which goes on.
pub const GUEST_OOM_KILLED: &str = "GuestOOMKilled";
/// The guest ended its pod because that used more than it may (Kubernetes' word).
pub const EVICTED: &str = "Evicted";
/// The agent must shut guests in, and this machine does not let it.
pub const CONFINEMENT_MISSING: &str = "ConfinementMissing";
/// The container ended with its guest, because the pod was asked to end.
pub const STOPPED: &str = "Stopped";
/// The pod needs more than the whole node has.
pub const OUT_OF_RESOURCES: &str = "OutOfResources";
/// The pod waits until guests that are about to end have ended.
pub const WAITING_FOR_RESOURCES: &str = "WaitingForResources";
/// The pod must be unique and the node's lease ran out.
pub const LEASE_EXPIRED: &str = "LeaseExpired";
/// The pod must be unique and waits for the node's lease.
pub const WAITING_FOR_LEASE: &str = "WaitingForLease";
/// The pod waits for a volume that another guest of the node has.
pub const WAITING_FOR_VOLUME: &str = "WaitingForVolume";
/// The volume of a claim that was in use is not on the node any more.
pub const VOLUME_MISSING: &str = "VolumeMissing";
/// A device that the pod was given cannot be attached to its guest.
pub const DEVICE_NOT_ATTACHED: &str = "DeviceNotAttached";
/// A port of the node that the pod publishes is taken, or not there.
pub const HOST_PORT_NOT_BOUND: &str = "HostPortNotBound";
/// The pod waits for an address: guests of the node have all of its range.
pub const WAITING_FOR_ADDRESS: &str = "WaitingForAddress";
/// The guest cannot be connected to the node's network.
pub const NETWORK_NOT_READY: &str = "NetworkNotReady";
/// The machine has not the memory left that a guest with devices takes at once.
pub const MEMORY_NOT_PINNED: &str = "MemoryNotPinned";
/// The machine's pools have not the huge pages left that the guest takes at its start; it is tried again.
pub const HUGE_PAGES_NOT_ALLOCATED: &str = "HugePagesNotAllocated";
/// There is no room left on the node's disk for what the pod needs (Kubernetes' word for such a node); it is tried again.
pub const DISK_PRESSURE: &str = "DiskPressure";
/// The record that must precede a guest could not be written.
pub const RECORD_NOT_WRITTEN: &str = "RecordNotWritten";
/// Something that the spec refers to is not there, or cannot be used.
pub const CREATE_CONTAINER_CONFIG_ERROR: &str = "CreateContainerConfigError";
/// The guest cannot get other sizes while it runs; a restart of its pod gives it them.
pub const GUEST_CANNOT_RESIZE: &str = "GuestCannotResize";
/// A container uses more memory than it should have (Kubernetes refuses to shrink it as long as it does).
pub const MEMORY_IN_USE: &str = "MemoryInUse";
/// Something failed while the guest got other sizes; it is tried again.
pub const RESIZE_FAILED: &str = "ResizeFailed";
/// A container is being made.
pub const CONTAINER_CREATING: &str = "ContainerCreating";
/// Init containers have not ended yet.
pub const POD_INITIALIZING: &str = "PodInitializing";
/// The start of the guest failed for another reason.
pub const GUEST_START_FAILED: &str = "GuestStartFailed";
