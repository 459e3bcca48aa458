//! Table tests: a script of (time, event) against what the supervisor orders.

#[path = "supervisor_checks_tests.rs"]
mod checks;
#[path = "supervisor_node_tests.rs"]
mod node;

use super::*;
use bulkhead_guest_protocol::host::ContainerConfig;
use proptest::prelude::*;

fn pod(policy: RestartPolicy, init: usize, main: usize) -> PodConfig {
    let containers = |prefix: &str, count| {
        (0..count).map(|i| ContainerConfig { name: format!("{prefix}{i}"), ..Default::default() }).collect()
    };
    PodConfig {
        init_containers: containers("i", init),
        containers: containers("c", main),
        restart_policy: policy as i32,
        termination_grace_ms: 30_000,
        ..Default::default()
    }
}

fn at(monotonic_ms: u64) -> Now {
    Now { monotonic_ms, wall_ms: 1_000_000 + monotonic_ms }
}

fn exit(index: usize, exit_code: i32) -> Event {
    let reason = if exit_code == 0 { Reason::Completed } else { Reason::Error };
    Event::Ended { index, outcome: Outcome { exit_code, signal: 0, reason, message: String::new() } }
}

/// One action in short.
fn short(action: &Action) -> String {
    match action {
        Action::Start { index, instance } => format!("start {index}#{instance}"),
        Action::Terminate { index } => format!("term {index}"),
        Action::Kill { index } => format!("kill {index}"),
        Action::Do { index, task, number } => format!("do {index} {task:?}#{number}"),
        Action::Abandon { number } => format!("abandon #{number}"),
        Action::PowerOff { reason } => format!("off {reason}"),
        Action::Report(GuestMessage::PodState(pod)) => format!("pod {:?}", pod.phase()),
        Action::Report(GuestMessage::ContainerState(c)) => {
            let unready = if c.unready { "unready" } else { "" };
            format!("{} {:?} {}{unready}", c.container, c.kind(), c.reason).trim_end().into()
        }
        Action::Report(other) => panic!("the supervisor does not report {other:?}"),
    }
}

/// Runs the script; every line's expectation is the list of actions.
fn check(policy: RestartPolicy, init: usize, main: usize, script: &[(u64, Event, &[&str])]) -> Supervisor {
    check_pod(&pod(policy, init, main), script)
}

fn check_pod(pod: &PodConfig, script: &[(u64, Event, &[&str])]) -> Supervisor {
    let mut supervisor = Supervisor::new(pod);
    for (time_ms, event, expected) in script {
        let actions = supervisor.handle(event.clone(), at(*time_ms));
        let got: Vec<String> = actions.iter().map(short).collect();
        assert_eq!(got, *expected, "at {time_ms} ms after {event:?}");
    }
    supervisor
}

const BEGIN_ONE: &[&str] = &["c0 Waiting PodInitializing", "pod Initializing", "pod Running", "start 0#0"];

#[test]
fn init_containers_run_in_order_then_all_containers() {
    use RestartPolicy::Never;
    check(
        Never,
        2,
        2,
        &[
            (
                0,
                Event::Begin,
                &[
                    "i0 Waiting ContainerCreating",
                    "i1 Waiting ContainerCreating",
                    "c0 Waiting PodInitializing",
                    "c1 Waiting PodInitializing",
                    "pod Initializing",
                    "start 0#0",
                ],
            ),
            (1, Event::Started { index: 0 }, &["i0 Running"]),
            (2, exit(0, 0), &["i0 Terminated Completed", "start 1#0"]),
            (3, Event::Started { index: 1 }, &["i1 Running"]),
            (4, exit(1, 0), &["i1 Terminated Completed", "pod Running", "start 2#0", "start 3#0"]),
            (5, Event::Started { index: 2 }, &["c0 Running"]),
            (6, Event::Started { index: 3 }, &["c1 Running"]),
            (7, exit(3, 0), &["c1 Terminated Completed"]),
            (8, exit(2, 0), &["c0 Terminated Completed", "pod Succeeded", "off Completed"]),
            (9, Event::Stop { grace_ms: None }, &[]),
        ],
    );
}

#[test]
fn what_a_pod_waits_for_before_it_begins_is_said_once_and_it_can_be_stopped_meanwhile() {
    let wait = || Event::Preparing { message: "files".into() };
    let script: &[(u64, Event, &[&str])] = &[(0, wait(), &["pod Initializing"]), (1, wait(), &[])];
    let supervisor = check(RestartPolicy::Always, 0, 1, script);
    let Some(GuestMessage::PodState(said)) = supervisor.states().pop() else { panic!("the pod is last") };
    assert_eq!(said.message, "files");
    let begun = [script, &[(2, Event::Begin, BEGIN_ONE)]].concat();
    let supervisor = check(RestartPolicy::Always, 0, 1, &begun);
    let Some(GuestMessage::PodState(said)) = supervisor.states().pop() else { panic!("the pod is last") };
    assert_eq!(said.message, "");
    let stopped: &[(u64, Event, &[&str])] =
        &[(2, Event::Stop { grace_ms: None }, &["pod Failed", "off Stopped"]), (3, Event::Begin, &[])];
    check(RestartPolicy::Always, 0, 1, &[script, stopped].concat());
}

