//! Volumes outlive pods: whose they are, and how they are deleted.

use bulkhead_types::{VolumeOrder, VolumeResult, VolumeTask};

use super::*;

/// A pod with a claim whose volume is named so.
fn with_volume(id: u64, volume: u128) -> bulkhead_types::PodIntent {
    let claim = bulkhead_types::ClaimIntent {
        claim_name: "data".into(),
        uid: uuid::Uuid::from_u128(volume),
        size_bytes: 1 << 30,
        used: false,
        read_only: false,
    };
    bulkhead_types::PodIntent { claims: vec![claim], ..pod(id) }
}

/// The same, which only reads.
fn with_read_volume(id: u64, volume: u128) -> bulkhead_types::PodIntent {
    let mut pod = with_volume(id, volume);
    pod.claims[0].read_only = true;
    pod
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
        gpu: None,
        cpu_pools: None,
        nics: vec![],
        volume_orders: vec![],
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
fn guests_read_a_volume_together_and_nobody_writes_meanwhile() {
    let mut steps = begin(vec![with_read_volume(7, 70), with_read_volume(8, 70), with_volume(9, 70)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (40, In(image(8))),
        // One that may write waits until the last of them is gone, and then keeps readers away.
        (50, In(image(9))),
        (60, In(exited(7, 1))),
        (300, In(intent(1, 101, vec![with_volume(9, 70)]))),
        (330, In(exited(8, 1))),
        (340, In(started(9, 1))),
        (350, In(intent(1, 102, vec![with_volume(9, 70), with_read_volume(10, 70)]))),
        (360, In(image(10))),
        (600, Tick),
    ]);
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 prepare #8
        10 prepare #9
        10 report [#7 100000001 Pending waiting:ContainerCreating x0] [#8 100000002 Pending waiting:ContainerCreating x0] [#9 100000003 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        40 persist #8 instance 1
        40 start #8 instance 1
        60 note: guest of pod #7 failed: GuestDied; next attempt in 10000 ms
        300 note: guest of pod #8 is not intended and is stopped
        300 clean #7 keep_logs false
        300 kill #8/1
        300 report [#7 100000004 Pending GuestDied restarts 1 waiting:GuestDied x0] [#8 100000005 Pending waiting:ContainerCreating x0] [#9 100000006 Pending WaitingForVolume waiting:ContainerCreating x0]
        330 clean #8 keep_logs false
        330 persist #9 instance 1
        330 start #9 instance 1
        350 prepare #10
        350 report [#10 100000007 Pending waiting:ContainerCreating x0]
        500 report [#9 100000008 Pending waiting:ContainerCreating x0]
        550 report [#10 100000009 Pending WaitingForVolume waiting:ContainerCreating x0]
    "#]],
    );
}

#[test]
fn what_is_only_read_is_copied_beside_its_guests() {
    let mut steps = begin(vec![with_read_volume(7, 70)]);
    let copy = order(3, VolumeTask::Snapshot, 30, 70);
    // Its guest has not even spoken: nobody writes, so that nobody need stand still.
    steps.extend([(20, In(image(7))), (30, ordering(101, vec![with_read_volume(7, 70)], &[copy]))]);
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1
        30 snapshot [70, 30] to 5 for #3
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

/// A retained volume: nothing is done with it while no claim has it, it is given to a pod of another claim as it is, and goes when
/// its PersistentVolume (another object than the claim was) is to be deleted, after its guest.
#[test]
fn a_retained_volume_stays_until_its_own_object_goes() {
    let used = |id| {
        let mut pod = with_volume(id, 70);
        pod.claims[0].claim_name = "again".into();
        pod.claims[0].used = true;
        pod
    };
    let mut steps = begin(vec![with_volume(7, 70)]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (40, In(hello(7, 1))),
        (50, deleting_volumes(101, vec![], &[])),
        (60, In(exited(7, 1))),
        (10_000, Tick),
        (10_010, deleting_volumes(102, vec![used(8)], &[])),
        (10_020, In(image(8))),
        (10_030, In(started(8, 1))),
        (10_040, In(hello(8, 1))),
        (10_050, deleting_volumes(103, vec![], &[(9, 70)])),
        (10_060, In(exited(8, 1))),
        (10_070, In(Input::VolumeDeleted { claim: ObjectId(9) })),
        (10_080, deleting_volumes(104, vec![], &[])),
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
        60 clean #7 keep_logs false
        210 report [#7 100000002 Pending waiting:ContainerCreating x0]
        10010 prepare #8
        10010 report [#8 100000003 Pending waiting:ContainerCreating x0]
        10020 persist #8 instance 1
        10020 start #8 instance 1
        10050 note: guest of pod #8 is not intended and is stopped
        10050 stop #8/1 grace 30000
        10060 clean #8 keep_logs false
        10060 clean #7 keep_logs false
        10060 delete volume 70 of #9
        10070 report #9 deleted
    "#]],
    );
}

#[test]
fn an_agent_that_restarts_knows_who_has_a_volume() {
    let mut first = Agent::new(config());
    let inputs = [recovered(), joined(1), intent(1, 100, vec![with_volume(7, 70)]), image(7)];
    let vm = left(last_record(feed(&mut first, 10, inputs)), true);
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

/// An intent with orders about volumes.
fn ordering(generation: u64, pods: Vec<bulkhead_types::PodIntent>, orders: &[VolumeOrder]) -> Step {
    let In(Input::Intent(mut intent)) = deleting_volumes(generation, pods, &[]) else { panic!("an intent") };
    intent.volume_orders = orders.to_vec();
    In(Input::Intent(intent))
}

fn order(id: u64, task: VolumeTask, volume: u128, source: u128) -> VolumeOrder {
    let (volume, source) = (uuid::Uuid::from_u128(volume), uuid::Uuid::from_u128(source));
    VolumeOrder { id: ObjectId(id), task, volume, source, size_bytes: 5 }
}

fn answer(id: u64, task: VolumeTask, done: bool, message: &str) -> Step {
    let size_bytes = if message.is_empty() { 5 } else { 0 };
    let result = VolumeResult { id: ObjectId(id), task, size_bytes, done, message: message.into() };
    In(Input::VolumeTask(result))
}

#[test]
fn a_copy_is_of_one_moment() {
    let snapshot = order(3, VolumeTask::Snapshot, 30, 70);
    let mut steps = begin(vec![]);
    steps.extend([
        // Nobody has the volume: while it is copied nobody gets it.
        (20, ordering(101, vec![with_volume(7, 70)], &[snapshot])),
        (30, In(image(7))),
        (300, Tick),
        (310, answer(3, VolumeTask::Snapshot, true, "")),
        (320, In(started(7, 1))),
        // A guest that begins is waited for, then asked.
        (330, ordering(102, vec![with_volume(7, 70)], &[order(4, VolumeTask::Clone, 40, 70)])),
        (340, Tick),
        (350, In(hello(7, 1))),
        (360, answer(4, VolumeTask::Clone, false, "no room")),
        (370, answer(4, VolumeTask::Clone, true, "nobody asked")),
        (11_000, Tick),
        // What is not wanted any more is not told; what is wanted instead is begun after the answer.
        (11_010, ordering(103, vec![with_volume(7, 70)], &[order(4, VolumeTask::Expand, 40, 0)])),
        (11_020, answer(4, VolumeTask::Clone, true, "")),
        (11_030, ordering(104, vec![with_volume(7, 70)], &[])),
        (11_040, answer(4, VolumeTask::Expand, true, "")),
        (15_000, Tick),
    ]);
    check(
        steps,
        expect![[r#"
        0 join
        20 snapshot [70, 30] to 5 for #3
        20 prepare #7
        20 report [#7 100000001 Pending waiting:ContainerCreating x0]
        220 report [#7 100000002 Pending WaitingForVolume waiting:ContainerCreating x0]
        310 persist #7 instance 1
        310 start #7 instance 1
        310 report #3 snapshot done 5
        350 clone [70, 40] to 5 for #4 in guest #7/1
        360 report #4 clone not done 0 no room
        420 report [#7 100000003 Pending waiting:ContainerCreating x0]
        10360 clone [70, 40] to 5 for #4 in guest #7/1
        11020 expand [0, 40] to 5 for #4
    "#]],
    );
}

#[test]
fn a_file_grows_at_once_and_its_file_system_in_a_guest() {
    let expand = order(1, VolumeTask::Expand, 70, 0);
    let mut steps = begin(vec![]);
    steps.extend([
        (20, ordering(101, vec![], &[expand])),
        (30, answer(1, VolumeTask::Expand, false, "")),
        (400, ordering(102, vec![with_volume(7, 70)], &[expand])),
        (410, In(image(7))),
        (420, In(started(7, 1))),
        (430, In(hello(7, 1))),
        (440, answer(1, VolumeTask::Expand, true, "")),
        (450, ordering(103, vec![with_volume(7, 70)], &[])),
        (9_000, Tick),
    ]);
    check(
        steps,
        expect![[r#"
        0 join
        20 expand [0, 70] to 5 for #1
        30 report #1 expand not done 5
        400 prepare #7
        400 report [#7 100000001 Pending waiting:ContainerCreating x0]
        410 persist #7 instance 1
        410 start #7 instance 1
        430 expand [0, 70] to 5 for #1 in guest #7/1
        440 report #1 expand done 5
        600 report [#7 100000002 Pending waiting:ContainerCreating x0]
    "#]],
    );
}

/// What is in a pod's way now is said, also where that has the same name as what was before.
#[test]
fn who_waits_for_a_volume_says_what_for() {
    let mut agent = Agent::new(config());
    let up = [
        recovered(),
        joined(1),
        intent(1, 100, vec![with_volume(7, 70)]),
        image(7),
        started(7, 1),
        hello(7, 1),
    ];
    feed(&mut agent, 1_000, up);
    let said = |agent: &Agent| {
        let (_, status, _) = agent.pods().find(|(id, ..)| *id == ObjectId(8)).expect("there");
        (status.reason.to_string(), status.message)
    };
    let other = vec![deleting(with_volume(7, 70), 5_000), with_volume(8, 70)];
    feed(&mut agent, 1_000, [intent(1, 101, other), image(8)]);
    let (reason, message) = said(&agent);
    assert_eq!((reason.as_str(), message.contains("another guest")), ("WaitingForVolume", true), "{message}");
    let copy = [order(3, VolumeTask::Snapshot, 30, 70)];
    let In(copied) = ordering(102, vec![with_volume(8, 70)], &copy) else { panic!("an intent") };
    feed(&mut agent, 1_000, [copied, exited(7, 1)]);
    let (reason, message) = said(&agent);
    assert_eq!(
        (reason.as_str(), message.contains("is being copied")),
        ("WaitingForVolume", true),
        "{message}"
    );
}
