//! Manifests of quotas and LimitRanges: what is read, what is printed, and what is refused where.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{Measure, Object, StorageClass};
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
    assert_eq!(department.spec.hard.of(Measure::RequestsCpu), Some(40_000));
    assert_eq!(project.spec.department.as_ref().map(|name| name.as_str()), Some("sales"));
    assert_eq!(quota.spec.hard.of(Measure::RequestsMemory), Some(40 << 30));
    assert_eq!(quota.spec.hard.of(Measure::ClassStorage(StorageClass::Local)), Some(500 << 30));
    assert_eq!(limits.spec.limits[0].max_limit_request_ratio.cpu, Some(10_000));
    assert_eq!(limits.spec.limits[1].min.storage_bytes, Some(1 << 30));
}

#[test]
fn names_stay_as_they_are_written() {
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\nspec: {hard: {cpu: 1, requests.cpu: 500m}}\n";
    let [Object::ResourceQuota(quota)] = &read(quota)[..] else { panic!("a quota") };
    let names: Vec<String> = quota.spec.hard.iter().map(|(resource, _)| resource.name()).collect();
    assert_eq!(names, ["requests.cpu", "cpu"]);
    assert_eq!(quota.spec.hard.of(Measure::RequestsCpu), Some(500));
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
    check_quota("{hard: {services: 1, pods: -1, requests.cpu: many, count/nodes: 2}}", expect![[""]]);
    check_quota("{scopes: [Terminating], scopeSelector: {}, hard: []}", expect![[""]]);
    check(
        "apiVersion: bulkhead.io/v1\nkind: Project\nmetadata: {name: p}\nspec: {department: A_B, hart: {}}\n",
        expect![[""]],
    );
}

#[test]
fn mistakes_of_limit_ranges_are_told_with_their_places() {
    check_limits("[]", expect![[""]]);
    check_limits("[{type: Container}, {min: {cpu: 1}}, {type: Nobody}]", expect![[""]]);
    check_limits(
        "[{type: Container, min: {cpu: 2}, defaultRequest: {cpu: 1}, default: {memory: 2Gi}, max: {cpu: 1, memory: 1Gi}}]",
        expect![[""]],
    );
    check_limits(
        "[{type: Container, default: {cpu: 1}, defaultRequest: {cpu: 2}, maxLimitRequestRatio: {cpu: 500m}}]",
        expect![[""]],
    );
    check_limits("[{type: Pod, default: {cpu: 1}, min: {storage: 1Gi}, max: {gpu: 1}}]", expect![[""]]);
    check_limits(
        "[{type: PersistentVolumeClaim, min: {storage: 2Gi, cpu: 1}, max: {storage: 1Gi}, maxLimitRequestRatio: {cpu: 2}}]",
        expect![[""]],
    );
}
