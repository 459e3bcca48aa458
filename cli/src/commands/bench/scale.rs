//! What a server does at scale, alone: restart, replay, snapshots, memory.
//!
//! A real server core over a real data directory, without its sockets: what is measured is what a restarted
//! `bulkhead server` does between its start and its first acknowledged command. The directory is filled by a
//! process of its own, so that the measuring one has the memory of a server that has just been restarted.

mod single;
mod world;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bulkhead_controlplane_disk::save_snapshot;
use bulkhead_proto::ProtoCodec;
use clap::Args;

use super::OutputArgs;
use super::results::{Figure, Results};
use crate::failure::Failure;
use crate::progress::Progress;
use single::Single;

const RESTART: &str = "recover.restart_1m_pods";
const REPLAY: &str = "recover.replay";
const PAUSE: &str = "snapshot.apply_pause_1m_pods";
const MEMORY: &str = "memory.per_pod_1m";
/// How long the pauses of applying are looked at while no snapshot is written.
const QUIET: Duration = Duration::from_secs(2);
/// Submissions of one entry while snapshots are written: what a busy leader packs.
const SUBMISSIONS_PER_ENTRY: u64 = 64;
/// Submissions of one entry of the log that is replayed.
const REPLAY_BATCH: u64 = 64;

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// How many pods
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=4_000_000))]
    pods: u32,
    /// How many commands are replayed
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    commands: u32,
    /// Where data directories are made
    #[arg(long, value_name = "DIR")]
    work_dir: PathBuf,
    /// Only figures whose name begins so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    only: String,
    /// Fill the data directory with pods, and end
    #[arg(long, hide = true, conflicts_with = "fill_commands")]
    fill_pods: bool,
    /// Fill the data directory with a log of commands, and end
    #[arg(long, hide = true)]
    fill_commands: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: ScaleArgs) -> Result<(), Failure> {
    let measured = tokio::task::spawn_blocking(move || measure(&args)).await;
    measured.map_err(|e| Failure::failed(format!("the measurement failed: {e}")))?
}

fn measure(args: &ScaleArgs) -> Result<(), Failure> {
    if args.fill_pods {
        return Ok(world::fill(&args.work_dir, args.pods)?);
    }
    if args.fill_commands {
        return Ok(Single::fill(&args.work_dir, u64::from(args.commands), REPLAY_BATCH)?);
    }
    let mut results = Results::open(&args.output)?;
    let wants = |name: &str| name.starts_with(&args.only) || args.only.starts_with(name);
    // First: after anything else pods would be put where that was, and too little memory counted.
    if [RESTART, PAUSE, MEMORY].into_iter().any(wants) {
        pods(args, &mut results, &wants)?;
    }
    if wants(REPLAY) {
        replay(args, &mut results)?;
    }
    results.finish()
}

/// Runs this program once more to fill a directory.
fn fill(args: &ScaleArgs, dir: &Path, what: &str) -> Result<(), Failure> {
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    let status = std::process::Command::new(program)
        .args(["bench", "scale", what, "--work-dir"])
        .arg(dir)
        .args(["--pods", &args.pods.to_string(), "--commands", &args.commands.to_string()])
        .stdin(Stdio::null())
        .status()
        .context("this program cannot be run again")?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("filling {} failed: {status}", dir.display())))
}

/// Commands per second from a log on disk to State.
fn replay(args: &ScaleArgs, results: &mut Results) -> Result<(), Failure> {
    let progress = Progress::start("writing a log to replay");
    let dir = args.work_dir.join("replay");
    fill(args, &dir, "--fill-commands")?;
    progress.set("replaying the log");
    let (started, processor) = (Instant::now(), on_processor());
    let mut single = Single::open(&dir)?;
    let read = started.elapsed();
    single.lead();
    let seconds = started.elapsed().as_secs_f64();
    let revision = single.server().state().revision();
    if revision < u64::from(args.commands) {
        return Err(Failure::failed(format!("the replay ended at revision {revision}")));
    }
    drop(progress);
    eprintln!(
        "replay: {:.2} s to read the log, {seconds:.2} s in all, {:.2} s of it on a processor",
        read.as_secs_f64(),
        on_processor().saturating_sub(processor).as_secs_f64()
    );
    results.add(Figure::new(REPLAY, f64::from(args.commands) / seconds, "commands/s"))
}

fn pods(args: &ScaleArgs, results: &mut Results, wants: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
    let progress = Progress::start("making a State of many pods");
    let dir = args.work_dir.join("pods");
    fill(args, &dir, "--fill-pods")?;
    progress.set("restarting");
    let before = resident_bytes()?;
    let (started, processor) = (Instant::now(), on_processor());
    let mut single = Single::open(&dir)?;
    let loaded = started.elapsed();
    let after = resident_bytes()?;
    single.lead();
    single.submit(1);
    let restarted = started.elapsed();
    let found = single.server().state().pods().len();
    if found != args.pods as usize {
        return Err(Failure::failed(format!("{found} pods after the restart, not {}", args.pods)));
    }
    eprintln!(
        "restart: {:.2} s to load, {:.2} s in all, {:.2} s of it on a processor",
        loaded.as_secs_f64(),
        restarted.as_secs_f64(),
        on_processor().saturating_sub(processor).as_secs_f64()
    );
    if wants(RESTART) {
        results.add(Figure::new(RESTART, restarted.as_secs_f64(), "s"))?;
    }
    if wants(MEMORY) {
        let bytes = (after.saturating_sub(before)) as f64 / f64::from(args.pods);
        results.add(Figure::new(MEMORY, bytes, "bytes"))?;
    }
    if wants(PAUSE) {
        progress.set("applying while a snapshot is written");
        let quiet = longest_apply(&mut single, |started| started.elapsed() < QUIET);
        let saving = single.take_snapshot()?;
        let store = single.snapshots();
        let writer =
            std::thread::spawn(move || save_snapshot(&*store, &ProtoCodec, &saving.point, &saving.state));
        let busy = longest_apply(&mut single, |_| !writer.is_finished());
        let saved = writer.join().map_err(|_| Failure::failed("writing the snapshot panicked"))?;
        saved.context("the snapshot cannot be written")?;
        let figure = Figure::new(PAUSE, busy, "ms").beside("without a snapshot", quiet);
        results.add(figure)?;
    }
    Ok(())
}

/// The longest time in milliseconds that applying one entry took.
fn longest_apply(single: &mut Single, go_on: impl Fn(Instant) -> bool) -> f64 {
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    while go_on(started) {
        longest = longest.max(single.submit(SUBMISSIONS_PER_ENTRY));
    }
    longest.as_secs_f64() * 1000.0
}

/// This process's resident memory.
pub(super) fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/self/status does not say VmRSS")? * 1024)
}

/// How long this thread has run: on a machine that others use as well, the time on the clock says little. What /proc says of it is
/// counted by ticks of the clock, too coarse for a look that takes microseconds.
pub(super) fn on_processor() -> Duration {
    let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (ran.tv_sec.unsigned_abs(), ran.tv_nsec.unsigned_abs());
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// The shared snapshots of a data directory.
type Snapshots = Arc<dyn bulkhead_storage::SnapshotStore>;
