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
            a.yaml:4:95 spec.minResources[gpu]: is no resource: use cpu, memory, ephemeral-storage, pods, hugepages-2Mi, hugepages-1Gi, or the name of a device resource such as nvidia.com/gpu
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
            a.yaml:4:42 spec.capability[services]: is no resource: use cpu, memory, ephemeral-storage, pods, hugepages-2Mi, hugepages-1Gi, or the name of a device resource such as nvidia.com/gpu
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

const TREE: &str = include_str!("../../../examples/elastic-quota.yaml");

#[test]
fn the_example_of_an_elastic_quota_tree_is_read_and_written() {
    let objects = read(TREE);
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let Some(Object::ElasticQuotaTree(tree)) = objects.last() else { panic!("a tree") };
    let levels = tree.spec.root.levels().map(|(depth, level)| {
        let amounts = |amounts: &bulkhead_types::QuotaAmounts| {
            let shown = amounts.iter().map(|(resource, amount)| format!("{resource}={amount}"));
            shown.collect::<Vec<_>>().join(" ")
        };
        let of: Vec<_> = level.namespaces.iter().map(|name| name.as_str()).collect();
        format!(
            "{depth} {}: {} | {} | {}",
            level.name,
            amounts(&level.min),
            amounts(&level.max),
            of.join(" ")
        )
    });
    expect![[r#"
        0 root: cpu=40000 requests.nvidia.com/gpu=4 | cpu=40000 requests.nvidia.com/gpu=4 | 
        1 root.training: cpu=10000 requests.nvidia.com/gpu=1 | cpu=30000 requests.nvidia.com/gpu=4 | training
        1 root.inference: cpu=20000 requests.nvidia.com/gpu=2 | cpu=40000 | inference"#]]
    .assert_eq(&levels.collect::<Vec<_>>().join("\n"));
}

#[test]
fn mistakes_in_elastic_quota_trees_are_told_with_their_places() {
    let changed = |from: &str, to: &str| TREE.replacen(from, to, 1);
    check(
        &changed("namespace: kube-system", "namespace: training"),
        expect![[r#"
        a.yaml:22:3 metadata.namespace: must be kube-system: an ElasticQuotaTree counts nowhere else
    "#]],
    );
    check(
        &changed("        max:\n          cpu: 30", "        max:\n          cpu: 5"),
        expect![[r#"
        a.yaml:37:9 spec.root.children[0].min[requests.cpu]: must not be above the max
    "#]],
    );
    check(
        &changed("        min:\n          cpu: 20", "        min:\n          cpu: 31"),
        expect![[r#"
        a.yaml:29:5 spec.root.min: of the levels below are 41 of requests.cpu together, which is above this level's min of 40
    "#]],
    );
    check(
        &changed("    min:\n      cpu: 40", "    min:\n      cpu: 39"),
        expect![[r#"
        a.yaml:29:5 spec.root.min: of the root must be its max
    "#]],
    );
    check(
        &changed("name: root.inference", "name: root.training"),
        expect![[r#"
        a.yaml:42:9 spec.root.children[1].name: is the name of another level of the tree already
    "#]],
    );
    check(
        &changed("          - inference", "          - training"),
        expect![[r#"
        a.yaml:49:13 spec.root.children[1].namespaces[0]: is of a level of the tree already
    "#]],
    );
    check(
        &changed("    name: root\n", "    name: root\n    namespaces: [default]\n"),
        expect![[r#"
        a.yaml:26:5 spec.root.namespaces: must not be set: only a level without children has namespaces
    "#]],
    );
    check(
        &changed("        max:\n          cpu: 40", "        max:\n          cpu: 40\n          memory: 1Gi"),
        expect![[r#"
            a.yaml:45:11 spec.root.children[1].max[memory]: is not counted: the max of the root does not name it
        "#]],
    );
    check(
        &changed("        max:\n          cpu: 40", "        max:\n          limits.cpu: 40"),
        expect![[r#"
            a.yaml:44:11 spec.root.children[1].max[limits.cpu]: is not counted here: use cpu, memory, ephemeral-storage, pods, or the name of a device resource
        "#]],
    );
    check(
        &changed("    children:", "    childs:"),
        expect![[r#"
        a.yaml:32:5 spec.root.childs: unknown field
    "#]],
    );
}
