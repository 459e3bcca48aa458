//! What the agent remembers over its own restarts.
//!
//! ```text
//!  <data>/lock                     held while an agent runs
//!  <data>/lease.json               until when the lease runs, on the clock of this boot
//!  <data>/pods/<pod>/record.json   one for each guest, durable before the guest starts
//!  <data>/pods/<pod>/<instance>/   sockets, disks and pid file of one guest
//!  <data>/pods/<pod>/logs/         output of its containers
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::VmRecord;
use bulkhead_types::ObjectId;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::steps::{Step, passed, reached};

/// A lease is worth nothing after the machine has booted anew.
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    boot_id: String,
    until_ms: u64,
}

/// The records under a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    data: PathBuf,
}

impl Records {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_path_buf() }
    }

    /// The folder of a pod.
    pub(crate) fn pod_dir(&self, pod: ObjectId) -> PathBuf {
        self.data.join("pods").join(pod.0.to_string())
    }

    /// The folder of one guest. That of a guest of the pool is elsewhere, and the pod has a link to it.
    pub(crate) fn instance_dir(&self, pod: ObjectId, instance: u32) -> PathBuf {
        let dir = self.pod_dir(pod).join(instance.to_string());
        fs::read_link(&dir).unwrap_or(dir)
    }

    /// The pod whose guest's folder this is, if it is one of a pod's.
    pub(crate) fn pod_of(&self, instance_dir: &Path) -> Option<ObjectId> {
        let of_pods = instance_dir.strip_prefix(self.data.join("pods")).ok()?;
        of_pods.iter().next()?.to_str()?.parse().ok().map(ObjectId)
    }

    /// The folders elsewhere to which pods have links.
    pub(crate) fn links(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let pods = match fs::read_dir(self.data.join("pods")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            pods => pods?,
        };
        for pod in pods {
            let pod = pod?.path();
            if pod.is_dir() {
                let entries = fs::read_dir(pod)?.collect::<io::Result<Vec<_>>>()?;
                found.extend(entries.iter().filter_map(|entry| fs::read_link(entry.path()).ok()));
            }
        }
        Ok(found)
    }

    pub(crate) fn save(&self, record: &VmRecord) -> io::Result<()> {
        let dir = self.pod_dir(record.pod);
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            disk::sync_parent(&dir)?;
        }
        reached(Step::RecordBegun)?;
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        disk::replace(&dir.join("record.json"), &bytes)?;
        reached(Step::RecordWritten)
    }

    /// Forgets the record and, with it, the pod's folder.
    pub(crate) fn forget(&self, pod: ObjectId) -> io::Result<()> {
        let dir = self.pod_dir(pod);
        disk::remove_file(&dir.join("record.json"))?;
        passed(Step::RecordRemoved);
        disk::remove_dir(&dir)?;
        passed(Step::RecordForgotten);
        Ok(())
    }

    /// Every record. Folders without one are what a crash left behind; they are removed. A record that cannot be read
    /// is an error: its guest may run.
    pub(crate) fn load(&self) -> io::Result<Vec<VmRecord>> {
        let pods = self.data.join("pods");
        fs::create_dir_all(&pods)?;
        let mut records = Vec::new();
        for entry in fs::read_dir(&pods)? {
            let dir = entry?.path();
            match fs::read(dir.join("record.json")) {
                Ok(bytes) => {
                    let record: VmRecord = serde_json::from_slice(&bytes)
                        .map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))?;
                    records.push(record);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => disk::remove_dir(&dir)?,
                Err(error) => return Err(error),
            }
        }
        records.sort_by_key(|record| record.pod);
        Ok(records)
    }

    /// Not made durable: after a crash of the machine it means nothing.
    pub(crate) fn save_lease(&self, boot_id: &str, until_ms: u64) -> io::Result<()> {
        let lease = Lease { boot_id: boot_id.to_owned(), until_ms };
        let bytes = serde_json::to_vec(&lease).map_err(io::Error::other)?;
        let temporary = self.data.join("lease.tmp");
        fs::write(&temporary, bytes)?;
        fs::rename(temporary, self.data.join("lease.json"))
    }

    pub(crate) fn load_lease(&self, boot_id: &str) -> Option<u64> {
        let bytes = fs::read(self.data.join("lease.json")).ok()?;
        let lease: Lease = serde_json::from_slice(&bytes).ok()?;
        (lease.boot_id == boot_id).then_some(lease.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_nodeagent_core::{PodPlan, spec_digest_text};
    use bulkhead_types::{Name, PodSpec};

    fn record(pod: u64) -> VmRecord {
        VmRecord {
            pod: ObjectId(pod),
            uid: uuid::Uuid::from_u128(7),
            namespace: Name::new("default").expect("valid"),
            name: Name::new("web").expect("valid"),
            instance: 2,
            generation: 9,
            spec_digest: spec_digest_text(5),
            plan: PodPlan::new(&PodSpec::default(), false),
            images: [("main".into(), "sha256:aa".into())].into(),
            restart_counts: [("main".into(), 1)].into(),
            sandbox_restarts: 1,
            started: true,
            guarded: false,
            address: Some(std::net::Ipv4Addr::new(10, 128, 7, 2)),
            bandwidth: None,
            sizes: Vec::new(),
            resize_begun: false,
            resize_most: vec![],
            resize_least: vec![],
            resized: false,
            trace_context: None,
            ended: Some(bulkhead_types::PodStatus::default()),
        }
    }

    #[test]
    fn records_survive_and_rubbish_does_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let records = Records::new(dir.path());
        records.save(&record(3)).expect("saved");
        records.save(&record(1)).expect("saved");
        fs::create_dir_all(records.instance_dir(ObjectId(8), 1)).expect("made");
        assert_eq!(records.load().expect("loaded"), [record(1), record(3)]);
        assert!(!records.pod_dir(ObjectId(8)).exists());
        records.forget(ObjectId(1)).expect("forgotten");
        records.forget(ObjectId(1)).expect("forgotten twice");
        assert_eq!(records.load().expect("loaded"), [record(3)]);
    }

    #[test]
    fn a_damaged_record_is_not_passed_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let records = Records::new(dir.path());
        records.save(&record(3)).expect("saved");
        fs::write(records.pod_dir(ObjectId(3)).join("record.json"), b"{").expect("written");
        assert!(records.load().is_err());
    }

    #[test]
    fn a_lease_ends_with_the_boot() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let records = Records::new(dir.path());
        assert_eq!(records.load_lease("a"), None);
        records.save_lease("a", 5).expect("saved");
        assert_eq!(records.load_lease("a"), Some(5));
        assert_eq!(records.load_lease("b"), None);
    }
}
