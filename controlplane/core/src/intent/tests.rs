use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_EGRESS_BANDWIDTH, ANNOTATION_INGRESS_BANDWIDTH, ANNOTATION_SYSCTLS, Bytes, ConfigKeyRef,
    ConfigKind, ConfigMap, ConfigProjection, Container, ContainerOptions, ContainerResource, DownwardItem,
    DownwardSource, EnvFrom, EnvSource, EnvVar, KeyToPath, Name, Node, NodeFacts, NodePhase, NodeSpec,
    NodeStatus, ObjectMeta, PodField, PodOptions, PodSecurityContext, PodSpec, PodStatus, Projection,
    RESOLVED_POD_BYTES_MAX, ResourceField, ResourceRequirements, Resources, Secret, SecretType, Shared,
    Volume, VolumeSource,
};

use super::*;

const NODE: ObjectId = ObjectId(1);

fn meta(id: u64, name: &str) -> ObjectMeta {
    let namespace = Some(Name::new("shop").expect("a name"));
    ObjectMeta { id: ObjectId(id), ..ObjectMeta::new(namespace, Name::new(name).expect("a name")) }
}

fn config_map(id: u64, name: &str, data: &[(&str, &str)]) -> Object {
    Object::ConfigMap(Arc::new(ConfigMap {
        meta: meta(id, name),
        immutable: false,
        data: data.iter().map(|(k, v)| ((*k).into(), (*v).to_owned())).collect(),
        binary_data: [("raw".into(), Bytes::from(vec![0, 255]))].into(),
    }))
}

fn secret(id: u64, name: &str, data: &[(&str, &[u8])]) -> Object {
    Object::Secret(Arc::new(Secret {
        meta: meta(id, name),
        secret_type: SecretType::Opaque,
        immutable: false,
        data: data.iter().map(|(k, v)| ((*k).into(), v.to_vec().into())).collect(),
    }))
}

fn pod(id: u64, spec: PodSpec) -> Object {
    let mut meta = meta(id, &format!("pod-{id}"));
    meta.labels.insert("tier".into(), "front \"end\"".into());
    meta.labels.insert("app".into(), "web".into());
    Object::Pod(Arc::new(Pod {
        meta,
        spec: Shared::new(spec),
        node: Some(NODE),
        status: PodStatus::default(),
    }))
}

/// A node, a ConfigMap `settings` and a Secret `keys`.
fn state() -> State {
    let mut state = State::default();
    state.cluster_id = Some(Uuid::from_u128(7));
    let allocatable = Resources {
        cpu_millis: 4000,
        memory_bytes: 1 << 30,
        ephemeral_storage_bytes: 1 << 40,
        ..Resources::ZERO
    };
    state.put(Object::Node(Arc::new(Node {
        meta: ObjectMeta { id: NODE, ..ObjectMeta::new(None, Name::new("node-1").expect("a name")) },
        spec: NodeSpec::default(),
        status: NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts: NodeFacts { allocatable, ..NodeFacts::default() },
            pool: Default::default(),
            images: Default::default(),
            device_labels: Default::default(),
        },
    })));
    state.put(config_map(2, "settings", &[("COLOUR", "green"), ("a.b", "dotted"), ("1=2", "no name")]));
    state.put(secret(3, "keys", &[("token", b"s3cret$(COLOUR)"), ("bytes", &[0xff, 0xfe])]));
    state
}

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: value.to_owned(), ..EnvVar::default() }
}

fn var_from(name: &str, source: EnvSource) -> EnvVar {
    EnvVar { name: name.to_owned(), value_from: Rare::some(source), ..EnvVar::default() }
}

fn key(name: &str, key: &str, optional: bool) -> ConfigKeyRef {
    ConfigKeyRef { name: name.into(), key: key.into(), optional }
}

fn from(kind: ConfigKind, name: &str, prefix: &str, optional: bool) -> EnvFrom {
    EnvFrom { prefix: prefix.into(), kind, name: name.into(), optional }
}

