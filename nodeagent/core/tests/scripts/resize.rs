//! Other sizes for a guest that runs: what is asked for, what is held meanwhile, and what becomes of it when something fails.

use bulkhead_nodeagent_core::{GuestSize, ResizeFailure, ResizeVm, Resized};
use bulkhead_types::{PodIntent, PodSpec, ResourceRequirements, Shared};

use super::*;

/// What is asked for.
pub(super) fn shown(order: &ResizeVm) -> String {
    let mib = |size: GuestSize| format!("{}x{}Mi", size.cpus, size.memory_bytes >> 20);
    format!("resize {}/{} {} -> {}", order.pod.id, order.instance, mib(order.was), mib(order.size))
}

/// The pod with this much cpu, in thousandths, and memory, in MiB.
fn sized(cpu_millis: u64, memory_mib: u64) -> PodIntent {
    let mut spec = PodSpec::clone(&pod(7).spec);
    let amounts = ResourceRequirements {
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some(memory_mib << 20),
        ephemeral_storage_bytes: None,
    };
    (spec.containers[0].requests, spec.containers[0].limits) = (amounts, amounts);
    PodIntent { spec: Shared::new(spec), ..pod(7) }
}

/// The same, of which its agent shall tell.
fn resizing(cpu_millis: u64, memory_mib: u64) -> PodIntent {
    PodIntent { resizing: true, ..sized(cpu_millis, memory_mib) }
}

fn answer(of: &PodIntent, failure: Option<bool>) -> Step {
    let result = match failure {
        None => Ok(()),
        Some(refused) => {
            Err(ResizeFailure { reason: "GuestCannotResize".into(), message: "no place".to_owned(), refused })
        }
    };
    let (pod, instance, sizes) = (ObjectId(7), 1, of.spec.sizes());
    In(Input::VmResized(Box::new(Resized { pod, instance, sizes, result })))
}

/// A guest with half a CPU and 128 MiB that speaks.
fn running() -> Vec<(u64, Step)> {
    let mut steps = begin(vec![sized(500, 128)]);
    steps.extend([(20, In(image(7))), (30, In(started(7, 1))), (40, In(hello(7, 1))), (50, In(runs(7, 1)))]);
    steps
}

