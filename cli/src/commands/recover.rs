//! `recover`: the quorum is gone for good; one survivor goes on alone.

use std::path::PathBuf;

use bulkhead_controlplane::{RecoverOptions, Recovered, recover};
use clap::Args;

use crate::failure::Failure;
use crate::output::emit_line;
use crate::time::rfc3339;

/// What is at stake, for whoever has not said that they know.
const RISK: &str = "this makes a new cluster of one from what this server has. Everything that only the lost servers \
had is gone: commands that were acknowledged may be missing. Do it only when no majority of the servers will ever \
come back, on the server with the highest log index, and never on two servers of the same cluster. If you mean it, \
add --new-cluster-of-one";

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The data directory of the server that goes on; it must not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How others will reach it
    #[arg(long, value_name = "HOST:PORT")]
    advertise: String,
    /// Where the directory is copied to before anything is changed [default: DIR.before-recovery]
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Yes, what only the lost servers had may be lost
    #[arg(long)]
    new_cluster_of_one: bool,
}

pub(crate) fn run(args: RecoverArgs) -> Result<(), Failure> {
    if !args.new_cluster_of_one {
        return Err(Failure::usage(RISK));
    }
    if !args
        .advertise
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    {
        return Err(Failure::usage(format!("--advertise {:?}: expected HOST:PORT", args.advertise)));
    }
    let archive = args.archive.unwrap_or_else(|| {
        let mut name = args.data_dir.as_os_str().to_owned();
        name.push(".before-recovery");
        PathBuf::from(name)
    });
    let options = RecoverOptions { data_dir: args.data_dir, address: args.advertise.into(), archive };
    let recovered = recover(&options).map_err(|e| Failure::failed(e.to_string()))?;
    emit_line(&report(&options, &recovered))
}

fn report(options: &RecoverOptions, recovered: &Recovered) -> String {
    let Recovered { member, committed, last, .. } = recovered;
    let lost: Vec<String> = recovered.lost_members.iter().map(ToString::to_string).collect();
    let unsure = match last.saturating_sub(*committed) {
        0 => String::new(),
        count => format!(
            "\nkept although this server was never told that a majority had them: {count} log entries, {} to {last}; \
             some may never have been acknowledged",
            committed + 1
        ),
    };
    format!(
        "archived: {} ({} bytes), the directory as it was\n\
         kept: everything up to log index {last}, revision {}, log time {}{unsure}\n\
         may be lost: whatever was acknowledged after that by members {} without this server, and the history of \
         events (it stays in the archive)\n\
         new cluster {} of member {member} alone, in place of cluster {}; revisions go on from {}\n\
         start it:\n  bulkhead server --id {member} --data-dir {} --listen ADDRESS:PORT --advertise {}\n\
         then add servers with empty data directories (bulkhead member add HOST:PORT); the old ones are refused. \
         Agents join with --adopt-cluster {}",
        options.archive.display(),
        recovered.archived_bytes,
        recovered.old_revision,
        rfc3339(recovered.log_time_ms),
        lost.join(", "),
        recovered.cluster_id,
        recovered.old_cluster,
        recovered.revision,
        options.data_dir.display(),
        options.address,
        recovered.cluster_id,
    )
}
