//! The driver: volumes are thin logical volumes, as notes and tags say.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bulkhead_nodeagent_core::hardware::{Need, Outcome, Precondition};
use bulkhead_nodeagent_core::qemu::BlockDriver;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::note::{Note, Notes};
use super::report::{LogicalVolume, PoolState, Problem, problem};
use super::{Commands, Kind, Lvm, LvmError, MAKING, ThinPoolName};
use crate::error::chain;
use crate::image::{make_file_system, volume_length};
use crate::volumes::driver::{Capabilities, Content, Published, VolumeDriver, VolumeError};

/// Size of a group's extents, in bytes, until it is known (vgcreate(8)).
const EXTENT_BYTES_DEFAULT: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(in crate::volumes) struct ThinDriver {
    lvm: Box<dyn Lvm>,
    notes: Notes,
    /// Where new volumes are made; unset: only those that have notes are kept.
    pool: Option<ThinPoolName>,
    /// Volumes that are in the pool have notes. Held while notes of such go.
    adopted: Mutex<bool>,
    extent_bytes: OnceLock<u64>,
}

/// What a note's logical volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Gone,
    /// It is half made.
    Making,
    /// It is there.
    Ready,
}

fn name_of(kind: Kind, id: Uuid) -> String {
    format!("{}{id}", kind.prefix())
}

/// Of what a name is.
fn parse_name(name: &str) -> Option<(Kind, Uuid)> {
    let of = |kind: Kind| Some((kind, name.strip_prefix(kind.prefix())?.parse().ok()?));
    // Of one spelling only: another one is not of this agent's making.
    Kind::ALL.into_iter().find_map(of).filter(|(kind, id)| name_of(*kind, *id) == name)
}

fn missing(kind: Kind, id: Uuid) -> VolumeError {
    VolumeError::Missing { what: kind.name(), id }
}

fn failed(error: LvmError) -> VolumeError {
    VolumeError::Io(error.into())
}

impl ThinDriver {
    /// With lvm2's own commands; `pool`: where new volumes are made, if they are made here.
    pub(in crate::volumes) fn new(data: &Path, pool: Option<ThinPoolName>) -> Self {
        Self::with(Box::new(Commands), data, pool)
    }

    pub(super) fn with(lvm: Box<dyn Lvm>, data: &Path, pool: Option<ThinPoolName>) -> Self {
        let (adopted, extent_bytes) = (Mutex::new(false), OnceLock::new());
        Self { lvm, notes: Notes::new(data), pool, adopted, extent_bytes }
    }

