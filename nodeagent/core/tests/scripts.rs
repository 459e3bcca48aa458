//! Scripts: inputs with their times, and every action that must follow.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fmt::Write as _;

use bulkhead_nodeagent_core::{Action, Agent, Input, RecoveredVm, VmRecord};
use bulkhead_types::{ContainerState, ObjectId, PodPhase, PodStatus, RestartPolicy};
use expect_test::{Expect, expect};
use smol_str::SmolStr;
use support::*;

/// One step of a script.
#[allow(clippy::large_enum_variant, reason = "scripts are short")]
enum Step {
    /// An observation.
    In(Input),
    /// Time passes to here, through every deadline on the way.
    Tick,
    /// From here on reports are acknowledged, or not.
    Acks(bool),
}
use Step::{Acks, In, Tick};

fn check(steps: Vec<(u64, Step)>, expected: Expect) {
    let mut agent = Agent::new(config());
    let mut text = String::new();
    let mut acks = true;
    for (now_ms, step) in steps {
        match step {
            In(input) => {
                agent.handle(now_ms, input);
                drain(&mut agent, now_ms, acks, &mut text);
            }
            Acks(on) => acks = on,
            Tick => {
                while let Some(at) = agent.next_deadline_ms().filter(|&at| at <= now_ms) {
                    agent.tick(at);
                    drain(&mut agent, at, acks, &mut text);
                    assert!(agent.next_deadline_ms().is_none_or(|next| next > at), "a deadline stays due");
                }
            }
        }
    }
    expected.assert_eq(&text);
}

fn drain(agent: &mut Agent, now_ms: u64, acks: bool, text: &mut String) {
    while let Some(action) = agent.poll_action() {
        if let (Action::Report(report), true) = (&action, acks) {
            agent.handle(now_ms, ack(report.sent_at_ms));
        }
        let line = match action {
            Action::Join => "join".to_owned(),
            Action::Prepare { pod } => format!("prepare {}", pod.id),
            Action::PersistRecord(record) => {
                let ended = record.ended.map_or(String::new(), |s| format!(" ended {:?}", s.phase));
                format!("persist {} instance {}{ended}", record.pod, record.instance)
            }
            Action::ForgetRecord { pod } => format!("forget {pod}"),
            Action::StartVm(start) => {
                let guard = start.lease_until_ms.map_or(String::new(), |ms| format!(" guarded until {ms}"));
                format!("start {} instance {}{guard}", start.pod.id, start.instance)
            }
            Action::UpdateFiles { pod, instance, volumes } => {
                let files = volumes.iter().flat_map(|v| &v.files).map(|f| format!(" {}", f.path));
                format!("files {pod}/{instance}{}", files.collect::<String>())
            }
            Action::StopVm { pod, instance, grace_ms } => format!("stop {pod}/{instance} grace {grace_ms}"),
            Action::KillVm { pod, instance } => format!("kill {pod}/{instance}"),
            Action::CleanUp { pod, keep_logs } => format!("clean {pod} keep_logs {keep_logs}"),
            Action::PersistLease { until_ms } => format!("lease {until_ms}"),
            Action::DeleteVolume { claim, volume } => {
                format!("delete volume {} of {claim}", volume.as_u128())
            }
            Action::Note(note) => format!("note: {note}"),
            // Empty heartbeats would hide the rest.
            Action::Report(report) if report.pods.is_empty() && report.deleted_volumes.is_empty() => continue,
            Action::Report(report) => {
                let pods = report.pods.iter().map(|pod| {
                    let gone = if pod.gone { " gone" } else { "" };
                    format!(" [{} {:x}{} {}]", pod.pod, pod.sequence, gone, show(&pod.status))
                });
                let deleted = report.deleted_volumes.iter().map(|claim| format!(" {claim} deleted"));
                format!("report{}{}", pods.collect::<String>(), deleted.collect::<String>())
            }
        };
        writeln!(text, "{now_ms} {line}").unwrap();
    }
}

