//! A few seeds in full, quickly: that runs pass, that they repeat bit by bit, and that something happens in them.
//! The many are run by `cargo run --release -p simulations -- --seeds 0..200`.

use simulations::{Outcome, Report, RunConfig, run};

/// Seeds whose bugs were found by the simulator, with what they were.
const CORPUS: &str = include_str!("../corpus/seeds.txt");
/// Length of the faults' phase, in ticks of the servers: these tests run without optimisation.
const TICKS: u64 = 300;

fn short(seed: u64) -> Report {
    run(&RunConfig::short(seed, TICKS))
}

fn corpus() -> impl Iterator<Item = (u64, &'static str)> {
    CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let (seed, why) = line.split_once(' ').expect("a seed, a space, a reason");
        (seed.parse().expect("a seed is a number"), why)
    })
}

#[test]
fn seeds_pass_and_repeat() {
    for seed in [2, 3] {
        let (first, second) = (short(seed), short(seed));
        assert_eq!(first.outcome, Outcome::Passed, "{first}");
        assert_eq!(first.trace_hash, second.trace_hash, "the same seed gives the same run: {first}");
        assert!(first.acknowledged > 0 && first.entries > 0, "{first}");
    }
    assert_ne!(short(2).trace_hash, short(3).trace_hash, "another seed gives another run");
}

#[test]
fn seeds_that_found_bugs_pass() {
    for (seed, why) in corpus() {
        let report = short(seed);
        assert_eq!(report.outcome, Outcome::Passed, "{why}: {report}");
    }
}
