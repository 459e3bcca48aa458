//! Runs the simulator on planted bugs, one at a time, until it finds each of them.
//!
//! Needs a build with the bugs in it: `cargo run --release -p simulations --features canaries --bin canaries`, or
//! `make canaries`. One build holds all of them, and one is switched on at a time; with `--features canary_x` alone,
//! only that one can be looked for. The last line is `N found, 0 missed`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use mimalloc::MiMalloc;
use simulations::canaries::{CANARIES, Canary, last_step, part};
use simulations::{Outcome, RunConfig, run};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Planted bugs: does the simulator find them?
#[derive(Parser)]
#[command(name = "canaries")]
struct Args {
    /// Names, with or without `canary_`; all when none is given.
    names: Vec<String>,
    /// Only some of them: the ones that this text (a commit, say) stands for.
    #[arg(long, conflicts_with = "names")]
    part_of: Option<String>,
    /// How many a part has.
    #[arg(long, default_value_t = 3)]
    part_size: usize,
    /// Seeds for each, at most, instead of the number in the table.
    #[arg(long)]
    seeds: Option<u64>,
    /// Print the violation in full.
    #[arg(long)]
    verbose: bool,
    /// Runs at a time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn main() -> ExitCode {
    let args = Args::parse();
    std::panic::set_hook(Box::new(|info| PANIC.with(|slot| *slot.borrow_mut() = Some(info.to_string()))));
    let chosen = match choose(&args) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("there is no canary {unknown:?}; the table is in simulations/src/canaries.rs");
            return ExitCode::FAILURE;
        }
    };
    let (mut found, mut missed) = (0, 0);
    for canary in chosen {
        let started = Instant::now();
        let seeds = args.seeds.unwrap_or(canary.seeds);
        let finding = seek(canary, seeds, args.jobs.max(1));
        let seconds = started.elapsed().as_secs_f64();
        match finding {
            Some(finding) => {
                found += 1;
                let Finding { seed, invariant, steps, detail } = finding;
                println!(
                    "{:<40} found by {invariant} at seed {seed} after {steps} steps, {seconds:.1} s",
                    canary.name
                );
                if args.verbose {
                    println!("    {detail}");
                }
            }
            None => {
                missed += 1;
                println!("{:<40} MISSED in seeds 0..{seeds}, {seconds:.1} s", canary.name);
            }
        }
    }
    println!("{found} found, {missed} missed");
    if missed == 0 && found > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn choose(args: &Args) -> Result<Vec<&'static Canary>, String> {
    if let Some(text) = &args.part_of {
        return Ok(part(text, args.part_size));
    }
    if args.names.is_empty() {
        return Ok(CANARIES.iter().collect());
    }
    let find = |name: &String| {
        let wanted = name.strip_prefix("canary_").unwrap_or(name);
        let found = CANARIES.iter().find(|canary| canary.name.strip_prefix("canary_") == Some(wanted));
        found.ok_or_else(|| name.clone())
    };
    args.names.iter().map(find).collect()
}

/// How a planted bug was found.
struct Finding {
    seed: u64,
    invariant: String,
    steps: u64,
    detail: String,
}

/// Runs seeds until one fails with the bug and passes without it: the lowest such seed.
fn seek(canary: &'static Canary, seeds: u64, jobs: usize) -> Option<Finding> {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(seeds));
    let best: Mutex<Option<Finding>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end.load(Ordering::SeqCst) {
                        return;
                    }
                    let Some(finding) = run_with(Some(canary.name), seed) else { continue };
                    if let Some(other) = run_with(None, seed) {
                        println!("seed {seed} fails without any planted bug: {}", other.detail);
                        continue;
                    }
                    // Higher seeds are not begun any more; lower ones may still be under way.
                    end.fetch_min(seed, Ordering::SeqCst);
                    let mut best = best.lock().expect("no thread panics while it holds this");
                    if best.as_ref().is_none_or(|present| seed < present.seed) {
                        *best = Some(finding);
                    }
                }
            });
        }
    });
    best.into_inner().expect("no thread panics while it holds this")
}

/// How a run fails with this bug in it, if it does.
fn run_with(canary: Option<&'static str>, seed: u64) -> Option<Finding> {
    bulkhead_canary::switch_on(canary);
    let result = catch_unwind(AssertUnwindSafe(|| run(&RunConfig::new(seed))));
    bulkhead_canary::switch_on(None);
    match result {
        Ok(report) => match report.outcome {
            Outcome::Failed(violation) => Some(Finding {
                seed,
                invariant: violation.invariant.to_owned(),
                steps: report.steps,
                detail: violation.detail,
            }),
            Outcome::Passed | Outcome::Void(_) | Outcome::OutOfContract(_) => None,
        },
        Err(_) => {
            let detail = PANIC.with(|slot| slot.borrow_mut().take()).unwrap_or_default();
            Some(Finding { seed, invariant: "panic".to_owned(), steps: last_step(), detail })
        }
    }
}
