//! Manifests of VerticalPodAutoscalers: what is read, what is printed, and what is refused where.

use std::sync::Arc;

use bulkhead_manifest::{Edit, EditMode, Names, PlanError, Source, parse, plan, to_yaml};
use bulkhead_types::{
    Command, ContainerRecommendation, ContainerScalingMode, ControlledValues, DELIVERY_LEVEL, Kind,
    MeasuredResource, Name, Object, ObjectId, ResourceEstimate, UpdateMode, VERTICAL_MIN_REPLICAS_DEFAULT,
    VerticalPodAutoscaler, validate,
};
use expect_test::{Expect, expect};
use uuid::Uuid;

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

const NAMES: Names<'static> = Names { cluster_id: Some(Uuid::nil()), name_of: &no_name };
const EXAMPLE: &str = include_str!("../../../examples/vertical-autoscaler.yaml");
const TARGET: &str = "  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n";

fn read(text: &str) -> VerticalPodAutoscaler {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    let mut parsed = parse(&[source], Some(&namespace)).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    match parsed.remove(0).object {
        Object::VerticalPodAutoscaler(vertical) => (*vertical).clone(),
        other => panic!("a VerticalPodAutoscaler, not {other:?}"),
    }
}

/// What is printed is read as the same object.
fn round_trip(text: &str) -> VerticalPodAutoscaler {
    let vertical = read(text);
    let object = Object::VerticalPodAutoscaler(Arc::new(vertical.clone()));
    assert_eq!(validate(&object), Vec::new());
    assert_eq!(read(&to_yaml(&object, NAMES)), vertical);
    vertical
}

fn manifest(spec: &str) -> String {
    format!(
        "apiVersion: autoscaling.k8s.io/v1\nkind: VerticalPodAutoscaler\nmetadata: {{name: x, namespace: default}}\nspec:\n{spec}"
    )
}

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
    let example = round_trip(EXAMPLE);
    let spec = &example.spec;
    assert_eq!((spec.target.kind, spec.target.name.as_str()), (Kind::Deployment, "web"));
    assert_eq!((spec.update_mode, spec.min_replicas), (UpdateMode::Auto, 2));
    let [web, others] = spec.policies.as_slice() else { panic!("two policies: {spec:?}") };
    assert_eq!((web.min_allowed.cpu_millis, web.max_allowed.memory_bytes), (Some(50), Some(1 << 30)));
    assert_eq!(web.controlled_values, ControlledValues::RequestsAndLimits);
    assert_eq!((others.container.as_str(), others.mode), ("*", ContainerScalingMode::Off));
    assert!(spec.controls("web", MeasuredResource::Cpu) && !spec.controls("log", MeasuredResource::Cpu));
    let command = Command::Create(Object::VerticalPodAutoscaler(Arc::new(example)));
    assert_eq!(command.feature_level(), DELIVERY_LEVEL);
}

#[test]
fn what_is_left_out_is_the_default() {
    let check = |text: &str, mode: UpdateMode, min_replicas: u32| {
        let spec = round_trip(&manifest(&format!("{TARGET}{text}"))).spec;
        assert_eq!((spec.update_mode, spec.min_replicas), (mode, min_replicas), "{text}");
    };
    check("", UpdateMode::Auto, VERTICAL_MIN_REPLICAS_DEFAULT);
    check("  updatePolicy: {updateMode: Recreate}\n", UpdateMode::Auto, 2);
    check("  updatePolicy: {updateMode: \"Off\", minReplicas: 1}\n", UpdateMode::Off, 1);
    check("  updatePolicy: {updateMode: Initial, minReplicas: 0}\n", UpdateMode::Initial, 0);
    let policies = "  resourcePolicy: {containerPolicies: [{containerName: a}]}\n";
    let spec = round_trip(&manifest(&format!("{TARGET}{policies}"))).spec;
    assert_eq!(spec.policies[0].controlled_resources, [MeasuredResource::Cpu, MeasuredResource::Memory]);
    assert_eq!(spec.policies[0].mode, ContainerScalingMode::Auto);
}

