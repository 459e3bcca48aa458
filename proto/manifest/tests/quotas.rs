//! Manifests of quotas and LimitRanges: what is read, what is printed, and what is refused where.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{BuiltinClass, Measure, Object};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/quota.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [
        Object::Department(department),
        Object::Project(project),
        Object::Namespace(_),
        Object::ResourceQuota(quota),
        Object::LimitRange(limits),
    ] = &objects[..]
    else {
        panic!("one of each level, and bounds, not {objects:?}")
    };
    assert_eq!(department.spec.hard.of(&Measure::RequestsCpu), Some(40_000));
    assert_eq!(project.spec.department.as_ref().map(|name| name.as_str()), Some("sales"));
    assert_eq!(quota.spec.hard.of(&Measure::RequestsMemory), Some(40 << 30));
    assert_eq!(quota.spec.hard.of(&Measure::ClassStorage(BuiltinClass::Local)), Some(500 << 30));
    assert_eq!(limits.spec.limits[0].max_limit_request_ratio.cpu, Some(10_000));
    assert_eq!(limits.spec.limits[1].min.storage_bytes, Some(1 << 30));
}

#[test]
fn names_stay_as_they_are_written() {
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\nspec: {hard: {cpu: 1, requests.cpu: 500m}}\n";
    let [Object::ResourceQuota(quota)] = &read(quota)[..] else { panic!("a quota") };
    let names: Vec<String> = quota.spec.hard.iter().map(|(resource, _)| resource.name()).collect();
    assert_eq!(names, ["requests.cpu", "cpu"]);
    assert_eq!(quota.spec.hard.of(&Measure::RequestsCpu), Some(500));
}

#[track_caller]
fn check_quota(spec: &str, expected: Expect) {
    check(&format!("apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: q}}\nspec: {spec}\n"), expected);
}

#[track_caller]
fn check_limits(items: &str, expected: Expect) {
    let limits =
        format!("apiVersion: v1\nkind: LimitRange\nmetadata: {{name: q}}\nspec: {{limits: {items}}}\n");
    check(&limits, expected);
}

#[test]
fn mistakes_of_quotas_are_told_with_their_places() {
    check_quota(
        "{hard: {services: 1, pods: -1, requests.cpu: many, count/nodes: 2}}",
        expect![[r#"
            a.yaml:4:15 spec.hard[services]: "services" is not counted by quotas; there are cpu, memory, ephemeral-storage, configmaps, secrets, resourcequotas, requests.cpu, requests.memory, requests.ephemeral-storage, limits.cpu, limits.memory, limits.ephemeral-storage, requests.storage, persistentvolumeclaims, pods, CLASS.storageclass.storage.k8s.io/requests.storage, CLASS.storageclass.storage.k8s.io/persistentvolumeclaims (classes local and local-retain, and StorageClasses), count/PLURAL.GROUP of namespaced kinds, such as count/deployments.apps, hugepages-2Mi, hugepages-1Gi, and requests.RESOURCE of devices, such as requests.nvidia.com/gpu
            a.yaml:4:34 spec.hard[pods]: "-1" is negative: a quantity must be zero or more
            a.yaml:4:52 spec.hard[requests.cpu]: "many" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
            a.yaml:4:58 spec.hard[count/nodes]: "count/nodes" is not counted by quotas; there are cpu, memory, ephemeral-storage, configmaps, secrets, resourcequotas, requests.cpu, requests.memory, requests.ephemeral-storage, limits.cpu, limits.memory, limits.ephemeral-storage, requests.storage, persistentvolumeclaims, pods, CLASS.storageclass.storage.k8s.io/requests.storage, CLASS.storageclass.storage.k8s.io/persistentvolumeclaims (classes local and local-retain, and StorageClasses), count/PLURAL.GROUP of namespaced kinds, such as count/deployments.apps, hugepages-2Mi, hugepages-1Gi, and requests.RESOURCE of devices, such as requests.nvidia.com/gpu
        "#]],
    );
    check_quota(
        "{scopes: [Terminating], scopeSelector: {}, hard: []}",
        expect![[r#"
        a.yaml:4:16 spec.scopes: is not offered: a quota counts all objects of its namespace; use another namespace for others
        a.yaml:4:46 spec.scopeSelector: is not offered: a quota counts all objects of its namespace; use another namespace for others
        a.yaml:4:56 spec.hard: expected a map of quantities, found a list
    "#]],
    );
    check(
        "apiVersion: bulkhead.io/v1\nkind: Project\nmetadata: {name: p}\nspec: {department: A_B, hart: {}}\n",
        expect![[r#"
            a.yaml:4:20 spec.department: name "A_B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:4:25 spec.hart: unknown field: did you mean "hard"?
        "#]],
    );
}

#[test]
fn mistakes_of_limit_ranges_are_told_with_their_places() {
    check_limits(
        "[]",
        expect![[r#"
        a.yaml:4:8 spec.limits: is required: at least one item
    "#]],
    );
    check_limits(
        "[{type: Container}, {min: {cpu: 1}}, {type: Nobody}]",
        expect![[r#"
        a.yaml:4:36 spec.limits[1].type: is required
        a.yaml:4:60 spec.limits[2].type: "Nobody" is not one of Container, Pod, PersistentVolumeClaim
    "#]],
    );
    check_limits(
        "[{type: Container, min: {cpu: 2}, defaultRequest: {cpu: 1}, default: {memory: 2Gi}, max: {cpu: 1, memory: 1Gi}}]",
        expect![[r#"
            a.yaml:4:41 spec.limits[0].min[cpu]: is 2, above defaultRequest, which is 1
            a.yaml:4:86 spec.limits[0].default[memory]: is 2Gi, above max, which is 1Gi
        "#]],
    );
    check_limits(
        "[{type: Container, default: {cpu: 1}, defaultRequest: {cpu: 2}, maxLimitRequestRatio: {cpu: 500m}}]",
        expect![[r#"
            a.yaml:4:71 spec.limits[0].defaultRequest[cpu]: is 2, above default, which is 1
            a.yaml:4:103 spec.limits[0].maxLimitRequestRatio[cpu]: must be at least 1: no limit is below its request
        "#]],
    );
    check_limits(
        "[{type: Pod, default: {cpu: 1}, min: {storage: 1Gi}, max: {gpu: 1}}]",
        expect![[r#"
        a.yaml:4:29 spec.limits[0].default: must not be set: a Pod has no defaults, its containers have
        a.yaml:4:54 spec.limits[0].min[storage]: is not of a Pod: use type PersistentVolumeClaim
        a.yaml:4:75 spec.limits[0].max.gpu: unknown field: did you mean "cpu"?
    "#]],
    );
    check_limits(
        "[{type: PersistentVolumeClaim, min: {storage: 2Gi, cpu: 1}, max: {storage: 1Gi}, maxLimitRequestRatio: {cpu: 2}}]",
        expect![[r#"
            a.yaml:4:47 spec.limits[0].min: of a PersistentVolumeClaim bounds storage only
            a.yaml:4:53 spec.limits[0].min[storage]: is 2Gi, above max, which is 1Gi
            a.yaml:4:97 spec.limits[0].maxLimitRequestRatio: must not be set: claims have no limits
        "#]],
    );
}
