//! Scripts of probes, hooks and sidecars.

use super::*;
use bulkhead_guest_protocol::host::{Check, CheckConfig, ExecCheck, ProbeConfig, SleepCheck};

/// A probe that fails by two failures in a row.
pub(super) fn probe(initial_delay_ms: u64, period_ms: u64) -> ProbeConfig {
    ProbeConfig {
        check: Some(hook()),
        initial_delay_ms,
        period_ms,
        timeout_ms: 500,
        success_threshold: 1,
        failure_threshold: 2,
        grace_ms: None,
    }
}

pub(super) fn hook() -> CheckConfig {
    CheckConfig::of(Check::Exec(ExecCheck { argv: vec!["check".into()] }))
}

fn sleep(sleep_ms: u64) -> CheckConfig {
    CheckConfig::of(Check::Sleep(SleepCheck { sleep_ms }))
}

/// A pod of one container, with more.
fn one(policy: RestartPolicy, change: impl FnOnce(&mut ContainerConfig)) -> PodConfig {
    let mut pod = pod(policy, 0, 1);
    change(&mut pod.containers[0]);
    pod
}

fn done(index: usize, task: Task, number: u64, failure: &str) -> Event {
    let outcome = if failure.is_empty() { Ok(()) } else { Err(failure.to_owned()) };
    Event::Done { index, task, number, outcome }
}

const RUNS: (u64, Event, &[&str]) = (0, Event::Started { index: 0 }, &["c0 Running"]);
const RUNS_UNREADY: (u64, Event, &[&str]) = (0, Event::Started { index: 0 }, &["c0 Running unready"]);

fn message(supervisor: &Supervisor) -> String {
    supervisor.container_state(0).message
}

#[test]
fn readiness_comes_and_goes() {
    use Task::Readiness;
    let pod = one(RestartPolicy::Always, |c| c.readiness_probe = Some(probe(3_000, 1_000)));
    let supervisor = check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS_UNREADY,
            (2_999, Event::Tick, &[]),
            (3_000, Event::Tick, &["do 0 Readiness#1"]),
            (3_001, done(0, Readiness, 1, ""), &["c0 Running"]),
            (4_000, Event::Tick, &["do 0 Readiness#2"]),
            (4_001, done(0, Readiness, 2, "no"), &[]),
            (5_000, Event::Tick, &["do 0 Readiness#3"]),
            // No answer is a failure; one that comes later is not heard.
            (5_500, Event::Tick, &["abandon #3", "c0 Running unready"]),
            (5_501, done(0, Readiness, 3, ""), &[]),
        ],
    );
    assert_eq!(message(&supervisor), "readiness probe failed 2 times: no answer within 500 ms");
}

#[test]
fn a_liveness_failure_ends_the_container_and_it_starts_again() {
    use Task::Liveness;
    let pod = one(RestartPolicy::OnFailure, |c| {
        c.liveness_probe = Some(ProbeConfig { grace_ms: Some(4_000), ..probe(0, 1_000) });
        c.pre_stop = Some(hook());
    });
    let supervisor = check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS,
            (0, Event::Tick, &["do 0 Liveness#1"]),
            (1, done(0, Liveness, 1, "no"), &[]),
            (1_000, Event::Tick, &["do 0 Liveness#2"]),
            (1_001, done(0, Liveness, 2, "HTTP status 500"), &["do 0 PreStop#3"]),
            (1_500, done(0, Task::PreStop, 3, ""), &["term 0"]),
            (5_000, Event::Tick, &[]),
            (5_001, Event::Tick, &["kill 0"]),
            // Also when it ended well: it was made to.
            (5_002, exit(0, 0), &["c0 Terminated Completed", "start 0#1"]),
            (5_003, Event::Started { index: 0 }, &["c0 Running"]),
            (5_003, Event::Tick, &["do 0 Liveness#4"]),
        ],
    );
    let last = supervisor.containers[0].last.as_ref().expect("it ended");
    assert_eq!(last.message, "liveness probe failed 2 times: HTTP status 500");
    let never = PodConfig { restart_policy: RestartPolicy::Never as i32, ..pod };
    check_pod(
        &never,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS,
            (0, Event::Tick, &["do 0 Liveness#1"]),
            (500, Event::Tick, &["abandon #1"]),
            (1_000, Event::Tick, &["do 0 Liveness#2"]),
            (1_500, Event::Tick, &["abandon #2", "do 0 PreStop#3"]),
            // The grace is over before the hook is: a little is left for the container itself.
            (5_500, Event::Tick, &["abandon #3", "term 0"]),
            (7_499, Event::Tick, &[]),
            (7_500, Event::Tick, &["kill 0"]),
            (7_501, exit(0, 137), &["c0 Terminated Error", "pod Failed", "off Completed"]),
        ],
    );
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    use Task::{Liveness, Readiness, Startup};
    let pod = one(RestartPolicy::Always, |c| {
        c.startup_probe = Some(probe(0, 1_000));
        c.readiness_probe = Some(probe(5_000, 1_000));
        c.liveness_probe = Some(probe(0, 1_000));
    });
    check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS_UNREADY,
            (0, Event::Tick, &["do 0 Startup#1"]),
            (1, done(0, Startup, 1, "no"), &[]),
            (1_000, Event::Tick, &["do 0 Startup#2"]),
            (1_001, done(0, Startup, 2, ""), &["c0 Running unready"]),
            (1_001, Event::Tick, &["do 0 Liveness#3"]),
            (1_002, done(0, Liveness, 3, ""), &[]),
            (5_000, Event::Tick, &["do 0 Readiness#4", "do 0 Liveness#5"]),
            (5_001, done(0, Readiness, 4, ""), &["c0 Running"]),
        ],
    );
    check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS_UNREADY,
            (0, Event::Tick, &["do 0 Startup#1"]),
            (1, done(0, Startup, 1, "no"), &[]),
            (1_000, Event::Tick, &["do 0 Startup#2"]),
            (1_001, done(0, Startup, 2, "no"), &["term 0"]),
            (1_002, exit(0, 143), &["c0 Terminated Error", "start 0#1"]),
            (1_003, Event::Started { index: 0 }, &["c0 Running unready"]),
            (1_003, Event::Tick, &["do 0 Startup#3"]),
        ],
    );
}

