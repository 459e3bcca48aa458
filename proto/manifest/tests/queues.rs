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
        expect![[r#"
            a.yaml:4:19 spec.minMember: 0 is out of range: must be between 1 and 1024
            a.yaml:4:41 spec.minTaskMember[a]: must be a whole number from 1 to 1024
            a.yaml:4:47 spec.minTaskMember[b]: must be a whole number from 1 to 1024
            a.yaml:4:74 spec.minResources[cpu]: "many" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
            a.yaml:4:80 spec.minResources[limits.cpu]: is not counted here: use cpu, memory, ephemeral-storage, pods, or the name of a device resource
            a.yaml:4:95 spec.minResources[gpu]: is no resource: use cpu, memory, ephemeral-storage, pods, or the name of a device resource such as nvidia.com/gpu
            a.yaml:4:111 spec.queue: name "A_B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:4:116 spec.minMembers: unknown field: did you mean "minMember"?
            a.yaml:4:131 spec.scheduleTimeoutSeconds: must be from 1 to 86400
        "#]],
    );
    check_spec(
        "Queue",
        "q",
        "{weight: 0, capability: {pods: -1, services: 1}, reclaimable: true, state: Shut, guarantee: {}}",
        expect![[r#"
            a.yaml:4:16 spec.weight: 0 is out of range: must be between 1 and 65536
            a.yaml:4:38 spec.capability[pods]: "-1" is negative: a quantity must be zero or more
            a.yaml:4:42 spec.capability[services]: is no resource: use cpu, memory, ephemeral-storage, pods, or the name of a device resource such as nvidia.com/gpu
            a.yaml:4:69 spec.reclaimable: is not offered: queues do not take back what others have; leave it out, or say false
            a.yaml:4:82 spec.state: "Shut" is not one of Open, Closed
        "#]],
    );
    check_spec(
        "Queue",
        "default",
        "{capability: {cpu: 1}, state: Closed}",
        expect![[r#"
        a.yaml:4:8 spec.capability: must not be set: all pods that name no queue are of the queue default
        a.yaml:4:30 spec.state: must not be set: all pods that name no queue are of the queue default
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {scheduling.k8s.io/group-name: A b, scheduling.volcano.sh/queue-name: c_}}\nspec: {containers: [{name: c, image: i}]}\n",
        expect![[r#"
            a.yaml:3:35 metadata.annotations[scheduling.k8s.io/group-name]: name "A b" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:3:70 metadata.annotations[scheduling.volcano.sh/queue-name]: name "c_" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
        "#]],
    );
}