#[test]
fn a_failed_init_container_fails_the_pod_or_is_tried_again() {
    check(
        RestartPolicy::Never,
        1,
        1,
        &[
            (
                0,
                Event::Begin,
                &[
                    "i0 Waiting ContainerCreating",
                    "c0 Waiting PodInitializing",
                    "pod Initializing",
                    "start 0#0",
                ],
            ),
            (2, exit(0, 3), &["i0 Terminated Error", "pod Failed", "off Completed"]),
        ],
    );
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure] {
        check(
            policy,
            1,
            1,
            &[
                (
                    0,
                    Event::Begin,
                    &[
                        "i0 Waiting ContainerCreating",
                        "c0 Waiting PodInitializing",
                        "pod Initializing",
                        "start 0#0",
                    ],
                ),
                (2, exit(0, 3), &["i0 Terminated Error", "start 0#1"]),
                (3, exit(0, 3), &["i0 Terminated Error", "i0 Waiting CrashLoopBackOff"]),
                (10_002, Event::Tick, &[]),
                (10_003, Event::Tick, &["start 0#2"]),
                (10_004, exit(0, 0), &["i0 Terminated Completed", "pod Running", "start 1#0"]),
            ],
        );
    }
}

#[test]
fn back_off_is_the_kubelets() {
    let mut supervisor = check(RestartPolicy::Always, 0, 1, &[(0, Event::Begin, BEGIN_ONE)]);
    let mut now_ms = 0;
    let mut delays = Vec::new();
    for _ in 0..8 {
        supervisor.handle(Event::Started { index: 0 }, at(now_ms));
        supervisor.handle(exit(0, 1), at(now_ms));
        let due = supervisor.next_deadline_ms().unwrap_or(now_ms);
        delays.push(due - now_ms);
        now_ms = due;
        supervisor.handle(Event::Tick, at(now_ms));
    }
    assert_eq!(delays, [0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    // Ten minutes of running make it forget.
    supervisor.handle(Event::Started { index: 0 }, at(now_ms));
    let actions = supervisor.handle(exit(0, 1), at(now_ms + 600_001));
    assert_eq!(actions.iter().map(short).collect::<Vec<_>>(), ["c0 Terminated Error", "start 0#9"]);
}

#[test]
fn the_restart_policy_decides_what_an_exit_means() {
    let again: &[&str] = &["c0 Terminated Completed", "start 0#1"];
    let succeeded: &[&str] = &["c0 Terminated Completed", "pod Succeeded", "off Completed"];
    let retried: &[&str] = &["c0 Terminated Error", "start 0#1"];
    let failed: &[&str] = &["c0 Terminated Error", "pod Failed", "off Completed"];
    for (policy, exit_code, expected) in [
        (RestartPolicy::Always, 0, again),
        (RestartPolicy::Always, 1, retried),
        (RestartPolicy::OnFailure, 0, succeeded),
        (RestartPolicy::OnFailure, 1, retried),
        (RestartPolicy::Never, 0, succeeded),
        (RestartPolicy::Never, 1, failed),
    ] {
        check(
            policy,
            0,
            1,
            &[
                (0, Event::Begin, BEGIN_ONE),
                (1, Event::Started { index: 0 }, &["c0 Running"]),
                (2, exit(0, exit_code), expected),
            ],
        );
    }
}

#[test]
fn stop_terminates_then_kills_then_powers_off() {
    check(
        RestartPolicy::Always,
        0,
        2,
        &[
            (
                0,
                Event::Begin,
                &[
                    "c0 Waiting PodInitializing",
                    "c1 Waiting PodInitializing",
                    "pod Initializing",
                    "pod Running",
                    "start 0#0",
                    "start 1#0",
                ],
            ),
            (1, Event::Started { index: 0 }, &["c0 Running"]),
            (5, Event::Stop { grace_ms: Some(1_000) }, &["term 0", "term 1"]),
            // Its process had no handler when the first signal came.
            (6, Event::Started { index: 1 }, &["c1 Running unready", "term 1"]),
            (7, exit(0, 143), &["c0 Terminated Error"]),
            (1_004, Event::Tick, &[]),
            (1_005, Event::Tick, &["kill 1"]),
            (1_006, exit(1, 137), &["c1 Terminated Error", "pod Failed", "off Stopped"]),
        ],
    );
}

#[test]
fn stop_without_grace_kills_and_a_second_stop_only_shortens() {
    let running: (u64, Event, &[&str]) = (1, Event::Started { index: 0 }, &["c0 Running"]);
    check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            running.clone(),
            (5, Event::Stop { grace_ms: Some(0) }, &["term 0", "kill 0"]),
            (6, exit(0, 137), &["c0 Terminated Error", "pod Failed", "off Stopped"]),
        ],
    );
    let supervisor = check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            running,
            (5, Event::Stop { grace_ms: None }, &["term 0"]),
            (6, Event::Stop { grace_ms: Some(60_000) }, &[]),
            (7, Event::Stop { grace_ms: Some(100) }, &[]),
        ],
    );
    assert_eq!(supervisor.next_deadline_ms(), Some(107));
}

