use std::sync::Arc;

use expect_test::{Expect, expect};
use smol_str::SmolStr;

use super::*;
use crate::{
    Container, ContainerPort, Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, EnvVar,
    IntOrPercent, Kind, LabelSelector, Name, Namespace, NodeFacts, NodePhase, NodeSpec, NodeStatus, PodSpec,
    PodTemplate, Protocol, Rare, RestartPolicy, Shared, Taint, TaintEffect, Toleration, TolerationOperator,
};

fn name(text: &str) -> Name {
    Name::new(text).expect("the test's name is good")
}

fn labels_of(pairs: &[(&str, &str)]) -> StringMap {
    pairs.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v))).collect()
}

fn container() -> Container {
    Container { name: "web".into(), image: "web:v1".into(), ..Container::default() }
}

fn deployment() -> Deployment {
    let labels = labels_of(&[("app", "web")]);
    Deployment {
        meta: ObjectMeta::new(Some(name("default")), name("web")),
        spec: DeploymentSpec {
            replicas: 2,
            selector: LabelSelector { match_labels: labels.clone(), match_expressions: vec![] },
            template: PodTemplate {
                labels,
                annotations: StringMap::new(),
                spec: Shared::new(PodSpec { containers: vec![container()], ..PodSpec::default() }),
            },
            strategy: DeploymentStrategy::default(),
            min_ready_ms: 0,
            progress_deadline_ms: 600_000,
            revision_history_limit: 10,
            paused: false,
            stopped: false,
            delivery: Default::default(),
        },
        status: DeploymentStatus::default(),
    }
}

fn check(change: impl FnOnce(&mut Deployment), expected: Expect) {
    let mut deployment = deployment();
    change(&mut deployment);
    let errors = validate(&Object::Deployment(Arc::new(deployment)));
    expected.assert_eq(&errors.iter().map(|e| format!("{e}\n")).collect::<String>());
}

fn check_pod_spec(change: impl FnOnce(&mut PodSpec), expected: Expect) {
    check(
        |d| {
            let mut spec = PodSpec::clone(&d.spec.template.spec);
            change(&mut spec);
            d.spec.template.spec = Shared::new(spec);
        },
        expected,
    );
}

#[test]
fn a_plain_deployment_is_acceptable() {
    check(|_| {}, expect![[""]]);
}

