//! What is remembered of functions, as files: one for each, replaced durably.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::hardware::Bdf;
use bulkhead_nodeagent_core::passthrough::{Binding, Notebook, Quarantine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use crate::steps::{Step, passed};
use crate::{clock, disk};

/// The notes under a data directory.
#[derive(Debug)]
pub(super) struct Notes {
    dir: PathBuf,
    bindings: BTreeMap<Bdf, Binding>,
    quarantined: BTreeMap<Bdf, Quarantine>,
    /// What is in quarantine and could not be written.
    unwritten: BTreeMap<Bdf, Quarantine>,
    /// Functions that were reset, by which method, until somebody takes them.
    resets: BTreeMap<Bdf, String>,
}

impl Notes {
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let dir = data.join("devices");
        fs::create_dir_all(dir.join("quarantine"))?;
        disk::sync_parent(&dir)?;
        disk::sync_parent(&dir.join("quarantine"))?;
        let bindings = read_all(&dir, |binding: &Binding| binding.address)?;
        let (quarantined, unwritten, resets) = Default::default();
        let mut notes = Self { dir, bindings, quarantined, unwritten, resets };
        notes.read_quarantine()?;
        Ok(notes)
    }

    /// Reads what is in quarantine anew: a file that is gone is a function that is well again.
    pub(super) fn read_quarantine(&mut self) -> io::Result<()> {
        let mut found = read_all(&self.dir.join("quarantine"), |kept: &Quarantine| kept.address)?;
        found.extend(self.unwritten.clone());
        self.quarantined = found;
        Ok(())
    }

    /// Another function is at this address than the one that is in quarantine.
    pub(super) fn forget_quarantine(&mut self, address: Bdf) {
        self.unwritten.remove(&address);
        if self.quarantined.remove(&address).is_none() {
            return;
        }
        let path = self.dir.join("quarantine").join(format!("{address}.json"));
        if let Err(error) = disk::remove_file(&path).and_then(|()| disk::sync_parent(&path)) {
            tracing::error!(%address, %error, "the quarantine of a replaced device stays; remove its file");
        }
    }

    /// The functions that were reset since this was asked last, each with the method.
    pub(super) fn take_resets(&mut self) -> BTreeMap<Bdf, String> {
        std::mem::take(&mut self.resets)
    }

    fn path(&self, address: Bdf) -> PathBuf {
        self.dir.join(format!("{address}.json"))
    }
}

fn read_all<T: DeserializeOwned>(dir: &Path, key: impl Fn(&T) -> Bdf) -> io::Result<BTreeMap<Bdf, T>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let note = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        all.insert(key(&note), note);
    }
    Ok(all)
}

fn write(path: &Path, note: &impl Serialize) -> Result<(), String> {
    let bytes = serde_json::to_vec_pretty(note).map_err(|error| error.to_string())?;
    disk::replace(path, &bytes).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

impl Notebook for Notes {
    fn bindings(&self) -> &BTreeMap<Bdf, Binding> {
        &self.bindings
    }

    fn quarantined(&self) -> &BTreeMap<Bdf, Quarantine> {
        &self.quarantined
    }

    fn put(&mut self, binding: Binding) -> Result<(), String> {
        write(&self.path(binding.address), &binding)?;
        passed(Step::BindingNoted);
        self.bindings.insert(binding.address, binding);
        Ok(())
    }

    fn remove(&mut self, address: Bdf) -> Result<(), String> {
        let path = self.path(address);
        let removed = disk::remove_file(&path).and_then(|()| disk::sync_parent(&path));
        removed.map_err(|error| format!("{} cannot be removed: {error}", path.display()))?;
        passed(Step::BindingForgotten);
        self.bindings.remove(&address);
        Ok(())
    }

    fn quarantine(&mut self, address: Bdf, code: &'static str, message: &str) -> Result<(), String> {
        tracing::error!(%address, code, message, "a device goes to nobody any more; see docs/operations.md");
        let (code, message, since_ms) = (SmolStr::new_static(code), message.to_owned(), clock::unix_ms());
        let kept = Quarantine { address, code, message, since_ms };
        let path = self.dir.join("quarantine").join(format!("{address}.json"));
        self.quarantined.insert(address, kept.clone());
        let written = write(&path, &kept);
        passed(Step::QuarantineNoted);
        if written.is_err() {
            self.unwritten.insert(address, kept);
        } else {
            self.unwritten.remove(&address);
        }
        written
    }

    fn note_reset(&mut self, address: Bdf, method: &str) {
        self.resets.insert(address, method.to_owned());
    }
}