fn container(env_from: Vec<EnvFrom>, env: Vec<EnvVar>, args: &[&str]) -> Container {
    Container {
        name: "main".into(),
        env,
        args: args.iter().map(ToString::to_string).collect(),
        limits: ResourceRequirements { cpu_millis: Some(1500), ..ResourceRequirements::default() },
        options: Rare::unless_default(ContainerOptions { env_from, ..ContainerOptions::default() }),
        ..Container::default()
    }
}

fn with_volume(source: VolumeSource) -> PodSpec {
    PodSpec {
        containers: vec![container(vec![], vec![], &[])],
        options: Rare::some(PodOptions {
            volumes: vec![Volume { name: "v".into(), source }],
            ..PodOptions::default()
        }),
        ..PodSpec::default()
    }
}

fn show(resolved: &ResolvedPod) -> String {
    if !resolved.missing.is_empty() {
        return format!("missing: {}", resolved.missing);
    }
    let text = |value: &bulkhead_types::Sensitive| String::from_utf8_lossy(value.reveal()).into_owned();
    let mut lines = Vec::new();
    for container in &resolved.containers {
        lines.extend(container.env.iter().map(|var| format!("{}={}", var.name, text(&var.value))));
        lines.extend(container.args.iter().map(|word| format!("arg {}", text(word))));
    }
    for volume in &resolved.volumes {
        lines.extend(
            volume
                .files
                .iter()
                .map(|f| format!("{}/{} {:o} {}", volume.volume, f.path, f.mode, text(&f.data))),
        );
    }
    lines.join("\n")
}

fn resolved(state: &mut State, spec: PodSpec) -> Option<ResolvedPod> {
    state.put(pod(9, spec));
    let intent = intent_of(state, NODE).expect("a node");
    intent.pods.into_iter().find(|p| p.id == ObjectId(9)).expect("bound").resolved.get().cloned()
}

fn check(spec: PodSpec, expected: &str) {
    let resolved = resolved(&mut state(), spec).expect("something to resolve");
    assert_eq!(show(&resolved), expected);
    let printed = format!("{resolved:?}");
    assert!(!printed.contains("s3cret"), "{printed}");
}

fn check_container(container: Container, expected: &str) {
    check(PodSpec { containers: vec![container], ..PodSpec::default() }, expected);
}

#[test]
fn a_pod_without_references_gets_its_spec_only() {
    let spec = PodSpec {
        containers: vec![container(vec![], vec![var("A", "$(B)")], &["$(A)"])],
        ..PodSpec::default()
    };
    assert_eq!(resolved(&mut state(), spec), None);
}

#[test]
fn variables_come_from_sets_and_keys_and_earlier_variables() {
    let secret = EnvSource::SecretKey(key("keys", "token", false));
    check_container(
        container(
            vec![from(ConfigKind::ConfigMap, "settings", "P_", false)],
            vec![
                var("EARLY", "$(LATE)"),
                var("LATE", "is $(P_COLOUR), not $$(P_COLOUR)"),
                var_from("TOKEN", secret),
                var("COPY", "$(TOKEN)"),
                var("P_COLOUR", "red"),
            ],
            &["$(P_COLOUR)", "$(NOBODY)", "$(COPY)"],
        ),
        "COPY=s3cret$(COLOUR)\nEARLY=$(LATE)\nLATE=is green, not $(P_COLOUR)\nP_COLOUR=red\nP_a.b=dotted\n\
         TOKEN=s3cret$(COLOUR)\narg red\narg $(NOBODY)\narg s3cret$(COLOUR)",
    );
}

