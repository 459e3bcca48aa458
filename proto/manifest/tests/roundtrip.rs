//! What is printed can be read again, and no text makes the reader panic.

use std::sync::Arc;

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{
    BatchPause, CanaryStep, Container, ContainerPort, Delivery, Deployment, DeploymentSpec, DeploymentStatus,
    DeploymentStrategy, EnvVar, HostPort, ImagePullPolicy, IntOrPercent, Kind, LabelOperator,
    LabelRequirement, LabelSelector, Name, Object, ObjectId, ObjectMeta, OwnerRef, Pod, PodSpec, PodStatus,
    PodTemplate, Protocol, Rare, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, ResourceRequirements,
    RestartPolicy, RuntimeClass, Shared, StringMap, TaintEffect, Toleration, TolerationOperator, validate,
};
use expect_test::expect;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

const NAMES: Names<'static> = Names { cluster_id: Some(Uuid::nil()), name_of: &no_name };

fn read(text: &str) -> Object {
    let source = Source { name: "-".to_owned(), text: text.to_owned() };
    let mut parsed = parse(&[source], None).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert_eq!(parsed.len(), 1, "{text}");
    parsed.remove(0).object
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|n| Name::new(n).expect("the pattern's names are good"))
}

/// Texts that YAML could take for something else.
fn tricky() -> impl Strategy<Value = String> {
    let words = [
        "",
        "~",
        "null",
        "true",
        "No",
        "on",
        "y",
        "1",
        "-1",
        "+1",
        "0x1f",
        "0o7",
        "017",
        "1_000",
        "1e3",
        ".5",
        "1.",
        ".inf",
        ".NaN",
        "2024-01-01",
        "1:30",
        "- a",
        "a: b",
        "# x",
        "<<",
        "*a",
        "&a",
        "!t",
        "%",
        "@",
        "`",
        "{a}",
        "[b]",
        "'",
        "\"",
        " x ",
        "a\nb\n",
        "\t",
        "é",
        "\u{feff}x",
        "\u{85}",
        "\u{1f600}",
        "\r\n",
        "---",
        "...",
        "=",
    ];
    prop_oneof![select(words.to_vec()).prop_map(str::to_owned), "\\PC{0,12}"]
}