#[test]
fn a_container_runs_once_its_hook_is_done() {
    use Task::PostStart;
    let pod = one(RestartPolicy::Always, |c| {
        c.post_start = Some(hook());
        c.liveness_probe = Some(probe(0, 1_000));
    });
    let started: (u64, Event, &[&str]) = (1, Event::Started { index: 0 }, &["do 0 PostStart#1"]);
    check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            started.clone(),
            (2_000, Event::Tick, &[]),
            (2_001, done(0, PostStart, 1, ""), &["c0 Running"]),
            (2_001, Event::Tick, &["do 0 Liveness#2"]),
        ],
    );
    let supervisor = check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            started.clone(),
            (2, done(0, PostStart, 1, "exit code 1"), &["term 0"]),
            (3, exit(0, 143), &["c0 Terminated Error", "start 0#1"]),
        ],
    );
    assert_eq!(message(&supervisor), "postStart hook failed: exit code 1");
    check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            started,
            (2, exit(0, 1), &["abandon #1", "c0 Terminated Error", "start 0#1"]),
            (3, done(0, PostStart, 1, ""), &[]),
        ],
    );
}

#[test]
fn a_hook_before_the_end_takes_part_of_the_grace() {
    let asleep = one(RestartPolicy::Always, |c| c.pre_stop = Some(sleep(3_000)));
    check_pod(
        &asleep,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS,
            (10_000, Event::Stop { grace_ms: Some(8_000) }, &[]),
            (12_999, Event::Tick, &[]),
            (13_000, Event::Tick, &["term 0"]),
            (17_999, Event::Tick, &[]),
            (18_000, Event::Tick, &["kill 0"]),
            (18_001, exit(0, 137), &["c0 Terminated Error", "pod Failed", "off Stopped"]),
        ],
    );
    let asked = one(RestartPolicy::Always, |c| {
        c.pre_stop = Some(hook());
        c.readiness_probe = Some(probe(0, 1_000));
    });
    let supervisor = check_pod(
        &asked,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS_UNREADY,
            (0, Event::Tick, &["do 0 Readiness#1"]),
            // Nothing is asked of what ends.
            (100, Event::Stop { grace_ms: None }, &["abandon #1", "do 0 PreStop#2"]),
            (1_000, Event::Tick, &[]),
            (1_001, done(0, Task::PreStop, 2, "exit code 3"), &["term 0"]),
            (1_002, exit(0, 0), &["c0 Terminated Completed", "pod Succeeded", "off Stopped"]),
        ],
    );
    assert_eq!(message(&supervisor), "preStop hook failed: exit code 3");
    check_pod(
        &asked,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS_UNREADY,
            (1, Event::Stop { grace_ms: Some(0) }, &["term 0", "kill 0"]),
            (2, exit(0, 137), &["c0 Terminated Error", "pod Failed", "off Stopped"]),
        ],
    );
}

/// Init container, two sidecars (the second with a startup probe), one container.
fn with_sidecars(policy: RestartPolicy) -> PodConfig {
    let mut pod = pod(policy, 3, 1);
    pod.init_containers[1].sidecar = true;
    pod.init_containers[2].sidecar = true;
    pod.init_containers[2].startup_probe = Some(probe(0, 1_000));
    pod
}

