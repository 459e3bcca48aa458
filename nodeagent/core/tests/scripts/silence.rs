//! Guests that take their time, and guests that say nothing any more.

use bulkhead_nodeagent_core::BOOT_DEADLINES_MAX;
use bulkhead_types::DeviceIntent;

use super::*;

fn boots(pod: u64) -> Input {
    Input::GuestBoots { pod: ObjectId(pod), instance: 1 }
}

fn silent(pod: u64) -> Input {
    Input::GuestSilent { pod: ObjectId(pod), instance: 1 }
}

fn hangs(pod: u64) -> Input {
    Input::QemuSilent { pod: ObjectId(pod), instance: 1 }
}

fn died(console: &str) -> Input {
    Input::VmExited {
        pod: ObjectId(7),
        instance: 1,
        status: "exit status: 0".to_owned(),
        at_ms: 9,
        last_console: console.to_owned(),
    }
}

/// The agent that has started a guest of this pod at 30, and was told nothing since.
fn booting(pod: bulkhead_types::PodIntent) -> Agent {
    let mut agent = Agent::new(config());
    for (now_ms, input) in [
        (0, recovered()),
        (5, joined(1)),
        (10, intent(1, 100, vec![pod])),
        (20, image(7)),
        (30, started(7, 1)),
    ] {
        agent.handle(now_ms, input);
    }
    agent
}

/// When a guest that says nothing more is killed: the agent's clock goes on until then.
fn killed_at_ms(agent: &mut Agent, from_ms: u64) -> u64 {
    let mut now_ms = from_ms;
    for _ in 0..10_000 {
        while let Some(action) = agent.poll_action() {
            match action {
                Action::KillVm { .. } => return now_ms,
                Action::Report(report) => agent.handle(now_ms, ack(report.sent_at_ms)),
                _ => {}
            }
        }
        now_ms = agent.next_deadline_ms().unwrap().max(now_ms);
        agent.tick(now_ms);
    }
    panic!("it is never killed");
}

#[test]
fn pain_28_a_guest_that_shows_life_is_waited_for_but_not_for_ever() {
    let patience_ms = config().boot_deadline_ms;
    assert_eq!(killed_at_ms(&mut booting(pod(7)), 30), 30 + patience_ms);
    // Each sign of life is worth a deadline, from then on.
    let mut agent = booting(pod(7));
    agent.handle(100_000, boots(7));
    assert_eq!(killed_at_ms(&mut agent, 100_000), 100_000 + patience_ms);
    // Who shows nothing else for ever is ended nevertheless.
    let mut agent = booting(pod(7));
    let last_ms = 30 + patience_ms * BOOT_DEADLINES_MAX;
    for now_ms in (1_000..last_ms).step_by(1_000) {
        agent.handle(now_ms, boots(7));
    }
    assert_eq!(killed_at_ms(&mut agent, last_ms - 1_000), last_ms);
}

#[test]
fn pain_28_a_guest_whose_memory_is_pinned_has_time_for_that() {
    let device = DeviceIntent {
        container: "main".into(),
        resource: "example.com/card".into(),
        device: "0000:42:00.0".into(),
        address: "0000:42:00.0".into(),
        share: None,
        lost: false,
        visible_env: "CARDS".into(),
        visible_as: "0".into(),
    };
    let pod = bulkhead_types::PodIntent {
        devices: vec![device],
        spec: bulkhead_types::Shared::new(spec(900, RestartPolicy::Always)),
        ..pod(7)
    };
    // One GiB, begun.
    assert_eq!(killed_at_ms(&mut booting(pod), 30), 30 + config().boot_deadline_ms + 1_000);
}

