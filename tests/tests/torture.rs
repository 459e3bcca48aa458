//! Real servers under faults; `make torture MINUTES=n SEED=s` for longer.

use std::path::PathBuf;
use std::time::Duration;

use bulkhead_tests::torture::{Config, run};

/// Of the normal test run.
const SECONDS_DEFAULT: u64 = 40;
const SEED_DEFAULT: u64 = 1;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: expected a number")))
}

#[test]
fn servers_under_torture_keep_every_promise() {
    let config = Config {
        seed: number("TORTURE_SEED").unwrap_or(SEED_DEFAULT),
        duration: Duration::from_secs(
            number("TORTURE_MINUTES").map_or(SECONDS_DEFAULT, |minutes| minutes * 60),
        ),
        previous: std::env::var_os("PREVIOUS").filter(|path| !path.is_empty()).map(PathBuf::from),
    };
    let report = run(&config);
    report.lines.iter().for_each(|line| println!("torture: {line}"));
    assert!(report.findings.is_empty(), "seed {}:\n{}", config.seed, report.findings.join("\n"));
    assert!(
        report.void.is_none(),
        "seed {}: the run is void, {}",
        config.seed,
        report.void.unwrap_or_default()
    );
}