    fn adopted(&self) -> MutexGuard<'_, bool> {
        // A panic leaves it as it was: what is to be done is done once more.
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes notes for what the pool holds and no note names: those were lost, or the data directory was.
    fn adopt(&self) -> io::Result<()> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let mut adopted = self.adopted();
        if *adopted {
            return Ok(());
        }
        for found in self.lvm.volumes(&pool.group, None)? {
            let Some((kind, id)) = parse_name(&found.name).filter(|_| found.pool == pool.pool) else {
                continue;
            };
            if self.notes.is_there(kind, id)? {
                continue;
            }
            if found.has(kind.tag()) {
                self.notes.write(kind, id, &Note::new(pool, true))?;
                tracing::info!(%pool, name = found.name, "a logical volume that was made before is a {} again", kind.name());
            } else {
                tracing::warn!(%pool, name = found.name, "a logical volume has a name as those of this agent and not their tag: it is left alone");
            }
        }
        *adopted = true;
        Ok(())
    }

    fn note(&self, kind: Kind, id: Uuid) -> Result<Option<Note>, VolumeError> {
        if !self.notes.is_there(kind, id)? {
            self.adopt()?;
        }
        Ok(self.notes.read(kind, id)?)
    }

    fn look(&self, note: &Note, kind: Kind, id: Uuid) -> Result<Option<LogicalVolume>, LvmError> {
        let name = name_of(kind, id);
        let found = self.lvm.volumes(&note.volume_group, Some(&name))?;
        Ok(found.into_iter().find(|one| one.name == name))
    }

    /// What is there of it. What has its name and neither its pool nor its tags is somebody else's.
    fn state(&self, note: &Note, kind: Kind, id: Uuid) -> Result<State, VolumeError> {
        let Some(found) = self.look(note, kind, id).map_err(failed)? else { return Ok(State::Gone) };
        if found.pool == note.thin_pool && found.has(kind.tag()) {
            return Ok(State::Ready);
        }
        if found.pool == note.thin_pool && found.has(MAKING) {
            return Ok(State::Making);
        }
        Err(VolumeError::NotNow(format!(
            "logical volume {}/{} has the name of a {}, and is not one: it has neither tag {} nor {MAKING} in thin pool {}. \
             Look at it and rename or remove it",
            note.volume_group,
            found.name,
            kind.name(),
            kind.tag(),
            note.thin_pool,
        )))
    }

    /// Whether it is there, wholly. What is half made is finished as far as notes go, or removed.
    fn settle(&self, note: &Note, kind: Kind, id: Uuid) -> Result<bool, VolumeError> {
        if note.made && self.lvm.is_active(&note.volume_group, &name_of(kind, id)) {
            return Ok(true);
        }
        match self.state(note, kind, id)? {
            State::Gone => Ok(false),
            State::Ready => {
                if !note.made {
                    self.notes.write(kind, id, &Note { made: true, ..note.clone() })?;
                }
                Ok(true)
            }
            State::Making => {
                self.lvm.remove(&note.volume_group, &name_of(kind, id), MAKING).map_err(failed)?;
                Ok(false)
            }
        }
    }

    /// What is there of a volume; whether there is one.
    fn found(&self, volume: Uuid) -> Result<(Note, LogicalVolume), VolumeError> {
        let gone = || missing(Kind::Volume, volume);
        let note = self.note(Kind::Volume, volume)?.ok_or_else(gone)?;
        let found = self.look(&note, Kind::Volume, volume).map_err(failed)?;
        let found = found.filter(|found| found.has(Kind::Volume.tag())).ok_or_else(gone)?;
        Ok((note, found))
    }

    /// Makes something: its note, it, and that it is made. What failed leaves nothing, as far as LVM does anything.
    fn make(
        &self,
        kind: Kind,
        id: Uuid,
        pool: &ThinPoolName,
        make: impl FnOnce(&str) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let note = Note::new(pool, false);
        self.notes.write(kind, id, &note)?;
        if let Err(error) = make(&name_of(kind, id)) {
            // Where that cannot be found out the note stays, and says so to the next try.
            if matches!(self.settle(&note, kind, id), Ok(false) | Err(VolumeError::NotNow(_))) {
                self.notes.forget(kind, id)?;
            }
            return Err(error);
        }
        Ok(self.notes.write(kind, id, &Note { made: true, ..note })?)
    }

    /// What the pool is like, if something can be made in it.
    fn usable(&self, pool: &ThinPoolName) -> Result<PoolState, VolumeError> {
        let state = self.lvm.pool(pool).map_err(failed)?;
        match problem(pool, state.as_ref()).filter(|problem| problem.is_fatal) {
            Some(Problem { found, remedy, .. }) => {
                Err(VolumeError::NotNow(format!("{found}; run: {remedy}")))
            }
            None => {
                let state =
                    state.ok_or_else(|| VolumeError::NotNow(format!("there is no thin pool {pool}")))?;
                // The first is as good as any other.
                let _ = self.extent_bytes.set(state.extent_bytes.max(1));
                Ok(state)
            }
        }
    }

    fn check_fits(state: &PoolState, pool: &ThinPoolName, bytes: u64) -> Result<(), VolumeError> {
        let free_bytes = state.free_bytes();
        if bytes <= free_bytes {
            return Ok(());
        }
        Err(VolumeError::Full(format!(
            "thin pool {pool} has {} MiB of {} MiB free, and {} MiB are wanted; run: lvextend --size +SIZE {pool}, or delete \
             volumes and snapshots",
            free_bytes >> 20,
            state.size_bytes >> 20,
            bytes >> 20
        )))
    }

    /// `begun`: where it was begun to be made before, with other options maybe.
    fn make_empty(
        &self,
        volume: Uuid,
        size_bytes: u64,
        begun: Option<ThinPoolName>,
    ) -> Result<(), VolumeError> {
        let pool = self.pool.clone().or(begun).ok_or_else(|| {
            VolumeError::NotNow("the agent has no --volume-group, and makes no logical volumes".to_owned())
        })?;
        let state = self.usable(&pool)?;
        let length = self.disk_bytes(size_bytes);
        Self::check_fits(&state, &pool, length)?;
        self.make(Kind::Volume, volume, &pool, |name| {
            self.lvm.create(&pool, name, length, MAKING).map_err(failed)?;
            make_file_system(&self.lvm.device(&pool.group, name))?;
            self.lvm.change_tag(&pool.group, name, MAKING, Kind::Volume.tag()).map_err(failed)
        })
    }

    /// Makes a copy of another one, in its pool.
    fn copy(&self, (of, source): (Kind, Uuid), (kind, id): (Kind, Uuid)) -> Result<(), VolumeError> {
        let gone = || missing(of, source);
        let note = self.note(of, source)?.ok_or_else(gone)?;
        if !note.made && !self.settle(&note, of, source)? {
            return Err(gone());
        }
        let (pool, active) = (note.pool(), kind == Kind::Volume);
        self.make(kind, id, &pool, |name| {
            let made = self.lvm.copy(&pool.group, &name_of(of, source), name, kind.tag(), active);
            made.map_err(|error| match self.state(&note, of, source) {
                Ok(State::Gone | State::Making) => gone(),
                _ => failed(error),
            })
        })
    }

    fn delete(&self, kind: Kind, id: Uuid) -> io::Result<()> {
        if !self.notes.is_there(kind, id)? {
            self.adopt()?;
        }
        // Nobody writes a note of it meanwhile.
        let _held = self.adopted();
        let Some(note) = self.notes.read(kind, id)? else { return Ok(()) };
        let state = if note.made { Ok(State::Ready) } else { self.state(&note, kind, id) };
        let tag = match state {
            Ok(State::Ready) => Some(kind.tag()),
            Ok(State::Making) => Some(MAKING),
            // What is somebody else's stays, and is nothing to wait for.
            Ok(State::Gone) | Err(VolumeError::NotNow(_)) => None,
            Err(error) => return Err(io::Error::other(error)),
        };
        if let Some(tag) = tag
            && let Err(error) = self.lvm.remove(&note.volume_group, &name_of(kind, id), tag)
            && self.look(&note, kind, id)?.is_some()
        {
            return Err(error.into());
        }
        self.notes.forget(kind, id)
    }

    /// What an operator should know of the pool.
    pub(in crate::volumes) fn warning(&self) -> Option<String> {
        let pool = self.pool.as_ref()?;
        let found = self.adopt().map_err(|error| chain(&error));
        let found = found.and_then(|()| self.lvm.pool(pool).map_err(|error| chain(&error)));
        match found {
            Ok(state) => {
                let Problem { found, remedy, .. } = problem(pool, state.as_ref())?;
                Some(format!("{found}; {remedy}"))
            }
            Err(error) => Some(error),
        }
    }
}