#[test]
fn a_pod_that_used_more_than_it_may_fails_whatever_its_policy_and_how_it_ends() {
    let evict = |why: &str| Event::Evict { message: why.to_owned() };
    let supervisor = check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            (1, Event::Started { index: 0 }, &["c0 Running"]),
            (5, evict("container c0 exceeded its limit"), &["term 0", "kill 0"]),
            (6, evict("again"), &[]),
            (7, exit(0, 0), &["c0 Terminated Completed", "pod Failed", "off Completed"]),
        ],
    );
    assert_eq!(supervisor.pod_reason, "Evicted");
    assert_eq!(supervisor.pod_message, "container c0 exceeded its limit");
    // One that was asked to end already ends as it was asked to.
    check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            (1, Event::Started { index: 0 }, &["c0 Running"]),
            (5, Event::Stop { grace_ms: None }, &["term 0"]),
            (6, evict("too late"), &[]),
        ],
    );
}

#[test]
fn stop_while_waiting_powers_off_at_once() {
    check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            (1, exit(0, 1), &["c0 Terminated Error", "start 0#1"]),
            (2, exit(0, 1), &["c0 Terminated Error", "c0 Waiting CrashLoopBackOff"]),
            (3, Event::Stop { grace_ms: None }, &["pod Failed", "off Stopped"]),
        ],
    );
}

#[test]
fn a_process_that_survives_sigkill_does_not_hold_the_guest() {
    check(
        RestartPolicy::Always,
        0,
        1,
        &[
            (0, Event::Begin, BEGIN_ONE),
            (1, Event::Started { index: 0 }, &["c0 Running"]),
            (2, Event::Stop { grace_ms: Some(10) }, &["term 0"]),
            (12, Event::Tick, &["kill 0"]),
            (12 + KILL_WAIT_MS, Event::Tick, &["pod Failed", "off Stopped"]),
        ],
    );
}

#[test]
fn a_waiting_container_still_tells_its_last_end() {
    let mut supervisor = check(
        RestartPolicy::Always,
        0,
        1,
        &[(0, Event::Begin, BEGIN_ONE), (1, exit(0, 1), &["c0 Terminated Error", "start 0#1"])],
    );
    supervisor.handle(exit(0, 7), at(50));
    let state = supervisor.container_state(0);
    assert_eq!(
        (state.exit_code, state.reason.as_str(), state.last_reason.as_str()),
        (Some(7), "CrashLoopBackOff", "Error")
    );
    assert_eq!((state.restart_count, state.finished_monotonic_ms, state.finished_at_ms), (1, 50, 1_000_050));
}

#[derive(Clone, Debug)]
enum Step {
    Started(usize),
    Exit(usize, i32),
    /// One of the tasks that are being done ends.
    Done(usize, bool),
    Advance(u64),
    Stop(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize).prop_map(Step::Started),
        (0..4_usize, 0..2).prop_map(|(i, code)| Step::Exit(i, code)),
        (0..8_usize, any::<bool>()).prop_map(|(n, ok)| Step::Done(n, ok)),
        (0..20_000_u64).prop_map(Step::Advance),
        (0..700_000_u64).prop_map(Step::Advance),
        (0..1_000_u64).prop_map(Step::Stop),
    ]
}

