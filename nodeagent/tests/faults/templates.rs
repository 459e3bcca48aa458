//! Guests that were booted before their pods: of the pool, and copies of templates; and what happens where there is none.

use bulkhead_types::{PodIntent, PodSpec, Shared};

use super::machine::{Machine, web};
use crate::start_phases;

/// A stand-in's machine of more memory than this does not run as a copy.
const COPY_MEMORY_BYTES_MAX: u64 = 1 << 30;

fn unique(pod: PodIntent) -> PodIntent {
    PodIntent { unique: true, ..pod }
}

fn large(mut pod: PodIntent) -> PodIntent {
    let mut spec = PodSpec::clone(&pod.spec);
    spec.containers[0].limits.memory_bytes = Some(COPY_MEMORY_BYTES_MAX);
    spec.containers[0].requests.memory_bytes = Some(COPY_MEMORY_BYTES_MAX);
    pod.spec = Shared::new(spec);
    pod
}

/// How a pod's guest began: `pool`, `template`, or why it was booted for the pod.
async fn beginning(machine: &Machine, pod: u64) -> String {
    machine.ready(pod).await;
    let start = start_phases(&machine.server.facts().address, pod).await;
    eprintln!("{start:?}");
    let has_step = start.phases.iter().any(|step| step.name == "restore");
    assert_eq!(start.from_template, has_step, "{start:?}");
    match (start.from_pool, start.from_template) {
        (true, false) => "pool".to_owned(),
        (false, true) => "template".to_owned(),
        _ => start.booted_because,
    }
}

/// Waits until there are so many templates.
async fn templates(machine: &Machine, count: usize) {
    let file = machine.settings.data.join("vm-templates.json");
    let is_there = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
        all.len() == count
    };
    machine.until("templates", is_there).await;
}

#[tokio::test]
async fn guests_are_copies_of_a_template_and_are_booted_where_no_copy_runs() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.settings.templates = true;
    machine.start(None).await;
    let mut pods = vec![web(1)];
    machine.server.intend(pods.clone());
    assert_eq!(beginning(&machine, 1).await, "there was no template of its size: one is made now");
    templates(&machine, 1).await;
    machine.until("the template's own guest to end", || machine.guests().len() == 1).await;

    // One that must be unique has a guard, like any other; the other one has none.
    pods.extend([unique(web(2)), web(3)]);
    machine.server.intend(pods.clone());
    assert_eq!([beginning(&machine, 2).await, beginning(&machine, 3).await], ["template", "template"]);
    assert_eq!(machine.guards().len(), 1);

    // A template of which no copy runs is none; pods are told, and start.
    pods.push(large(web(4)));
    machine.server.intend(pods.clone());
    assert_eq!(beginning(&machine, 4).await, "there was no template of its size: one is made now");
    templates(&machine, 2).await;
    pods.push(large(web(5)));
    machine.server.intend(pods.clone());
    let why = beginning(&machine, 5).await;
    assert!(why.starts_with("the copy of a template did not run: its process ended"), "{why}");
    assert!(why.contains("this state is of another machine"), "what QEMU said is told: {why}");
    templates(&machine, 1).await;
    pods.push(large(web(6)));
    machine.server.intend(pods.clone());
    assert_eq!(beginning(&machine, 6).await, "the template of its size failed; the agent's log says why");

    // Another guest program: the template is of what was before.
    let guest = machine.settings.stubs.join("guest");
    let kernel = machine.settings.stubs.join("kernel/boot/vmlinuz-1");
    std::fs::write(&kernel, "another kernel").expect("written");
    assert!(guest.exists());
    machine.kill_agent().await;
    machine.start(None).await;
    for pod in 1..=6 {
        machine.ready(pod).await;
    }
    assert_eq!(machine.guests().len(), 6, "copies are adopted as all guests are");
    pods.push(web(7));
    machine.server.intend(pods.clone());
    assert_eq!(beginning(&machine, 7).await, "there was no template of its size: one is made now");
    machine.delete(&pods, 0).await;
    machine.until("the end of all", || machine.guests().is_empty() && machine.guards().is_empty()).await;
}

#[tokio::test]
async fn a_pod_that_must_be_unique_takes_a_guest_of_the_pool_whose_guard_then_goes_by_its_lease() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.settings.vm_pool = 1;
    machine.start(None).await;
    let pool = machine.settings.data.join("vm-pool");
    let ready = |number: u64| pool.join(format!("{number}/ready"));
    let fence = |number: u64| pool.join(format!("{number}/fence.sock"));
    machine.until("a guest that waits", || ready(0).exists()).await;
    assert_eq!(
        (machine.guests().len(), machine.guards().len()),
        (1, 1),
        "it has a guard before it is anybody's"
    );

    machine.server.intend(vec![unique(web(1))]);
    assert_eq!(beginning(&machine, 1).await, "pool");
    assert!(fence(0).exists(), "it is told of leases");
    machine.until("the next one", || ready(1).exists()).await;
    machine.server.intend(vec![unique(web(1)), web(2), large(web(3))]);
    assert_eq!(beginning(&machine, 2).await, "pool");
    assert!(!fence(1).exists(), "no lease holds for it");
    assert_eq!(beginning(&machine, 3).await, "its guest is of another size than those of the pool");

    // The agent is gone for longer than the lease: what must be unique ends, and nothing else does. What waited stays until the next agent.
    machine.until("the next one", || ready(2).exists()).await;
    machine.kill_agent().await;
    let before = machine.guests().len();
    machine.until("the end of the lease", || machine.guests().len() < before).await;
    assert_eq!(machine.guests().len(), before - 1);
    machine.until("the end of its guard", || machine.guards().len() == 2).await;
    machine.start(None).await;
    machine.ready(2).await;
    machine.delete(&[unique(web(1)), web(2), large(web(3))], 0).await;
}

#[tokio::test]
async fn a_guest_of_the_pool_that_dies_while_it_waits_is_replaced_before_a_pod_asks_for_it() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.settings.vm_pool = 1;
    machine.start(None).await;
    let pool = machine.settings.data.join("vm-pool");
    let ready = |number: u64| pool.join(format!("{number}/ready")).exists();
    machine.until("a guest that waits", || ready(0)).await;
    let pid = rustix::process::Pid::from_raw(machine.guests()[0]).expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    machine.until("nothing of it to be left", || !pool.join("0").exists()).await;
    // Nobody has asked for one yet.
    machine.until("another", || ready(1)).await;
    assert_eq!((machine.guests().len(), machine.guards().len()), (1, 1));
    machine.server.intend(vec![web(1)]);
    assert_eq!(beginning(&machine, 1).await, "pool");
    machine.delete(&[web(1)], 0).await;
}
