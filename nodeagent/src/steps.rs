//! The steps of a pod's start, resize and end, by name, and the one place where a test can make an agent end at one of them.
//!
//! The plan of `nodeagent/tests/faults/steps.rs` goes through all of [`Step::ALL`]: the agent is killed at each time that each step
//! is reached, and fails at each that may fail, and the next agent must bring the pod to where it should be. A step that is not in
//! this list cannot be reached, and one of the list that no test reaches fails that test; so whoever adds something to the
//! start, the resize or the end of a pod adds a line here and a call there, and it is tested.
//!
//! In release builds [`reached`] and [`passed`] are nothing.

use std::io::{self, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a test asks of this process, with commas between: `die:<step>:<n>` ends it with SIGKILL when it reaches a step for the nth
/// time, `full:<step>:<n>` lets that fail as on a full disk, `log:<file>` writes down what is reached.
const VARIABLE: &str = "BULKHEAD_TEST_STEP";

/// Makes the enum and the list of all from one table.
macro_rules! steps {
    ($($step:ident $name:literal $doc:literal,)*) => {
        /// What was just done for a pod.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $(#[doc = $doc] $step,)*
        }

        impl Step {
            /// All of them, in the order in which a pod lives.
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$step => $name,)* }
            }
        }
    };
}

steps! {
    BridgeAdded "bridge-added" "The bridge of the guests is there.",
    AddressRemoved "address-removed" "A link lost an address.",
    AddressAdded "address-added" "A link got an address.",
    BridgeUp "bridge-up" "The bridge is up.",
    HostForwards "host-forwards" "The host forwards packets.",
    RulesSet "rules-set" "The packet filter has other rules; reached for each time.",
    LinkRemoved "link-removed" "A link is gone that was not wanted, or was not there; reached for each.",
    FunctionsCounted "functions-counted" "A NIC was told how many virtual functions it has.",
    AutoprobeSet "autoprobe-set" "A NIC was told whether drivers of the host take new virtual functions.",
    MtuSet "mtu-set" "An interface of a function has another MTU.",
    NicUp "nic-up" "A NIC's own interface was switched on.",
    ImagesReady "images-ready" "The images of all containers are held.",
    RecordBegun "record-begun" "The pod's folder is there, the record is not.",
    RecordWritten "record-written" "The record is durable.",
    PortsBound "ports-bound" "Nobody else gets the ports of the node that the pod publishes.",
    BootAssetsReady "boot-assets-ready" "Kernel and initramfs are there.",
    DisksPlanned "disks-planned" "The guest's configuration and disks are known.",
    EarlierGuestsRemoved "earlier-guests-removed" "What an earlier guest left is gone.",
    FolderMade "folder-made" "The guest has a folder.",
    DiskMade "disk-made" "One disk of the guest is made; reached once for each.",
    ConfigWritten "config-written" "The guest's configuration is on disk.",
    HostPortsWritten "host-ports-written" "The ports of the node are on disk.",
    BindingNoted "binding-noted" "What becomes of one of the pod's functions is on disk; reached for each change of it.",
    FunctionTold "function-told" "A virtual function was told one thing; reached for each.",
    OverrideSet "override-set" "A function's driver_override was written; reached for each time.",
    FunctionUnbound "function-unbound" "A driver let go of a function; reached for each.",
    FunctionProbed "function-probed" "The kernel looked for a function's driver; reached for each time.",
    TapAdded "tap-added" "The guest's tap is there.",
    TapAttached "tap-attached" "The guest's tap is on the bridge.",
    DevicesAttached "devices-attached" "The pod's devices are bound for its guest.",
    CgroupMade "cgroup-made" "The control groups of the guest are there.",
    JailMade "jail-made" "The guest's files are its user's.",
    PoolCleared "pool-cleared" "Nothing is left of what guests of an earlier agent's pool had, but those that pods have.",
    TemplateBegun "template-begun" "A template of a size is to be made; reached for each.",
    PooledFolderMade "pooled-folder-made" "A guest that is nobody's has a folder; reached for each.",
    PooledCgroupMade "pooled-cgroup-made" "A guest that is nobody's has control groups; reached for each.",
    PooledJailMade "pooled-jail-made" "The folder of a guest that is nobody's is its user's; reached for each.",
    GuardForked "guard-forked" "The guard of a guest that must be unique runs, without orders.",
    GuardOrdered "guard-ordered" "The guard has its orders.",
    QemuForked "qemu-forked" "QEMU's process is there; it may not execute QEMU yet.",
    ProcessStarted "process-started" "QEMU runs, by itself or under its guard.",
    PooledStarted "pooled-started" "The process of a guest that is nobody's is there; reached for each.",
    PooledGreeted "pooled-greeted" "A guest that is nobody's said its first word; reached for each.",
    TemplateStopped "template-stopped" "The guest that becomes a template stands still.",
    TemplateTakenDown "template-taken-down" "What the devices of that guest are was written down.",
    PooledEnded "pooled-ended" "A guest of the pool, or of a template, that is of no use any more has ended.",
    TemplateSealed "template-sealed" "Nobody writes to the template any more.",
    PooledDiscarded "pooled-discarded" "Nothing is left of a guest of the pool, or of a template.",
    TemplatesTold "templates-told" "Which templates there are is on disk, for people.",
    CopyRestored "copy-restored" "A guest begins in the state of a template; it stands still.",
    CopyResumed "copy-resumed" "A copy of a template runs.",
    CopyReseeded "copy-reseeded" "A copy of a template is a guest of its own.",
    PooledWaits "pooled-waits" "A guest of the pool waits for a pod; reached for each.",
    PooledTaken "pooled-taken" "A guest of the pool does not wait any more: a pod is to have it.",
    PooledBound "pooled-bound" "The guard of a guest that a pod is to have knows whose lease it goes by, or that it goes by none.",
    PooledLimited "pooled-limited" "The control groups of a guest that a pod is to have have the pod's limits.",
    PooledDiskKnown "pooled-disk-known" "The QEMU of such a guest has one of the pod's disks open; reached for each.",
    PooledDiskAdded "pooled-disk-added" "Such a guest has one of the pod's disks; reached for each.",
    PooledNicAdded "pooled-nic-added" "Such a guest has a network card on the pod's tap.",
    PooledLinked "pooled-linked" "The guest of the pool is the pod's, also for the next agent.",
    StartTold "start-told" "The core knows.",
    ControlOpen "control-open" "QEMU answers on its control socket.",
    ChannelOpen "channel-open" "The guest channel is connected.",
    GuestGreeted "guest-greeted" "The guest said its first word.",
    ContainerRuns "container-runs" "The guest said that a container runs; reached for each time that it does.",
    HostLimited "host-limited" "The control groups of a guest that gets other sizes have other limits; reached for each time.",
    BalloonAsked "balloon-asked" "QEMU was asked for another size of the balloon.",
    MemoryAsked "memory-asked" "QEMU was asked to add memory, or to take it back.",
    MemoryChanged "memory-changed" "The guest took the memory, or gave it back.",
    CpuAdded "cpu-added" "The machine got a processor; reached for each.",
    CpusUsed "cpus-used" "The guest uses as many processors as it should.",
    CpuRemoved "cpu-removed" "QEMU was asked to take a processor from the machine; reached for each.",
    ContainersLimited "containers-limited" "The guest's containers have their limits.",
    ResizeTold "resize-told" "The core knows what became of a resize.",
    VolumeBegun "volume-begun" "A volume or snapshot is to be made, and nothing is left of an earlier try; reached for each.",
    VolumeCopyBegun "volume-copy-begun" "The file of a copy is there and has its length; reached for each.",
    VolumePartCopied "volume-part-copied" "A part of a volume is copied; reached for each.",
    VolumeFilled "volume-filled" "Everything of a volume or snapshot is in its file, which is not in its place; reached for each.",
    VolumeSynced "volume-synced" "That file is durable; reached for each.",
    VolumePlaced "volume-placed" "That file is in its place: the volume or snapshot is made; reached for each.",
    VolumeDurable "volume-durable" "That it is made is durable; reached for each.",
    VolumeLengthened "volume-lengthened" "The file of a volume that no guest has is longer.",
    VolumeLengthDurable "volume-length-durable" "That it is longer is durable.",
    SharingTried "sharing-tried" "The files are there by which it is tried whether copies share blocks.",
    VolumeHeld "volume-held" "The guest holds a volume still that is to be copied, if it can; reached for each.",
    GuestPaused "guest-paused" "The guest whose volume is to be copied stands still; reached for each.",
    GuestResumed "guest-resumed" "It was told to go on; reached for each.",
    VolumeLetGo "volume-let-go" "The guest does not hold the volume still any more; reached for each.",
    DiskLengthened "disk-lengthened" "A guest's disk is longer; reached for each.",
    FileSystemGrown "file-system-grown" "The guest made the file system fill its disk; reached for each.",
    VolumeTaskTold "volume-task-told" "The core knows what became of a task with a volume; reached for each.",
    StopAsked "stop-asked" "The guest shall end.",
    StopSaid "stop-said" "The guest was told.",
    Killed "killed" "SIGKILL was sent to QEMU.",
    ProcessEnded "process-ended" "QEMU is gone, and reaped where it was this agent's.",
    LastWordsRead "last-words-read" "All that the guest said is read.",
    FolderRemoved "folder-removed" "The guest's folder is gone.",
    CgroupRemoved "cgroup-removed" "The guest's control groups are gone.",
    EndTold "end-told" "The core knows that the guest ended.",
    CleanUpBegun "clean-up-begun" "Nothing of the pod runs any more.",
    FunctionReset "function-reset" "A function was reset; reached for each.",
    QuarantineNoted "quarantine-noted" "That a function goes to nobody is on disk.",
    BindingForgotten "binding-forgotten" "Nothing of a function is noted any more; reached for each.",
    DevicesReleased "devices-released" "The pod's devices are given back.",
    LogsRemoved "logs-removed" "The pod's output is forgotten, where it is not kept.",
    FileRemoved "file-removed" "One file of the pod's folder is gone; reached for each.",
    CleanUpTold "clean-up-told" "The core knows that nothing is left.",
    RecordRemoved "record-removed" "The record is gone, the pod's folder is not.",
    RecordForgotten "record-forgotten" "Nothing of the pod is left on disk.",
    VolumeRemoved "volume-removed" "The file of a volume, or of a snapshot, is gone, or was not there; reached for each.",
    VolumeRemovalDurable "volume-removal-durable" "That it is gone is durable; reached for each.",
    VolumeRemovalTold "volume-removal-told" "The core knows that a volume is gone; reached for each.",
}

