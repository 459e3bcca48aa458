//! Manifests of StatefulSets and DaemonSets: what is read, what is printed, and what is refused where.

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{
    DaemonSetUpdateStrategy, IntOrPercent, Kind, Name, Object, ObjectId, PodManagementPolicy,
    StatefulSetUpdateStrategy, validate,
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

fn manifest(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: x, namespace: default}}\nspec:\n  selector: {{matchLabels: {{app: x}}}}\n  \
         template:\n    metadata: {{labels: {{app: x}}}}\n    spec: {{containers: [{{name: c, image: 'i:1'}}]}}\n{spec}"
    )
}

fn check(kind: &str, spec: &str, expected: Expect) {
    let source = Source { name: "a.yaml".to_owned(), text: manifest(kind, spec) };
    let found: String = match parse(&[source], None) {
        Ok(_) => "accepted\n".to_owned(),
        Err(errors) => errors.iter().map(|error| format!("{error}\n")).collect(),
    };
    expected.assert_eq(&found);
}

#[test]
fn deliveries_are_read_whole() {
    use bulkhead_types::{CanaryStep, Delivery, DeploymentStrategy, IntOrPercent};
    let deployment = |text: &str| match check_round_trip(text) {
        Object::Deployment(deployment) => deployment,
        other => panic!("{other:?}"),
    };
    let canary = deployment(include_str!("../../../examples/canary.yaml"));
    let steps = vec![
        CanaryStep::SetReplicas { replicas: IntOrPercent::Percent(10) },
        CanaryStep::Pause { duration_ms: Some(300_000) },
        CanaryStep::SetReplicas { replicas: IntOrPercent::Int(5) },
        CanaryStep::Pause { duration_ms: None },
    ];
    assert_eq!(canary.spec.delivery.get(), Some(&Delivery::Canary { steps, failure_limit: 1 }));
    let blue_green = deployment(include_str!("../../../examples/blue-green.yaml"));
    let expected = Delivery::BlueGreen {
        auto_promotion_ms: Some(60_000),
        scale_down_delay_ms: 300_000,
        preview_replicas: None,
    };
    assert_eq!(blue_green.spec.delivery.get(), Some(&expected));
    let both = DeploymentStrategy::RollingUpdate {
        max_surge: IntOrPercent::Percent(100),
        max_unavailable: IntOrPercent::Int(0),
    };
    assert_eq!(blue_green.spec.strategy, both, "both sets run whole");
}

#[test]
fn mistakes_in_deliveries_are_told() {
    let canary = include_str!("../../../examples/canary.yaml");
    let check = |from: &str, to: &str, expected: &str| {
        let text = canary.replace(from, to);
        assert_ne!(text, canary, "{from}");
        let source = Source { name: "web".to_owned(), text };
        let errors = parse(&[source], Some(&Name::new("default").expect("a name"))).expect_err("it is wrong");
        let told: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.path, e.reason)).collect();
        assert_eq!(told.join("; "), expected);
    };
    let strategy = "spec.strategy";
    check(
        "type: Canary",
        "type: BlueGreen",
        &format!(
            "{strategy}.blueGreen: is required; {strategy}.canary: must not be set when type is BlueGreen"
        ),
    );
    check(
        "- pause: {}",
        "- {pause: {}, setReplicas: 1}",
        &format!("{strategy}.canary.steps[3]: a step is either setReplicas or pause"),
    );
    check(
        "failureLimit: 1",
        "failureLimit: 101",
        &format!("{strategy}.canary.failureLimit: must be at most 100"),
    );
    check(
        "setReplicas: 10%",
        "setReplicas: 110%",
        &format!("{strategy}.canary.steps[0].setReplicas: must be at most 100%"),
    );
    check(
        "maxSurge: 1",
        "maxSurge: 0",
        &format!(
            "{strategy}.canary.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move"
        ),
    );
}

#[test]
fn the_examples_are_read_whole() {
    let Object::StatefulSet(set) = check_round_trip(include_str!("../../../examples/statefulset.yaml"))
    else {
        panic!("a StatefulSet")
    };
    assert_eq!((set.spec.replicas, set.spec.service_name.as_str()), (2, "db"));
    assert_eq!((set.spec.min_ready_ms, set.spec.ordinals()), (1000, 0..2));
    let Object::DaemonSet(set) = check_round_trip(include_str!("../../../examples/daemonset.yaml")) else {
        panic!("a DaemonSet")
    };
    assert_eq!(set.spec.template.spec.tolerations.len(), 1);
    assert_eq!(set.spec.update_strategy, DaemonSetUpdateStrategy::default());
}

