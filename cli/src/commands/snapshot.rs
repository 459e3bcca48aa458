//! `snapshot`: the whole cluster in one file, and a new cluster from such a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bulkhead_controlplane::{Backup, RestoreOptions, restore, verify_backup};
use bulkhead_proto::v1;
use bulkhead_types::MemberId;
use clap::{Args, Subcommand};

use super::Context;
use super::server::{InitialMember, parse_member};
use crate::client::cluster;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::progress::Progress;
use crate::time::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Save the state of the whole cluster to a file, as it is now
    Save {
        /// The file; it must not exist yet
        file: PathBuf,
    },
    /// Read a saved file through and check everything in it; needs no server
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Make an empty data directory the beginning of a new cluster that goes on from a saved file; needs no server.
    /// Run it for every server of the new cluster, with the same file and --initial-cluster
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// The directory; it must be empty or missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The server's id in the new cluster
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// The servers of the new cluster: 1=host:port,2=host:port,3=host:port
    #[arg(long, required = true, value_delimiter = ',', value_parser = parse_member, value_name = "ID=HOST:PORT,...")]
    initial_cluster: Vec<InitialMember>,
    /// Any word; needed only to make two clusters with the same addresses from the same file. The same for every
    /// server
    #[arg(long, default_value = "", value_name = "WORD")]
    token: String,
}

/// What needs no server; gives back what does.
pub(crate) fn run_offline(verb: SnapshotVerb) -> Result<Option<PathBuf>, Failure> {
    match verb {
        SnapshotVerb::Save { file } => Ok(Some(file)),
        SnapshotVerb::Verify { file } => {
            let backup = verify_backup(&file).map_err(|e| Failure::failed(e.to_string()))?;
            emit_line(&format!("{}: whole and undamaged\n{}", file.display(), describe(&backup)))?;
            Ok(None)
        }
        SnapshotVerb::Restore(args) => restore_one(args).map(|()| None),
    }
}

fn describe(backup: &Backup) -> String {
    let header = &backup.header;
    let sha256: String = backup.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "cluster {}, index {}, term {}, revision {}, feature level {}\n\
         made at {} by member {}, {} objects, {} bytes\nstate digest {:032x}\nsha256 {sha256}",
        header.cluster_id,
        header.index,
        header.term,
        header.revision,
        header.feature_level,
        rfc3339(header.made_at_ms),
        header.member,
        backup.state.objects().count(),
        backup.bytes,
        header.digest,
    )
}

fn restore_one(args: RestoreArgs) -> Result<(), Failure> {
    let members: Vec<String> =
        args.initial_cluster.iter().map(|m| format!("{}={}", m.id, m.address)).collect();
    let options = RestoreOptions {
        file: args.file,
        data_dir: args.data_dir,
        member: MemberId(args.id),
        initial_cluster: args
            .initial_cluster
            .into_iter()
            .map(|m| (MemberId(m.id), m.address.into()))
            .collect(),
        token: args.token,
    };
    let restored = restore(&options).map_err(|e| Failure::failed(e.to_string()))?;
    emit_line(&format!(
        "{} is the beginning of server {} of the new cluster {}\n\
         it holds cluster {} as of {} (revision {}); revisions go on from {}\n\
         when every server of --initial-cluster is restored, start them:\n  \
         bulkhead server --id {} --data-dir {} --listen ADDRESS:PORT --initial-cluster {}\n\
         agents of the old cluster join with --adopt-cluster {}",
        options.data_dir.display(),
        options.member,
        restored.cluster_id,
        restored.header.cluster_id,
        rfc3339(restored.header.log_time_ms),
        restored.header.revision,
        restored.revision,
        options.member,
        options.data_dir.display(),
        members.join(","),
        restored.cluster_id,
    ))
}

/// Saves to `file`, checks what was written, and only then gives it its name.
pub(crate) async fn save(file: &Path, context: &Context) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::failed(format!("{} exists already; name another file", file.display())));
    }
    let name = file.file_name().ok_or_else(|| Failure::usage(format!("{} names no file", file.display())))?;
    let partial = file.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    let result = save_as(file, &partial, context).await;
    if result.is_err() {
        // What is there of it is worth nothing; it may not be there at all.
        let _ = fs::remove_file(&partial);
    }
    result
}

async fn save_as(file: &Path, partial: &Path, context: &Context) -> Result<(), Failure> {
    /// How often a stream that broke is begun again, on the next server.
    const ATTEMPTS: usize = 3;
    let mut last = Failure::failed("no attempt was made");
    for _ in 0..ATTEMPTS {
        match receive(partial, context).await {
            Ok(()) => {
                let checked = partial.to_owned();
                let backup = tokio::task::spawn_blocking(move || verify_backup(&checked)).await;
                let backup = backup.map_err(|e| Failure::failed(e.to_string()))?;
                let backup = backup.map_err(|e| Failure::failed(e.to_string()))?;
                publish(partial, file).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
                return emit_line(&format!("{} saved\n{}", file.display(), describe(&backup)));
            }
            Err(failure) if failure.class == Class::Unavailable => last = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(last)
}

async fn receive(partial: &Path, context: &Context) -> Result<(), Failure> {
    let client = &context.client;
    let progress = Progress::start("saving the cluster");
    let mut stream = client
        .call(|channel| {
            let request = client.request(v1::BackupRequest {});
            async move { cluster(channel).backup(request).await }
        })
        .await?;
    let failed = |e: io::Error| Failure::failed(format!("{}: {e}", partial.display()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(partial).map_err(failed)?;
    let (mut out, mut bytes) = (BufWriter::new(file), 0u64);
    while let Some(chunk) = stream.message().await? {
        out.write_all(&chunk.data).map_err(failed)?;
        bytes += chunk.data.len() as u64;
        progress.set(format!("saving the cluster: {} MiB", bytes >> 20));
    }
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

fn publish(partial: &Path, file: &Path) -> io::Result<()> {
    fs::rename(partial, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