/// What a test asked for.
enum Wish {
    Log(String),
    At { step: String, count: u32, seen: AtomicU32, dies: bool },
}

impl Wish {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        if kind == "log" {
            return Some(Self::Log(rest.to_owned()));
        }
        let (step, count) = rest.split_once(':')?;
        let (dies, count, seen) = (kind == "die", count.parse().ok()?, AtomicU32::new(0));
        Some(Self::At { step: step.to_owned(), count, seen, dies })
    }

    fn parse_all(text: &str) -> Vec<Self> {
        text.split(',').filter_map(Self::parse).collect()
    }

    /// Whether the step fails; does not come back when the process is to end.
    fn fails(&self, step: Step, may_fail: bool) -> bool {
        match self {
            Self::Log(file) => {
                let line = format!("{} {may_fail}\n", step.name());
                let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
                file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the test reads it");
                false
            }
            Self::At { step: wanted, count, seen, dies } => {
                let is_now = step.name() == wanted && seen.fetch_add(1, Ordering::SeqCst) + 1 == *count;
                if is_now && *dies {
                    die();
                }
                is_now
            }
        }
    }
}

/// No destructor runs, nothing is flushed, nobody is told.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

static WISHES: LazyLock<Vec<Wish>> =
    LazyLock::new(|| std::env::var(VARIABLE).map(|text| Wish::parse_all(&text)).unwrap_or_default());

/// Whether a test wants the step to fail.
fn fails(step: Step, may_fail: bool) -> bool {
    if !cfg!(debug_assertions) {
        return false;
    }
    // Each of them counts what is reached.
    WISHES.iter().filter(|wish| wish.fails(step, may_fail)).count() > 0
}

/// A step is done that may fail, as when the disk is full.
///
/// # Errors
/// Only when a test asked for it: that there is no space left.
pub(crate) fn reached(step: Step) -> io::Result<()> {
    if fails(step, true) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// A step is done that cannot fail.
pub(crate) fn passed(step: Step) {
    fails(step, false);
}
