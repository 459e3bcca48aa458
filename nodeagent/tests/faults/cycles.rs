//! Pods start and end again and again, and nothing is left: not on disk, not in the kernel, not in the agent.

use bulkhead_types::PodIntent;

use super::life::{Scenario, nic};
use super::machine::{Inventory, Machine, id, named, web};

/// Pods at a time.
const PODS: u64 = 50;
/// How many pods start and end in all, when nobody says (`CYCLES`).
const CYCLES_DEFAULT: u64 = 200;

/// Of those with devices, of which there is one at a time.
const DEVICE_CYCLES_DEFAULT: u64 = 10;

/// How many cycles somebody asked for.
fn asked_for() -> Option<u64> {
    std::env::var("CYCLES").ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test]
async fn pods_that_start_and_end_again_and_again_leave_nothing() {
    let Some(mut machine) = Machine::new().await else { return };
    // Who asks for more wants to know it of the kernel's taps and rules, too.
    if asked_for().is_some() && rustix::process::geteuid().is_root() {
        machine.have_network();
    } else {
        machine.have_host();
    }
    check_cycles(machine, asked_for().unwrap_or(CYCLES_DEFAULT).div_ceil(PODS), &wave).await;
}

/// The card goes to a guest and back, and the function is told its network and what it was told before.
#[tokio::test]
async fn devices_that_come_and_go_again_and_again_leave_nothing() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.have_host();
    machine.settings.is_confined = false;
    machine.server.intend_nics(vec![nic(2)]);
    let cycles = asked_for().map_or(DEVICE_CYCLES_DEFAULT, |cycles| cycles.div_ceil(10));
    check_cycles(machine, cycles, &|number| vec![Scenario::Devices.pod(1 + number)]).await;
}

/// Starts and ends the pods of one wave after the other; what there is after the first two is there at the end.
async fn check_cycles(mut machine: Machine, waves: u64, pods: &dyn Fn(u64) -> Vec<PodIntent>) {
    machine.start(None).await;
    if machine.settings.host.is_some() && !machine.settings.is_confined {
        machine.until("two functions", || machine.host().nic().0 == 2).await;
    }
    // The first ones open what stays open.
    for number in 0..2 {
        live(&machine, number, pods(number)).await;
    }
    let before = settled(&machine, None).await;
    for number in 2..2 + waves {
        live(&machine, number, pods(number)).await;
    }
    let after = settled(&machine, Some(&before)).await;
    assert_eq!(after, before, "after {waves} waves");
}

/// Some must be unique, some do not end when they are asked to.
fn wave(number: u64) -> Vec<PodIntent> {
    let pod = |index| {
        let id = 1 + number * PODS + index;
        match index % 4 {
            0 => PodIntent { unique: true, ..web(id) },
            1 => named(web(id), &format!("ignores-stop-{id}")),
            _ => web(id),
        }
    };
    (0..PODS).map(pod).collect()
}

/// All of one wave run at a time.
async fn live(machine: &Machine, number: u64, pods: Vec<PodIntent>) {
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
