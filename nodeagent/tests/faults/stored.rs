//! The volumes of a life: made, grown, copied and kept as snapshots beside a guest and without one, and deleted.

use std::path::PathBuf;

use bulkhead_nodeagent::steps::Step;
use bulkhead_types::{
    ClaimIntent, DeletedVolume, ObjectId, PodIntent, PodOptions, Rare, Shared, Volume, VolumeOrder,
    VolumeSource, VolumeTask,
};
use uuid::Uuid;

use super::machine::{Machine, web};
use crate::server::VolumeWord;

/// What the claim asks for, in bytes; and what it does later, beside a guest and without one.
const SIZE_BYTES: u64 = 8 << 20;
const BESIDE_GUEST_BYTES: u64 = 12 << 20;
const ALONE_BYTES: u64 = 16 << 20;
/// Where the guest's data is, and how much; more than one part of a copy.
const DATA_AT: u64 = 4 << 20;
const DATA_BYTES: usize = (1 << 20) + 4096;
/// Where an ext4 file system says that it is one (`s_magic`), and how.
const MAGIC_AT: usize = 1024 + 0x38;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// The volume of a life, its copies and its snapshots.
#[derive(Debug)]
pub struct Stored {
    number: u64,
}

/// Which of them.
#[derive(Clone, Copy, Debug)]
enum Part {
    Volume = 1,
    /// Made beside the guest.
    Snapshot,
    Copy,
    /// Made while no guest had the volume.
    LaterSnapshot,
    LaterCopy,
    /// Of the first snapshot.
    Restored,
}

/// A task, what it makes, of what, and of which size in bytes.
type Wanted = (VolumeTask, Part, Option<Part>, u64);

const ALL: [Part; 6] =
    [Part::Volume, Part::Snapshot, Part::Copy, Part::LaterSnapshot, Part::LaterCopy, Part::Restored];

impl Part {
    fn extension(self) -> &'static str {
        match self {
            Self::Snapshot | Self::LaterSnapshot => "snap",
            Self::Volume | Self::Copy | Self::LaterCopy | Self::Restored => "img",
        }
    }
}

impl Stored {
    pub fn new(number: u64) -> Self {
        Self { number }
    }

    fn uuid(&self, part: Part) -> Uuid {
        Uuid::from_u128(1 << 100 | u128::from(self.number) << 8 | part as u128)
    }

    fn id(&self, part: Part, task: VolumeTask) -> ObjectId {
        ObjectId(1_000_000 + self.number * 100 + part as u64 * 10 + u64::from(task == VolumeTask::Expand))
    }

    fn path(&self, machine: &Machine, part: Part) -> PathBuf {
        machine.settings.data.join("volumes").join(format!("{}.{}", self.uuid(part), part.extension()))
    }

    /// A pod that has the volume.
    pub fn pod(&self) -> PodIntent {
        let mut pod = web(self.number);
        let mut spec = (*pod.spec).clone();
        let claim = VolumeSource::PersistentVolumeClaim { claim_name: "data".into(), read_only: false };
        let volumes = vec![Volume { name: "data".into(), source: claim }];
        spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
        pod.spec = Shared::new(spec);
        pod.claims = vec![ClaimIntent {
            claim_name: "data".into(),
            uid: self.uuid(Part::Volume),
            size_bytes: SIZE_BYTES,
            used: false,
            read_only: false,
        }];
        pod
    }

    /// Everything that is done while a guest has the volume.
    pub async fn work_beside(&self, machine: &Machine, pod: &PodIntent, what: &str) {
        self.write(machine);
        let pods = [pod.clone()];
        let orders = [(VolumeTask::Expand, Part::Volume, None, BESIDE_GUEST_BYTES)];
        self.ask(machine, &pods, &orders, what).await;
        let snapshot = (VolumeTask::Snapshot, Part::Snapshot, Some(Part::Volume), 0);
        let copy = (VolumeTask::Clone, Part::Copy, Some(Part::Volume), 0);
        self.ask(machine, &pods, &[snapshot, copy], what).await;
        machine.server.intend_with(pods.to_vec(), vec![]);
        self.check(machine, &[Part::Volume, Part::Snapshot, Part::Copy], what);
    }

    /// Everything that is done while none has it.
    pub async fn work_alone(&self, machine: &Machine, what: &str) {
        let restored = (VolumeTask::Restore, Part::Restored, Some(Part::Snapshot), 0);
        let copy = (VolumeTask::Clone, Part::LaterCopy, Some(Part::Volume), 0);
        self.ask(machine, &[], &[restored, copy], what).await;
        let expanded = (VolumeTask::Expand, Part::Volume, None, ALONE_BYTES);
        let snapshot = (VolumeTask::Snapshot, Part::LaterSnapshot, Some(Part::Volume), 0);
        self.ask(machine, &[], &[expanded, snapshot], what).await;
        machine.server.intend_with(vec![], vec![]);
        self.check(machine, &ALL, what);
    }

