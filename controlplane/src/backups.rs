//! Scheduled backups: one server writes the whole State to a file now and then, and keeps the newest ones.
//!
//! The State is read at a linearizable point by the one server that is to write (the leader, or a named one), so a
//! deposed leader writes nothing. A failure is logged, counted and shown in the status; nothing else depends on it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_controlplane_disk::{BackupHeader, read_backup_header, write_backup};
use bulkhead_proto::{ProtoCodec, v1};
use bulkhead_types::MemberId;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::api::Api;
use crate::config::BackupOptions;
use crate::node::now_ms;
use crate::view::View;

/// How often it is asked whether one is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the linearizable read before a backup may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure the next attempt waits so long, unless backups are due more often anyway.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// What a backup's file name ends with.
const SUFFIX: &str = ".backup";

/// How the backups of this server went.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    status: Mutex<Option<v1::BackupStatus>>,
}

impl Backups {
    /// For the status; `None` when this server makes none.
    pub(crate) fn status(&self) -> Option<v1::BackupStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut v1::BackupStatus)) {
        change(self.status.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }
}

/// Writes backups as long as the server runs.
pub(crate) async fn run(api: Api, options: BackupOptions) {
    let every = options.every.max(Duration::from_secs(1));
    let mut looks = interval(LOOK_EVERY.min(every));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let dir = options.dir.display().to_string();
    api.backups.update(|status| status.dir = dir);
    let mut not_before = Instant::now();
    loop {
        looks.tick().await;
        if !writes_here(&api, &options) || Instant::now() < not_before {
            continue;
        }
        let result = match newest(&api, &options).await {
            Ok(newest) => {
                let at_ms = newest.as_ref().map_or(0, |(_, header)| header.made_at_ms);
                note_newest(&api, newest);
                // A clock that went back must not put off the next one for ever.
                let age_ms = now_ms().saturating_sub(at_ms.min(now_ms()));
                if u128::from(age_ms) < every.as_millis() {
                    continue;
                }
                back_up(&api, &options).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(Some((path, header))) => {
                tracing::info!(path = %path.display(), revision = header.revision, "backup written");
                api.metrics.backups_written.inc();
                api.backups.update(|status| {
                    status.written += 1;
                    status.last_error.clear();
                });
                note_newest(&api, Some((path, header)));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, dir = %options.dir.display(), "a backup failed; the server goes on, and tries again");
                api.metrics.backups_failed.inc();
                api.backups.update(|status| {
                    status.failed += 1;
                    status.last_error = error;
                });
                not_before = Instant::now() + RETRY_AFTER.min(every);
            }
        }
    }
}

fn note_newest(api: &Api, newest: Option<(PathBuf, BackupHeader)>) {
    let Some((path, header)) = newest else { return };
    api.metrics.backup_newest_seconds.set(i64::try_from(header.made_at_ms / 1000).unwrap_or(i64::MAX));
    api.backups.update(|status| {
        status.newest = path.display().to_string();
        status.newest_at_ms = header.made_at_ms;
    });
}

/// Whether this is the one server that writes.
fn writes_here(api: &Api, options: &BackupOptions) -> bool {
    let own = api.identity.member;
    match options.by {
        Some(member) => member == own,
        None => api.views.status.borrow().as_ref().is_some_and(|s| s.leader == Some(own)),
    }
}

/// Writes one; `None` when this server turns out not to be the one that should.
async fn back_up(api: &Api, options: &BackupOptions) -> Result<Option<(PathBuf, BackupHeader)>, String> {
    api.read(false, 0, Instant::now() + READ_TIMEOUT).await.map_err(|s| s.message().to_owned())?;
    if !writes_here(api, options) {
        return Ok(None);
    }
    let view = api.views.view.borrow().clone();
    let (options, member) = (options.clone(), api.identity.member);
    let write = move || write_one(&view, &options, member).map(Some).map_err(|e| e.to_string());
    tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?
}