#[test]
fn it_is_asked_for_once_and_told_when_it_is_so() {
    let large = resizing(1500, 256);
    let mut steps = running();
    steps.extend([
        (1_000, In(intent(1, 101, vec![large.clone()]))),
        (1_010, In(intent(1, 102, vec![large.clone()]))),
        (2_000, answer(&large, None)),
        // Of nothing that was asked for.
        (2_010, answer(&large, Some(true))),
        (3_000, In(intent(1, 103, vec![sized(1500, 256)]))),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000002 Running ready running x0]
            2000 persist #7 instance 1
            2000 report [#7 100000003 Running ready running x0]
        "#]],
    );
}

#[test]
fn what_fails_is_tried_again_later_and_what_is_refused_is_not() {
    let large = resizing(1500, 256);
    let mut steps = running();
    steps.extend([
        (1_000, In(intent(1, 101, vec![large.clone()]))),
        (2_000, answer(&large, Some(false))),
        (11_000, Tick),
        (12_500, Tick),
        (13_000, answer(&large, Some(true))),
        (60_000, Tick),
        // It is not wanted any more, but something had been begun.
        (60_010, In(intent(1, 102, vec![sized(500, 128)]))),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000002 Running ready running x0]
            2000 report [#7 100000003 Running ready running x0]
            12000 persist #7 instance 1
            12000 resize #7/1 1x195Mi -> 2x326Mi
            13000 report [#7 100000004 Running ready running x0]
            60010 persist #7 instance 1
            60010 resize #7/1 1x195Mi -> 1x195Mi
        "#]],
    );
}

#[test]
fn no_answer_is_asked_for_again_and_another_wish_waits_for_the_first() {
    let (large, larger) = (resizing(1500, 256), resizing(2500, 256));
    let mut steps = running();
    steps.extend([
        (1_000, In(intent(1, 101, vec![large.clone()]))),
        (1_500, In(intent(1, 102, vec![larger.clone()]))),
        (121_100, Tick),
        (121_200, answer(&large, None)),
        (121_300, answer(&larger, None)),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000002 Running ready running x0]
            121000 persist #7 instance 1
            121000 resize #7/1 1x195Mi -> 3x326Mi
            121300 persist #7 instance 1
            121300 report [#7 100000003 Running ready running x0]
        "#]],
    );
}

#[test]
fn a_guest_that_ends_meanwhile_starts_with_what_is_wanted() {
    let large = resizing(1500, 256);
    let mut steps = running();
    steps.extend([
        (1_000, In(intent(1, 101, vec![large.clone()]))),
        (1_100, In(exited(7, 1))),
        (12_000, Tick),
        (12_010, In(image(7))),
    ]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000002 Running ready running x0]
            1100 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
            1200 report [#7 100000003 Running GuestDied restarts 1 waiting:GuestDied x1]
            11100 prepare #7
            11100 report [#7 100000004 Running GuestDied restarts 1 waiting:GuestDied x1]
            12010 persist #7 instance 2
            12010 start #7 instance 2
        "#]],
    );
}

#[test]
fn another_spec_is_still_another_guest() {
    let mut other = resizing(1500, 256);
    let mut spec = PodSpec::clone(&other.spec);
    spec.containers[0].image = "app:2".into();
    other.spec = Shared::new(spec);
    let mut steps = running();
    steps.extend([(1_000, In(intent(1, 101, vec![other])))]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            1000 stop #7/1 grace 30000
            1000 report [#7 100000002 Running running x0]
        "#]],
    );
}

/// An agent that finds a guest whose resize was begun holds enough for either size, and brings it to whatever is wanted then.
#[test]
fn an_agent_that_ended_between_two_steps_goes_on() {
    let large = resizing(1500, 256);
    let mut agent = Agent::new(config());
    let mut record = None;
    let mut drain = |agent: &mut Agent| {
        let mut resizes = Vec::new();
        while let Some(action) = agent.poll_action() {
            match action {
                bulkhead_nodeagent_core::Action::PersistRecord(one) => record = Some(*one),
                bulkhead_nodeagent_core::Action::ResizeVm(order) => resizes.push((order.was, order.size)),
                _ => {}
            }
        }
        (resizes, record.clone())
    };
    let feed = |agent: &mut Agent, inputs: Vec<Input>| {
        inputs.into_iter().for_each(|input| agent.handle(1_000, input))
    };
    let up = || {
        vec![
            recovered(),
            joined(1),
            intent(1, 100, vec![sized(500, 128)]),
            image(7),
            started(7, 1),
            hello(7, 1),
        ]
    };
    feed(&mut agent, up());
    let (resizes, before) = drain(&mut agent);
    let before = before.expect("a guest has a record");
    assert!(resizes.is_empty() && !before.resize_begun && before.sizes == sized(500, 128).spec.sizes());
    feed(&mut agent, vec![intent(1, 101, vec![large.clone()])]);
    let (resizes, after) = drain(&mut agent);
    let after = after.expect("it is written before anything changes");
    assert_eq!(resizes.len(), 1);
    assert!(after.resize_begun && after.sizes == before.sizes);
    assert_eq!(after.plan.request, large.spec.scheduling_request());

    // What is wanted is what was, by now; but nobody knows what the guest is.
    let mut agent = Agent::new(config());
    let vm = RecoveredVm {
        record: after,
        running: true,
        started_at_ms: 1,
        last_console: String::new(),
        out_of_memory: None,
    };
    feed(&mut agent, vec![Input::Recovered { vms: vec![vm], lease_until_ms: None }, joined(2)]);
    feed(&mut agent, vec![hello(7, 1)]);
    assert!(drain(&mut agent).0.is_empty(), "no intent says what is wanted");
    assert_eq!(agent.held(), large.spec.scheduling_request());
    feed(&mut agent, vec![intent(2, 102, vec![sized(500, 128)])]);
    let (resizes, _) = drain(&mut agent);
    assert_eq!(resizes.len(), 1, "it is brought back");
    let back = sized(500, 128);
    let (pod, instance, sizes) = (ObjectId(7), 1, back.spec.sizes());
    feed(&mut agent, vec![Input::VmResized(Box::new(Resized { pod, instance, sizes, result: Ok(()) }))]);
    assert_eq!(agent.held(), back.spec.scheduling_request());
    let status = agent.pods().next().expect("there").1;
    assert_eq!(status.actual.get().map(|actual| actual.containers.clone()), Some(back.spec.sizes()));
    let (_, record) = drain(&mut agent);
    assert!(!record.expect("written").resize_begun);
}

/// What another guest still holds is waited for.
#[test]
fn a_guest_grows_only_into_what_is_free() {
    let room = sized(2000, 600).spec.scheduling_request();
    let config = AgentConfig { allocatable: room, ..config() };
    let mut agent = Agent::new(config);
    let small = |id: u64| PodIntent { spec: sized(900, 200).spec, ..pod(id) };
    let feed = |agent: &mut Agent, inputs: Vec<Input>| {
        inputs.into_iter().for_each(|input| agent.handle(1_000, input))
    };
    let asked = |agent: &mut Agent| {
        let mut count = 0;
        while let Some(action) = agent.poll_action() {
            count += usize::from(matches!(action, bulkhead_nodeagent_core::Action::ResizeVm(_)));
        }
        count
    };
    feed(&mut agent, vec![recovered(), joined(1), intent(1, 100, vec![small(7), small(8)])]);
    feed(&mut agent, vec![image(7), image(8), started(7, 1), started(8, 1), hello(7, 1), hello(8, 1)]);
    let large = PodIntent { resizing: true, ..sized(1900, 200) };
    feed(&mut agent, vec![intent(1, 101, vec![large, deleting(small(8), 5_000)])]);
    assert_eq!(asked(&mut agent), 0, "the other has it");
    feed(&mut agent, vec![exited(8, 1), gone(8)]);
    assert_eq!(asked(&mut agent), 1);
    assert!(agent.held().fits_in(room));
}
