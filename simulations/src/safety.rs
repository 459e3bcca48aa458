//! A run from its first event to its report.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;

use crate::invariants::Violation;
use crate::liveness::CONVERGENCE_US_MAX;
use crate::options::{Beyond, Options, Shape};
use crate::report::{Outcome, Report};
use crate::script::{Recorder, Script};
use crate::trace::Detail;
use crate::world::{Phase, World};

/// A run in which clients asked for less tells nothing.
const SUBMITTED_MIN: u64 = 30;
/// A run in which fewer commands were acknowledged tells nothing.
const ACKNOWLEDGED_MIN: u64 = 20;
/// A run with a shorter log tells nothing.
const ENTRIES_MIN: u64 = 40;
/// A run with fewer faults tells nothing.
const FAULTS_MIN: u64 = 5;
/// A run with fewer kinds of faults tells nothing, if it has more kinds than that.
const KINDS_MIN: usize = 3;
/// What no clock can excuse: these hold however wrong clocks are.
const TIMELESS: [&str; 11] = [
    "digests",
    "prefix",
    "acknowledged",
    "revisions",
    "ledger",
    "rebuilt",
    "durable",
    "start",
    "snapshot",
    "watch",
    "history",
];

/// A test's own invariant: looks at the history's State and the faults so far after every new entry, and says
/// what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Tripwire(pub fn(&State, &BTreeMap<&'static str, u64>) -> Option<String>);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Where everything comes from.
    pub seed: u64,
    /// Sizes that are set instead of drawn.
    pub shape: Shape,
    /// How much is written down.
    pub detail: Detail,
    /// Where decisions are written down, when they are.
    pub record: Option<Recorder>,
    /// Decisions are told instead of made.
    pub script: Option<Arc<Script>>,
    /// A test's own invariant.
    pub tripwire: Option<Tripwire>,
}

impl RunConfig {
    /// A run as its seed decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            shape: Shape::default(),
            detail: Detail::Hash,
            record: None,
            script: None,
            tripwire: None,
        }
    }

    /// A run whose faults end after so many ticks of the servers.
    #[must_use]
    pub fn short(seed: u64, ticks: u64) -> Self {
        Self { shape: Shape { ticks: Some(ticks), ..Shape::default() }, ..Self::new(seed) }
    }

    /// A run that is told its decisions.
    #[must_use]
    pub fn replay(script: Arc<Script>) -> Self {
        let seed = script.header.options.seed;
        Self { script: Some(script), ..Self::new(seed) }
    }
}

/// Runs a cluster.
#[must_use]
pub fn run(config: &RunConfig) -> Report {
    let options = match &config.script {
        Some(script) => script.header.options.clone(),
        None => Options::draw_shaped(config.seed, config.shape),
    };
    let mut world = World::new(options, config);
    while world.violation.is_none() && world.phase == Phase::Safety {
        world.step();
    }
    come_to_rest(&mut world);
    if world.violation.is_none() && world.find_node() {
        come_to_rest(&mut world);
    }
    if world.violation.is_none() {
        world.check(true);
        let verdict = world.chronicle.check_acknowledged(&world.oracle);
        world.judge(verdict);
        let verdict = world.check_observers();
        world.judge(verdict);
    }
    report(world, config)
}

/// Until everything is as it should be, in bounded time.
fn come_to_rest(world: &mut World) {
    let calm_at_us = world.now_us;
    // Something may have happened since rest was last looked for, which is every now and then.
    while world.violation.is_none() && !(world.is_at_rest() && world.unrest().is_none()) {
        world.step();
        if world.now_us > calm_at_us + CONVERGENCE_US_MAX {
            let unrest = world.unrest();
            world.fail(unrest.unwrap_or_else(|| Violation::new("convergence", "rest does not last")));
        }
    }
}

fn outcome(world: &mut World, config: &RunConfig) -> Outcome {
    let beyond = world.options.beyond.map(|beyond| match beyond {
        Beyond::Drift => "clocks drifted by more than is promised".to_owned(),
        Beyond::Jump => "clocks jumped by more than is promised".to_owned(),
    });
    match (world.violation.take(), beyond) {
        (Some(violation), Some(beyond)) if !TIMELESS.contains(&violation.invariant) => {
            Outcome::OutOfContract(format!("{beyond}: {violation}"))
        }
        (Some(violation), _) => Outcome::Failed(violation),
        (None, Some(beyond)) => Outcome::OutOfContract(beyond),
        // Whoever sets the length of a run, or its decisions, also answers for what it is worth.
        (None, None) if config.shape.ticks.is_some() || config.script.is_some() => Outcome::Passed,
        (None, None) => worth(world).map_or(Outcome::Passed, Outcome::Void),
    }
}

fn report(mut world: World, config: &RunConfig) -> Report {
    let outcome = outcome(&mut world, config);
    let mut faults = std::mem::take(&mut world.nemesis.counts);
    let network = world.network.counts;
    faults.insert("dropped", network.dropped);
    faults.insert("duplicated", network.duplicated);
    faults.insert("delayed", network.delayed);
    faults.insert("blocked", network.blocked);
    faults.insert("clogged", network.clogged);
    let trace_hash = world.trace.hash();
    let script = config.record.as_ref().map(|r| r.script(world.options.clone(), Some(trace_hash)));
    Report {
        outcome,
        steps: world.counts.steps,
        virtual_ms: world.now_us / 1000,
        submitted: world.counts.submitted,
        acknowledged: world.counts.acknowledged,
        entries: world.counts.entries,
        reads: world.oracle.reads,
        unknown: world.oracle.unknown_count(),
        guests: world.counts.guests,
        unique: world.counts.unique,
        watched: world.counts.watched,
        watches_refused: world.counts.watches_refused,
        linearizability: world.counts.linearizability,
        faults,
        trace_hash,
        script,
        options: world.options,
        tail: world.trace.into_tail(),
    }
}

/// Why a run tells nothing, if so.
pub(crate) fn worth(world: &World) -> Option<String> {
    let nemesis = &world.nemesis;
    let floors = [
        ("submissions", world.counts.submitted, SUBMITTED_MIN),
        ("acknowledged commands", world.counts.acknowledged, ACKNOWLEDGED_MIN),
        ("entries", world.counts.entries, ENTRIES_MIN),
        ("faults", nemesis.total(), FAULTS_MIN),
        ("kinds of faults", nemesis.counts.len() as u64, KINDS_MIN.min(nemesis.kinds()) as u64),
    ];
    let below = floors.into_iter().find(|(_, found, floor)| found < floor);
    below.map(|(what, found, floor)| format!("{found} {what}, fewer than {floor}"))
}