fn write_one(view: &View, options: &BackupOptions, member: MemberId) -> io::Result<(PathBuf, BackupHeader)> {
    let header =
        view.backup_header(member).ok_or_else(|| io::Error::other("the cluster has no identity yet"))?;
    fs::create_dir_all(&options.dir)?;
    let name = name_of(&header);
    let (path, partial) = (options.dir.join(&name), options.dir.join(format!(".{name}.partial")));
    let written = write_file(&partial, |out| write_backup(&view.state, &header, &ProtoCodec, out))
        .and_then(|()| fs::rename(&partial, &path))
        .and_then(|()| File::open(&options.dir)?.sync_all());
    if let Err(error) = written {
        // Room that a failed attempt took is needed by the next one; there may be nothing to remove.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    retain(&options.dir, header.cluster_id, options.keep)?;
    Ok((path, header))
}

fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Names sort by the revision, which grows.
fn name_of(header: &BackupHeader) -> String {
    let cluster = header.cluster_id.simple().to_string();
    format!("bulkhead-{}-{:016}-{:013}{SUFFIX}", &cluster[..8], header.revision, header.made_at_ms)
}

async fn newest(api: &Api, options: &BackupOptions) -> Result<Option<(PathBuf, BackupHeader)>, String> {
    let (dir, cluster_id) = (options.dir.clone(), api.identity.cluster_id);
    let list = tokio::task::spawn_blocking(move || of_cluster(&dir, cluster_id)).await;
    Ok(list.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?.pop())
}

/// The cluster's backups in a directory, oldest first. Files that are none are left alone.
fn of_cluster(dir: &Path, cluster_id: Uuid) -> io::Result<Vec<(PathBuf, BackupHeader)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_ours = path
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|name| name.starts_with("bulkhead-") && name.ends_with(SUFFIX));
        if !is_ours {
            continue;
        }
        let header = File::open(&path).map(|file| read_backup_header(&mut BufReader::new(file)));
        if let Ok(Ok(header)) = header
            && header.cluster_id == cluster_id
        {
            found.push((path, header));
        }
    }
    found.sort_by_key(|(path, header)| (header.made_at_ms, path.clone()));
    Ok(found)
}

/// Removes the oldest ones beyond `keep`; the newest stays always.
fn retain(dir: &Path, cluster_id: Uuid, keep: usize) -> io::Result<()> {
    let found = of_cluster(dir, cluster_id)?;
    let surplus = found.len().saturating_sub(keep.max(1));
    for (path, _) in &found[..surplus] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// What the API hands out of [`Backups`].
pub(crate) type SharedBackups = Arc<Backups>;

#[cfg(test)]
mod tests {
    use bulkhead_controlplane_core::State;

    use super::*;

    fn view(revision_jumps: u32, cluster: u128) -> View {
        let mut state = State::default();
        for _ in 0..revision_jumps {
            state = state.begin_again(Uuid::from_u128(cluster), &[(MemberId(1), "a:1".into())]);
        }
        View { state, index: 5, term: 2 }
    }

    #[test]
    fn the_newest_are_kept_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = BackupOptions { dir: dir.path().join("new"), keep: 2, ..BackupOptions::default() };
        let other = write_one(&view(1, 8), &options, MemberId(1)).expect("another cluster's").0;
        fs::write(options.dir.join("bulkhead-notes.backup"), "no backup").expect("written");
        let written: Vec<PathBuf> =
            (1..=4).map(|n| write_one(&view(n, 7), &options, MemberId(1)).expect("written").0).collect();
        let kept = of_cluster(&options.dir, Uuid::from_u128(7)).expect("listed");
        assert_eq!(kept.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&written[2], &written[3]]);
        assert!(other.is_file() && options.dir.join("bulkhead-notes.backup").is_file());
        let names: Vec<_> = fs::read_dir(&options.dir).expect("listed").flatten().collect();
        assert_eq!(names.len(), 4, "{names:?}");
    }

    #[test]
    fn a_failed_backup_leaves_nothing_behind_and_removes_no_older_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = BackupOptions { dir: dir.path().join("file"), keep: 1, ..BackupOptions::default() };
        fs::write(&options.dir, "in the way").expect("written");
        assert!(write_one(&view(1, 7), &options, MemberId(1)).is_err());
        assert_eq!(fs::read_to_string(&options.dir).expect("there"), "in the way");
        assert!(write_one(&View::default(), &options, MemberId(1)).is_err(), "no cluster yet");
    }
}
