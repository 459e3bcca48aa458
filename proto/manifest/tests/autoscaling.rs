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
fn the_example_of_queries_is_read_whole() {
    let example = autoscaler(include_str!("../../../examples/autoscaler-metrics.yaml"));
    let queries: Vec<_> = example.spec.metrics.iter().filter_map(|metric| metric.query.get()).collect();
    assert_eq!(
        queries.iter().map(|query| query.source.as_str()).collect::<Vec<_>>(),
        ["Pods", "Object", "External"]
    );
    assert_eq!(queries[1].object.as_ref().map(|object| object.kind.as_str()), Some("Service"));
    assert_eq!(queries[2].selector.match_labels.get("queue").map(|queue| queue.as_str()), Some("orders"));
    let targets: Vec<_> = example.spec.metrics.iter().map(|metric| metric.target).collect();
    use MetricTarget::{AverageValue, Value};
    assert_eq!(targets, [AverageValue(10_000), Value(250), AverageValue(30_000)]);
    let command = bulkhead_types::Command::Create(Object::HorizontalPodAutoscaler(example.into()));
    assert_eq!(command.feature_level(), bulkhead_types::POLICY_LEVEL);
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
            a.yaml:5:41 spec.scaleTargetRef.kind: must be one of Deployment, StatefulSet, ElasticWorkload, not DaemonSet
        "#]],
    );
    let queried = "  maxReplicas: 3\n  metrics:\n  - {type: External, external: {metric: {name: queue}}}\n  \
        - {type: Pods, object: {}, pods: {metric: {name: a}, target: {type: Value, value: x}}}\n  \
        - {type: Object, object: {metric: {name: a}, target: {type: Value, value: 1, averageValue: 1}}}\n";
    check(
        &format!("{TARGET}{queried}"),
        expect![[r#"
        a.yaml:8:32 spec.metrics[0].external.target: is required
        a.yaml:9:26 spec.metrics[1].object: must not be set: the type wants pods
        a.yaml:9:85 spec.metrics[1].pods.target.value: "x" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
        a.yaml:10:28 spec.metrics[2].object.describedObject: is required
    "#]],
    );
    let queried = "  maxReplicas: 3\n  metrics:\n  \
        - {type: External, external: {metric: {name: a-b, selector: {matchLabels: {a.b/c: d}}}, target: {type: Utilization, averageUtilization: 1}}}\n  \
        - {type: Pods, pods: {metric: {name: 1a}, target: {type: Value, value: 0}}}\n  \
        - {type: Resource, resource: {name: cpu, target: {type: Value, value: 1}}}\n";
    check(
        &format!("{TARGET}{queried}"),
        expect![[r#"
        a.yaml:8:42 spec.metrics[0].external.metric.name: must be at most 253 letters, digits, '_' and ':', and not begin with a digit: it is a name of the metrics endpoint
        a.yaml:8:53 spec.metrics[0].external.metric.selector: "a.b/c" is no label of a metric: letters, digits and '_' only
        a.yaml:8:100 spec.metrics[0].external.target.type: must be Value or AverageValue: there are no requests to take per cent of
        a.yaml:9:34 spec.metrics[1].pods.metric.name: must be at most 253 letters, digits, '_' and ':', and not begin with a digit: it is a name of the metrics endpoint
        a.yaml:9:54 spec.metrics[1].pods.target.type: must be AverageValue
        a.yaml:9:67 spec.metrics[1].pods.target.value: must be more than 0
        a.yaml:10:53 spec.metrics[2].resource.target.type: must be Utilization or AverageValue: a resource has no value in all
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