#[test]
fn what_is_missing_is_named_and_what_is_optional_is_left_out() {
    let of_map = |name, of, optional| EnvSource::ConfigMapKey(key(name, of, optional));
    let one = |source| container(vec![], vec![var_from("A", source)], &[]);
    check_container(
        one(of_map("nobody", "k", false)),
        "missing: container main: A: ConfigMap \"nobody\" is not there",
    );
    check_container(
        one(of_map("settings", "k", false)),
        "missing: container main: A: ConfigMap \"settings\" has no key \"k\"",
    );
    check_container(one(of_map("nobody", "k", true)), "");
    check_container(one(of_map("settings", "k", true)), "");
    // Bytes become files only.
    check_container(
        one(of_map("settings", "raw", false)),
        "missing: container main: A: ConfigMap \"settings\" has no key \"raw\"",
    );
    check_container(
        one(EnvSource::SecretKey(key("keys", "bytes", true))),
        "missing: container main: A: key \"bytes\" of Secret \"keys\" is no text: only files may hold such bytes",
    );
    let set = |optional| container(vec![from(ConfigKind::Secret, "nobody", "", optional)], vec![], &[]);
    check_container(set(false), "missing: container main: Secret \"nobody\" is not there");
    check_container(set(true), "");
}

#[test]
fn a_pod_tells_of_itself() {
    let field = |name, field| var_from(name, EnvSource::Downward(DownwardSource::Field(field)));
    let amount = |name, resource, divisor| {
        let field = ResourceField { container_name: None, resource, divisor };
        var_from(name, EnvSource::Downward(DownwardSource::Resource(field)))
    };
    check_container(
        container(
            vec![],
            vec![
                field("A", PodField::Name),
                field("B", PodField::Namespace),
                field("C", PodField::NodeName),
                field("D", PodField::Label("app".into())),
                field("E", PodField::Annotation("none".into())),
                amount("F", ContainerResource::LimitsCpu, 1000),
                amount("G", ContainerResource::RequestsCpu, 1),
                amount("H", ContainerResource::LimitsMemory, 1 << 20),
                amount("I", ContainerResource::RequestsMemory, 1),
            ],
            &[],
        ),
        "A=pod-9\nB=shop\nC=node-1\nD=web\nE=\nF=2\nG=1500\nH=1024\nI=0",
    );
}

fn config(name: &str, optional: bool, items: &[(&str, &str, Option<u32>)]) -> ConfigProjection {
    let item = |(key, path, mode): &(&str, &str, Option<u32>)| KeyToPath {
        key: (*key).into(),
        path: (*path).to_owned(),
        mode: *mode,
    };
    ConfigProjection { name: name.into(), optional, items: items.iter().map(item).collect() }
}

#[test]
fn volumes_hold_keys_as_files() {
    let files = |source| with_volume(VolumeSource::Files { source, default_mode: 0o644 });
    check(
        files(Projection::ConfigMap(config("settings", false, &[]))),
        "v/1=2 644 no name\nv/COLOUR 644 green\nv/a.b 644 dotted\nv/raw 644 \0\u{fffd}",
    );
    check(
        files(Projection::Secret(config(
            "keys",
            false,
            &[("token", "deep/er", Some(0o400)), ("token", "b", None)],
        ))),
        "v/b 644 s3cret$(COLOUR)\nv/deep/er 400 s3cret$(COLOUR)",
    );
    check(
        files(Projection::Secret(config("keys", false, &[("no", "x", None)]))),
        "missing: volume v: Secret \"keys\" has no key \"no\"",
    );
    check(files(Projection::Secret(config("keys", true, &[("no", "x", None)]))), "");
    check(files(Projection::Secret(config("no", true, &[]))), "");
    check(
        files(Projection::ConfigMap(config("no", false, &[]))),
        "missing: volume v: ConfigMap \"no\" is not there",
    );
}

#[test]
fn of_equal_paths_in_a_projected_volume_the_last_wins() {
    let labels = DownwardItem {
        path: "labels".to_owned(),
        source: DownwardSource::Field(PodField::Labels),
        mode: None,
    };
    let sources = vec![
        Projection::ConfigMap(config("settings", false, &[("COLOUR", "x", None), ("COLOUR", "y", None)])),
        Projection::Secret(config("keys", false, &[("token", "x", Some(0o600))])),
        Projection::DownwardApi { items: vec![labels] },
    ];
    check(
        with_volume(VolumeSource::Projected { sources, default_mode: 0o440 }),
        "v/labels 440 app=\"web\"\ntier=\"front \\\"end\\\"\"\nv/x 600 s3cret$(COLOUR)\nv/y 440 green",
    );
}

