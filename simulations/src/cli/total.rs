//! What many runs came to.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use simulations::{Outcome, Report};

/// More void runs than so many in a hundred are a fault of the simulator's options.
const VOID_PERCENT_MAX: u64 = 5;

/// How a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Void,
    OutOfContract,
    Failed,
}

impl From<&Outcome> for Verdict {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::Passed,
            Outcome::Void(_) => Self::Void,
            Outcome::OutOfContract(_) => Self::OutOfContract,
            Outcome::Failed(_) => Self::Failed,
        }
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    passed: u64,
    void: u64,
    out_of_contract: u64,
    failed: u64,
    virtual_ms: u64,
    cpu: Duration,
    submitted: u64,
    acknowledged: u64,
    entries: u64,
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Total {
    /// Adds a run that took so much processor time; of one that panicked nothing is known.
    pub(crate) fn add(&mut self, verdict: Verdict, report: Option<&Report>, cpu: Duration) {
        let count = match verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Void => &mut self.void,
            Verdict::OutOfContract => &mut self.out_of_contract,
            Verdict::Failed => &mut self.failed,
        };
        *count += 1;
        let Some(report) = report else { return };
        self.cpu += cpu;
        self.virtual_ms += report.virtual_ms;
        self.submitted += report.submitted;
        self.acknowledged += report.acknowledged;
        self.entries += report.entries;
        self.steps += report.steps;
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn runs(&self) -> u64 {
        self.passed + self.void + self.out_of_contract + self.failed
    }

    /// Prints everything, ending with the line that says how many passed.
    pub(crate) fn print(&self) {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        println!(
            "{} seeds, {hours:.2} simulated hours, {} steps, {} commands, {} of them acknowledged, {} entries",
            self.runs(),
            self.steps,
            self.submitted,
            self.acknowledged,
            self.entries,
        );
        let faults: Vec<String> = self
            .faults
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(kind, n)| format!("{}={n}", kind.replace(' ', "-")))
            .collect();
        println!("faults: {}", faults.join(" "));
        println!("sim.speed {:.0} × real time on one core", speed(self.virtual_ms, self.cpu));
        println!(
            "{} passed, {} void, {} out of contract, {} failed",
            self.passed, self.void, self.out_of_contract, self.failed
        );
        println!("{} passed, {} failed", self.passed, self.failed);
    }

    /// Failure when something failed, or too much of it tells nothing.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let too_void = self.void * 100 > VOID_PERCENT_MAX * self.runs();
        if self.failed > 0 || too_void { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// How much faster than the clock on the wall.
pub(crate) fn speed(virtual_ms: u64, cpu: Duration) -> f64 {
    virtual_ms as f64 / 1000.0 / cpu.as_secs_f64().max(1e-9)
}