#[test]
fn pain_28_a_long_boot_is_told_now_and_then_and_forgotten_when_it_is_over() {
    check(
        then(
            begin(vec![pod(7)]),
            vec![
                (20, In(image(7))),
                (30, In(started(7, 1))),
                (25_000, Tick),
                (40_999, Tick),
                (41_000, In(hello(7, 1))),
                (41_010, In(runs(7, 1))),
                (41_500, Tick),
            ],
        ),
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
            41000 report [#7 100000006 Pending waiting:ContainerCreating x0]
            41200 report [#7 100000007 Running ready running x0]
        "#]],
    );
}

#[test]
fn who_answers_nothing_is_killed_with_the_reason_and_runs_again() {
    for (input, reason) in [(silent(7), "GuestNotResponding"), (hangs(7), "QemuNotResponding")] {
        let mut agent = booting(pod(7));
        let killed = |agent: &mut Agent| {
            std::iter::from_fn(|| agent.poll_action()).any(|action| matches!(action, Action::KillVm { .. }))
        };
        // While it boots there is another deadline; of another guest it says nothing.
        agent.handle(40, input.clone());
        assert!(!killed(&mut agent), "{reason}");
        agent.handle(50, hello(7, 1));
        agent.handle(60, runs(7, 1));
        let other = Input::GuestSilent { pod: ObjectId(7), instance: 2 };
        agent.handle(70, other);
        assert!(!killed(&mut agent), "{reason}");
        agent.handle(80, input.clone());
        assert!(killed(&mut agent), "{reason}");
        agent.handle(90, input);
        agent.handle(100, died("all was well"));
        let (_, status, may_exist) = agent.pods().next().unwrap();
        assert_eq!((status.reason.as_str(), status.sandbox_restarts, may_exist), (reason, 1, false));
        assert!(status.message.contains("answered nothing for 300000 ms"), "{}", status.message);
    }
}

#[test]
fn a_guest_without_room_serves_nobody_until_it_goes_on() {
    let stands = |instance, volume: Option<&str>| Input::GuestWithoutRoom {
        pod: ObjectId(7),
        instance,
        volume: volume.map(Into::into),
    };
    let mut agent = booting(pod(7));
    agent.handle(40, hello(7, 1));
    agent.handle(50, runs(7, 1));
    let mut check = |now_ms, input, expected: (&str, bool, &str)| {
        agent.handle(now_ms, input);
        let (_, status, _) = agent.pods().next().unwrap();
        assert_eq!((status.reason.as_str(), status.ready), (expected.0, expected.1), "{status:?}");
        assert!(status.message.contains(expected.2), "{}", status.message);
    };
    check(60, stands(2, None), ("", true, ""));
    check(
        70,
        stands(1, Some("data")),
        ("DiskPressure", false, "wrote to volume data found no room on the node"),
    );
    check(80, Input::GuestGoesOn { pod: ObjectId(7), instance: 2 }, ("DiskPressure", false, ""));
    check(90, Input::GuestGoesOn { pod: ObjectId(7), instance: 1 }, ("", true, ""));
    check(100, stands(1, None), ("DiskPressure", false, "wrote to its disk found no room"));
    // It ends all the same, and the next one begins anew.
    check(110, died("all was well"), ("GuestDied", false, "all was well"));
}

#[test]
fn pain_29_the_end_of_a_process_ends_what_the_pod_says_of_it() {
    for (console, reason) in
        [("all was well", "GuestDied"), ("[1.5] Kernel panic - not syncing: VFS", "GuestPanicked")]
    {
        let mut agent = booting(pod(7));
        agent.handle(50, hello(7, 1));
        agent.handle(60, runs(7, 1));
        assert!(agent.pods().next().unwrap().1.ready);
        agent.handle(70, died(console));
        let (_, status, may_exist) = agent.pods().next().unwrap();
        assert_eq!((status.reason.as_str(), status.ready, may_exist), (reason, false, false));
        assert!(matches!(status.containers[0].state, ContainerState::Waiting { .. }), "{status:?}");
        assert!(status.message.contains(console), "{}", status.message);
    }
}

/// Others took the pages after the agent looked for them, and before QEMU did: a guest cannot say that of itself without any.
#[test]
fn a_pool_that_was_emptied_is_named_and_the_guest_is_tried_again() {
    let says = "qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory";
    for (pages_mib, reason) in [(32, "HugePagesNotAllocated"), (0, "GuestDied")] {
        let mut paged = pod(7);
        let huge_pages = bulkhead_types::HugePages { two_mib_bytes: pages_mib * MIB, one_gib_bytes: 0 };
        let options = bulkhead_types::ContainerOptions { huge_pages, ..Default::default() };
        let mut spec = bulkhead_types::PodSpec::clone(&paged.spec);
        spec.containers[0].options = bulkhead_types::Rare::some(options);
        paged.spec = bulkhead_types::Shared::new(spec);
        let mut agent = booting(paged);
        agent.handle(40, died(says));
        let (_, status, may_exist) = agent.pods().next().unwrap();
        assert_eq!((status.reason.as_str(), status.ready, may_exist), (reason, false, false));
        assert_eq!(status.message.contains("hugepages-2Mi"), pages_mib > 0, "{}", status.message);
        let retries = std::iter::from_fn(|| agent.poll_action());
        let retries = retries.filter(|action| {
            matches!(
                action,
                Action::Note(bulkhead_nodeagent_core::Note::GuestFailed { retry_in_ms: Some(_), .. })
            )
        });
        assert_eq!(retries.count(), 1);
    }
}
