//! Manifests of ElasticWorkloads: the example, there and back, and what is wrong with others.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{Command, DELIVERY_LEVEL, ElasticBounds, Object};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

/// What is wrong with a workload of this spec.
fn check_spec(spec: &str, expected: Expect) {
    let text = format!(
        "apiVersion: autoscaling.alibabacloud.com/v1beta1\nkind: ElasticWorkload\nmetadata: {{name: web}}\nspec:\n{spec}"
    );
    check(&text, expected);
}

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/elastic-workload.yaml"));
    assert_eq!(read(&to_yaml(&objects[0], NAMES)), objects);
    let object = objects[0].clone();
    assert_eq!(Command::Create(object.clone()).feature_level(), DELIVERY_LEVEL);
    let Object::ElasticWorkload(workload) = object else { panic!("an ElasticWorkload") };
    assert_eq!(workload.spec.source.bounds, ElasticBounds { min: 2, max: Some(4) });
    assert_eq!(workload.spec.sizes(), [4, 2, 0]);
    assert_eq!(workload.spec.capacity(), None);
}

#[test]
fn mistakes_are_told_with_their_places() {
    check_spec(
        "  sourceTarget: {kind: StatefulSet, name: web, min: 3, max: 2}\n  replicas: 9\n  elasticUnit:\n  - {name: Spot, max: 1, affinity: {a: b}}\n  - {name: x, max: 1, labels: {bulkhead.io/elastic-unit: y}}\n  - {name: x, max: 1}\n",
        expect![[r#"
            a.yaml:5:24 spec.sourceTarget.kind: must be Deployment, not StatefulSet
            a.yaml:5:56 spec.sourceTarget.max: must be at least min (3)
            a.yaml:6:3 spec.replicas: must be at most 5: the source and the units together hold no more
            a.yaml:8:6 spec.elasticUnit[0].name: name "Spot" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:8:26 spec.elasticUnit[0].affinity: not supported yet
            a.yaml:9:32 spec.elasticUnit[1].labels[bulkhead.io/elastic-unit]: is set to the unit's name
            a.yaml:10:6 spec.elasticUnit[2].name: repeats "x"
        "#]],
    );
    check_spec(
        "  replicas: 1\n",
        expect![[r#"
        a.yaml:5:3 spec.sourceTarget: is required
    "#]],
    );
}