#[test]
fn sizes_are_bounded() {
    let mut state = state();
    let spec = |name: &str| {
        with_volume(VolumeSource::Files {
            source: Projection::ConfigMap(config(name, false, &[])),
            default_mode: 0o644,
        })
    };
    let half = "x".repeat(RESOLVED_POD_BYTES_MAX - 1000);
    state.put(config_map(20, "large", &[("k", &half)]));
    state.put(config_map(21, "too-large", &[("k", &half), ("l", &half[..2000])]));
    let missing = resolved(&mut state, spec("too-large")).expect("resolved").missing;
    assert!(missing.starts_with("the pod's variables and files have 4"), "{missing}");
    // As many as fit have theirs, the oldest first.
    for id in 30..40 {
        state.put(pod(id, spec("large")));
    }
    state.remove(bulkhead_types::Kind::Pod, ObjectId(9));
    let intent = intent_of(&state, NODE).expect("a node");
    let starts: Vec<bool> =
        intent.pods.iter().map(|pod| pod.resolved.get().is_some_and(|r| r.missing.is_empty())).collect();
    let fit = RESOLVED_NODE_BYTES_MAX / RESOLVED_POD_BYTES_MAX;
    assert_eq!(starts, (0..10).map(|n| n < fit).collect::<Vec<_>>());
}

fn change(object: Object, former: Option<Object>, change_type: ChangeType) -> Change {
    Change { revision: 1, change_type, object, former }
}

#[test]
fn a_change_is_sent_to_the_nodes_of_those_that_refer_to_it() {
    let mut state = state();
    let refers = container(
        vec![from(ConfigKind::ConfigMap, "settings", "", false), from(ConfigKind::Secret, "later", "", true)],
        vec![],
        &[],
    );
    state.put(pod(9, PodSpec { containers: vec![refers], ..PodSpec::default() }));
    let touched =
        |state: &State, object: Object| nodes_touched(state, &change(object, None, ChangeType::Modified));
    assert_eq!(touched(&state, config_map(2, "settings", &[])), [NODE]);
    // Also what is not there yet; not what only has the same name.
    assert_eq!(touched(&state, secret(40, "later", &[])), [NODE]);
    assert_eq!(touched(&state, secret(41, "settings", &[])), []);
    assert_eq!(touched(&state, config_map(42, "others", &[])), []);
    state.remove(bulkhead_types::Kind::Pod, ObjectId(9));
    assert_eq!(touched(&state, config_map(2, "settings", &[])), []);
}

#[test]
fn labels_are_sent_again_where_a_volume_shows_them() {
    let item = DownwardItem {
        path: "l".to_owned(),
        source: DownwardSource::Field(PodField::Label("app".into())),
        mode: None,
    };
    let source = Projection::DownwardApi { items: vec![item] };
    let shows = with_volume(VolumeSource::Files { source, default_mode: 0o644 });
    for (spec, expected) in [(shows, vec![NODE]), (PodSpec::default(), vec![])] {
        let former = pod(9, spec.clone());
        let Object::Pod(present) = pod(9, spec) else { unreachable!("made as a pod") };
        let mut present = (*present).clone();
        present.meta.labels.insert("app".into(), "shop".into());
        let change = change(Object::Pod(Arc::new(present)), Some(former), ChangeType::Modified);
        assert_eq!(nodes_touched(&state(), &change), expected);
    }
}