fn labels() -> impl Strategy<Value = StringMap> {
    let key = prop_oneof!["[a-zA-Z0-9]{1,8}", "[a-z]{1,4}\\.[a-z]{1,4}/[a-zA-Z0-9]{1,4}"];
    let value = prop_oneof![
        "[a-zA-Z0-9]{0,8}",
        select(vec!["true", "1", "1e3", "null", "0x1", "1.0", "No"]).prop_map(str::to_owned)
    ];
    proptest::collection::btree_map(key, value, 0..4)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn requirements() -> impl Strategy<Value = (ResourceRequirements, ResourceRequirements)> {
    let amount = || proptest::option::of((0u64..1 << 40, 0u64..1 << 40));
    (amount(), amount(), amount()).prop_map(|(cpu, memory, disk)| {
        let low = |a: Option<(u64, u64)>| a.map(|(x, y)| x.min(y));
        let high = |a: Option<(u64, u64)>| a.map(|(x, y)| x.max(y));
        let make = |f: &dyn Fn(Option<(u64, u64)>) -> Option<u64>| ResourceRequirements {
            cpu_millis: f(cpu),
            memory_bytes: f(memory),
            ephemeral_storage_bytes: f(disk),
        };
        (make(&low), make(&high))
    })
}

fn container(number: usize) -> impl Strategy<Value = Container> {
    let policy = select(vec![ImagePullPolicy::Always, ImagePullPolicy::IfNotPresent, ImagePullPolicy::Never]);
    let texts = || proptest::collection::vec(tricky(), 0..4);
    let env = proptest::collection::vec(("[A-Za-z_1][A-Za-z0-9_.]{0,8}", tricky()), 0..4);
    (policy, texts(), texts(), env, any::<bool>(), requirements()).prop_map(
        move |(image_pull_policy, command, args, env, has_port, (requests, limits))| Container {
            name: format!("c{number}").into(),
            image: "localhost:5000/team/web:v1".into(),
            image_pull_policy,
            command,
            args,
            working_dir: has_port.then(|| "/srv/a b".to_owned()),
            env: env.into_iter().map(|(name, value)| EnvVar { name, value, ..EnvVar::default() }).collect(),
            ports: has_port
                .then(|| ContainerPort {
                    name: Some(format!("p{number}").into()),
                    container_port: 8000 + number as u16,
                    protocol: Protocol::Tcp,
                    host: number
                        .is_multiple_of(2)
                        .then(|| HostPort {
                            port: 80 + number as u16,
                            ip: number.is_multiple_of(4).then(|| "10.0.0.1".parse().expect("an address")),
                        })
                        .into(),
                })
                .into_iter()
                .collect(),
            requests,
            limits,
            options: Rare::NONE,
        },
    )
}

fn pod_spec() -> impl Strategy<Value = PodSpec> {
    let containers = (container(0), container(1)).prop_map(|(a, b)| vec![a, b]);
    let tolerations = proptest::collection::vec((any::<bool>(), proptest::option::of(0u64..9999)), 0..3);
    (containers, container(2), labels(), tolerations, proptest::option::of(name()), 0u64..9999).prop_map(
        |(containers, init, node_selector, tolerations, hostname, grace)| PodSpec {
            runtime_class: RuntimeClass::Rune,
            restart_policy: RestartPolicy::Always,
            termination_grace_ms: grace * 1000,
            node_selector,
            node_name: hostname.clone().map(|n| n.as_str().into()),
            tolerations: tolerations
                .into_iter()
                .map(|(exists, seconds)| Toleration {
                    key: if exists { "".into() } else { "dedicated".into() },
                    operator: if exists { TolerationOperator::Exists } else { TolerationOperator::Equal },
                    value: if exists { "".into() } else { "true".into() },
                    effect: seconds.map(|_| TaintEffect::NoExecute),
                    toleration_ms: seconds.map(|s| s * 1000),
                })
                .collect(),
            hostname: hostname.map(|n| n.as_str().into()),
            init_containers: vec![init],
            containers,
            options: Rare::NONE,
        },
    )
}

fn strategy() -> impl Strategy<Value = DeploymentStrategy> {
    let share =
        || prop_oneof![(1u32..99).prop_map(IntOrPercent::Int), (1u32..=100).prop_map(IntOrPercent::Percent)];
    prop_oneof![
        Just(DeploymentStrategy::Recreate),
        (share(), share()).prop_map(|(max_surge, max_unavailable)| DeploymentStrategy::RollingUpdate {
            max_surge,
            max_unavailable
        }),
    ]
}

fn delivery() -> impl Strategy<Value = Rare<Delivery>> {
    let share =
        || prop_oneof![(1u32..99).prop_map(IntOrPercent::Int), (1u32..=100).prop_map(IntOrPercent::Percent)];
    let pause = || prop::option::of((0u64..99).prop_map(|seconds| seconds * 1000));
    let step = prop_oneof![
        share().prop_map(|replicas| CanaryStep::SetReplicas { replicas }),
        pause().prop_map(|duration_ms| CanaryStep::Pause { duration_ms }),
    ];
    prop_oneof![
        Just(Rare::NONE),
        (share(), prop::option::of((share(), prop::option::of(pause())))).prop_map(|(partition, batch)| {
            let pause = batch.and_then(|(_, pause)| pause.map(|duration_ms| BatchPause { duration_ms }));
            Rare::some(Delivery::Batches { partition, size: batch.map(|(size, _)| size), pause })
        }),
        (prop::collection::vec(step, 0..5), 0u32..9)
            .prop_map(|(steps, failure_limit)| Rare::some(Delivery::Canary { steps, failure_limit })),
        (pause(), 0u64..9, prop::option::of(1u32..9)).prop_map(|(auto_promotion_ms, seconds, preview)| {
            Rare::some(Delivery::BlueGreen {
                auto_promotion_ms,
                scale_down_delay_ms: seconds * 1000,
                preview_replicas: preview,
            })
        }),
    ]
}

fn meta() -> impl Strategy<Value = ObjectMeta> {
    (name(), name(), labels(), labels(), any::<bool>()).prop_map(
        |(name, namespace, labels, annotations, stored)| {
            let mut meta = ObjectMeta { labels, annotations, ..ObjectMeta::new(Some(namespace), name) };
            if stored {
                (meta.id, meta.revision, meta.generation, meta.created_at_ms) =
                    (ObjectId(7), 9, 2, 1_700_000_000_123);
                meta.owner = Some(OwnerRef { kind: Kind::Deployment, id: ObjectId(3) });
            }
            meta
        },
    )
}

fn template() -> impl Strategy<Value = (PodTemplate, LabelSelector)> {
    (pod_spec(), labels(), labels()).prop_map(|(spec, mut labels, annotations)| {
        labels.insert("app".into(), "web".into());
        let expression =
            LabelRequirement { key: "app".into(), operator: LabelOperator::In, values: vec!["web".into()] };
        let selector = LabelSelector { match_labels: labels.clone(), match_expressions: vec![expression] };
        (PodTemplate { labels, annotations, spec: Shared::new(spec) }, selector)
    })
}

fn deployment() -> impl Strategy<Value = Deployment> {
    (meta(), template(), (strategy(), delivery()), 0u32..100, 0u64..500, any::<bool>()).prop_map(
        |(meta, (template, selector), (strategy, delivery), replicas, seconds, paused)| Deployment {
            meta,
            spec: DeploymentSpec {
                replicas,
                selector,
                template,
                strategy: match delivery.get() {
                    Some(Delivery::BlueGreen { .. }) if strategy != DeploymentStrategy::Recreate => {
                        DeploymentStrategy::RollingUpdate {
                            max_surge: IntOrPercent::Percent(100),
                            max_unavailable: IntOrPercent::Int(0),
                        }
                    }
                    _ => strategy,
                },
                min_ready_ms: seconds * 1000,
                progress_deadline_ms: (seconds + 1) * 1000,
                revision_history_limit: replicas,
                paused,
                stopped: paused && replicas > 50,
                // Recreate has no steps, and BlueGreen has its bounds.
                delivery: if strategy == DeploymentStrategy::Recreate {
                    Rare::NONE
                } else {
                    delivery.clone()
                },
            },
            status: DeploymentStatus::default(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_deployment_survives_printing_and_reading(deployment in deployment()) {
        let object = Object::Deployment(Arc::new(deployment.clone()));
        prop_assert_eq!(validate(&object), vec![]);
        let Object::Deployment(again) = read(&to_yaml(&object, NAMES)) else { panic!("another kind") };
        prop_assert_eq!(&again.spec, &deployment.spec);
        prop_assert_eq!(&again.meta.labels, &deployment.meta.labels);
        prop_assert_eq!(&again.meta.annotations, &deployment.meta.annotations);
        prop_assert_eq!(again.meta.id, ObjectId(0));
    }

    #[test]
    fn a_replica_set_survives_printing_and_reading(meta in meta(), template in template()) {
        let spec = ReplicaSetSpec {
            replicas: 3, min_ready_ms: 5000, selector: template.1, template: template.0, rollout_revision: 0,
        };
        let object = Object::ReplicaSet(Arc::new(ReplicaSet { meta, spec: spec.clone(), status: ReplicaSetStatus::default() }));
        let Object::ReplicaSet(again) = read(&to_yaml(&object, NAMES)) else { panic!("another kind") };
        prop_assert_eq!(&again.spec, &spec);
    }

    #[test]
    fn a_pod_survives_printing_and_reading(meta in meta(), spec in pod_spec()) {
        let spec = Shared::new(spec);
        let object = Object::Pod(Arc::new(Pod { meta, spec: spec.clone(), node: None, status: PodStatus::default() }));
        let Object::Pod(again) = read(&to_yaml(&object, NAMES)) else { panic!("another kind") };
        prop_assert_eq!(&*again.spec, &*spec);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&[Source { name: "-".to_owned(), text }], None);
    }

    #[test]
    fn no_broken_manifest_panics(deployment in deployment(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}:,&*!|>'\"%#\\-\\t\\n 0a~]{0,3}", cut in 0usize..20) {
        let mut text = to_yaml(&Object::Deployment(Arc::new(deployment)), NAMES);
        let mut start = at.index(text.len());
        while !text.is_char_boundary(start) { start -= 1; }
        let mut end = (start + cut).min(text.len());
        while !text.is_char_boundary(end) { end += 1; }
        text.replace_range(start..end, &with);
        let _ = parse(&[Source { name: "-".to_owned(), text }], None);
    }
}

#[test]
fn a_bound_pod_shows_its_node_owner_and_status() {
    let meta = ObjectMeta {
        owner: Some(OwnerRef { kind: Kind::ReplicaSet, id: ObjectId(4) }),
        id: ObjectId(5),
        revision: 8,
        generation: 1,
        created_at_ms: 1_700_000_000_000,
        ..ObjectMeta::new(Name::new("default").ok(), Name::new("web-1").expect("a name"))
    };
    let container = Container { name: "web".into(), image: "web:v1".into(), ..Container::default() };
    let spec = Shared::new(PodSpec {
        containers: vec![container],
        termination_grace_ms: 30_000,
        ..PodSpec::default()
    });
    let status = PodStatus {
        ready: true,
        ready_since_ms: 1_700_000_003_000,
        bound_at_ms: 1_700_000_001_000,
        ..PodStatus::default()
    };
    let pod = Object::Pod(Arc::new(Pod { meta, spec, node: Some(ObjectId(2)), status }));
    let name_of =
        |kind: Kind, id: ObjectId| Name::new(format!("{}-{}", kind.as_str().to_lowercase(), id.0)).ok();
    let text = to_yaml(&pod, Names { cluster_id: Some(Uuid::nil()), name_of: &name_of });
    expect![[r#"
        apiVersion: v1
        kind: Pod
        metadata:
          creationTimestamp: "2023-11-14T22:13:20Z"
          generation: 1
          name: web-1
          namespace: default
          ownerReferences:
          - apiVersion: apps/v1
            blockOwnerDeletion: true
            controller: true
            kind: ReplicaSet
            name: replicaset-4
            uid: "863dfcfe-8252-52b9-b1b7-36f536ccd3d4"
          resourceVersion: "8"
          uid: "30e5be03-3aca-5afd-a3ad-31ee198a2265"
        spec:
          containers:
          - image: web:v1
            imagePullPolicy: IfNotPresent
            name: web
            resources: {}
          nodeName: node-2
          restartPolicy: Always
          runtimeClassName: rune
          terminationGracePeriodSeconds: 30
        status:
          conditions:
          - lastTransitionTime: "2023-11-14T22:13:21Z"
            status: "True"
            type: PodScheduled
          - lastTransitionTime: "2023-11-14T22:13:21Z"
            status: "True"
            type: Initialized
          - lastTransitionTime: "2023-11-14T22:13:23Z"
            status: "True"
            type: ContainersReady
          - lastTransitionTime: "2023-11-14T22:13:23Z"
            status: "True"
            type: Ready
          phase: Pending
    "#]]
    .assert_eq(&text);
}