impl VolumeDriver for ThinDriver {
    fn capabilities(&self) -> Capabilities {
        Capabilities { expand_online: true, copies_at_once: true, grows_beside_guest: true }
    }

    fn keeps_volume(&self, volume: Uuid) -> io::Result<bool> {
        self.notes.is_there(Kind::Volume, volume)
    }

    fn keeps_snapshot(&self, snapshot: Uuid) -> io::Result<bool> {
        self.notes.is_there(Kind::Snapshot, snapshot)
    }

    fn create_volume(&self, volume: Uuid, size_bytes: u64, content: Content) -> Result<(), VolumeError> {
        let note = self.note(Kind::Volume, volume)?;
        if let Some(note) = &note
            && self.settle(note, Kind::Volume, volume)?
        {
            return Ok(());
        }
        match content {
            Content::Empty => self.make_empty(volume, size_bytes, note.map(|note| note.pool())),
            Content::Snapshot(source) => self.copy((Kind::Snapshot, source), (Kind::Volume, volume)),
            Content::Volume(source) => self.copy((Kind::Volume, source), (Kind::Volume, volume)),
        }
    }

    fn has_volume(&self, volume: Uuid) -> io::Result<bool> {
        match self.note(Kind::Volume, volume).map_err(io::Error::other)? {
            Some(note)
                if note.made && self.lvm.is_active(&note.volume_group, &name_of(Kind::Volume, volume)) =>
            {
                Ok(true)
            }
            Some(note) => {
                Ok(self.state(&note, Kind::Volume, volume).map_err(io::Error::other)? == State::Ready)
            }
            None => Ok(false),
        }
    }

