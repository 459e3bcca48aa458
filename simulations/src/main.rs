//! Runs simulated clusters and says how they fared. See the library for what they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use simulations::{Detail, Options, Outcome, Report, RunConfig, run};

/// Whole clusters in one thread, under faults, from one seed.
#[derive(Parser)]
#[command(name = "simulations")]
struct Args {
    /// Seeds to run, as in 0..200.
    #[arg(long, value_parser = parse_seeds, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// One seed to run.
    #[arg(long, required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Run it twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Print everything that happens.
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
    /// How long faults happen, in ticks of the servers.
    #[arg(long)]
    ticks: Option<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds: write it as 0..200");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let range = start.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(range) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic in a core is a finding like any other: it is told with its seed.
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|slot| *slot.borrow_mut() = Some(info.to_string()));
    }));
    let seeds = args.seeds.clone().unwrap_or_else(|| {
        let seed = args.seed.expect("clap requires one of them");
        seed..seed + 1
    });
    let started = Instant::now();
    let total = run_all(&args, seeds);
    println!(
        "virtual {:.0} s in {:.1} s: {:.0} times real time",
        total.virtual_ms as f64 / 1000.0,
        started.elapsed().as_secs_f64(),
        total.virtual_ms as f64 / 1000.0 / started.elapsed().as_secs_f64(),
    );
    let void = if total.void > 0 { format!(", {} void", total.void) } else { String::new() };
    println!("{} passed, {} failed{void}", total.passed, total.failed);
    if total.failed + total.void > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

thread_local! {
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

#[derive(Default)]
struct Total {
    passed: u64,
    failed: u64,
    void: u64,
    virtual_ms: u64,
}

/// Runs all seeds on a few threads, each world in one of them, and prints their reports in order.
fn run_all(args: &Args, seeds: Range<u64>) -> Total {
    let next = AtomicU64::new(seeds.start);
    let printer =
        Mutex::new(Printer { next: seeds.start, waiting: BTreeMap::new(), total: Total::default() });
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = run_seed(args, seed);
                    printer.lock().expect("no thread panics while it prints").take(seed, result);
                }
            });
        }
    });
    printer.into_inner().expect("no thread panics while it prints").total
}

/// The text of a run, and how it counts.
struct RunResult {
    text: String,
    passed: bool,
    void: bool,
    virtual_ms: u64,
}

struct Printer {
    next: u64,
    waiting: BTreeMap<u64, RunResult>,
    total: Total,
}

impl Printer {
    fn take(&mut self, seed: u64, result: RunResult) {
        self.total.passed += u64::from(result.passed);
        self.total.void += u64::from(result.void);
        self.total.failed += u64::from(!result.passed && !result.void);
        self.total.virtual_ms += result.virtual_ms;
        self.waiting.insert(seed, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            println!("{}", result.text);
            self.next += 1;
        }
    }
}

fn run_seed(args: &Args, seed: u64) -> RunResult {
    let detail = if args.trace { Detail::Print } else { Detail::Hash };
    let config = RunConfig { seed, ticks: args.ticks, detail };
    let ticks = args.ticks.map_or(String::new(), |ticks| format!(" --ticks {ticks}"));
    let command = format!("cargo run --release -p simulations -- --seed {seed}{ticks}");
    let first = match guarded(config) {
        Ok(report) => report,
        Err(panic) => {
            let text = format!("seed {seed} FAILED panic: {panic}\n{}\nreproduce: {command}", options(seed));
            return RunResult { text, passed: false, void: false, virtual_ms: 0 };
        }
    };
    let mut text = first.to_string();
    let mut passed = first.outcome == Outcome::Passed;
    let void = matches!(first.outcome, Outcome::Void(_));
    if args.twice && (passed || void) {
        let again = guarded(RunConfig { detail: Detail::Hash, ..config });
        match again {
            Ok(again) if again.trace_hash == first.trace_hash => text.push_str(" twice the same"),
            Ok(again) => {
                passed = false;
                text.push_str(&format!(" FAILED: the second time the trace was {:032x}", again.trace_hash));
            }
            Err(panic) => {
                passed = false;
                text.push_str(&format!(" FAILED: the second time it panicked: {panic}"));
            }
        }
    }
    if let Outcome::Failed(violation) = &first.outcome {
        text = failure(&first, violation, config, &command);
    }
    RunResult { text, passed, void: void && !passed, virtual_ms: first.virtual_ms }
}

fn options(seed: u64) -> String {
    format!("{:#?}", Options::draw(seed))
}

fn guarded(config: RunConfig) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(config))).map_err(|_| {
        PANIC.with(|slot| slot.borrow_mut().take()).unwrap_or_else(|| "without a word".to_owned())
    })
}

/// How many lines of the trace a failure shows.
const TAIL_LINES: usize = 60;

/// Everything that is known of a failure. The run is repeated to write down what led to it.
fn failure(
    report: &Report,
    violation: &simulations::invariants::Violation,
    config: RunConfig,
    command: &str,
) -> String {
    let tail = guarded(RunConfig { detail: Detail::Tail, ..config }).map(|r| r.tail).unwrap_or_default();
    let tail = tail[tail.len().saturating_sub(TAIL_LINES)..].join("\n");
    format!(
        "{report}\n{:#?}\n{tail}\nviolated: {}\nseed {} at step {}, {:.3} s\n{}\nreproduce: {command}",
        report.options,
        violation.invariant,
        report.options.seed,
        report.steps,
        report.virtual_ms as f64 / 1000.0,
        violation.detail,
    )
}