const BEGIN_SIDECARS: &[&str] = &[
    "i0 Waiting ContainerCreating",
    "i1 Waiting ContainerCreating",
    "i2 Waiting ContainerCreating",
    "c0 Waiting PodInitializing",
    "pod Initializing",
    "start 0#0",
];

/// Up to the start of the container.
fn sidecars_start() -> Vec<(u64, Event, &'static [&'static str])> {
    vec![
        (0, Event::Begin, BEGIN_SIDECARS),
        (1, Event::Started { index: 0 }, &["i0 Running"]),
        (2, exit(0, 0), &["i0 Terminated Completed", "start 1#0"]),
        (3, Event::Started { index: 1 }, &["i1 Running", "start 2#0"]),
        (4, Event::Started { index: 2 }, &["i2 Running unready"]),
        (4, Event::Tick, &["do 2 Startup#1"]),
        (5, done(2, Task::Startup, 1, ""), &["i2 Running", "pod Running", "start 3#0"]),
        (6, Event::Started { index: 3 }, &["c0 Running"]),
    ]
}

#[test]
fn sidecars_start_in_order_and_end_last_in_reverse() {
    let mut script = sidecars_start();
    script.extend::<[(u64, Event, &[&str]); 6]>([
        // It starts again whatever the pod's policy says.
        (10, exit(1, 0), &["i1 Terminated Completed", "start 1#1"]),
        (11, Event::Started { index: 1 }, &["i1 Running"]),
        (20, exit(3, 0), &["c0 Terminated Completed", "term 2"]),
        (21, exit(2, 143), &["i2 Terminated Error", "term 1"]),
        (22, Event::Tick, &[]),
        // How they end does not matter.
        (23, exit(1, 1), &["i1 Terminated Error", "pod Succeeded", "off Completed"]),
    ]);
    check_pod(&with_sidecars(RestartPolicy::Never), &script);
}

#[test]
fn a_stop_ends_sidecars_last_within_the_grace() {
    let mut script = sidecars_start();
    script.extend::<[(u64, Event, &[&str]); 6]>([
        (100, Event::Stop { grace_ms: Some(1_000) }, &["term 3"]),
        (600, exit(3, 143), &["c0 Terminated Error", "term 2"]),
        // It had to wait, so it has a little more than the grace; and the one before it ends with it.
        (1_100, Event::Tick, &["term 1"]),
        (2_600, Event::Tick, &["kill 2"]),
        (3_100, Event::Tick, &["kill 1"]),
        (3_101, exit(2, 137), &["i2 Terminated Error"]),
    ]);
    let mut supervisor = check_pod(&with_sidecars(RestartPolicy::Always), &script);
    let actions = supervisor.handle(exit(1, 137), at(3_102));
    let got: Vec<String> = actions.iter().map(short).collect();
    assert_eq!(got, ["i1 Terminated Error", "pod Failed", "off Stopped"]);
}

#[test]
fn a_failed_init_container_takes_the_sidecars_before_it_along() {
    let mut pod = pod(RestartPolicy::Never, 2, 1);
    pod.init_containers[0].sidecar = true;
    check_pod(
        &pod,
        &[
            (
                0,
                Event::Begin,
                &[
                    "i0 Waiting ContainerCreating",
                    "i1 Waiting ContainerCreating",
                    "c0 Waiting PodInitializing",
                    "pod Initializing",
                    "start 0#0",
                ],
            ),
            (1, Event::Started { index: 0 }, &["i0 Running", "start 1#0"]),
            (2, Event::Started { index: 1 }, &["i1 Running"]),
            (3, exit(1, 5), &["i1 Terminated Error", "term 0"]),
            (4, exit(0, 143), &["i0 Terminated Error", "pod Failed", "off Completed"]),
        ],
    );
}

#[test]
fn a_probe_that_nobody_could_do_counts_neither_way() {
    use Task::Liveness;
    let not_done = |number| Event::NotDone { index: 0, task: Liveness, number };
    let pod = one(RestartPolicy::Always, |c| c.liveness_probe = Some(probe(0, 1_000)));
    check_pod(
        &pod,
        &[
            (0, Event::Begin, BEGIN_ONE),
            RUNS,
            (0, Event::Tick, &["do 0 Liveness#1"]),
            (1, done(0, Liveness, 1, "no"), &[]),
            // The second failure would end the container.
            (1_000, Event::Tick, &["do 0 Liveness#2"]),
            (1_001, not_done(2), &[]),
            (1_600, Event::Tick, &[]),
            (2_000, Event::Tick, &["do 0 Liveness#3"]),
            // An old one is nobody's.
            (2_001, not_done(2), &[]),
            (2_500, Event::Tick, &["abandon #3", "term 0"]),
        ],
    );
}