#[test]
fn a_pod_that_ends_gets_no_values() {
    let mut state = state();
    let spec = PodSpec {
        containers: vec![container(vec![from(ConfigKind::Secret, "keys", "", false)], vec![], &[])],
        ..PodSpec::default()
    };
    let Object::Pod(pod) = pod(9, spec) else { unreachable!("made as a pod") };
    let mut pod = (*pod).clone();
    pod.meta.deletion = Some(Box::new(bulkhead_types::Deletion {
        requested_at_ms: 1,
        grace_ms: 1,
        by_job: false,
        preemptor: None,
    }));
    state.put(Object::Pod(Arc::new(pod)));
    assert!(intent_of(&state, NODE).expect("a node").pods[0].resolved.get().is_none());
}

#[test]
fn what_nics_shall_be_is_sent_when_it_changes_and_what_they_are_is_not() {
    use bulkhead_types::{SriovInterface, SriovNetworkNodeState, SriovNetworkNodeStateStatus};
    let nics = |num_vfs, step: &str| {
        let nic = SriovInterface {
            pci_address: "0000:60:00.0".into(),
            name: "eno0".into(),
            num_vfs,
            mtu: None,
            link_type: None,
            vf_groups: vec![],
        };
        let mut state = SriovNetworkNodeState {
            meta: ObjectMeta::new(None, Name::new("node-0").expect("valid")),
            node: NODE,
            spec: Default::default(),
            status: SriovNetworkNodeStateStatus { step: step.into(), ..Default::default() },
        };
        state.spec.interfaces.push(nic);
        Object::SriovNetworkNodeState(Arc::new(state))
    };
    let check = |present: Object, former: Option<Object>, expected: &[ObjectId]| {
        assert_eq!(nodes_touched(&state(), &change(present, former, ChangeType::Modified)), expected);
    };
    check(nics(2, ""), None, &[NODE]);
    check(nics(4, ""), Some(nics(2, "")), &[NODE]);
    check(nics(4, "Draining"), Some(nics(4, "")), &[]);
}

#[test]
fn addresses_have_places_that_the_node_fills_where_it_has_a_network() {
    let field = |name, field| var_from(name, EnvSource::Downward(DownwardSource::Field(field)));
    let container = container(
        vec![],
        vec![field("IP", PodField::PodIp), field("HOST", PodField::HostIp), var("URL", "http://$(IP):80")],
        &["--listen=$(IP)"],
    );
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let mut state = state();
    let without = resolved(&mut state, spec.clone()).expect("something to resolve");
    assert!(without.missing.contains("status.podIP is not there"), "{}", without.missing);
    let mut node = Node::clone(state.nodes().get(NODE).expect("a node"));
    node.status.facts.labels.insert(bulkhead_types::LABEL_POD_NETWORK.into(), "true".into());
    state.put(Object::Node(Arc::new(node)));
    let with = resolved(&mut state, spec).expect("something to resolve");
    let text = |value: &bulkhead_types::Sensitive| String::from_utf8(value.reveal().to_vec()).expect("text");
    let container = &with.containers[0];
    let env: Vec<String> = container.env.iter().map(|var| text(&var.value)).collect();
    assert_eq!(env, ["\0status.hostIP\0", "\0status.podIP\0", "http://\0status.podIP\0:80"]);
    assert_eq!(text(&container.args[0]), "--listen=\0status.podIP\0");
}

#[test]
fn settings_by_annotation_stand_beside_those_of_the_spec() {
    let mut state = state();
    let sysctl = |name: &str, value: &str| Sysctl { name: name.into(), value: value.to_owned() };
    let security =
        PodSecurityContext { sysctls: vec![sysctl("vm/swappiness", "10")], ..PodSecurityContext::default() };
    let options = PodOptions { security: Rare::some(security), ..PodOptions::default() };
    let Object::Pod(pod) = pod(9, PodSpec { options: Rare::some(options), ..PodSpec::default() }) else {
        unreachable!("a pod")
    };
    let mut pod = Pod::clone(&pod);
    let annotation = "vm.swappiness=60,net.ipv4.ip_forward=1";
    pod.meta.annotations = [(ANNOTATION_SYSCTLS.into(), annotation.into())].into_iter().collect();
    let mut told = |level: u32| {
        state.set_feature_level(level);
        state.put(Object::Pod(Arc::new(pod.clone())));
        let spec = intent_of(&state, NODE).expect("a node").pods[0].spec.clone();
        spec.security().map(|security| security.sysctls.clone())
    };
    let own = sysctl("vm/swappiness", "10");
    assert_eq!(told(ANNOTATED_SYSCTLS_LEVEL - 1), Some(vec![own.clone()]));
    assert_eq!(told(ANNOTATED_SYSCTLS_LEVEL), Some(vec![own, sysctl("net.ipv4.ip_forward", "1")]));
}