#[test]
fn metadata_is_checked() {
    check(
        |d| {
            d.meta.namespace = None;
            d.meta.labels = labels_of(&[("a/b/c", "x"), ("app", "-")]);
            d.meta.annotations = labels_of(&[("Example.com/Note", "any text, of any form"), ("", "x")]);
        },
        expect![[r#"
            metadata.namespace: is required: a Deployment lives in a namespace
            metadata.labels[a/b/c]: label key "a/b/c" is invalid: the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
            metadata.labels[app]: label value "-" is invalid: must be empty or 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
            metadata.annotations[]: label key "" is invalid: the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
        "#]],
    );
    let mut meta = ObjectMeta::new(Some(name("default")), name("team"));
    meta.annotations = labels_of(&[("big", &"x".repeat(ANNOTATIONS_BYTES_MAX))]);
    let errors = validate(&Object::Namespace(Arc::new(Namespace { meta })));
    expect![[r#"
        metadata.namespace: must not be set: a Namespace lives in no namespace
        metadata.annotations: has 262147 bytes: at most 262144 are allowed
    "#]]
    .assert_eq(&errors.iter().map(|e| format!("{e}\n")).collect::<String>());
}

#[test]
fn bounds_of_a_deployment_are_checked() {
    check(
        |d| {
            d.spec.replicas = crate::REPLICAS_MAX + 1;
            d.spec.min_ready_ms = 600_000;
            d.spec.revision_history_limit = 5000;
            d.spec.strategy = DeploymentStrategy::RollingUpdate {
                max_surge: IntOrPercent::Percent(5000),
                max_unavailable: IntOrPercent::Percent(101),
            };
        },
        expect![[r#"
            spec.replicas: must be at most 1000000
            spec.progressDeadlineSeconds: must be greater than minReadySeconds (600)
            spec.revisionHistoryLimit: must be at most 1000
            spec.strategy.rollingUpdate.maxSurge: must be at most 1000%
            spec.strategy.rollingUpdate.maxUnavailable: must be at most 100%
        "#]],
    );
    check(
        |d| {
            d.spec.strategy = DeploymentStrategy::RollingUpdate {
                max_surge: IntOrPercent::Int(0),
                max_unavailable: IntOrPercent::Percent(0),
            };
        },
        expect![[r#"
            spec.strategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
        "#]],
    );
}

#[test]
fn the_selector_must_match_the_template() {
    check(
        |d| d.spec.template.labels.clear(),
        expect![[r#"
        spec.template.metadata.labels: spec.selector does not match the template's labels
    "#]],
    );
    check(
        |d| d.spec.selector = LabelSelector::default(),
        expect![[r#"
        spec.selector: is required: an empty selector would take every pod of the namespace
    "#]],
    );
    check(
        |d| {
            let requirement =
                |operator, values| crate::LabelRequirement { key: "app".into(), operator, values };
            d.spec.selector.match_expressions = vec![
                requirement(crate::LabelOperator::Exists, vec!["x".into()]),
                requirement(crate::LabelOperator::In, vec![]),
            ];
        },
        expect![[r#"
            spec.selector.matchExpressions[0].values: must be empty for Exists and DoesNotExist
            spec.selector.matchExpressions[1].values: must have at least one value for In and NotIn
            spec.template.metadata.labels: spec.selector does not match the template's labels
        "#]],
    );
}

#[test]
fn containers_are_checked() {
    check_pod_spec(
        |s| s.containers.clear(),
        expect![[r#"
        spec.template.spec.containers: must have at least one container
    "#]],
    );
    check_pod_spec(
        |s| {
            s.restart_policy = RestartPolicy::Never;
            s.hostname = Some("Not_A_Label".into());
            s.init_containers = vec![container()];
            let one = &mut s.containers[0];
            one.image = "Web".into();
            one.working_dir = Some("relative".into());
            one.args = vec!["nul\0".into()];
            one.env = vec![EnvVar { name: "A=B".into(), value: "x\0".into(), ..EnvVar::default() }];
        },
        expect![[r#"
            spec.template.spec.restartPolicy: must be Always: a workload keeps its pods running
            spec.template.spec.hostname: name "Not_A_Label" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            spec.template.spec.containers[0].image: image "Web" cannot be read: the path must be of a-z and 0-9, joined by '/', '.', '_', '__' or '-'; expected [host[:port]/]path[:tag][@sha256:digest]
            spec.template.spec.containers[0].args[0]: must not contain a NUL character
            spec.template.spec.containers[0].workingDir: "relative" must be an absolute path
            spec.template.spec.containers[0].env[0].name: environment variable "A=B" is invalid: must be printable ASCII without '='
            spec.template.spec.containers[0].env[0].value: must not contain a NUL character
            spec.template.spec.initContainers[0].name: "web" is used twice: names of containers are unique in a pod
        "#]],
    );
    check_pod_spec(
        |s| {
            s.containers = (0..=CONTAINERS_MAX)
                .map(|n| Container { name: format!("c{n}").into(), ..container() })
                .collect()
        },
        expect![[r#"
            spec.template.spec.containers: has 65 containers: at most 64 are allowed
            spec.template.spec.containers: the pod needs 65 disks, one for each of its 65 containers and 0 volumes on disk, and a guest has places for 28: use fewer, emptyDir with medium Memory, or several pods
        "#]],
    );
    check_pod_spec(
        |s| s.containers[0].args = vec!["x".repeat(OBJECT_BYTES_MAX)],
        expect![[r#"
        metadata: the object holds about 1048607 bytes: at most 1048576 are stored
    "#]],
    );
}

#[test]
fn ports_are_unique_in_a_pod() {
    let port = |name: Option<&str>, container_port, protocol| ContainerPort {
        name: name.map(SmolStr::new),
        container_port,
        protocol,
        host: Rare::NONE,
    };
    check_pod_spec(
        |s| {
            s.containers[0].ports =
                vec![port(Some("dns"), 53, Protocol::Udp), port(Some("dns-tcp"), 53, Protocol::Tcp)];
            s.containers.push(Container {
                name: "other".into(),
                ports: vec![
                    port(None, 53, Protocol::Udp),
                    port(Some("dns"), 0, Protocol::Tcp),
                    port(Some("1--2"), 80, Protocol::Tcp),
                ],
                ..container()
            });
            s.init_containers = vec![Container {
                name: "first".into(),
                ports: vec![port(None, 53, Protocol::Udp)],
                ..container()
            }];
        },
        expect![[r#"
            spec.template.spec.containers[1].ports[0].containerPort: 53/UDP is used twice in the pod
            spec.template.spec.containers[1].ports[1].containerPort: must be between 1 and 65535
            spec.template.spec.containers[1].ports[1].name: "dns" is used twice: port names are unique in a pod
            spec.template.spec.containers[1].ports[2].name: port name "1--2" is invalid: must be 1 to 15 of a-z, 0-9 and single '-', with at least one letter
        "#]],
    );
}

#[test]
fn ports_of_the_node_are_published_once_and_by_tcp_only() {
    let port = |container_port, protocol, port, ip: &str| ContainerPort {
        name: None,
        container_port,
        protocol,
        host: Rare::some(crate::HostPort { port, ip: ip.parse().ok() }),
    };
    check_pod_spec(
        |s| {
            s.containers[0].ports = vec![
                port(80, Protocol::Tcp, 80, "10.0.0.1"),
                port(81, Protocol::Tcp, 80, "10.0.0.2"),
                port(82, Protocol::Tcp, 0, ""),
                port(53, Protocol::Udp, 53, ""),
                port(54, Protocol::Sctp, 54, ""),
            ];
            s.init_containers = vec![Container {
                name: "first".into(),
                ports: vec![port(80, Protocol::Tcp, 80, "")],
                ..container()
            }];
        },
        expect![[r#"
            spec.template.spec.containers[0].ports[2].hostPort: must be between 1 and 65535
            spec.template.spec.containers[0].ports[3].hostPort: UDP ports cannot be published on a node yet, only TCP ones
            spec.template.spec.containers[0].ports[4].hostPort: SCTP ports cannot be published on a node yet, only TCP ones
            spec.template.spec.initContainers[0].ports[0].hostPort: 80/TCP is used twice in the pod
        "#]],
    );
}

#[test]
fn requests_stay_within_limits() {
    check_pod_spec(
        |s| {
            let one = &mut s.containers[0];
            one.requests.cpu_millis = Some(1500);
            one.limits.cpu_millis = Some(500);
            one.requests.memory_bytes = Some(64 << 20);
            one.limits.memory_bytes = Some(64 << 20);
            one.limits.ephemeral_storage_bytes = Some(u64::MAX);
        },
        expect![[r#"
            spec.template.spec.containers[0].resources.limits.ephemeral-storage: is beyond any machine: at most 2^53 is allowed
            spec.template.spec.containers[0].resources.requests.cpu: 1500m is above the limit of 500m
        "#]],
    );
}

#[test]
fn tolerations_and_taints_are_checked() {
    let toleration = |key: &str, operator, value: &str, effect, toleration_ms| Toleration {
        key: key.into(),
        operator,
        value: value.into(),
        effect,
        toleration_ms,
    };
    check_pod_spec(
        |s| {
            s.tolerations = vec![
                toleration("", TolerationOperator::Exists, "", None, None),
                toleration("", TolerationOperator::Equal, "", None, None),
                toleration("a", TolerationOperator::Exists, "b", None, None),
                toleration("a b", TolerationOperator::Equal, "b", Some(TaintEffect::NoSchedule), Some(1)),
            ];
        },
        expect![[r#"
            spec.template.spec.tolerations[1].operator: must be Exists when key is empty
            spec.template.spec.tolerations[2].value: must be empty when operator is Exists
            spec.template.spec.tolerations[3].key: label key "a b" is invalid: the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit
            spec.template.spec.tolerations[3].effect: must be NoExecute when tolerationSeconds is set
        "#]],
    );
    let taint = || Taint { key: "gpu".into(), value: String::new().into(), effect: TaintEffect::NoSchedule };
    let node = Node {
        meta: ObjectMeta::new(None, name("n1")),
        spec: NodeSpec { taints: vec![taint(), taint()], ..NodeSpec::default() },
        status: NodeStatus {
            phase: NodePhase::Unreachable,
            phase_since_ms: 0,
            incarnation: 0,
            facts: NodeFacts::default(),
            pool: Default::default(),
            images: Default::default(),
            device_labels: Default::default(),
        },
    };
    let object = Object::Node(Arc::new(node));
    assert_eq!(object.kind(), Kind::Node);
    let errors = validate(&object);
    expect![[r#"
        spec.taints[1]: repeats key "gpu" with the same effect
    "#]]
    .assert_eq(&errors.iter().map(|e| format!("{e}\n")).collect::<String>());
}

#[test]
fn errors_are_bounded() {
    let mut broken = deployment();
    broken.meta.labels = (0..FIELD_ERRORS_MAX * 2).map(|n| (format!("-{n}").into(), "".into())).collect();
    assert_eq!(validate(&Object::Deployment(Arc::new(broken))).len(), FIELD_ERRORS_MAX);
}

#[test]
fn limits_of_bandwidth_are_within_bounds() {
    let limits =
        labels_of(&[("kubernetes.io/ingress-bandwidth", "10M"), ("kubernetes.io/egress-bandwidth", "1k")]);
    check(|d| d.spec.template.annotations = limits, expect![""]);
    let wrong =
        labels_of(&[("kubernetes.io/ingress-bandwidth", "fast"), ("kubernetes.io/egress-bandwidth", "10")]);
    check(
        |d| d.spec.template.annotations = wrong.clone(),
        expect![[r#"
        spec.template.metadata.annotations[kubernetes.io/ingress-bandwidth]: "fast" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei): write bits per second, such as 10M
        spec.template.metadata.annotations[kubernetes.io/egress-bandwidth]: "10" is out of range: write bits per second from 1k to 1P, such as 10M
    "#]],
    );
    check(|d| d.meta.annotations = wrong.clone(), expect![""]);
    let effect = crate::ProfileEffect { annotations: wrong.clone(), ..Default::default() };
    let rule = crate::ProfileRule {
        name: "slow".into(),
        namespace_selector: Some(deployment().spec.selector),
        effect,
        ..Default::default()
    };
    let profile = crate::Profile {
        meta: ObjectMeta::new(None, name("slow")),
        spec: crate::ProfileSpec { rules: vec![rule] },
    };
    let pod = crate::Pod {
        meta: ObjectMeta { annotations: wrong, ..deployment().meta },
        spec: deployment().spec.template.spec,
        node: None,
        status: Default::default(),
    };
    for (object, path) in [
        (Object::Profile(Arc::new(profile)), "spec.rules[0].effect.annotations"),
        (Object::Pod(Arc::new(pod)), "metadata.annotations"),
    ] {
        let found: Vec<_> = validate(&object).into_iter().map(|error| error.path).collect();
        let keys = ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"];
        assert_eq!(found, keys.map(|key| format!("{path}[{key}]")));
        assert_eq!(validate_at(&object, BANDWIDTH_LEVEL - 1), [], "before that level they mean nothing");
    }
}

#[test]
fn settings_by_annotation_are_checked_from_their_level_on() {
    let wrong: StringMap =
        [(crate::ANNOTATION_SYSCTLS.into(), "kernel.panic=1".into())].into_iter().collect();
    let pod = crate::Pod {
        meta: ObjectMeta { annotations: wrong, ..deployment().meta },
        spec: deployment().spec.template.spec,
        node: None,
        status: Default::default(),
    };
    let object = Object::Pod(Arc::new(pod));
    let found: Vec<_> = validate(&object).into_iter().map(|error| error.path).collect();
    assert_eq!(found, ["metadata.annotations[securecontainer.alibabacloud.com/sysctls]"]);
    assert_eq!(validate_at(&object, crate::ANNOTATED_SYSCTLS_LEVEL - 1), []);
}

/// Of a pod with so many containers, init containers, volumes on disk and volumes elsewhere.
fn check_disks(counts: [usize; 4], expected: Option<&str>) {
    let [containers, init_containers, on_disk, elsewhere] = counts;
    let named = |prefix: &str, n| Container { name: format!("{prefix}{n}").into(), ..container() };
    let volume = |n: usize| {
        let source = match n % 5 {
            _ if n >= on_disk + elsewhere => None,
            _ if n >= on_disk => Some(crate::VolumeSource::EmptyDir {
                memory: true,
                size_limit_bytes: None,
                huge_pages: Rare::NONE,
            }),
            0 => Some(crate::VolumeSource::PersistentVolumeClaim {
                claim_name: format!("c{n}").into(),
                read_only: true,
            }),
            _ => Some(crate::VolumeSource::EmptyDir {
                memory: false,
                size_limit_bytes: None,
                huge_pages: Rare::NONE,
            }),
        };
        source.map(|source| crate::Volume { name: format!("v{n}").into(), source })
    };
    let spec = PodSpec {
        containers: (0..containers).map(|n| named("c", n)).collect(),
        init_containers: (0..init_containers).map(|n| named("i", n)).collect(),
        options: Rare::some(crate::PodOptions {
            volumes: (0..).map_while(volume).collect(),
            ..crate::PodOptions::default()
        }),
        ..PodSpec::default()
    };
    assert_eq!(spec.disks(), containers + init_containers + on_disk);
    let meta = ObjectMeta::new(Some(name("default")), name("a"));
    let pod = crate::Pod { meta, spec: Shared::new(spec), node: None, status: Default::default() };
    let object = Object::Pod(Arc::new(pod));
    let said = |level| validate_at(&object, level).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(crate::GUEST_DISKS_LEVEL).first().map(String::as_str), expected, "{counts:?}");
    assert_eq!(said(crate::GUEST_DISKS_LEVEL - 1), Vec::<String>::new(), "earlier logs mean what they meant");
}

#[test]
fn a_pod_has_no_more_disks_than_a_guest_has_places_for() {
    check_disks([28, 0, 0, 30], None);
    check_disks([1, 7, 20, 3], None);
    let remedy = "use fewer, emptyDir with medium Memory, or several pods";
    let said = |field, disks, containers, volumes| {
        format!(
            "spec.{field}: the pod needs {disks} disks, one for each of its {containers} containers and {volumes} volumes on disk, and a guest has places for 28: {remedy}"
        )
    };
    check_disks([29, 0, 0, 0], Some(&said("containers", 29, 29, 0)));
    check_disks([14, 15, 0, 0], Some(&said("containers", 29, 29, 0)));
    check_disks([1, 0, 28, 0], Some(&said("volumes", 29, 1, 28)));
}
