//! Leases, and guests that an agent finds when it starts.

use super::*;

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
        address: None,
        bandwidth: None,
        sizes: Vec::new(),
        resize_begun: false,
        resize_most: vec![],
        resize_least: vec![],
        resized: false,
        trace_context: None,
        ended: None,
    };
    RecoveredVm { started_at_ms: 900_000, ..left(record, running) }
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
    let vm =
        RecoveredVm { out_of_memory: Some(512 << 20), ..left_behind(false, RestartPolicy::Never, false) };
    check(
        vec![
            (0, In(Input::Recovered { vms: vec![vm], lease_until_ms: None })),
            (1, In(gone(7))),
            (2, In(joined(2))),
        ],
        expect![[r#"
            0 join
            0 persist #7 instance 3 ended Failed
            0 clean #7 keep_logs true
            2 report [#7 200000001 gone Failed GuestOOMKilled restarts 2 waiting:ContainerCreating x2]
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