#[test]
fn agents_are_told_of_limits_from_their_level_on() {
    let mut state = state();
    let limited = |egress: &str| {
        let Object::Pod(pod) = pod(9, PodSpec::default()) else { unreachable!("a pod") };
        let mut pod = Pod::clone(&pod);
        let annotations = [(ANNOTATION_INGRESS_BANDWIDTH, "10M"), (ANNOTATION_EGRESS_BANDWIDTH, egress)];
        pod.meta.annotations =
            annotations.map(|(key, value)| (key.into(), value.into())).into_iter().collect();
        Object::Pod(Arc::new(pod))
    };
    let mut told = |level: u32, pod: &Object| {
        state.set_feature_level(level);
        state.put(pod.clone());
        intent_of(&state, NODE).expect("a node").pods[0].bandwidth
    };
    let bandwidth = |egress_bits_per_second| {
        Some(PodBandwidth { ingress_bits_per_second: Some(10_000_000), egress_bits_per_second })
    };
    assert_eq!(told(BANDWIDTH_LEVEL - 1, &limited("1k")), None);
    assert_eq!(told(BANDWIDTH_LEVEL, &limited("1k")), bandwidth(Some(1_000)));
    assert_eq!(told(BANDWIDTH_LEVEL, &limited("as it was")), bandwidth(None), "from before that level");
    let change = |former: &str| Change {
        revision: 1,
        change_type: ChangeType::Modified,
        object: limited("1k"),
        former: Some(limited(former)),
    };
    assert_eq!(nodes_touched(&state, &change("2k")), [NODE]);
    assert_eq!(nodes_touched(&state, &change("1k")), []);
}

fn registries(id: u64, name: &str, secret_type: SecretType, text: &str) -> Object {
    let key = secret_type.docker_config().map_or("password", |(key, _)| key);
    let data = [(key.into(), text.as_bytes().to_vec().into())].into();
    Object::Secret(Arc::new(Secret { meta: meta(id, name), secret_type, immutable: false, data }))
}

fn pulls_with(names: &[&str]) -> PodSpec {
    let names = names.iter().map(|name| (*name).into()).collect();
    let secrets = Rare::some(bulkhead_types::ImagePullSecrets { names });
    let options = PodOptions { image_pull_secrets: secrets, ..PodOptions::default() };
    PodSpec { options: Rare::some(options), ..PodSpec::default() }
}

/// A cluster with a Secret of each sort; `me:s3cret` is `bWU6czNjcmV0`.
fn state_with_registries() -> State {
    let mut state = state();
    let config = r#"{"auths": {"a.example": {"auth": "bWU6czNjcmV0"}, "b.example": {}}, "HttpHeaders": {"X": "s3cret"}}"#;
    state.put(registries(50, "new", SecretType::DockerConfigJson, config));
    let older = r#"{"c.example": {"username": "me", "password": "s3cret"}}"#;
    state.put(registries(51, "older", SecretType::DockerCfg, older));
    state.put(registries(52, "other", SecretType::BasicAuth, "s3cret"));
    state.put(registries(53, "broken", SecretType::DockerConfigJson, "s3cret"));
    state
}

