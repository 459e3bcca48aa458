//! How pods start, run again and end, and what of it is reported.

use super::*;

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
fn a_guest_that_the_kernel_killed_for_memory_is_named_and_is_no_success() {
    let killed = |policy| {
        let killed = |instance| Input::VmOutOfMemory { pod: ObjectId(7), instance, limit_bytes: 512 << 20 };
        vec![(1000, In(killed(1))), (1000, In(exited(7, 1)))]
            .into_iter()
            .chain(if policy == RestartPolicy::Never {
                vec![(1010, In(gone(7)))]
            } else {
                vec![(11_000, Tick)]
            })
            .collect()
    };
    let never = RestartPolicy::Never;
    check(
        then(running(with_policy(7, never)), killed(never)),
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        60 persist #7 instance 1
        210 report [#7 100000002 Running ready running x0]
        1000 note: guest of pod #7 failed: GuestOOMKilled; the pod is over
        1000 persist #7 instance 1 ended Failed
        1000 clean #7 keep_logs true
        1000 report [#7 100000003 Failed GuestOOMKilled exit:137:GuestOOMKilled x0]
        1010 report [#7 100000004 gone Failed GuestOOMKilled exit:137:GuestOOMKilled x0]
    "#]],
    );
    check(
        then(running(pod(7)), killed(RestartPolicy::Always)),
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        210 report [#7 100000002 Running ready running x0]
        1000 note: guest of pod #7 failed: GuestOOMKilled; next attempt in 10000 ms
        1000 report [#7 100000003 Running GuestOOMKilled restarts 1 waiting:GuestOOMKilled x1]
        11000 prepare #7
    "#]],
    );
}

#[test]
fn what_the_kernel_did_to_another_guest_of_the_pod_counts_for_nothing() {
    let other = Input::VmOutOfMemory { pod: ObjectId(7), instance: 3, limit_bytes: 512 << 20 };
    check(
        then(running(pod(7)), vec![(900, In(other)), (1000, In(exited(7, 1)))]),
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        210 report [#7 100000002 Running ready running x0]
        1000 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
        1000 report [#7 100000003 Running GuestDied restarts 1 waiting:GuestDied x1]
    "#]],
    );
}

#[test]
fn a_pod_that_its_guest_evicts_is_over_whatever_its_policy() {
    let evicted = Input::GuestPod {
        pod: ObjectId(7),
        instance: 1,
        phase: PodPhase::Failed,
        reason: SmolStr::new("Evicted"),
        message: "container main exceeded its ephemeral-storage limit".to_owned(),
    };
    let steps = vec![(900, In(evicted)), (1000, In(exited(7, 1))), (1010, In(gone(7)))];
    check(
        then(running(pod(7)), steps),
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        210 report [#7 100000002 Running ready running x0]
        900 report [#7 100000003 Running ready Evicted running x0]
        1000 persist #7 instance 1 ended Failed
        1000 clean #7 keep_logs true
        1000 report [#7 100000004 Failed Evicted exit:137:GuestDied x0]
        1010 report [#7 100000005 gone Failed Evicted exit:137:GuestDied x0]
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
            10030 report [#7 100000003 Pending GuestBooting waiting:ContainerCreating x0]
            20030 report [#7 100000004 Pending GuestBooting waiting:ContainerCreating x0]
            40030 report [#7 100000005 Pending GuestBooting waiting:ContainerCreating x0]
            80030 report [#7 100000006 Pending GuestBooting waiting:ContainerCreating x0]
            120030 kill #7/1
            120030 report [#7 100000007 Pending GuestNotReporting waiting:ContainerCreating x0]
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

/// A pool of huge pages was made smaller than what is held of it: who wants none of them starts nevertheless.
#[test]
fn who_holds_more_than_there_is_of_one_thing_keeps_nobody_from_the_others() {
    let paged = |id| {
        let mut spec = spec(128, RestartPolicy::Always);
        let huge_pages = bulkhead_types::HugePages { two_mib_bytes: 32 * MIB, one_gib_bytes: 0 };
        let options = bulkhead_types::ContainerOptions { huge_pages, ..Default::default() };
        spec.containers[0].options = bulkhead_types::Rare::some(options);
        bulkhead_types::PodIntent { spec: bulkhead_types::Shared::new(spec), ..pod(id) }
    };
    let mut agent = Agent::new(config());
    let up = [
        recovered(),
        joined(1),
        intent(1, 100, vec![paged(7)]),
        image(7),
        started(7, 1),
        hello(7, 1),
        runs(7, 1),
        Input::Allocatable(bulkhead_types::Resources {
            huge_pages: bulkhead_types::HugePages::NONE,
            ..config().allocatable
        }),
    ];
    feed(&mut agent, 1_000, up);
    let more = [intent(1, 101, vec![paged(7), pod(8)]), image(8)];
    let starts = |action: &Action| matches!(action, Action::StartVm(start) if start.pod.id == ObjectId(8));
    assert!(feed(&mut agent, 1_000, more).iter().any(starts));
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

/// What a guest is about before any container starts is the pod's message until it begins.
#[test]
fn what_a_guest_waits_for_is_told_until_it_begins() {
    let told = |phase, message: &str| Input::GuestPod {
        pod: ObjectId(7),
        instance: 1,
        phase,
        reason: SmolStr::default(),
        message: message.to_owned(),
    };
    let mut agent = Agent::new(config());
    let mut messages = Vec::new();
    let mut steps = begin(vec![pod(7)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (50, In(hello(7, 1))),
        (60, In(told(PodPhase::Pending, "files"))),
        (900, Tick),
        (1000, In(told(PodPhase::Running, ""))),
        (1010, In(runs(7, 1))),
        (1500, Tick),
    ]);
    for (now_ms, step) in steps {
        match step {
            In(input) => agent.handle(now_ms, input),
            Tick => agent.tick(now_ms),
            Acks(_) => {}
        }
        while let Some(action) = agent.poll_action() {
            if let Action::Report(report) = action {
                messages.extend(report.pods.iter().map(|one| one.status.message.clone()));
                agent.handle(now_ms, ack(report.sent_at_ms));
            }
        }
    }
    messages.dedup();
    assert_eq!(messages, ["", "files", ""]);
}
