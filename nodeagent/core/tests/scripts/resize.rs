//! Other sizes for a guest that runs: what is asked for, what is held meanwhile, and what becomes of it when something fails.

use bulkhead_nodeagent_core::{GuestSize, ResizeFailure, ResizeVm, Resized};
use bulkhead_types::{PodIntent, PodSpec, ResourceRequirements, Shared};

use super::*;

/// What is asked for.
pub(super) fn shown(order: &ResizeVm) -> String {
    let mib = |size: GuestSize| format!("{}x{}Mi", size.cpus, size.memory_bytes >> 20);
    let most = match order.most == order.from {
        true => String::new(),
        false => format!(", may have {}", mib(GuestSize::new(&order.pod.spec.resized(&order.most)))),
    };
    format!("resize {}/{} {} -> {}{most}", order.pod.id, order.instance, mib(order.was), mib(order.size))
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
fn small() -> Vec<(u64, Step)> {
    running(sized(500, 128))
}

#[test]
fn it_is_asked_for_once_and_told_when_it_is_so() {
    let large = resizing(1500, 256);
    let mut steps = small();
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
            210 report [#7 100000002 Running ready running x0]
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000003 Running ready running x0]
            2000 persist #7 instance 1
            2000 report [#7 100000004 Running ready running x0]
        "#]],
    );
}

#[test]
fn what_fails_is_tried_again_later_and_what_is_refused_is_not() {
    let large = resizing(1500, 256);
    let mut steps = small();
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
            210 report [#7 100000002 Running ready running x0]
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000003 Running ready running x0]
            2000 report [#7 100000004 Running ready running x0]
            12000 persist #7 instance 1
            12000 resize #7/1 1x195Mi -> 2x326Mi, may have 2x326Mi
            13000 report [#7 100000005 Running ready running x0]
            60010 persist #7 instance 1
            60010 resize #7/1 1x195Mi -> 1x195Mi, may have 2x326Mi
        "#]],
    );
}

#[test]
fn no_answer_is_asked_for_again_and_another_wish_waits_for_the_first() {
    let (large, larger) = (resizing(1500, 256), resizing(2500, 256));
    let mut steps = small();
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
            210 report [#7 100000002 Running ready running x0]
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000003 Running ready running x0]
            121000 persist #7 instance 1
            121000 resize #7/1 1x195Mi -> 3x326Mi, may have 2x326Mi
            121300 persist #7 instance 1
            121300 report [#7 100000004 Running ready running x0]
        "#]],
    );
}

#[test]
fn a_guest_that_ends_meanwhile_starts_with_what_is_wanted() {
    let large = resizing(1500, 256);
    let mut steps = small();
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
            210 report [#7 100000002 Running ready running x0]
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000003 Running ready running x0]
            1100 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
            1200 report [#7 100000004 Running GuestDied restarts 1 waiting:GuestDied x1]
            11100 prepare #7
            11100 report [#7 100000005 Running GuestDied restarts 1 waiting:GuestDied x1]
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
    let mut steps = small();
    steps.extend([(1_000, In(intent(1, 101, vec![other])))]);
    check(
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 stop #7/1 grace 30000
            1000 report [#7 100000003 Running running x0]
        "#]],
    );
}

/// The resizes among what an agent orders.
fn orders(actions: &[Action]) -> Vec<&ResizeVm> {
    let all = actions.iter();
    all.filter_map(|action| if let Action::ResizeVm(order) = action { Some(&**order) } else { None })
        .collect()
}

/// An agent that finds a guest whose resize was begun holds enough for either size, and brings it to whatever is wanted then.
#[test]
fn an_agent_that_ended_between_two_steps_goes_on() {
    let (before, large) = (sized(500, 128), resizing(1500, 256));
    let mut agent = Agent::new(config());
    let up = vec![
        recovered(),
        joined(1),
        intent(1, 100, vec![before.clone()]),
        image(7),
        started(7, 1),
        hello(7, 1),
    ];
    let started = feed(&mut agent, 1_000, up);
    assert_eq!(orders(&started).len(), 0);
    let record = last_record(started);
    assert!(!record.resize_begun && record.resize_most.is_empty() && record.sizes == before.spec.sizes());
    let begun = feed(&mut agent, 1_000, [intent(1, 101, vec![large.clone()])]);
    assert_eq!(orders(&begun).len(), 1);
    // It is written before anything changes.
    let record = last_record(begun);
    assert!(record.resize_begun && record.sizes == before.spec.sizes());
    assert_eq!(record.resize_most, large.spec.sizes());
    assert_eq!(record.plan.request, large.spec.scheduling_request());

    // What is wanted is what was, by now; but nobody knows what the guest is.
    let mut agent = Agent::new(config());
    let vms = vec![left(record, true)];
    let inputs = [Input::Recovered { vms, lease_until_ms: None }, joined(2), hello(7, 1)];
    let found = feed(&mut agent, 1_000, inputs);
    assert_eq!(orders(&found).len(), 0, "no intent says what is wanted");
    assert_eq!(agent.held(), large.spec.scheduling_request());
    let back = feed(&mut agent, 1_000, [intent(2, 102, vec![before.clone()])]);
    let order = orders(&back);
    assert_eq!(order.len(), 1, "it is brought back");
    assert_eq!((&order[0].from, &order[0].most), (&before.spec.sizes(), &large.spec.sizes()));
    assert_eq!(order[0].was, order[0].size);
    let (pod, instance, sizes) = (ObjectId(7), 1, before.spec.sizes());
    let done = Input::VmResized(Box::new(Resized { pod, instance, sizes, result: Ok(()) }));
    let record = last_record(feed(&mut agent, 1_000, [done]));
    assert!(!record.resize_begun && record.resize_most.is_empty());
    assert_eq!(agent.held(), before.spec.scheduling_request());
    let status = agent.pods().next().expect("there").1;
    assert_eq!(status.actual.get().map(|actual| actual.containers.clone()), Some(before.spec.sizes()));
}

/// Containers may have less than they had, and than they should: who is restarted for its limits must be known to whoever goes on.
#[test]
fn the_least_that_a_guest_may_have_is_kept_until_it_has_its_size() {
    let (before, small) = (sized(500, 128), resizing(300, 64));
    let mut agent = Agent::new(config());
    let up = vec![
        recovered(),
        joined(1),
        intent(1, 100, vec![before.clone()]),
        image(7),
        started(7, 1),
        hello(7, 1),
    ];
    feed(&mut agent, 1_000, up);
    let begun = feed(&mut agent, 1_000, [intent(1, 101, vec![small.clone()])]);
    assert_eq!(orders(&begun)[0].least, before.spec.sizes(), "nothing was begun before");
    let record = last_record(begun);
    assert_eq!(record.resize_least, small.spec.sizes());
    let step = answer(&small, Some(false));
    let In(failed) = step else { unreachable!() };
    feed(&mut agent, 1_000, [failed]);
    let back = feed(&mut agent, 1_000, [intent(1, 102, vec![before.clone()])]);
    assert_eq!(orders(&back)[0].least, small.spec.sizes());

    let mut agent = Agent::new(config());
    let vms = vec![left(record, true)];
    let inputs = [Input::Recovered { vms, lease_until_ms: None }, joined(2), hello(7, 1)];
    feed(&mut agent, 1_000, inputs);
    let back = feed(&mut agent, 1_000, [intent(2, 102, vec![before.clone()])]);
    assert_eq!(orders(&back)[0].least, small.spec.sizes());
    let (pod, instance, sizes) = (ObjectId(7), 1, before.spec.sizes());
    let done = Input::VmResized(Box::new(Resized { pod, instance, sizes, result: Ok(()) }));
    assert!(last_record(feed(&mut agent, 1_000, [done])).resize_least.is_empty());
}

/// A node on which there is room for so much of pods, in thousandths of a CPU and MiB.
fn with_room(cpu_millis: u64, memory_mib: u64) -> AgentConfig {
    AgentConfig { allocatable: sized(cpu_millis, memory_mib).spec.scheduling_request(), ..config() }
}

/// What another guest still holds is waited for.
#[test]
fn a_guest_grows_only_into_what_is_free() {
    let config = with_room(2000, 600);
    let mut agent = Agent::new(config.clone());
    let small = |id: u64| PodIntent { spec: sized(900, 200).spec, ..pod(id) };
    feed(&mut agent, 1_000, [recovered(), joined(1), intent(1, 100, vec![small(7), small(8)])]);
    let up = [image(7), image(8), started(7, 1), started(8, 1), hello(7, 1), hello(8, 1)];
    feed(&mut agent, 1_000, up);
    let large = PodIntent { resizing: true, ..sized(1900, 200) };
    let waits = feed(&mut agent, 1_000, [intent(1, 101, vec![large, deleting(small(8), 5_000)])]);
    assert_eq!(orders(&waits).len(), 0, "the other has it");
    let grows = feed(&mut agent, 1_000, [exited(8, 1), gone(8)]);
    assert_eq!(orders(&grows).len(), 1);
    assert!(agent.held().fits_in(config.allocatable));
}

/// What failed is not wanted any more, and what is wanted now has no room: no time makes that other.
#[test]
fn who_waits_for_room_waits_for_no_time() {
    let large = resizing(1500, 256);
    let mut steps = small();
    steps.extend([
        (1_000, In(intent(1, 101, vec![large.clone()]))),
        (2_000, answer(&large, Some(false))),
        (2_010, In(intent(1, 102, vec![resizing(3500, 256)]))),
        (60_000, Tick),
    ]);
    check_with(
        with_room(2000, 600),
        steps,
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1000 persist #7 instance 1
            1000 resize #7/1 1x195Mi -> 2x326Mi
            1000 report [#7 100000003 Running ready running x0]
            2000 report [#7 100000004 Running ready running x0]
        "#]],
    );
}
