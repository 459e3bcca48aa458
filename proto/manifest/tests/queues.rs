//! Manifests of PodGroups and Queues: what is read, what is printed, and what is refused where.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{Measure, Object, QueueState};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/pod-group.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [Object::Queue(queue), Object::PodGroup(group), Object::Job(_), Object::Job(_)] = &objects[..] else {
        panic!("a queue, a group and two jobs, not {objects:?}")
    };
    assert_eq!((queue.spec.weight, queue.spec.state), (2, QueueState::Open));
    let gpu = Measure::Extended("nvidia.com/gpu".into());
    assert_eq!(queue.spec.capability.of(&gpu), Some(16));
    assert_eq!((group.spec.min_member, group.spec.queue.as_str()), (3, "research"));
    assert_eq!(group.spec.min_resources.of(&Measure::RequestsCpu), Some(2500));
    assert_eq!(group.spec.schedule_timeout_ms, Some(600_000));
}

#[test]
fn what_is_not_said_has_volcanos_defaults() {
    let bare = "apiVersion: scheduling.volcano.sh/v1beta1\nkind: PodGroup\nmetadata: {name: g}\nspec: {}\n";
    let [Object::PodGroup(group)] = &read(bare)[..] else { panic!("a group") };
    assert_eq!((group.spec.min_member, group.spec.queue.as_str()), (1, "default"));
    let bare = "apiVersion: scheduling.volcano.sh/v1beta1\nkind: Queue\nmetadata: {name: q}\nspec: {reclaimable: false}\n";
    let [Object::Queue(queue)] = &read(bare)[..] else { panic!("a queue") };
    assert_eq!((queue.spec.weight, queue.spec.state), (1, QueueState::Open));
}

#[track_caller]
fn check_spec(kind: &str, name: &str, spec: &str, expected: Expect) {
    let head =
        format!("apiVersion: scheduling.volcano.sh/v1beta1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
    check(&format!("{head}spec: {spec}\n"), expected);
}

#[test]
fn mistakes_are_told_with_their_places() {
    check_spec(
        "PodGroup",
        "g",
        "{minMember: 0, minTaskMember: {a: x, b: 2000}, minResources: {cpu: many, limits.cpu: 1, gpu: 1}, queue: A_B, minMembers: 1, scheduleTimeoutSeconds: 0}",
        expect![[""]],
    );
    check_spec(
        "Queue",
        "q",
        "{weight: 0, capability: {pods: -1, services: 1}, reclaimable: true, state: Shut, guarantee: {}}",
        expect![[""]],
    );
    check_spec("Queue", "default", "{capability: {cpu: 1}, state: Closed}", expect![[""]]);
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {scheduling.k8s.io/group-name: A b, scheduling.volcano.sh/queue-name: c_}}\nspec: {containers: [{name: c, image: i}]}\n",
        expect![[""]],
    );
}