    pub async fn delete(&self, machine: &Machine, what: &str) {
        let session = machine.server.incarnation();
        let id = |part| self.id(part, VolumeTask::Clone);
        let doomed = ALL.map(|part| DeletedVolume { id: id(part), uid: self.uuid(part) });
        machine.server.delete_volumes(doomed.to_vec());
        for part in ALL {
            let is_it = |word: &VolumeWord| matches!(word, VolumeWord::Deleted(claim) if *claim == id(part));
            machine.server.said_of_volumes(session, &format!("{what}: the end of {part:?}"), is_it).await;
        }
        machine.server.delete_volumes(vec![]);
        // What is told is told before its step is written down; of each a volume and a snapshot of this name are looked for.
        let is_told = || {
            let reached = machine.reached();
            let count = |wanted: Step| reached.iter().filter(|(step, _)| *step == wanted.name()).count();
            2 * count(Step::VolumeRemovalTold) == count(Step::VolumeRemovalDurable)
        };
        machine.until(what, is_told).await;
        self.check_over(machine, what);
    }

    /// Nothing of it is left, nor of anything half made.
    pub fn check_over(&self, machine: &Machine, what: &str) {
        let entries =
            std::fs::read_dir(machine.settings.data.join("volumes")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let own = ALL.map(|part| self.uuid(part).to_string());
        let is_left = |name: &String| {
            own.iter().any(|own| name.starts_with(own)) || name.ends_with(".new") || name.starts_with('.')
        };
        assert_eq!(names.filter(is_left).collect::<Vec<_>>(), [""; 0], "{what}");
    }

    /// Wants all of it at once, and waits until this session says that it is done.
    async fn ask(&self, machine: &Machine, pods: &[PodIntent], wanted: &[Wanted], what: &str) {
        let session = machine.server.incarnation();
        let order = |(task, part, source, size_bytes): &Wanted| VolumeOrder {
            id: self.id(*part, *task),
            task: *task,
            volume: self.uuid(*part),
            source: source.map_or(Uuid::nil(), |source| self.uuid(source)),
            size_bytes: *size_bytes,
        };
        let orders: Vec<VolumeOrder> = wanted.iter().map(order).collect();
        machine.server.intend_with(pods.to_vec(), orders.clone());
        for order in orders {
            // The file system of a volume that no guest has grows with the next one.
            let of_file = order.task == VolumeTask::Expand && pods.is_empty();
            let is_it = |word: &VolumeWord| match word {
                VolumeWord::Result(result) => {
                    let is_done = result.done || of_file;
                    result.id == order.id && result.size_bytes == order.size_bytes && is_done
                }
                VolumeWord::Deleted(_) => false,
            };
            machine.server.said_of_volumes(session, &format!("{what}: {order:?}"), is_it).await;
        }
    }

    fn data(&self) -> Vec<u8> {
        let byte = |at: usize| u8::try_from((at as u64 + self.number) % 251).expect("small");
        (0..DATA_BYTES).map(byte).collect()
    }

    /// What the guest has written.
    fn write(&self, machine: &Machine) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).open(self.path(machine, Part::Volume));
        file.expect("it is there").write_all_at(&self.data(), DATA_AT).expect("written");
    }

    /// These are there.
    fn check(&self, machine: &Machine, parts: &[Part], what: &str) {
        for part in parts {
            assert!(self.path(machine, *part).exists(), "{what}: {part:?}");
        }
        self.check_whole(machine, what);
    }

    /// What is in its place is whole, whenever somebody looks: a file system, and a copy has all that the volume has.
    pub fn check_whole(&self, machine: &Machine, what: &str) {
        let data = self.data();
        let volume = std::fs::read(self.path(machine, Part::Volume)).ok();
        for part in ALL {
            let Ok(bytes) = std::fs::read(self.path(machine, part)) else { continue };
            assert!(bytes.len() as u64 >= SIZE_BYTES, "{what}: {part:?} has {} bytes", bytes.len());
            assert_eq!(bytes[MAGIC_AT..][..2], MAGIC, "{what}: {part:?} is no file system");
            if matches!(part, Part::Volume) {
                continue;
            }
            let at = usize::try_from(DATA_AT).expect("small");
            assert!(bytes[at..][..DATA_BYTES] == data, "{what}: {part:?} has not what was written");
            // It only became longer since.
            let is_same = volume.as_ref().is_none_or(|volume| volume[..bytes.len()] == bytes);
            assert!(is_same, "{what}: {part:?} is no copy, or the volume is not what it was");
        }
    }
}
