//! One run whose decisions are written down, told from a file, or made fewer.

use std::process::ExitCode;
use std::sync::Arc;

use simulations::script::{Recorder, Script};
use simulations::shrink::{Failure, Shrinker};
use simulations::{Detail, Options, Outcome, Report, RunConfig};

use super::Args;
use super::batch::cpu_time;
use super::panics::guarded;
use super::total::{Total, Verdict, speed};

/// Runs, and does with the decisions what the arguments say.
pub(super) fn run(args: &Args, config: &RunConfig) -> anyhow::Result<ExitCode> {
    let began = cpu_time();
    let recorder = Recorder::default();
    let result = guarded(&RunConfig { record: Some(recorder.clone()), ..config.clone() });
    let cpu = cpu_time().saturating_sub(began);
    let failure = failure_of(&result);
    let mut total = Total::default();
    let script = match result {
        Ok(report) => {
            println!("{report} speed {:.0}x", speed(report.virtual_ms, cpu));
            let verdict = judge(&report, config);
            total.add(verdict, Some(&report), cpu);
            config.script.as_deref().cloned().or(report.script)
        }
        Err(panic) => {
            println!("FAILED panic: {}", panic.text);
            total.add(Verdict::Failed, None, cpu);
            let options = Options::draw_shaped(config.seed, config.shape);
            let recorded = || recorder.script(options, None);
            Some(config.script.as_deref().cloned().unwrap_or_else(recorded))
        }
    };
    let script = match (args.shrink, failure, script) {
        (true, Some(failure), Some(script)) => Some(shrink(args, &script, &failure)),
        (true, _, _) => anyhow::bail!("the run does not fail: there is nothing to shrink"),
        (false, _, script) => script,
    };
    if let Some(script) = script {
        if args.decisions || args.shrink {
            script.decisions.iter().for_each(|decision| println!("{decision}"));
            println!("{} decisions", script.decisions.len());
        }
        if let Some(path) = &args.record {
            std::fs::write(path, script.to_text())?;
            println!("written to {}", path.display());
        }
    }
    total.print();
    Ok(total.exit_code())
}

/// A replay must be the very run that was recorded.
fn judge(report: &Report, config: &RunConfig) -> Verdict {
    let wanted = config.script.as_ref().and_then(|s| s.header.trace_hash.clone());
    let found = format!("{:032x}", report.trace_hash);
    match wanted {
        Some(wanted) if wanted == found => println!("bit for bit the run that was recorded"),
        Some(wanted) => {
            println!("FAILED: the trace is {found}, the recorded one was {wanted}");
            return Verdict::Failed;
        }
        None => {}
    }
    Verdict::from(&report.outcome)
}

fn failure_of(result: &Result<Report, super::panics::Panic>) -> Option<Failure> {
    match result {
        Ok(Report { outcome: Outcome::Failed(violation), virtual_ms, .. }) => {
            let at_us = (virtual_ms + 1) * 1000;
            Some(Failure { invariant: violation.invariant.to_owned(), at_us })
        }
        Ok(_) => None,
        // When it happened is not known: nothing is left out for being later.
        Err(panic) => Some(Failure { invariant: panic.place.clone(), at_us: u64::MAX }),
    }
}

fn shrink(args: &Args, script: &Script, failure: &Failure) -> Script {
    let mut tries = 0;
    let attempt = |script: Arc<Script>| {
        tries += 1;
        let config = RunConfig { detail: Detail::Hash, ..RunConfig::replay(script) };
        failure_of(&guarded(&config))
    };
    let shrunk = Shrinker::new(failure, args.tries, attempt).shrink(script, failure.at_us);
    println!(
        "{}: {} of {} decisions are needed, found in {tries} runs",
        failure.invariant,
        shrunk.decisions.len(),
        script.decisions.len()
    );
    shrunk
}