    fn stage_volume(&self, volume: Uuid, writes: bool) -> Result<(), VolumeError> {
        let gone = || missing(Kind::Volume, volume);
        let note = self.note(Kind::Volume, volume)?.ok_or_else(gone)?;
        let (group, name) = (&note.volume_group, name_of(Kind::Volume, volume));
        if !self.lvm.is_active(group, &name) {
            if self.state(&note, Kind::Volume, volume)? != State::Ready {
                return Err(gone());
            }
            self.lvm.activate(group, &name).map_err(failed)?;
        }
        let device = self.lvm.device(group, &name);
        if writes { check_unused(&device) } else { Ok(()) }
    }

    fn publish(&self, volume: Uuid) -> Published {
        let note = self.notes.read(Kind::Volume, volume).ok().flatten();
        let group = note.map(|note| note.volume_group).or(self.pool.as_ref().map(|pool| pool.group.clone()));
        let device = self.lvm.device(&group.unwrap_or_default(), &name_of(Kind::Volume, volume));
        Published { file: device, driver: BlockDriver::HostDevice }
    }

    fn way_back(&self, volume: Uuid) -> Option<String> {
        let note = self.notes.read(Kind::Volume, volume).ok().flatten();
        let group =
            note.map(|note| note.volume_group).or(self.pool.as_ref().map(|pool| pool.group.clone()))?;
        let (name, tag) = (name_of(Kind::Volume, volume), Kind::Volume.tag());
        Some(format!("bring logical volume {group}/{name} with tag {tag} back (vgcfgrestore)"))
    }

    fn disk_bytes(&self, size_bytes: u64) -> u64 {
        let extent_bytes = *self.extent_bytes.get().unwrap_or(&EXTENT_BYTES_DEFAULT);
        volume_length(size_bytes).div_ceil(extent_bytes).saturating_mul(extent_bytes)
    }

    fn length(&self, volume: Uuid) -> Result<u64, VolumeError> {
        let note = self.note(Kind::Volume, volume)?.ok_or_else(|| missing(Kind::Volume, volume))?;
        let name = name_of(Kind::Volume, volume);
        if note.made && self.lvm.is_active(&note.volume_group, &name) {
            return Ok(File::open(self.lvm.device(&note.volume_group, &name))?.seek(SeekFrom::End(0))?);
        }
        Ok(self.found(volume)?.1.size_bytes)
    }

    fn written_bytes(&self, volume: Uuid) -> Result<u64, VolumeError> {
        Ok(self.found(volume)?.1.written_bytes())
    }

