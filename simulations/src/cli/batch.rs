//! Many seeds on a few threads, each world in one of them; their reports in order.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use simulations::script::Recorder;
use simulations::{Detail, Options, Outcome, Report, RunConfig};

use super::Args;
use super::panics::guarded;
use super::total::{Total, Verdict, speed};

/// How many lines of the trace a failure shows.
const TAIL_LINES: usize = 60;

/// Runs all seeds, or as many as fit into the time.
pub(super) fn run(args: &Args, seeds: impl Iterator<Item = u64> + Send) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.failures {
        std::fs::create_dir_all(directory)?;
    }
    let end = args.minutes.map(|m| Instant::now() + Duration::from_secs(60 * m.get()));
    let queue = Mutex::new(seeds.enumerate());
    let printer = Mutex::new(Printer { quiet: args.quiet, ..Printer::default() });
    std::thread::scope(|scope| {
        for _ in 0..if args.speed { 1 } else { args.jobs.max(1) } {
            scope.spawn(|| {
                while end.is_none_or(|end| Instant::now() < end) {
                    let next = queue.lock().expect("no thread panics while it counts").next();
                    let Some((number, seed)) = next else { return };
                    let result = run_seed(args, seed);
                    printer.lock().expect("no thread panics while it prints").take(number, result);
                }
            });
        }
    });
    let printer = printer.into_inner().expect("no thread panics while it prints");
    printer.total.print();
    Ok(printer.total.exit_code())
}

/// The text of a run, and how it counts.
struct RunResult {
    text: String,
    verdict: Verdict,
}

#[derive(Default)]
struct Printer {
    quiet: bool,
    next: usize,
    waiting: BTreeMap<usize, RunResult>,
    total: Total,
}

impl Printer {
    fn take(&mut self, number: usize, (result, report, cpu): (RunResult, Option<Report>, Duration)) {
        self.total.add(result.verdict, report.as_ref(), cpu);
        self.waiting.insert(number, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            if !self.quiet || result.verdict == Verdict::Failed {
                println!("{}", result.text);
            }
            self.next += 1;
        }
    }
}

fn run_seed(args: &Args, seed: u64) -> (RunResult, Option<Report>, Duration) {
    let config = args.config(seed);
    let command = args.command(seed);
    let began = cpu_time();
    let result = guarded(&config);
    let cpu = cpu_time().saturating_sub(began);
    let first = match result {
        Ok(report) => report,
        Err(panic) => {
            let options = Options::draw_shaped(seed, config.shape);
            let text = format!(
                "seed {seed} {options} FAILED panic: {}\n{options:#?}\nreproduce: {command}",
                panic.text
            );
            return (RunResult { text, verdict: Verdict::Failed }, None, cpu);
        }
    };
    let mut text = format!("{first} speed {:.0}x", speed(first.virtual_ms, cpu));
    let mut verdict = Verdict::from(&first.outcome);
    if args.twice && verdict != Verdict::Failed {
        match guarded(&RunConfig { detail: Detail::Hash, ..config.clone() }) {
            Ok(again) if again.trace_hash == first.trace_hash => text.push_str(" twice the same"),
            Ok(again) => {
                verdict = Verdict::Failed;
                text.push_str(&format!(" FAILED: the second time the trace was {:032x}", again.trace_hash));
            }
            Err(panic) => {
                verdict = Verdict::Failed;
                text.push_str(&format!(" FAILED: the second time it panicked: {}", panic.text));
            }
        }
    }
    if let Outcome::Failed(violation) = &first.outcome {
        text = failure(args, &first, violation, &config, &command);
    }
    (RunResult { text, verdict }, Some(first), cpu)
}

/// Everything that is known of a failure. The run is repeated to write down what led to it.
fn failure(
    args: &Args,
    report: &Report,
    violation: &simulations::invariants::Violation,
    config: &RunConfig,
    command: &str,
) -> String {
    let again =
        guarded(&RunConfig { detail: Detail::Tail, record: Some(Recorder::default()), ..config.clone() });
    let (tail, script) = again.map(|r| (r.tail, r.script)).unwrap_or_default();
    let tail = tail[tail.len().saturating_sub(TAIL_LINES)..].join("\n");
    let mut text = format!(
        "{report}\n{:#?}\n{tail}\nviolated: {}\nseed {} at step {}, {:.3} s\n{}\nreproduce: {command}\nshrink: {command} --shrink",
        report.options,
        violation.invariant,
        report.options.seed,
        report.steps,
        report.virtual_ms as f64 / 1000.0,
        violation.detail,
    );
    if let (Some(directory), Some(script)) = (&args.failures, script) {
        let path = directory.join(format!("seed-{}.jsonl", report.options.seed));
        let written = std::fs::write(&path, script.to_text());
        let state = written.map_or_else(|e| format!("not written: {e}"), |()| "written".to_owned());
        text.push_str(&format!("\ndecisions: {} {state}", path.display()));
    }
    text
}

/// Processor time of this thread so far: what a run costs, also when the machine is busy with something else.
pub(super) fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
