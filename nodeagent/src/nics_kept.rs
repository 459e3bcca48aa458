//! What NICs shall be, kept for the machine's next boot.
//!
//! A boot leaves a NIC without virtual functions, and a function that is missing is lost to the pod that has it. So they are made of what
//! is kept here before the first word about the node's devices, also where no server can be asked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::hardware::Bdf;
use bulkhead_types::SriovInterface;

use crate::disk;

/// What was said last of the node's NICs, durably.
#[derive(Debug)]
pub(crate) struct NicsKept {
    path: PathBuf,
    kept: Vec<SriovInterface>,
    /// Of what an earlier life of the agent was told, that of which nothing was said in this one.
    untold: Vec<SriovInterface>,
}

impl NicsKept {
    /// What an earlier life of the agent kept; nothing where that cannot be read.
    pub(crate) fn open(data: &Path) -> Self {
        let path = data.join("nics.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what NICs were to be cannot be read; a server will say it");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what NICs were to be cannot be read; a server will say it");
                Vec::new()
            }
        };
        Self { path, untold: Clone::clone(&kept), kept }
    }

    /// What NICs are to be until a server speaks.
    pub(crate) fn wanted(&self) -> &[SriovInterface] {
        &self.kept
    }

    /// Keeps what a server says, before anything of it is done. What cannot be written is said and kept for this life only.
    pub(crate) fn keep(&mut self, wanted: &[SriovInterface]) {
        if self.kept == wanted {
            return;
        }
        self.kept = wanted.to_vec();
        let bytes = serde_json::to_vec(wanted).expect("names and numbers always fit in JSON");
        if let Err(error) = disk::replace(&self.path, &bytes) {
            tracing::warn!(path = %self.path.display(), %error, "what NICs shall be is not kept for the next boot");
        }
    }

    /// What is to be done: what a server says, and no functions any more for NICs that had some of what was kept, and of which it says
    /// nothing. Those in `emptied` have none already, and are nobody's from then on.
    pub(crate) fn with_given_up(
        &mut self,
        wanted: &[SriovInterface],
        emptied: &BTreeSet<Bdf>,
    ) -> Vec<SriovInterface> {
        let said: BTreeSet<&str> = wanted.iter().map(|one| one.pci_address.as_str()).collect();
        self.untold.retain(|one| {
            let is_empty = one.pci_address.parse().is_ok_and(|address| emptied.contains(&address));
            !said.contains(one.pci_address.as_str()) && !is_empty
        });
        let given_up = self.untold.iter().map(|one| SriovInterface {
            num_vfs: 0,
            mtu: None,
            link_type: None,
            vf_groups: Vec::new(),
            ..one.clone()
        });
        wanted.iter().cloned().chain(given_up).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(address: &str, num_vfs: u32) -> SriovInterface {
        SriovInterface {
            pci_address: address.into(),
            name: "eth7".into(),
            num_vfs,
            mtu: Some(9000),
            link_type: None,
            vf_groups: Vec::new(),
        }
    }

    fn vfs(of: &[SriovInterface]) -> Vec<(&str, u32)> {
        of.iter().map(|one| (one.pci_address.as_str(), one.num_vfs)).collect()
    }

    #[test]
    fn what_was_said_is_there_after_a_boot() {
        let data = tempfile::tempdir().expect("a folder");
        let mut kept = NicsKept::open(data.path());
        assert_eq!(kept.wanted(), []);
        kept.keep(&[nic("0000:41:00.0", 3)]);
        assert_eq!(vfs(NicsKept::open(data.path()).wanted()), [("0000:41:00.0", 3)]);
        fs::write(data.path().join("nics.json"), "[{").expect("written");
        assert_eq!(NicsKept::open(data.path()).wanted(), [], "what is damaged is not believed");
    }

    #[test]
    fn a_nic_of_which_nothing_is_said_any_more_loses_what_was_made_of_what_was_kept() {
        let data = tempfile::tempdir().expect("a folder");
        let (one, other) = (nic("0000:41:00.0", 3), nic("0000:42:00.0", 2));
        NicsKept::open(data.path()).keep(&[one.clone(), other.clone()]);
        let mut kept = NicsKept::open(data.path());
        let nothing = BTreeSet::new();
        let todo = kept.with_given_up(std::slice::from_ref(&one), &nothing);
        assert_eq!(vfs(&todo), [("0000:41:00.0", 3), ("0000:42:00.0", 0)]);
        assert_eq!(todo[1].mtu, None, "it is left as it is otherwise");
        let emptied = BTreeSet::from(["0000:42:00.0".parse().expect("an address")]);
        let todo = kept.with_given_up(std::slice::from_ref(&one), &emptied);
        assert_eq!(vfs(&todo), [("0000:41:00.0", 3)], "and then it is nobody's");
        assert_eq!(kept.with_given_up(&[one], &nothing).len(), 1);
    }
}