fn show(status: &PodStatus) -> String {
    let mut text = format!("{:?}", status.phase);
    for (word, shown) in [("ready", status.ready), (status.reason.as_str(), !status.reason.is_empty())] {
        if shown {
            write!(text, " {word}").unwrap();
        }
    }
    if status.sandbox_restarts > 0 {
        write!(text, " restarts {}", status.sandbox_restarts).unwrap();
    }
    let state = match &status.containers[0].state {
        ContainerState::Waiting { reason, .. } => format!("waiting:{reason}"),
        ContainerState::Running { .. } => "running".to_owned(),
        ContainerState::Terminated(end) => format!("exit:{}:{}", end.exit_code, end.reason),
    };
    format!("{text} {state} x{}", status.containers[0].restart_count)
}

/// Joined as incarnation 1, with these pods intended at time 10.
fn begin(pods: Vec<bulkhead_types::PodIntent>) -> Vec<(u64, Step)> {
    vec![(0, In(recovered())), (5, In(joined(1))), (10, In(intent(1, 100, pods)))]
}

/// Pod 7, instance 1, is up and running at time 60; its reports are acknowledged.
fn running(pod: bulkhead_types::PodIntent) -> Vec<(u64, Step)> {
    let mut steps = begin(vec![pod]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (50, In(hello(7, 1))),
        (60, In(runs(7, 1))),
        (300, Tick),
    ]);
    steps
}

fn then(mut steps: Vec<(u64, Step)>, more: Vec<(u64, Step)>) -> Vec<(u64, Step)> {
    steps.extend(more);
    steps
}

#[test]
fn a_pod_starts_and_is_reported() {
    check(
        running(pod(7)),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
        "#]],
    );
}