#[test]
fn what_is_not_given_is_as_in_kubernetes() {
    let Object::StatefulSet(set) = check_round_trip(&manifest("StatefulSet", "")) else {
        panic!("a StatefulSet")
    };
    let spec = &set.spec;
    assert_eq!((spec.replicas, spec.ordinals_start, spec.revision_history_limit), (1, 0, 10));
    assert_eq!(spec.pod_management_policy, PodManagementPolicy::OrderedReady);
    let max_unavailable = IntOrPercent::Int(1);
    assert_eq!(
        spec.update_strategy,
        StatefulSetUpdateStrategy::RollingUpdate { partition: 0, max_unavailable }
    );
    let Object::DaemonSet(set) = check_round_trip(&manifest("DaemonSet", "")) else { panic!("a DaemonSet") };
    assert_eq!((set.spec.min_ready_ms, set.spec.revision_history_limit), (0, 10));
}

#[test]
fn everything_that_can_be_said_comes_back() {
    check_round_trip(&manifest(
        "StatefulSet",
        "  replicas: 3\n  serviceName: x\n  podManagementPolicy: Parallel\n  ordinals: {start: 4}\n  minReadySeconds: 7\n  \
         revisionHistoryLimit: 2\n  updateStrategy: {rollingUpdate: {partition: 2, maxUnavailable: 30%}}\n",
    ));
    check_round_trip(&manifest("StatefulSet", "  updateStrategy: {type: OnDelete}\n"));
    check_round_trip(&manifest("DaemonSet", "  updateStrategy: {type: OnDelete}\n  minReadySeconds: 7\n"));
    check_round_trip(&manifest("DaemonSet", "  updateStrategy: {rollingUpdate: {maxSurge: 10%}}\n"));
    check_round_trip(&manifest("DaemonSet", "  updateStrategy: {rollingUpdate: {maxUnavailable: 3}}\n"));
}

#[test]
fn mistakes_are_named_with_path_and_reason() {
    check(
        "StatefulSet",
        "  volumeClaimTemplates: []\n  persistentVolumeClaimRetentionPolicy: {}\n",
        expect![[r#"
            accepted
        "#]],
    );
    check(
        "StatefulSet",
        "  podManagementPolicy: Ordered\n  ordinals: {start: -1, end: 4}\n",
        expect![[r#"
        a.yaml:9:24 spec.podManagementPolicy: "Ordered" is not one of OrderedReady, Parallel
        a.yaml:10:21 spec.ordinals.start: -1 is out of range: must be between 0 and 2147483647
        a.yaml:10:25 spec.ordinals.end: unknown field
    "#]],
    );
    check(
        "StatefulSet",
        "  updateStrategy: {type: Recreate}\n  strategy: {}\n",
        expect![[r#"
        a.yaml:9:26 spec.updateStrategy.type: "Recreate" is not one of RollingUpdate, OnDelete
        a.yaml:10:3 spec.strategy: unknown field
    "#]],
    );
    check(
        "DaemonSet",
        "  replicas: 2\n",
        expect![[r#"
        a.yaml:9:3 spec.replicas: unknown field
    "#]],
    );
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    check(
        "StatefulSet",
        "  updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}\n",
        expect![[r#"
            a.yaml:9:51 spec.updateStrategy.rollingUpdate: must not be set when type is OnDelete
        "#]],
    );
    check(
        "StatefulSet",
        "  updateStrategy: {rollingUpdate: {maxUnavailable: 0}}\n",
        expect![[r#"
        a.yaml:9:36 spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0: a rollout could never move
    "#]],
    );
    check(
        "StatefulSet",
        "  updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}\n",
        expect![[r#"
        a.yaml:9:36 spec.updateStrategy.rollingUpdate.maxUnavailable: must be at most 100%
    "#]],
    );
    check(
        "StatefulSet",
        "  replicas: 2\n  ordinals: {start: 2147483647}\n",
        expect![[r#"
        a.yaml:10:14 spec.ordinals.start: the last ordinal would be 2147483649: at most 2147483647 is allowed
    "#]],
    );
    check(
        "DaemonSet",
        "  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}\n",
        expect![[r#"
            a.yaml:9:49 spec.updateStrategy.rollingUpdate.maxUnavailable: must be 0 when maxSurge is set: a node has either no pod or two for a while
        "#]],
    );
    check(
        "DaemonSet",
        "  updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}\n",
        expect![[r#"
            a.yaml:9:49 spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
        "#]],
    );
    let never =
        manifest("DaemonSet", "").replace("spec: {containers", "spec: {restartPolicy: Never, containers");
    let source = Source { name: "a.yaml".to_owned(), text: never };
    let errors = parse(&[source], None).expect_err("a workload keeps its pods running");
    assert_eq!(errors[0].path, "spec.template.spec.restartPolicy");
    let long = manifest("StatefulSet", "  replicas: 11\n")
        .replace("name: x,", &format!("name: {},", "x".repeat(61)));
    let source = Source { name: "a.yaml".to_owned(), text: long };
    let errors = parse(&[source], None).expect_err("pods have longer names");
    assert_eq!(errors[0].path, "metadata.name");
}
