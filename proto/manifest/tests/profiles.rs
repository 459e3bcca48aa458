//! Manifests of Profiles and PriorityClasses: what is read, what is printed, and what is refused where.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{Object, PreemptionPolicy, RequestFromLimit};
use expect_test::expect;
use kit::{NAMES, check, read};

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/profile.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [Object::PriorityClass(batch), Object::PriorityClass(usual), Object::Profile(profile)] = &objects[..]
    else {
        panic!("two classes and a profile, not {objects:?}")
    };
    assert_eq!((batch.value, batch.preemption_policy), (-100, Some(PreemptionPolicy::Never)));
    assert_eq!((usual.value, usual.global_default, usual.preemption_policy), (1000, true, None));
    let [overcommit, batch] = &profile.spec.rules[..] else { panic!("two rules") };
    let share = RequestFromLimit { cpu_percent: Some(50), memory_percent: Some(80) };
    assert_eq!(overcommit.effect.request_from_limit, share);
    assert_eq!(batch.effect.priority_class_name.as_deref(), Some("batch"));
    assert_eq!(batch.effect.tolerations.len(), 1);
}

#[test]
fn a_pod_names_its_class() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  priorityClassName: high\n  containers: [{name: c, image: 'i:1'}]\n";
    let objects = read(pod);
    assert_eq!(read(&to_yaml(&objects[0], NAMES)), objects);
    let Object::Pod(pod) = &objects[0] else { panic!("a pod") };
    assert_eq!(pod.spec.priority_class().map(|class| class.as_str()), Some("high"));
    assert_eq!(
        bulkhead_types::Command::Create(objects[0].clone()).feature_level(),
        bulkhead_types::POLICY_LEVEL
    );
}

#[test]
fn mistakes_are_told_with_their_places() {
    check(
        "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: system-x}\nvalue: 1000000001\npreemptionPolicy: PreemptLowerPriority\n",
        expect![[r#"
            a.yaml:3:12 metadata.name: must not begin with "system-": such classes are the system's own
            a.yaml:4:1 value: must be at most 1000000000: above are the system's own
        "#]],
    );
    check(
        "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: x}\npreemptionPolicy: Sometimes\nspec: {}\n",
        expect![[r#"
            a.yaml:1:1 value: is required
            a.yaml:4:19 preemptionPolicy: "Sometimes" is not one of Never, PreemptLowerPriority
            a.yaml:5:1 spec: unknown field
        "#]],
    );
    check(
        "apiVersion: bulkhead.io/v1\nkind: Profile\nmetadata: {name: x}\nspec: {rules: []}\n",
        expect![[r#"
            a.yaml:4:8 spec.rules: is required: at least one rule
        "#]],
    );
    check(
        "apiVersion: bulkhead.io/v1\nkind: Profile\nmetadata: {name: x}\nspec:\n  rules:\n  \
         - {name: a, objectSelector: {}, effect: {requestFromLimit: {cpuPercent: 0, memoryPercent: 101}}}\n  \
         - {name: b, namespaceSelector: {}}\n  \
         - {name: c, namespaceSelector: {}, effect: {runtimeClassName: rune}}\n",
        expect![[r#"
            a.yaml:6:75 spec.rules[0].effect.requestFromLimit.cpuPercent: 0 is out of range: must be between 1 and 100
            a.yaml:6:93 spec.rules[0].effect.requestFromLimit.memoryPercent: 101 is out of range: must be between 1 and 100
            a.yaml:7:5 spec.rules[1].effect: is required
            a.yaml:8:47 spec.rules[2].effect.runtimeClassName: unknown field
        "#]],
    );
    check(
        "apiVersion: bulkhead.io/v1\nkind: Profile\nmetadata: {name: x}\nspec:\n  rules:\n  \
         - {name: A, effect: {labels: {'-': x}}}\n  \
         - {name: b, objectSelector: {}, effect: {}}\n  \
         - {name: b, objectSelector: {}, effect: {nodeSelector: {a: b}}}\n  \
         - {name: d, namespaceSelector: {}, effect: {priorityClassName: A_B, tolerations: [{operator: Equal}]}}\n",
        expect![[r#"
            a.yaml:6:5 spec.rules[0]: needs a namespaceSelector or an objectSelector: an empty one matches everything
            a.yaml:6:6 spec.rules[0].name: name "A" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:6:33 spec.rules[0].effect.labels[-]: label key "-" is invalid: the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
            a.yaml:7:35 spec.rules[1].effect: is required: what the pods get
            a.yaml:8:6 spec.rules[2].name: repeats "b"
            a.yaml:9:47 spec.rules[3].effect.priorityClassName: name "A_B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:9:86 spec.rules[3].effect.tolerations[0].operator: must be Exists when key is empty
        "#]],
    );
}