#[test]
fn deletion_stops_then_kills_then_cleans_and_says_gone_until_it_is_known() {
    check(
        then(
            running(pod(7)),
            vec![
                (1000, In(intent(1, 101, vec![deleting(pod(7), 20_000)]))),
                (1100, In(intent(1, 102, vec![deleting(pod(7), 5_000)]))),
                (11_100, Tick),
                (11_101, In(exited(7, 1))),
                (11_110, In(gone(7))),
                (11_120, Tick),
                (11_121, In(intent(1, 103, vec![]))),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 stop #7/1 grace 20000
            1000 report [#7 100000003 Running running x0]
            1100 stop #7/1 grace 5000
            11100 note: guest of pod #7 exceeded its grace and is killed
            11100 kill #7/1
            11101 clean #7 keep_logs false
            11101 report [#7 100000004 Running exit:137:Stopped x0]
            11110 forget #7
            11110 report [#7 100000005 gone Running exit:137:Stopped x0]
        "#]],
    );
}

#[test]
fn what_runs_and_is_not_intended_ends() {
    check(
        then(
            running(pod(7)),
            vec![
                (1000, In(intent(1, 101, vec![]))),
                (1500, In(exited(7, 1))),
                (1510, In(gone(7))),
                (1600, Tick),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 note: guest of pod #7 is not intended and is stopped
            1000 stop #7/1 grace 30000
            1000 report [#7 100000003 Running running x0]
            1500 clean #7 keep_logs false
            1500 report [#7 100000004 Running exit:137:Stopped x0]
            1510 forget #7
            1510 report [#7 100000005 gone Running exit:137:Stopped x0]
        "#]],
    );
}

#[test]
fn old_intents_are_refused() {
    check(
        then(
            begin(vec![]),
            vec![(20, In(intent(1, 99, vec![pod(7)]))), (30, In(intent(0, 200, vec![pod(7)])))],
        ),
        expect![[r#"
            0 join
            20 note: intent of generation 99 refused, 100 was accepted before
            30 note: intent of session 0 refused, this is session 1
        "#]],
    );
}

#[test]
fn a_guest_that_dies_is_started_again_with_back_off() {
    check(
        then(
            running(pod(7)),
            vec![
                (1000, In(exited(7, 1))),
                (11_000, Tick),
                (11_010, In(image(7))),
                (11_020, In(started(7, 2))),
                (11_030, In(exited(7, 1))),
                (11_040, In(exited(7, 2))),
                (31_040, Tick),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
            1000 report [#7 100000003 Running GuestDied restarts 1 waiting:GuestDied x1]
            11000 prepare #7
            11010 persist #7 instance 2
            11010 start #7 instance 2
            11040 note: guest of pod #7 failed: GuestDied; next attempt in 20000 ms
            11040 report [#7 100000004 Running GuestDied restarts 2 waiting:GuestDied x1]
            31040 prepare #7
        "#]],
    );
}

#[test]
fn a_guest_that_dies_is_over_when_it_must_not_restart() {
    check(
        then(
            running(with_policy(7, RestartPolicy::Never)),
            vec![(1000, In(exited(7, 1))), (1010, In(gone(7)))],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            60 persist #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 note: guest of pod #7 failed: GuestDied; the pod is over
            1000 persist #7 instance 1 ended Failed
            1000 clean #7 keep_logs true
            1000 report [#7 100000003 Failed GuestDied exit:137:GuestDied x0]
            1010 report [#7 100000004 gone Failed GuestDied exit:137:GuestDied x0]
        "#]],
    );
}

#[test]
fn a_pod_that_completes_is_cleaned_but_keeps_its_logs_until_it_leaves() {
    let done = with_policy(7, RestartPolicy::OnFailure);
    let ended = bulkhead_types::PodIntent { ended: true, ..done.clone() };
    check(
        then(
            running(done),
            vec![
                (500, In(ends(7, 1, 0))),
                (510, In(guest_pod(7, 1, PodPhase::Succeeded))),
                (600, In(exited(7, 1))),
                (610, In(gone(7))),
                (630, In(intent(1, 101, vec![ended]))),
                (640, In(intent(1, 102, vec![]))),
                (650, In(gone(7))),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            500 report [#7 100000003 Running exit:0:Completed x0]
            600 persist #7 instance 1 ended Succeeded
            600 clean #7 keep_logs true
            600 report [#7 100000004 Succeeded exit:0:Completed x0]
            610 report [#7 100000005 gone Succeeded exit:0:Completed x0]
            640 clean #7 keep_logs false
            650 forget #7
        "#]],
    );
}

#[test]
fn a_pod_that_ended_long_ago_says_gone_again_when_it_is_deleted() {
    let pod = with_policy(7, RestartPolicy::Never);
    let mut steps = running(pod.clone());
    steps.extend([
        (300, In(ends(7, 1, 0))),
        (300, In(guest_pod(7, 1, PodPhase::Succeeded))),
        (400, In(exited(7, 1))),
        (500, In(gone(7))),
        (900, Tick),
        // The control plane knew already that it is gone, and does nothing about it before it is asked to.
        (1000, In(intent(1, 102, vec![deleting(pod, 30_000)]))),
        (1100, In(gone(7))),
        (1500, Tick),
    ]);
    let mut agent = Agent::new(config());
    let mut last = None;
    for (now_ms, step) in steps {
        match step {
            In(input) => agent.handle(now_ms, input),
            Tick => agent.tick(now_ms),
            Acks(_) => {}
        }
        while let Some(action) = agent.poll_action() {
            if let Action::Report(report) = action {
                let told = report.pods.iter().find(|p| p.pod == ObjectId(7)).map(|p| (now_ms, p.gone));
                last = told.or(last);
                agent.handle(now_ms, ack(report.sent_at_ms));
            }
        }
    }
    assert_eq!(last, Some((1100, true)));
}

#[test]
fn a_guest_that_never_reports_is_killed_and_tried_again() {
    let steps = vec![
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (120_030, Tick),
        (120_040, In(exited(7, 1))),
        (120_041, Tick),
    ];
    check(
        then(begin(vec![pod(7)]), steps),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Pending waiting:ContainerCreating x0]
            120030 kill #7/1
            120030 report [#7 100000003 Pending GuestNotReporting waiting:ContainerCreating x0]
            120040 note: guest of pod #7 failed: GuestNotReporting; next attempt in 10000 ms
        "#]],
    );
}

#[test]
fn failures_before_a_guest_have_their_reason() {
    let failed = |message: &str| Input::ImageFailed {
        pod: ObjectId(7),
        container: SmolStr::new("main"),
        reason: SmolStr::new("ErrImagePull"),
        message: message.to_owned(),
    };
    let missing = Input::VmStartFailed {
        pod: ObjectId(7),
        instance: 1,
        reason: SmolStr::new("KernelMissing"),
        message: "no kernel".to_owned(),
    };
    check(
        then(
            begin(vec![pod(7)]),
            vec![
                (20, In(failed("refused"))),
                (10_020, Tick),
                (10_020, In(failed("refused"))),
                (30_020, Tick),
                (30_030, In(image(7))),
                (30_040, In(missing)),
                (40_040, Tick),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            210 report [#7 100000002 Pending ErrImagePull waiting:ErrImagePull x0]
            10020 prepare #7
            10020 report [#7 100000003 Pending ImagePullBackOff waiting:ImagePullBackOff x0]
            30020 prepare #7
            30030 persist #7 instance 1
            30030 start #7 instance 1
            30030 report [#7 100000004 Pending waiting:ContainerCreating x0]
            30040 note: guest of pod #7 failed: KernelMissing; next attempt in 10000 ms
            30230 report [#7 100000005 Pending KernelMissing waiting:KernelMissing x0]
            40040 prepare #7
        "#]],
    );
}

#[test]
fn lease_expiry_kills_unique_pods_only_and_they_wait_for_a_fresh_intent() {
    let mut steps = begin(vec![unique(pod(7)), pod(8)]);
    for id in [7, 8] {
        steps.extend([
            (20, In(image(id))),
            (30, In(started(id, 1))),
            (50, In(hello(id, 1))),
            (60, In(runs(id, 1))),
        ]);
    }
    steps.extend([
        (100, Acks(false)),
        (101, In(Input::Disconnected)),
        (10_060, Tick),
        (10_070, In(exited(7, 1))),
        (20_070, Tick),
        (20_080, In(image(7))),
        (20_090, Acks(true)),
        (20_100, In(joined(2))),
        (20_150, In(intent(2, 100, vec![unique(pod(7)), pod(8)]))),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 prepare #8
            10 report [#7 100000001 Pending waiting:ContainerCreating x0] [#8 100000002 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1 guarded until 10010
            20 lease 10010
            20 persist #8 instance 1
            20 start #8 instance 1
            101 join
            10010 note: lease expired, 1 pods that must be unique are killed
            10010 kill #7/1
            10070 note: guest of pod #7 failed: LeaseExpired; next attempt in 10000 ms
            20070 prepare #7
            20100 report [#7 200000001 Running WaitingForLease restarts 1 waiting:LeaseExpired x1] [#8 200000002 Running ready running x0]
            20150 persist #7 instance 2
            20150 start #7 instance 2 guarded until 30100
            20150 lease 30100
        "#]],
    );
}

fn left_behind(running: bool, policy: RestartPolicy, is_unique: bool) -> RecoveredVm {
    let pod = with_policy(7, policy);
    let record = VmRecord {
        pod: pod.id,
        uid: pod.uid,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        instance: 3,
        generation: 90,
        spec_digest: bulkhead_nodeagent_core::spec_digest_text(pod.spec.digest()),
        plan: bulkhead_nodeagent_core::PodPlan::new(&pod.spec, is_unique),
        images: [(SmolStr::new("main"), SmolStr::new("sha256:aa"))].into(),
        restart_counts: [(SmolStr::new("main"), 2)].into(),
        sandbox_restarts: 2,
        started: true,
        guarded: is_unique,
        trace_context: None,
        ended: None,
    };
    RecoveredVm { record, running, started_at_ms: 900_000, last_console: String::new() }
}

#[test]
fn running_guests_are_adopted() {
    check(
        vec![
            (
                0,
                In(Input::Recovered {
                    vms: vec![left_behind(true, RestartPolicy::Always, false)],
                    lease_until_ms: None,
                }),
            ),
            (1, In(joined(2))),
            (2, In(hello(7, 3))),
            (3, In(runs(7, 3))),
            (4, In(intent(2, 100, vec![pod(7)]))),
            (1500, Tick),
        ],
        expect![[r#"
            0 join
            0 note: guest 3 of pod #7 adopted
            1002 report [#7 200000001 Running ready restarts 2 running x2]
        "#]],
    );
}

#[test]
fn a_unique_guest_is_adopted_only_under_its_lease() {
    let vms = || vec![left_behind(true, RestartPolicy::Always, true)];
    check(
        vec![(50, In(Input::Recovered { vms: vms(), lease_until_ms: Some(50) }))],
        expect![[r#"
            50 join
            50 note: guest 3 of pod #7 adopted
            50 kill #7/3
            50 lease 50
        "#]],
    );
    check(
        vec![(50, In(Input::Recovered { vms: vms(), lease_until_ms: Some(60) })), (60, Tick)],
        expect![[r#"
            50 join
            50 note: guest 3 of pod #7 adopted
            50 lease 60
            60 note: lease expired, 1 pods that must be unique are killed
            60 kill #7/3
        "#]],
    );
}

#[test]
fn a_unique_guest_without_a_guard_starts_anew_under_one() {
    // A record of an earlier version, and a guest that was not started as a unique one.
    let mut vm = left_behind(true, RestartPolicy::Always, true);
    vm.record.guarded = false;
    check(
        vec![
            (50, In(Input::Recovered { vms: vec![vm], lease_until_ms: Some(9_000) })),
            (60, In(exited(7, 3))),
            (70, In(joined(2))),
            (80, In(intent(2, 100, vec![unique(pod(7))]))),
            (90, In(image(7))),
        ],
        expect![[r#"
            50 join
            50 note: guest 3 of pod #7 adopted
            50 kill #7/3
            50 lease 9000
            80 prepare #7
            80 report [#7 200000001 Pending restarts 2 waiting:ContainerCreating x2]
            90 persist #7 instance 4
            90 start #7 instance 4 guarded until 10080
            90 lease 10080
        "#]],
    );
}

#[test]
fn nothing_unique_starts_while_what_had_to_end_with_the_lease_is_not_dead() {
    // The node was fenced, and what takes the place of #7 was placed on it when it came back.
    let vm = left_behind(true, RestartPolicy::Always, true);
    check(
        vec![
            (50, In(Input::Recovered { vms: vec![vm], lease_until_ms: Some(40) })),
            (60, In(joined(2))),
            (70, In(intent(2, 100, vec![ended(unique(pod(7))), unique(pod(9)), pod(10)]))),
            (80, In(image(9))),
            (90, In(image(10))),
            (5_000, In(exited(7, 3))),
        ],
        expect![[r#"
            50 join
            50 note: guest 3 of pod #7 adopted
            50 kill #7/3
            50 lease 40
            60 report [#7 200000001 Pending LeaseExpired restarts 2 waiting:ContainerCreating x2]
            60 lease 10060
            70 prepare #9
            70 prepare #10
            70 report [#9 200000002 Pending waiting:ContainerCreating x0] [#10 200000003 Pending waiting:ContainerCreating x0]
            70 lease 10070
            90 persist #10 instance 1
            90 start #10 instance 1
            5000 clean #7 keep_logs true
            5000 persist #9 instance 1
            5000 start #9 instance 1 guarded until 10070
            5000 report [#9 200000004 Pending waiting:ContainerCreating x0] [#10 200000005 Pending waiting:ContainerCreating x0]
            5000 lease 15000
        "#]],
    );
}

#[test]
fn guests_that_died_while_the_agent_was_away_follow_their_policy() {
    let dead =
        |policy| Input::Recovered { vms: vec![left_behind(false, policy, false)], lease_until_ms: None };
    check(
        vec![(0, In(dead(RestartPolicy::Never))), (1, In(gone(7))), (2, In(joined(2)))],
        expect![[r#"
             0 join
             0 persist #7 instance 3 ended Failed
             0 clean #7 keep_logs true
             2 report [#7 200000001 gone Failed GuestDied restarts 2 waiting:ContainerCreating x2]
    "#]],
    );
    check(
        vec![
            (0, In(dead(RestartPolicy::Always))),
            (2, In(joined(2))),
            (3, In(intent(2, 100, vec![pod(7)]))),
            (10_000, Tick),
        ],
        expect![[r#"
            0 join
            0 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
            3 report [#7 200000001 Pending GuestDied restarts 3 waiting:GuestDied x2]
            10000 prepare #7
        "#]],
    );
}

#[test]
fn a_pod_waits_for_what_ending_guests_hold() {
    let big = |id| bulkhead_types::PodIntent {
        spec: bulkhead_types::Shared::new(spec(600, RestartPolicy::Always)),
        ..pod(id)
    };
    let mut steps = begin(vec![big(7)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (40, In(hello(7, 1))),
        (50, In(intent(1, 101, vec![big(8)]))),
        (60, In(image(8))),
        (300, Tick),
        (310, In(exited(7, 1))),
        (320, In(gone(7))),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            50 note: guest of pod #7 is not intended and is stopped
            50 stop #7/1 grace 30000
            50 prepare #8
            50 report [#8 100000002 Pending waiting:ContainerCreating x0]
            210 report [#7 100000003 Pending waiting:ContainerCreating x0]
            250 report [#8 100000004 Pending WaitingForResources waiting:ContainerCreating x0]
            310 clean #7 keep_logs false
            320 forget #7
            320 persist #8 instance 1
            320 start #8 instance 1
            320 report [#7 100000005 gone Pending waiting:ContainerCreating x0]
        "#]],
    );
}

#[test]
fn what_never_fits_fails() {
    let huge = bulkhead_types::PodIntent {
        spec: bulkhead_types::Shared::new(spec(5000, RestartPolicy::Always)),
        ..pod(7)
    };
    check(
        then(begin(vec![huge]), vec![(20, In(gone(7)))]),
        expect![[r#"
            0 join
            10 persist #7 instance 0 ended Failed
            10 clean #7 keep_logs true
            10 report [#7 100000001 Failed OutOfResources waiting:ContainerCreating x0]
            20 report [#7 100000002 gone Failed OutOfResources waiting:ContainerCreating x0]
        "#]],
    );
}

#[test]
fn silence_for_a_lease_makes_the_agent_look_for_another_server() {
    check(
        vec![(0, In(recovered())), (4, Acks(false)), (5, In(joined(1))), (10_005, Tick)],
        expect![[r#"
            0 join
            10005 join
        "#]],
    );
}

/// Pod 7 with a volume that holds these files; with `missing` it cannot start.
fn configured(missing: &str, files: &[&str]) -> bulkhead_types::PodIntent {
    let file = |path: &&str| bulkhead_types::VolumeFile {
        path: (*path).to_owned(),
        mode: 0o644,
        data: b"hunter2".to_vec().into(),
    };
    let files = bulkhead_types::VolumeFiles { volume: "v".into(), files: files.iter().map(file).collect() };
    let resolved = bulkhead_types::ResolvedPod {
        missing: missing.to_owned(),
        containers: vec![],
        volumes: if missing.is_empty() { vec![files] } else { vec![] },
    };
    bulkhead_types::PodIntent { resolved: bulkhead_types::Rare::some(resolved), ..pod(7) }
}

#[test]
fn a_pod_waits_for_what_it_refers_to() {
    check(
        then(
            begin(vec![configured("Secret \"keys\" is not there", &[])]),
            vec![
                (20, In(image(7))),
                (1000, Tick),
                (1100, In(intent(1, 101, vec![configured("Secret \"keys\" has no key \"k\"", &[])]))),
                (1500, Tick),
                (2000, In(intent(1, 102, vec![configured("", &["k"])]))),
                (2010, In(started(7, 1))),
                (2020, In(hello(7, 1))),
                (2030, In(runs(7, 1))),
                (2500, Tick),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            210 report [#7 100000002 Pending CreateContainerConfigError waiting:CreateContainerConfigError x0]
            1100 report [#7 100000003 Pending CreateContainerConfigError waiting:CreateContainerConfigError x0]
            2000 persist #7 instance 1
            2000 start #7 instance 1
            2000 report [#7 100000004 Pending waiting:ContainerCreating x0]
            2200 report [#7 100000005 Running ready running x0]
        "#]],
    );
}

#[test]
fn changed_files_reach_the_guest_and_missing_ones_leave_it_alone() {
    check(
        then(
            running(configured("", &["k"])),
            vec![
                (1000, In(intent(1, 101, vec![configured("", &["k"])]))),
                (1100, In(intent(1, 102, vec![configured("", &["k", "l"])]))),
                (1200, In(intent(1, 103, vec![configured("Secret \"keys\" is not there", &[])]))),
                (1300, In(intent(1, 104, vec![configured("", &["k", "l"])]))),
                (1400, In(intent(1, 105, vec![configured("", &[])]))),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1100 files #7/1 k l
            1400 files #7/1
        "#]],
    );
}

#[test]
fn what_is_kept_on_disk_holds_no_secret() {
    let mut agent = Agent::new(config());
    for (now_ms, step) in running(configured("", &["k"])) {
        if let In(input) = step {
            agent.handle(now_ms, input);
        }
    }
    let mut records = 0;
    while let Some(action) = agent.poll_action() {
        assert!(!format!("{action:?}").contains("hunter2"), "{action:?}");
        if let Action::PersistRecord(record) = action {
            records += 1;
            assert!(!serde_json::to_string(&record).unwrap().contains("hunter2"));
        }
    }
    assert!(records > 0);
}

/// A pod with a claim whose volume is named so.
fn with_volume(id: u64, volume: u128) -> bulkhead_types::PodIntent {
    let claim = bulkhead_types::ClaimIntent {
        claim_name: "data".into(),
        uid: uuid::Uuid::from_u128(volume),
        size_bytes: 1 << 30,
        used: false,
    };
    bulkhead_types::PodIntent { claims: vec![claim], ..pod(id) }
}

/// An intent that wants volumes to be deleted: claims and what their files are named by.
fn deleting_volumes(generation: u64, pods: Vec<bulkhead_types::PodIntent>, volumes: &[(u64, u128)]) -> Step {
    let deleted = volumes.iter().map(|(id, volume)| bulkhead_types::DeletedVolume {
        id: ObjectId(*id),
        uid: uuid::Uuid::from_u128(*volume),
    });
    let deleted_volumes = deleted.collect();
    In(Input::Intent(bulkhead_types::Intent {
        node: NODE,
        incarnation: 1,
        generation,
        pods,
        deleted_volumes,
    }))
}

#[test]
fn a_volume_is_one_guests_at_a_time() {
    let mut steps = begin(vec![with_volume(7, 70)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (40, In(hello(7, 1))),
        (
            50,
            In(intent(
                1,
                101,
                vec![deleting(with_volume(7, 70), 5_000), with_volume(8, 70), with_volume(9, 90)],
            )),
        ),
        (60, In(image(8))),
        (70, In(image(9))),
        (300, Tick),
        (310, In(exited(7, 1))),
    ]);
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        50 stop #7/1 grace 5000
        50 prepare #8
        50 prepare #9
        50 report [#8 100000002 Pending waiting:ContainerCreating x0] [#9 100000003 Pending waiting:ContainerCreating x0]
        70 persist #9 instance 1
        70 start #9 instance 1
        210 report [#7 100000004 Pending waiting:ContainerCreating x0]
        250 report [#8 100000005 Pending WaitingForVolume waiting:ContainerCreating x0] [#9 100000006 Pending waiting:ContainerCreating x0]
        310 clean #7 keep_logs false
        310 persist #8 instance 1
        310 start #8 instance 1
    "#]],
    );
}

#[test]
fn volumes_are_deleted_when_no_guest_has_them_and_told_until_it_is_known() {
    let mut steps = begin(vec![with_volume(7, 70)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (40, In(hello(7, 1))),
        // Of a pod that was deleted by force the guest may still be there.
        (50, deleting_volumes(101, vec![], &[(1, 70), (2, 20)])),
        (60, In(Input::VolumeDeleted { claim: ObjectId(3) })),
        (70, In(Input::VolumeDeleted { claim: ObjectId(2) })),
        (80, In(exited(7, 1))),
        (2_000, Tick),
        (2_010, In(Input::VolumeDeleted { claim: ObjectId(1) })),
        (2_020, In(Input::VolumeDeleted { claim: ObjectId(1) })),
        (4_000, Tick),
        (4_010, deleting_volumes(102, vec![], &[(1, 70)])),
        (8_000, Tick),
        (8_010, deleting_volumes(103, vec![], &[])),
        (20_000, Tick),
    ]);
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        50 note: guest of pod #7 is not intended and is stopped
        50 stop #7/1 grace 30000
        50 delete volume 20 of #2
        70 report #2 deleted
        80 clean #7 keep_logs false
        80 delete volume 70 of #1
        210 report [#7 100000002 Pending waiting:ContainerCreating x0] #2 deleted
        2010 report #1 deleted #2 deleted
        5010 report #1 deleted
        10080 clean #7 keep_logs false
    "#]],
    );
}

#[test]
fn an_agent_that_restarts_knows_who_has_a_volume() {
    let mut first = Agent::new(config());
    let mut record = None;
    let inputs = [recovered(), joined(1), intent(1, 100, vec![with_volume(7, 70)]), image(7)];
    for input in inputs {
        first.handle(10, input);
        while let Some(action) = first.poll_action() {
            if let Action::PersistRecord(found) = action {
                record = Some(*found);
            }
        }
    }
    let text = serde_json::to_string(&record.unwrap()).unwrap();
    let record: VmRecord = serde_json::from_str(&text).unwrap();
    let vm = RecoveredVm { record, running: true, started_at_ms: 0, last_console: String::new() };
    check(
        vec![
            (0, In(Input::Recovered { vms: vec![vm], lease_until_ms: None })),
            (5, In(joined(1))),
            (10, deleting_volumes(101, vec![with_volume(8, 70)], &[(1, 70)])),
            (20, In(image(8))),
            (300, Tick),
        ],
        expect![[r#"
            0 join
            0 note: guest 1 of pod #7 adopted
            10 stop #7/1 grace 30000
            10 prepare #8
            10 report [#7 100000001 Pending waiting:ContainerCreating x0] [#8 100000002 Pending waiting:ContainerCreating x0]
            210 report [#8 100000003 Pending WaitingForVolume waiting:ContainerCreating x0]
        "#]],
    );
}