#[test]
fn the_status_shows_what_policies_allow() {
    let mut example = read(EXAMPLE);
    let estimate = |lower| Some(ResourceEstimate { lower, target: 4 * lower, upper: 100 * lower });
    let one = |name: &str| ContainerRecommendation {
        container: name.into(),
        cpu_millis: estimate(25),
        memory_bytes: estimate(32 << 20),
        samples: 7,
    };
    example.status.containers = vec![one("log"), one("web")];
    let printed = to_yaml(&Object::VerticalPodAutoscaler(Arc::new(example)), NAMES);
    let (_, status) = printed.split_once("status:\n").expect("a status");
    expect![[r#"
        status:
          observedGeneration: 0
          recommendation:
            containerRecommendations:
            - containerName: web
              lowerBound:
                cpu: 50m
                memory: 48Mi
              target:
                cpu: 100m
                memory: 128Mi
              uncappedTarget:
                cpu: 100m
                memory: 128Mi
              upperBound:
                cpu: "2"
                memory: 1Gi
    "#]]
    .assert_eq(&format!("status:\n{status}"));
}

/// Server-side apply: each manager keeps what it said, and what it does not say any more goes.
#[test]
fn two_managers_share_one() {
    let namespace = Name::new("default").expect("a name");
    let apply = |present: Option<&Object>, manager: &str, text: &str| {
        let source = Source { name: "-".to_owned(), text: text.to_owned() };
        let edit = Edit { manager, mode: EditMode::Apply { force: false } };
        let planned = plan(&[source], Some(&namespace), edit, &|_| present.cloned());
        planned.map(|mut planned| planned.remove(0).parsed.object)
    };
    let first = apply(None, "cli", EXAMPLE).expect("a whole manifest");
    let part =
        manifest("  updatePolicy: {updateMode: Auto, minReplicas: 2}\n").replace("name: x", "name: web");
    let both = apply(Some(&first), "other", &part).expect("equal values are shared");
    let changed = part.replace("minReplicas: 2", "minReplicas: 5");
    assert!(matches!(apply(Some(&both), "other", &changed), Err(PlanError::Conflicts(_))));
    // Without its policies, which nobody else wants.
    let less = EXAMPLE.split("  resourcePolicy:").next().expect("a part");
    let Ok(Object::VerticalPodAutoscaler(left)) = apply(Some(&both), "cli", less) else { panic!("applied") };
    assert_eq!((left.spec.policies.len(), left.spec.min_replicas), (0, 2));
}

#[test]
fn mistakes_are_named_where_they_are() {
    check(
        "  updatePolicy: {updateMode: Sometimes}\n",
        expect![[r#"
        a.yaml:5:3 spec.targetRef: is required
        a.yaml:5:30 spec.updatePolicy.updateMode: "Sometimes" is not one of Off, Initial, Recreate, Auto
    "#]],
    );
    check(
        &format!("{TARGET}  updatePolicy: {{updateMode: InPlaceOrRecreate, evictionRequirements: []}}\n"),
        expect![[r#"
            a.yaml:6:30 spec.updatePolicy.updateMode: "InPlaceOrRecreate" is not one of Off, Initial, Recreate, Auto
        "#]],
    );
    check(
        "  targetRef: {apiVersion: batch/v1, kind: Job, name: web}\n  recommenders: [{name: a}]\n",
        expect![[r#"
            a.yaml:5:37 spec.targetRef.kind: must be one of Deployment, StatefulSet, DaemonSet, not Job
            a.yaml:6:3 spec.recommenders: not supported yet
        "#]],
    );
    let policies = "  resourcePolicy:\n    containerPolicies:\n    \
        - {containerName: a, minAllowed: {cpu: 2, memory: 1Gi}, maxAllowed: {cpu: 1, memory: 2Gi}}\n    \
        - {containerName: a, mode: Maybe}\n    \
        - {containerName: b, controlledResources: [gpu]}\n";
    check(
        &format!("{TARGET}{policies}"),
        expect![[r#"
        a.yaml:9:32 spec.resourcePolicy.containerPolicies[1].mode: "Maybe" is not one of Auto, Off
        a.yaml:10:47 spec.resourcePolicy.containerPolicies[2].controlledResources[0]: "gpu" is not one of cpu, memory
    "#]],
    );
    let policies = "  resourcePolicy:\n    containerPolicies:\n    \
        - {containerName: a, minAllowed: {cpu: 2, memory: 1Gi}, maxAllowed: {cpu: 1, memory: 2Gi}}\n    \
        - {containerName: a, controlledResources: [cpu, cpu]}\n    \
        - {containerName: B, controlledResources: []}\n    \
        - {containerName: c, minAllowed: {cpu: 0, ephemeral-storage: 1Gi}}\n    \
        - {mode: \"Off\"}\n";
    check(
        &format!("{TARGET}{policies}"),
        expect![[r#"
        a.yaml:12:7 spec.resourcePolicy.containerPolicies[4].containerName: is required
    "#]],
    );
    let policies = "  resourcePolicy:\n    containerPolicies:\n    \
        - {containerName: a, minAllowed: {cpu: 2, memory: 1Gi}, maxAllowed: {cpu: 1, memory: 2Gi}}\n    \
        - {containerName: a, controlledResources: [cpu, cpu]}\n    \
        - {containerName: B, controlledResources: []}\n    \
        - {containerName: c, minAllowed: {cpu: 0, ephemeral-storage: 1Gi}}\n";
    check(
        &format!("{TARGET}{policies}"),
        expect![[r#"
        a.yaml:8:39 spec.resourcePolicy.containerPolicies[0].minAllowed.cpu: must not be more than maxAllowed
        a.yaml:9:8 spec.resourcePolicy.containerPolicies[1].containerName: repeats "a"
        a.yaml:9:53 spec.resourcePolicy.containerPolicies[1].controlledResources[1]: repeats "cpu"
        a.yaml:10:8 spec.resourcePolicy.containerPolicies[2].containerName: name "B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
        a.yaml:10:26 spec.resourcePolicy.containerPolicies[2].controlledResources: must name cpu, memory or both; with mode Off nothing is controlled
        a.yaml:11:39 spec.resourcePolicy.containerPolicies[3].minAllowed.cpu: must be more than 0 and at most 9007199254740992
        a.yaml:11:47 spec.resourcePolicy.containerPolicies[3].minAllowed.ephemeral-storage: is not recommended: only cpu and memory are
    "#]],
    );
}