    fn expand_volume(&self, volume: Uuid, size_bytes: u64) -> Result<(), VolumeError> {
        let (length, wanted) = (self.length(volume)?, self.disk_bytes(size_bytes));
        if wanted <= length {
            return Ok(());
        }
        let note = self.note(Kind::Volume, volume)?.ok_or_else(|| missing(Kind::Volume, volume))?;
        let pool = note.pool();
        Self::check_fits(&self.usable(&pool)?, &pool, wanted - length)?;
        self.lvm.extend(&pool.group, &name_of(Kind::Volume, volume), wanted).map_err(failed)
    }

    fn delete_volume(&self, volume: Uuid) -> io::Result<()> {
        self.delete(Kind::Volume, volume)
    }

    fn create_snapshot(&self, source: Uuid, snapshot: Uuid) -> Result<(), VolumeError> {
        if let Some(note) = self.note(Kind::Snapshot, snapshot)?
            && self.settle(&note, Kind::Snapshot, snapshot)?
        {
            return Ok(());
        }
        self.copy((Kind::Volume, source), (Kind::Snapshot, snapshot))
    }

    fn delete_snapshot(&self, snapshot: Uuid) -> io::Result<()> {
        self.delete(Kind::Snapshot, snapshot)
    }
}

/// QEMU's locks on a device hold between those that open the same node, and every guest has its own: who has mounted it, or made another
/// device of it, is found by asking for it alone (open(2), `O_EXCL` without `O_CREAT` on block devices).
fn check_unused(device: &Path) -> Result<(), VolumeError> {
    if !fs::metadata(device)?.file_type().is_block_device() {
        return Ok(());
    }
    match rustix::fs::open(device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(Errno::BUSY) => Err(VolumeError::NotNow(format!(
            "{} is in use on the node (findmnt, dmsetup ls --tree say by what)",
            device.display()
        ))),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Whether this machine has what volumes in a thin pool need: lvm2, its tools for pools, the group and the pool.
#[must_use]
pub fn thin_pool_precondition(pool: &ThinPoolName) -> Precondition {
    precondition(&Commands, pool, has_program("thin_check"))
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin".into(), "/sbin".into()];
    std::env::split_paths(&path).chain(more).any(|dir| dir.join(name).is_file())
}

pub(super) fn precondition(lvm: &dyn Lvm, pool: &ThinPoolName, has_tools: bool) -> Precondition {
    let answer = |outcome, found: String, remedy: String| {
        let (name, need) = ("volumes-lvm", Need::Volumes);
        Precondition { name, need, outcome, found, remedy }
    };
    let missing = |found: String, remedy: String| answer(Outcome::Missing, found, remedy);
    let install = "apt-get install lvm2 thin-provisioning-tools".to_owned();
    let state = match lvm.pool(pool) {
        Err(LvmError::NoProgram) => return missing("there is no program lvm".to_owned(), install),
        Err(error @ LvmError::NoGroup(_)) => {
            let remedy = format!(
                "vgcreate {} DISK, then: lvcreate --type thin-pool --size SIZE --name {} {0}",
                pool.group, pool.pool
            );
            return missing(chain(&error), remedy);
        }
        Err(error) => {
            return answer(
                Outcome::Unknown,
                chain(&error),
                "run it as root and look at what it says".to_owned(),
            );
        }
        Ok(state) => state,
    };
    if !has_tools {
        return missing("there is no program thin_check".to_owned(), install);
    }
    match (problem(pool, state.as_ref()), state) {
        (Some(Problem { found, remedy, is_fatal: false }), _) => {
            answer(Outcome::Met, format!("{found}: {remedy}"), String::new())
        }
        (Some(Problem { found, remedy, .. }), _) => missing(found, remedy),
        (None, state) => {
            let free_bytes = state.map_or(0, |state| state.free_bytes());
            answer(Outcome::Met, format!("thin pool {pool} has {} MiB free", free_bytes >> 20), String::new())
        }
    }
}
