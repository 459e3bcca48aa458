//! Addresses of guests: who has which, how long, and who waits.

use bulkhead_nodeagent_core::{Action, Agent, AgentConfig, Input, VmRecord};
use bulkhead_types::{PodBandwidth, PodIntent};
use expect_test::expect;

use crate::support::*;
use crate::{In, Tick, begin, check_with, then};

/// A node whose range has room for one guest.
fn narrow() -> AgentConfig {
    let host_ip = Some("192.0.2.7".parse().unwrap());
    AgentConfig { pod_range: Some("10.0.0.4/30".parse().unwrap()), host_ip, ..config() }
}

#[test]
fn who_finds_no_address_waits_until_nothing_is_left_of_who_had_it() {
    let steps = then(
        begin(vec![pod(7), pod(8)]),
        vec![
            (20, In(image(7))),
            (30, In(image(8))),
            (40, In(started(7, 1))),
            (300, Tick),
            (400, In(intent(1, 101, vec![deleting(pod(7), 0), pod(8)]))),
            (410, In(exited(7, 1))),
            (420, In(gone(7))),
            (700, Tick),
        ],
    );
    check_with(
        narrow(),
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 prepare #8
        10 report [#7 100000001 Pending waiting:ContainerCreating x0] [#8 100000002 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1 at 10.0.0.6
        210 report [#7 100000003 Pending [10.0.0.6] waiting:ContainerCreating x0] [#8 100000004 Pending WaitingForAddress waiting:ContainerCreating x0]
        400 kill #7/1
        410 clean #7 keep_logs false
        420 forget #7
        420 persist #8 instance 1
        420 start #8 instance 1 at 10.0.0.6
        420 report [#7 100000005 gone Pending waiting:ContainerCreating x0] [#8 100000006 Pending [10.0.0.6] waiting:ContainerCreating x0]
    "#]],
    );
}

#[test]
fn a_pod_keeps_its_address_from_guest_to_guest_and_life_to_life() {
    let mut first = Agent::new(narrow());
    let inputs =
        [recovered(), joined(1), intent(1, 100, vec![pod(7)]), image(7), started(7, 1), exited(7, 1)];
    let record = last_record(feed(&mut first, 10, inputs));
    // A record of a pod of which nothing was left when another one got its address.
    let former = VmRecord { pod: bulkhead_types::ObjectId(9), ..record.clone() };
    let steps = vec![
        (
            0,
            In(Input::Recovered {
                vms: vec![left(record, false), left(former, false)],
                lease_until_ms: None,
            }),
        ),
        (5, In(joined(1))),
        (10, In(intent(1, 100, vec![pod(7), pod(9)]))),
        (10_100, Tick),
        (10_110, In(image(7))),
        (10_120, In(image(9))),
        (10_500, Tick),
    ];
    check_with(
        narrow(),
        steps,
        expect![[r#"
        0 join
        0 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
        0 note: guest of pod #9 failed: GuestDied; next attempt in 10000 ms
        10 report [#7 100000001 Pending GuestDied restarts 1 [10.0.0.6] waiting:GuestDied x0] [#9 100000002 Pending GuestDied restarts 1 waiting:GuestDied x0]
        10000 prepare #7
        10000 prepare #9
        10110 persist #7 instance 2
        10110 start #7 instance 2 at 10.0.0.6
        10120 report [#9 100000003 Pending WaitingForAddress restarts 1 waiting:GuestDied x0]
    "#]],
    );
}

#[test]
fn a_guest_has_the_limits_of_its_start() {
    let limited = |bits| {
        let bandwidth = PodBandwidth { ingress_bits_per_second: None, egress_bits_per_second: Some(bits) };
        PodIntent { bandwidth: Some(bandwidth), ..pod(7) }
    };
    let mut agent = Agent::new(narrow());
    let mut found = Vec::new();
    let inputs = [
        (0, recovered()),
        (1, joined(1)),
        (2, intent(1, 100, vec![limited(1_000)])),
        (3, image(7)),
        (4, started(7, 1)),
        // Its guest runs; the next one has these.
        (5, intent(1, 101, vec![limited(2_000)])),
        (6, exited(7, 1)),
        (11_000, intent(1, 101, vec![limited(2_000)])),
        (11_001, image(7)),
    ];
    for (at, input) in inputs {
        agent.handle(at, input);
        while let Some(action) = agent.poll_action() {
            match action {
                Action::PersistRecord(record) => found.push(("record", record.bandwidth)),
                Action::StartVm(start) => found.push(("start", start.pod.bandwidth)),
                _ => {}
            }
        }
    }
    let of = |bits| ["record", "start"].map(|what| (what, limited(bits).bandwidth));
    assert_eq!(found, [of(1_000), of(2_000)].concat());
}

/// The agent's steps for a guest's card leave nothing behind when one fails (`nodeagent/src/network`); then the start is tried again,
/// later and later, and the pod says which step it was.
#[test]
fn a_card_that_cannot_be_made_is_told_by_its_step_and_tried_again_ever_later() {
    const STEP: &str = "cannot attach tap to bridge: injected";
    let mut agent = Agent::new(narrow());
    let (mut now_ms, mut starts, mut instances, mut told) = (0, Vec::new(), Vec::new(), String::new());
    let mut inputs = vec![recovered(), joined(1), intent(1, 100, vec![pod(7)])];
    while starts.len() < 10 {
        for input in std::mem::take(&mut inputs) {
            agent.handle(now_ms, input);
        }
        agent.tick(now_ms);
        while let Some(action) = agent.poll_action() {
            match action {
                Action::Prepare { pod } => inputs.push(image(pod.id.0)),
                Action::StartVm(start) => {
                    starts.push(now_ms);
                    instances.push(start.instance);
                    inputs.push(Input::VmStartFailed {
                        pod: start.pod.id,
                        instance: start.instance,
                        reason: bulkhead_nodeagent_core::reason::NETWORK_NOT_READY.into(),
                        message: STEP.to_owned(),
                    });
                }
                Action::Report(report) => told.push_str(&format!("{report:?}")),
                _ => {}
            }
        }
        now_ms += 1_000;
    }
    let waits: Vec<u64> = starts.windows(2).map(|two| (two[1] - two[0]) / 10_000 * 10).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300, 300], "{starts:?}");
    assert_eq!(instances, (1..=10).collect::<Vec<_>>(), "each is a guest of its own");
    assert!(told.contains("NetworkNotReady") && told.contains(STEP), "{told}");
}
