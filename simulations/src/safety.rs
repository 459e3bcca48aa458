//! A run from its first event to its report.

use crate::invariants::Violation;
use crate::liveness::CONVERGENCE_US_MAX;
use crate::options::Options;
use crate::report::{Outcome, Report};
use crate::trace::Detail;
use crate::world::World;

/// A run in which fewer commands were acknowledged tells nothing.
const ACKNOWLEDGED_MIN: u64 = 20;
/// A run with a shorter log tells nothing.
const ENTRIES_MIN: u64 = 40;
/// A run with fewer faults tells nothing.
const FAULTS_MIN: u64 = 5;

/// The faults go on for so many times longer, at most, in a run in which too little has happened.
const EXTENSIONS_MAX: u64 = 4;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct RunConfig {
    /// Where everything comes from.
    pub seed: u64,
    /// How long faults happen, in ticks of the servers; as the seed decides when unset.
    pub ticks: Option<u64>,
    /// How much is written down.
    pub detail: Detail,
}

/// Runs a cluster from its seed.
#[must_use]
pub fn run(config: RunConfig) -> Report {
    let mut options = Options::draw(config.seed);
    if let Some(ticks) = config.ticks {
        options.safety_ms = ticks * options.server.tick_ms;
    }
    let safety_us = options.safety_ms * 1000;
    let mut world = World::new(options, config.detail);
    let extension_us = if config.ticks.is_none() { EXTENSIONS_MAX * safety_us } else { 0 };
    while world.violation.is_none()
        && (world.now_us < safety_us || (world.now_us < safety_us + extension_us && worth(&world).is_some()))
    {
        world.step();
    }
    let safety_us = world.now_us;
    if world.violation.is_none() {
        world.become_calm();
        while world.violation.is_none() && !world.is_at_rest() {
            world.step();
            if world.now_us > safety_us + CONVERGENCE_US_MAX {
                let unrest = world.unrest();
                world.fail(unrest.unwrap_or_else(|| Violation::new("convergence", "rest does not last")));
            }
        }
    }
    if world.violation.is_none() {
        let verdict = world.chronicle.check_acknowledged(&world.oracle);
        world.judge(verdict);
    }
    report(world, config.ticks.is_some())
}

fn report(mut world: World, is_cut_short: bool) -> Report {
    let outcome = match world.violation.take() {
        Some(violation) => Outcome::Failed(violation),
        // Whoever sets the length of a run also answers for what it is worth.
        None if is_cut_short => Outcome::Passed,
        None => worth(&world).map_or(Outcome::Passed, Outcome::Void),
    };
    let mut faults = std::mem::take(&mut world.nemesis.counts);
    let network = world.network.counts;
    faults.insert("dropped", network.dropped);
    faults.insert("duplicated", network.duplicated);
    faults.insert("delayed", network.delayed);
    faults.insert("blocked", network.blocked);
    Report {
        outcome,
        steps: world.counts.steps,
        virtual_ms: world.now_us / 1000,
        acknowledged: world.counts.acknowledged,
        entries: world.counts.entries,
        reads: world.oracle.reads,
        unknown: world.oracle.unknown_count(),
        guests: world.counts.guests,
        faults,
        trace_hash: world.trace.hash(),
        options: world.options,
        tail: world.trace.into_tail(),
    }
}

/// Why a run tells nothing, if so.
fn worth(world: &World) -> Option<String> {
    let floors = [
        ("acknowledged commands", world.counts.acknowledged, ACKNOWLEDGED_MIN),
        ("entries", world.counts.entries, ENTRIES_MIN),
        ("faults", world.nemesis.total(), FAULTS_MIN),
    ];
    let below = floors.into_iter().find(|(_, found, floor)| found < floor);
    below.map(|(what, found, floor)| format!("{found} {what}, fewer than {floor}"))
}
