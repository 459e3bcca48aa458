//! A backup becomes the data directory of a new cluster's founder.

use std::path::PathBuf;

use bulkhead_controlplane_core::server::TooOld;
use bulkhead_controlplane_disk::{Backup, BackupHeader};
use bulkhead_types::{FEATURE_LEVEL_MAX, MemberId};
use smol_str::SmolStr;
use uuid::Uuid;

use super::directory::{Beginning, content};
use super::{OfflineError, io_at, members_text, verify_backup};

/// What to restore where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub file: PathBuf,
    /// An empty directory; made when missing.
    pub data_dir: PathBuf,
    /// Whose directory it becomes.
    pub member: MemberId,
    /// The founders of the new cluster with their addresses; the same for each of them.
    pub initial_cluster: Vec<(MemberId, SmolStr)>,
    /// Anything: two restores of the same backup for the same founders are two clusters when it differs.
    pub token: String,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says about itself.
    pub header: BackupHeader,
    /// The new cluster.
    pub cluster_id: Uuid,
    /// The revision that it begins at.
    pub revision: u64,
}

/// Makes `data_dir` the beginning of a new cluster that goes on from a backup. Run it for every founder, with the
/// same backup, founders and token: the cluster's identity follows from them, so that founders who were restored
/// from different backups never come together.
///
/// # Errors
/// When the backup, the directory or the founders will not do. A directory that was not empty is not touched.
pub fn restore(options: &RestoreOptions) -> Result<Restored, OfflineError> {
    check_founders(options)?;
    let dir = &options.data_dir;
    if let Some(found) = content(dir).map_err(io_at(dir))? {
        return Err(OfflineError::NotEmpty { path: dir.clone(), found });
    }
    let backup = verify_backup(&options.file)?;
    let (level, supported) = (backup.header.feature_level, FEATURE_LEVEL_MAX);
    if level > supported {
        return Err(TooOld { level, supported }.into());
    }
    let cluster_id = restored_id(&backup, options);
    let header = backup.header;
    let beginning = Beginning {
        dir,
        state: &backup.state,
        cluster_id,
        member: options.member,
        founders: &options.initial_cluster,
        source: format!(
            "restored from a backup of cluster {} at index {}, revision {}",
            header.cluster_id, header.index, header.revision
        ),
        remedy: "a restore into this directory was cut short; empty it and restore again".to_owned(),
    };
    let revision = beginning.write()?.revision();
    Ok(Restored { header, cluster_id, revision })
}

fn check_founders(options: &RestoreOptions) -> Result<(), OfflineError> {
    let refuse = |text: String| Err(OfflineError::Members(text));
    let founders = &options.initial_cluster;
    if !founders.iter().any(|(member, _)| *member == options.member) {
        return refuse(format!(
            "--initial-cluster does not name member {}, whose directory is to be restored",
            options.member
        ));
    }
    for (at, (member, address)) in founders.iter().enumerate() {
        if founders[..at].iter().any(|(m, a)| m == member || a == address) {
            return refuse(format!("--initial-cluster names {member}={address} or a part of it twice"));
        }
    }
    Ok(())
}

fn restored_id(backup: &Backup, options: &RestoreOptions) -> Uuid {
    let mut name = b"bulkhead restore:".to_vec();
    name.extend_from_slice(&backup.sha256);
    name.extend_from_slice(members_text(&options.initial_cluster).as_bytes());
    name.push(0);
    name.extend_from_slice(options.token.as_bytes());
    Uuid::new_v5(&backup.header.cluster_id, &name)
}
