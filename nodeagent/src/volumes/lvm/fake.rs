//! LVM in memory, with files for devices; the conformance suite holds it to what the real one does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::report::{LogicalVolume, PoolState};
use super::{Lvm, LvmError, ThinPoolName};
use crate::volumes::file;

const EXTENT_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) volumes: BTreeMap<String, LogicalVolume>,
    pub(super) active: Vec<String>,
    pub(super) pool: Option<PoolState>,
    /// Commands that are still done; then the agent is dead.
    pub(super) left: Option<u32>,
}

/// A group `vg0` with a pool `thin`.
#[derive(Clone, Debug)]
pub(super) struct FakeLvm {
    dir: PathBuf,
    group: Arc<Mutex<Group>>,
}

fn failed(command: &str, said: impl Into<String>) -> LvmError {
    LvmError::Failed { command: command.to_owned(), status: "exit status: 5".to_owned(), said: said.into() }
}

impl FakeLvm {
    pub(super) fn new(dir: &Path) -> Self {
        let pool = PoolState {
            is_thin_pool: true,
            size_bytes: 1 << 30,
            data: Some(1_000),
            metadata: Some(500),
            zeroes: true,
            health: String::new(),
            extent_bytes: EXTENT_BYTES,
        };
        let (volumes, active) = (BTreeMap::new(), Vec::new());
        let group = Group { volumes, active, pool: Some(pool), left: None };
        Self { dir: dir.to_owned(), group: Arc::new(Mutex::new(group)) }
    }

    pub(super) fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().expect("no test holds it in a panic")
    }

    /// The group, for a command that changes it: agents die before one.
    fn change(&self, command: &str) -> Result<MutexGuard<'_, Group>, LvmError> {
        let mut group = self.group();
        match group.left.as_mut() {
            Some(0) => return Err(failed(command, "the agent is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(group)
    }

    fn known(&self, group: &str) -> Result<(), LvmError> {
        if group == "vg0" { Ok(()) } else { Err(LvmError::NoGroup(group.to_owned())) }
    }
}

fn insert(group: &mut Group, volume: LogicalVolume) -> Result<(), LvmError> {
    let name = volume.name.clone();
    if group.volumes.contains_key(&name) {
        return Err(failed(
            "lvcreate",
            format!("Logical Volume \"{name}\" already exists in volume group \"vg0\""),
        ));
    }
    group.volumes.insert(name, volume);
    Ok(())
}

fn find<'a>(group: &'a mut Group, name: &str) -> Result<&'a mut LogicalVolume, LvmError> {
    group
        .volumes
        .get_mut(name)
        .ok_or_else(|| failed("lvs", format!("Failed to find logical volume \"vg0/{name}\"")))
}

impl Lvm for FakeLvm {
    fn volumes(&self, group: &str, name: Option<&str>) -> Result<Vec<LogicalVolume>, LvmError> {
        self.known(group)?;
        let group = self.group();
        if group.left == Some(0) {
            return Err(failed("lvs", "the agent is dead"));
        }
        let wanted = |one: &&LogicalVolume| name.is_none_or(|name| one.name == name);
        Ok(group.volumes.values().filter(wanted).cloned().collect())
    }

    fn pool(&self, pool: &ThinPoolName) -> Result<Option<PoolState>, LvmError> {
        self.known(&pool.group)?;
        Ok(self.group().pool.clone().filter(|_| pool.pool == "thin"))
    }

    fn create(&self, pool: &ThinPoolName, name: &str, size_bytes: u64, tag: &str) -> Result<(), LvmError> {
        let mut group = self.change("lvcreate")?;
        let size_bytes = size_bytes.next_multiple_of(EXTENT_BYTES);
        let tags = vec![tag.to_owned()];
        let volume = LogicalVolume {
            name: name.to_owned(),
            tags,
            size_bytes,
            pool: pool.pool.clone(),
            written: Some(0),
        };
        insert(&mut group, volume)?;
        group.active.push(name.to_owned());
        File::create_new(self.device("vg0", name))
            .and_then(|file| file.set_len(size_bytes))
            .map_err(LvmError::Run)
    }

    fn copy(&self, group: &str, of: &str, name: &str, tag: &str, active: bool) -> Result<(), LvmError> {
        self.known(group)?;
        let mut group = self.change("lvcreate")?;
        let from = find(&mut group, of)?.clone();
        insert(&mut group, LogicalVolume { name: name.to_owned(), tags: vec![tag.to_owned()], ..from })?;
        if active {
            group.active.push(name.to_owned());
        }
        let from = File::open(self.device("vg0", of)).map_err(LvmError::Run)?;
        file::copy(&from, &self.device("vg0", name)).map_err(LvmError::Run)
    }

    fn activate(&self, _group: &str, name: &str) -> Result<(), LvmError> {
        let mut group = self.change("lvchange")?;
        find(&mut group, name)?;
        group.active.push(name.to_owned());
        Ok(())
    }

    fn change_tag(&self, _group: &str, name: &str, from: &str, to: &str) -> Result<(), LvmError> {
        let mut group = self.change("lvchange")?;
        let volume = find(&mut group, name)?;
        volume.tags.retain(|tag| tag != from);
        volume.tags.push(to.to_owned());
        Ok(())
    }

    fn extend(&self, _group: &str, name: &str, size_bytes: u64) -> Result<(), LvmError> {
        let mut group = self.change("lvextend")?;
        let (volume, wanted) = (find(&mut group, name)?, size_bytes.next_multiple_of(EXTENT_BYTES));
        if wanted <= volume.size_bytes {
            return Err(failed("lvextend", "New size is not larger than existing size"));
        }
        volume.size_bytes = wanted;
        let file = OpenOptions::new().write(true).open(self.device("vg0", name));
        file.and_then(|file| file.set_len(wanted)).map_err(LvmError::Run)
    }

    fn remove(&self, _group: &str, name: &str, tag: &str) -> Result<(), LvmError> {
        let mut group = self.change("lvremove")?;
        if !find(&mut group, name)?.has(tag) {
            return Ok(());
        }
        group.volumes.remove(name);
        group.active.retain(|one| one != name);
        fs::remove_file(self.device("vg0", name)).map_err(LvmError::Run)
    }

    fn device(&self, _group: &str, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn is_active(&self, _group: &str, name: &str) -> bool {
        self.group().active.iter().any(|one| one == name)
    }
}
