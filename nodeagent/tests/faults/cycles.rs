//! Pods start and end again and again, and nothing is left: not on disk, not in the kernel, not in the agent.

use bulkhead_types::PodIntent;

use super::machine::{Inventory, Machine, id, named, web};

/// Pods at a time.
const PODS: u64 = 50;
/// How many pods start and end in all, when nobody says (`CYCLES`).
const CYCLES_DEFAULT: u64 = 200;

#[tokio::test]
async fn pods_that_start_and_end_again_and_again_leave_nothing() {
    let Some(mut machine) = Machine::new().await else { return };
    let cycles = std::env::var("CYCLES").ok().map_or(CYCLES_DEFAULT, |text| text.parse().expect("a number"));
    machine.start(None).await;
    // The first ones open what stays open.
    wave(&machine, 0).await;
    wave(&machine, 1).await;
    let before = settled(&machine, None).await;
    for number in 2..2 + cycles.div_ceil(PODS) {
        wave(&machine, number).await;
    }
    let after = settled(&machine, Some(&before)).await;
    assert_eq!(after, before, "after {cycles} cycles");
}

/// All of one wave run at a time. Some must be unique, some do not end when they are asked to.
async fn wave(machine: &Machine, number: u64) {
    let pod = |index| {
        let id = 1 + number * PODS + index;
        match index % 4 {
            0 => PodIntent { unique: true, ..web(id) },
            1 => named(web(id), &format!("ignores-stop-{id}")),
            _ => web(id),
        }
    };
    let pods: Vec<PodIntent> = (0..PODS).map(pod).collect();
    machine.server.intend(pods.clone());
    for pod in &pods {
        machine.ready(id(pod)).await;
    }
    let (stubborn, willing): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| pod.name.as_str().starts_with("ignores"));
    // Those that stay are not intended any more, and killed with the others: without a grace.
    machine.delete(&[willing, stubborn].concat(), number % 2).await;
}

/// What there is once it does not change any more, or is what it was: connections end a moment after what they were for.
async fn settled(machine: &Machine, wanted: Option<&Inventory>) -> Inventory {
    let mut last = machine.inventory();
    let mut since = std::time::Instant::now();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let now = machine.inventory();
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        let calm_ms = if wanted.is_none_or(|wanted| *wanted == last) { 1_000 } else { 15_000 };
        if since.elapsed() >= std::time::Duration::from_millis(calm_ms) {
            return last;
        }
    }
}
