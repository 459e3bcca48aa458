//! A few seeds in full, quickly: that runs pass, that they repeat bit by bit, and that something happens in them.
//! The many are run by `cargo run --release -p simulations -- --seeds 0..500`.

use std::sync::Arc;

use simulations::script::{Fault, Recorder, What};
use simulations::shrink::{Failure, Shrinker};
use simulations::{Outcome, Report, RunConfig, Script, Tripwire, run};

/// Length of the faults' phase, in ticks of the servers: these tests run without optimisation.
const TICKS: u64 = 300;

fn short(seed: u64) -> Report {
    run(&RunConfig::short(seed, TICKS))
}

#[test]
fn seeds_pass_and_repeat() {
    let hashes = [2, 3].map(|seed| {
        let (first, second) = (short(seed), short(seed));
        assert_eq!(first.outcome, Outcome::Passed, "{first}");
        assert_eq!(first.trace_hash, second.trace_hash, "the same seed gives the same run: {first}");
        assert!(first.acknowledged > 0 && first.entries > 0, "{first}");
        first.trace_hash
    });
    assert_ne!(hashes[0], hashes[1], "another seed gives another run");
}

/// What is written down can be read, and told what it was told before, a run is the same run.
#[test]
fn decisions_replay_bit_for_bit() {
    let recorded = run(&RunConfig { record: Some(Recorder::default()), ..RunConfig::short(4, TICKS) });
    let script = recorded.script.clone().expect("it was recorded");
    assert!(script.decisions.len() > 20, "{recorded}");
    let read = Script::from_text(&script.to_text()).expect("it was written by us");
    let replayed = run(&RunConfig::replay(Arc::new(read)));
    assert_eq!(replayed.trace_hash, recorded.trace_hash, "{recorded} and {replayed}");
    assert_eq!(replayed.outcome, Outcome::Passed, "{replayed}");
}

/// An invariant that does not hold: no server's power fails while a Deployment is there.
fn planted() -> Tripwire {
    Tripwire(|state, faults| {
        let crashed = faults.contains_key("server crash");
        (crashed && !state.deployments().is_empty()).then(|| "planted".to_owned())
    })
}

fn failure_of(report: &Report) -> Option<Failure> {
    let Outcome::Failed(violation) = &report.outcome else { return None };
    Some(Failure { invariant: violation.invariant.to_owned(), at_us: (report.virtual_ms + 1) * 1000 })
}

/// Of hundreds of decisions the two that are needed are left, and they alone fail in the same way.
#[test]
fn a_planted_failure_shrinks_to_what_it_needs() {
    let config = |seed| RunConfig {
        record: Some(Recorder::default()),
        tripwire: Some(planted()),
        ..RunConfig::short(seed, TICKS)
    };
    let failing = (0..40).map(|seed| run(&config(seed))).find(|report| failure_of(report).is_some());
    let report = failing.expect("some seed crashes a server");
    let failure = failure_of(&report).expect("it fails");
    assert_eq!(failure.invariant, "tripwire", "{report}");
    let script = report.script.clone().expect("it was recorded");
    let attempt = |script: Arc<Script>| {
        failure_of(&run(&RunConfig { tripwire: Some(planted()), ..RunConfig::replay(script) }))
    };
    let shrunk = Shrinker::new(&failure, 120, attempt).shrink(&script, failure.at_us);
    let whats: Vec<&What> = shrunk.decisions.iter().map(|decision| &decision.what).collect();
    assert!(whats.len() <= 3, "{whats:?} of {}", script.decisions.len());
    let crashes = whats.iter().filter(|w| matches!(w, What::Fault(Fault::ServerCrash { .. }))).count();
    assert_eq!(crashes, 1, "{whats:?}");
    let again = run(&RunConfig { tripwire: Some(planted()), ..RunConfig::replay(Arc::new(shrunk)) });
    assert_eq!(failure_of(&again).map(|f| f.invariant), Some("tripwire".to_owned()), "{again}");
}

/// Clocks beyond what is promised make no run that passed, and none that failed; they have to be asked for.
#[test]
fn clocks_beyond_the_contract_are_said_to_be() {
    let config = RunConfig::short(3, TICKS);
    assert_eq!(simulations::Options::draw_shaped(3, config.shape).beyond, None);
    let shape = simulations::Shape { beyond_contract: true, ..config.shape };
    let report = run(&RunConfig { shape, ..config });
    assert!(matches!(report.outcome, Outcome::OutOfContract(_)), "{report}");
}