fn pull_credentials(state: &mut State, spec: PodSpec) -> Option<bulkhead_types::PullCredentials> {
    state.put(pod(9, spec));
    let intent = intent_of(state, NODE).expect("a node");
    let printed = format!("{intent:?}");
    assert!(!printed.contains("s3cret") && !printed.contains("czNjcmV0"), "{printed}");
    let found = intent.pods.into_iter().find(|p| p.id == ObjectId(9)).expect("bound");
    assert!(found.resolved.get().is_none(), "they hold nothing back");
    found.pull_credentials.get().cloned()
}

fn check_pulls(names: &[&str], expected: &[&str], problems: &[&str]) {
    let mut state = state_with_registries();
    let found = pull_credentials(&mut state, pulls_with(names)).expect("it names Secrets");
    let text = |value: &bulkhead_types::Sensitive| String::from_utf8_lossy(value.reveal()).into_owned();
    let shown = found.credentials.iter().map(|one| {
        format!("{} {}:{} {}", one.secret, text(&one.username), text(&one.password), one.registry)
    });
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    let missing = found.missing.iter().map(|name| format!("{name} is missing"));
    assert_eq!(missing.chain(found.problems).collect::<Vec<_>>(), problems);
}

#[test]
fn pull_secrets_are_the_registries_credentials_and_no_more() {
    let (new, older) = ("new me:s3cret a.example", "older me:s3cret c.example");
    let empty = "Secret new: b.example: has neither auth nor username and password";
    check_pulls(&["older", "new"], &[older, new], &[empty]);
    check_pulls(&["new", "new"], &[new], &[empty]);
    check_pulls(&["gone", "older"], &[older], &["gone is missing"]);
    check_pulls(
        &["other", "broken", "settings"],
        &[],
        &[
            "settings is missing",
            "Secret other: is of type kubernetes.io/basic-auth, which holds no credentials of registries",
            "Secret broken: is no JSON object (line 1 column 1)",
        ],
    );
    assert_eq!(pull_credentials(&mut state_with_registries(), PodSpec::default()), None);
}

#[test]
fn pull_secrets_go_to_the_pods_that_name_them_and_to_their_nodes() {
    let mut state = state_with_registries();
    state.put(pod(8, PodSpec::default()));
    let Object::Pod(stopping) = pod(7, pulls_with(&["new"])) else { unreachable!("made as a pod") };
    let mut stopping = (*stopping).clone();
    stopping.status.phase = bulkhead_types::PodPhase::Succeeded;
    state.put(Object::Pod(Arc::new(stopping)));
    assert!(pull_credentials(&mut state, pulls_with(&["new", "later"])).is_some());
    let intent = intent_of(&state, NODE).expect("a node");
    let with: Vec<bool> = intent.pods.iter().map(|pod| pod.pull_credentials.get().is_some()).collect();
    assert_eq!(with, [false, false, true], "neither one that ended nor one that names none");
    let touched = |object: Object| nodes_touched(&state, &change(object, None, ChangeType::Modified));
    assert_eq!(touched(registries(50, "new", SecretType::DockerConfigJson, "{}")), [NODE]);
    assert_eq!(touched(registries(60, "later", SecretType::DockerCfg, "{}")), [NODE]);
    assert_eq!(touched(registries(51, "older", SecretType::DockerCfg, "{}")), []);
}

#[test]
fn pull_secrets_are_bounded() {
    let mut state = state();
    let large = "x".repeat(bulkhead_types::PULL_CREDENTIALS_BYTES_MAX / 2);
    let entry = |name: &str| format!(r#""{name}": {{"username": "me", "password": "{large}"}}"#);
    let text = format!("{{{}, {}, {}}}", entry("a"), entry("b"), entry("c"));
    state.put(registries(50, "large", SecretType::DockerCfg, &text));
    let found = pull_credentials(&mut state, pulls_with(&["large"])).expect("it names Secrets");
    assert_eq!(found.credentials.len(), 1);
    assert_eq!(found.problems, ["Secret large: there is no room for all credentials"]);
}
