//! Manifests of autoscalers: what is read, what is printed, and what is refused where.

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{
    HorizontalPodAutoscaler, Kind, MeasuredResource, MetricTarget, Name, Object, ObjectId, PolicyUnit,
    ScalingRules, validate,
};
use expect_test::{Expect, expect};
use uuid::Uuid;

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

const NAMES: Names<'static> = Names { cluster_id: Some(Uuid::nil()), name_of: &no_name };

fn read(text: &str) -> Object {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    let mut parsed = parse(&[source], Some(&namespace)).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert_eq!(parsed.len(), 1, "{text}");
    parsed.remove(0).object
}

/// What is printed is read as the same object.
fn check_round_trip(text: &str) -> Object {
    let object = read(text);
    assert_eq!(validate(&object), Vec::new());
    assert_eq!(read(&to_yaml(&object, NAMES)), object);
    object
}

fn autoscaler(text: &str) -> HorizontalPodAutoscaler {
    match check_round_trip(text) {
        Object::HorizontalPodAutoscaler(autoscaler) => (*autoscaler).clone(),
        other => panic!("an autoscaler, not {other:?}"),
    }
}

fn manifest(spec: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: x, namespace: default}}\nspec:\n{spec}"
    )
}

const TARGET: &str = "  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n";

fn check(spec: &str, expected: Expect) {
    let source = Source { name: "a.yaml".to_owned(), text: manifest(spec) };
    let found: String = match parse(&[source], None) {
        Ok(_) => "accepted\n".to_owned(),
        Err(errors) => errors.iter().map(|error| format!("{error}\n")).collect(),
    };
    expected.assert_eq(&found);
}

#[test]
fn the_example_is_read_whole() {
    let example = autoscaler(include_str!("../../../examples/autoscaler.yaml"));
    assert_eq!(example.warm_up_ms(), 20_000);
    let spec = &example.spec;
    assert_eq!((spec.target.kind, spec.target.name.as_str()), (Kind::Deployment, "web"));
    assert_eq!((spec.min_replicas, spec.max_replicas), (2, 10));
    assert_eq!(spec.metrics[0].target, MetricTarget::Utilization(50));
    assert_eq!(spec.metrics[1].container.as_deref(), Some("web"));
    assert_eq!(spec.metrics[1].target, MetricTarget::AverageValue(48 << 20));
    assert_eq!(spec.scale_up, ScalingRules::scale_up_default());
    assert_eq!(spec.scale_down.stabilization_window_ms, 60_000);
    assert_eq!((spec.scale_down.policies[0].unit, spec.scale_down.policies[0].value), (PolicyUnit::Pods, 1));
}

#[test]
fn what_is_left_out_is_kubernetes_default() {
    let spec = autoscaler(&manifest(&format!("{TARGET}  maxReplicas: 3\n"))).spec;
    assert_eq!((spec.min_replicas, spec.max_replicas), (1, 3));
    assert_eq!(
        (spec.metrics[0].resource, spec.metrics[0].target),
        (MeasuredResource::Cpu, MetricTarget::Utilization(80))
    );
    assert_eq!(spec.scale_down, ScalingRules::scale_down_default());
}

#[test]
fn mistakes_are_named_where_they_are() {
    check(
        "  maxReplicas: 3\n",
        expect![[r#"
            a.yaml:5:3 spec.scaleTargetRef: is required
        "#]],
    );
    check(
        &format!("{TARGET}  minReplicas: 5\n  maxReplicas: 3\n"),
        expect![[r#"
            a.yaml:7:3 spec.maxReplicas: must be at least minReplicas (5)
        "#]],
    );
    check(
        &format!("{TARGET}  minReplicas: 0\n  maxReplicas: 3\n"),
        expect![[r#"
            a.yaml:6:3 spec.minReplicas: must be at least 1: figures of no pods say nothing
        "#]],
    );
    let target = "  scaleTargetRef: {apiVersion: apps/v1, kind: DaemonSet, name: web}\n  maxReplicas: 3\n";
    check(
        target,
        expect![[r#"
            a.yaml:5:41 spec.scaleTargetRef.kind: must be one of Deployment, StatefulSet, not DaemonSet
        "#]],
    );
    let external = "  maxReplicas: 3\n  metrics:\n  - {type: External, external: {metric: {name: queue}}}\n";
    check(
        &format!("{TARGET}{external}"),
        expect![[r#"
            a.yaml:8:12 spec.metrics[0].type: External metrics are not supported: nothing is set up that they could be read from; there are Resource and ContainerResource, which agents measure
        "#]],
    );
    let amounts = "  maxReplicas: 3\n  metrics:\n  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0}}}\n  - {type: Resource, resource: {name: gpu, target: {type: AverageValue, averageValue: x}}}\n";
    check(
        &format!("{TARGET}{amounts}"),
        expect![[r#"
            a.yaml:9:39 spec.metrics[1].resource.name: "gpu" is not one of cpu, memory
        "#]],
    );
    let behavior = "  maxReplicas: 3\n  behavior: {scaleUp: {stabilizationWindowSeconds: 4000, policies: [{type: Pods, value: 0, periodSeconds: 9999}]}}\n";
    check(
        &format!("{TARGET}{behavior}"),
        expect![[r#"
            a.yaml:7:24 spec.behavior.scaleUp.stabilizationWindowSeconds: must be at most 3600
            a.yaml:7:82 spec.behavior.scaleUp.policies[0].value: must be at least 1
            a.yaml:7:92 spec.behavior.scaleUp.policies[0].periodSeconds: must be between 1 and 1800
        "#]],
    );
}