/// A pod whose containers have any probes and hooks; `bits` draws them.
fn any_pod(policy: RestartPolicy, init: usize, main: usize, bits: u32) -> PodConfig {
    let mut pod = pod(policy, init, main);
    let (probe, hook) = (checks::probe(1_000, 1_000), checks::hook());
    let all = pod
        .init_containers
        .iter_mut()
        .map(|c| (true, c))
        .chain(pod.containers.iter_mut().map(|c| (false, c)));
    for (at, (is_init, container)) in all.enumerate() {
        let bit = |n: u32| (bits.rotate_right(u32::try_from(at).expect("few") * 6) >> n) & 1 == 1;
        container.sidecar = is_init && bit(0);
        if !is_init || container.sidecar {
            container.startup_probe = bit(1).then(|| probe.clone());
            container.readiness_probe = bit(2).then(|| probe.clone());
            container.liveness_probe = bit(3).then(|| probe.clone());
            container.post_start = bit(4).then(|| hook.clone());
            container.pre_stop = bit(5).then(|| hook.clone());
        }
    }
    pod
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: nothing runs twice, nothing starts after power-off or a Stop, containers wait for all init
    /// containers, only the living are signalled and asked, and what is asked is answered or abandoned.
    #[test]
    fn laws(
        policy in 1..4_i32, init in 0..3_usize, main in 1..3_usize, bits in any::<u32>(),
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let policy = RestartPolicy::try_from(policy).expect("in range");
        let config = any_pod(policy, init, main, bits);
        let sidecars: Vec<bool> = config.init_containers.iter().map(|c| c.sidecar).collect();
        let mut supervisor = Supervisor::new(&config);
        let mut alive = vec![false; init + main];
        let mut init_done = vec![false; init];
        let mut tasks: Vec<(usize, Task, u64)> = Vec::new();
        let (mut now_ms, mut stopped, mut off) = (0, false, false);
        let mut events = vec![Event::Begin];
        let mut steps = steps.into_iter();
        loop {
            for event in events.drain(..) {
                if let Event::Ended { index, outcome } = &event {
                    alive[*index] = false;
                    if *index < init && outcome.exit_code == 0 { init_done[*index] = true; }
                }
                if let Event::Started { index } = &event && *index < init && sidecars[*index] { init_done[*index] = true; }
                stopped |= matches!(event, Event::Stop { .. });
                for action in supervisor.handle(event, at(now_ms)) {
                    prop_assert!(!off, "{action:?} after power-off");
                    match action {
                        Action::Start { index, .. } => {
                            prop_assert!(!alive[index] && !stopped);
                            prop_assert!(init_done[..index.min(init)].iter().all(|done| *done));
                            alive[index] = true;
                        }
                        Action::Terminate { index } | Action::Kill { index } => prop_assert!(alive[index]),
                        Action::Do { index, task, number } => {
                            prop_assert!(alive[index], "{task:?} of what does not run");
                            prop_assert!(!tasks.iter().any(|(i, t, _)| *i == index && *t == task));
                            tasks.push((index, task, number));
                        }
                        Action::Abandon { number } => {
                            let before = tasks.len();
                            tasks.retain(|(_, _, n)| *n != number);
                            prop_assert_eq!(tasks.len() + 1, before);
                        }
                        Action::PowerOff { .. } => off = true,
                        Action::Report(message) => prop_assert_eq!(message.validate(), Ok(())),
                    }
                }
                prop_assert!(off || tasks.iter().all(|(index, _, _)| alive[*index]), "{tasks:?}");
                // Time that is due makes something happen, so that the loop comes to rest.
                let mut ticks = 0;
                while supervisor.next_deadline_ms().is_some_and(|due_ms| due_ms <= now_ms) && ticks < 100 {
                    for action in supervisor.handle(Event::Tick, at(now_ms)) {
                        match action {
                            Action::Start { index, .. } => alive[index] = true,
                            Action::Do { index, task, number } => tasks.push((index, task, number)),
                            Action::Abandon { number } => tasks.retain(|(_, _, n)| *n != number),
                            Action::PowerOff { .. } => off = true,
                            _ => {}
                        }
                    }
                    ticks += 1;
                }
                prop_assert!(ticks < 3, "time does not come to rest");
            }
            match steps.next() {
                None => break,
                Some(Step::Started(i)) if i < alive.len() && supervisor.containers[i].status == Status::Starting =>
                    events.push(Event::Started { index: i }),
                Some(Step::Exit(i, code)) if i < alive.len() && alive[i] => events.push(exit(i, code)),
                Some(Step::Done(n, ok)) if n < tasks.len() => {
                    let (index, task, number) = tasks.remove(n);
                    let outcome = if ok { Ok(()) } else { Err("no".to_owned()) };
                    events.push(Event::Done { index, task, number, outcome });
                }
                Some(Step::Advance(ms)) => { now_ms += ms; events.push(Event::Tick); }
                Some(Step::Stop(ms)) if !off => events.push(Event::Stop { grace_ms: Some(ms) }),
                Some(_) => {}
            }
        }
        // Something is always awaited: a living process, a timer, or nothing because the guest powers off.
        prop_assert!(off || alive.iter().any(|a| *a) || supervisor.next_deadline_ms().is_some());
    }
}
