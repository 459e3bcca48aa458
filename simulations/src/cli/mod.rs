//! The command line: many seeds, one seed, a file of decisions, or as much as fits into some minutes.

mod batch;
mod one;
pub(crate) mod panics;
mod total;

use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use simulations::{Detail, RunConfig, Shape};

/// Where soaks begin: far from the seeds that every change is tested with.
const SOAK_FROM: u64 = 1_000_000;
/// The cluster whose speed is `sim.speed`, and the seeds over which it is taken.
const SPEED_SERVERS: u64 = 3;
const SPEED_AGENTS: u32 = 20;
const SPEED_SEEDS: Range<u64> = 0..40;
/// Seeds that found a bug once, each with what it was.
const CORPUS: &str = include_str!("../../corpus/seeds.txt");

/// Whole clusters in one thread, under faults, from one seed.
#[derive(Parser)]
#[command(name = "simulations")]
pub(crate) struct Args {
    /// Seeds to run, as in 0..500; with --minutes, only where to begin.
    #[arg(long, value_parser = parse_seeds, group = "what")]
    seeds: Option<Range<u64>>,
    /// One seed to run.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// The seeds that found a bug once.
    #[arg(long, group = "what")]
    corpus: bool,
    /// A file of decisions to run again, bit for bit.
    #[arg(long, group = "what", value_name = "FILE")]
    replay: Option<PathBuf>,
    /// The simulator's speed: 3 servers and 20 nodes, everything else as seeds 0..40 decide, one run at a time.
    #[arg(long, group = "what", conflicts_with_all = ["servers", "agents", "ticks", "jobs", "beyond_contract"])]
    speed: bool,
    /// As many seeds as fit into so many minutes.
    #[arg(long, conflicts_with_all = ["seed", "corpus", "replay", "twice", "speed"])]
    minutes: Option<NonZeroU64>,
    /// Run each twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Print everything that happens.
    #[arg(long, conflicts_with_all = ["seeds", "corpus", "minutes"])]
    trace: bool,
    /// Print the decisions of the run.
    #[arg(long, conflicts_with_all = ["seeds", "corpus", "minutes"])]
    decisions: bool,
    /// Write the decisions of the run to a file, for --replay.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "corpus", "minutes"])]
    record: Option<PathBuf>,
    /// Leave out decisions of a run that fails until none can be left out, and write the rest to --record.
    #[arg(long, conflicts_with_all = ["seeds", "corpus", "minutes", "twice"])]
    shrink: bool,
    /// Most runs of a search for fewer decisions.
    #[arg(long, default_value_t = 2000)]
    tries: usize,
    /// How long faults happen, in ticks of the servers.
    #[arg(long)]
    ticks: Option<u64>,
    /// Servers at the start, instead of as the seed decides.
    #[arg(long)]
    servers: Option<u64>,
    /// Nodes, instead of as the seed decides.
    #[arg(long)]
    agents: Option<u32>,
    /// Let clocks drift or jump by more than is promised: what holds whatever clocks do still has to hold, and the run
    /// counts as out of contract.
    #[arg(long)]
    beyond_contract: bool,
    /// Where the decisions of runs that fail are written, a file for each.
    #[arg(long, value_name = "DIRECTORY")]
    failures: Option<PathBuf>,
    /// Runs at a time; one for each core when unset.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
    /// Print the end only.
    #[arg(long)]
    quiet: bool,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds: write it as 0..500");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let range = start.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(range) }
}

impl Args {
    fn config(&self, seed: u64) -> RunConfig {
        let shape = Shape {
            servers: self.servers(),
            agents: self.agents(),
            ticks: self.ticks,
            beyond_contract: self.beyond_contract,
        };
        let detail = if self.trace { Detail::Print } else { Detail::Hash };
        RunConfig { shape, detail, ..RunConfig::new(seed) }
    }

    fn servers(&self) -> Option<u64> {
        if self.speed { Some(SPEED_SERVERS) } else { self.servers }
    }

    fn agents(&self) -> Option<u32> {
        if self.speed { Some(SPEED_AGENTS) } else { self.agents }
    }

    /// The command that runs this seed again.
    fn command(&self, seed: u64) -> String {
        let mut command = format!("cargo run --release -p simulations -- --seed {seed}");
        let set =
            [("servers", self.servers()), ("agents", self.agents().map(u64::from)), ("ticks", self.ticks)];
        for (name, value) in set {
            if let Some(value) = value {
                command.push_str(&format!(" --{name} {value}"));
            }
        }
        if self.beyond_contract {
            command.push_str(" --beyond-contract");
        }
        command
    }
}

/// The seeds of the corpus, each once.
fn corpus() -> anyhow::Result<Vec<u64>> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let number = |line: &str| {
        let (seed, _) = line.split_once(' ').with_context(|| format!("{line:?} gives no reason"))?;
        seed.parse::<u64>().with_context(|| format!("{line:?} begins with no seed"))
    };
    let mut seeds = lines.map(number).collect::<anyhow::Result<Vec<u64>>>()?;
    seeds.sort_unstable();
    seeds.dedup();
    Ok(seeds)
}

/// Does what the arguments say.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.replay {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let script = simulations::Script::from_text(&text)
            .with_context(|| format!("{} holds no decisions that can be run", path.display()))?;
        let config = RunConfig { detail: args.config(0).detail, ..RunConfig::replay(script.into()) };
        return one::run(args, &config);
    }
    if let Some(seed) = args.seed
        && (args.record.is_some() || args.shrink || args.decisions)
    {
        return one::run(args, &args.config(seed));
    }
    let seeds: Box<dyn Iterator<Item = u64> + Send> = match (args.minutes, args.seed, &args.seeds) {
        (Some(_), _, seeds) => Box::new(seeds.as_ref().map_or(SOAK_FROM, |s| s.start)..),
        (None, Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, None, Some(seeds)) => Box::new(seeds.clone()),
        (None, None, None) if args.speed => Box::new(SPEED_SEEDS),
        (None, None, None) => {
            anyhow::ensure!(
                args.corpus,
                "say which seeds: --seeds 0..500, --seed 7, --corpus, --speed or --minutes 10"
            );
            Box::new(corpus()?.into_iter())
        }
    };
    batch::run(args, seeds)
}
