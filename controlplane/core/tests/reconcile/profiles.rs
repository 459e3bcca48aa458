//! Profiles and PriorityClasses over a real machine: what new pods get, and which are placed first.

use std::sync::Arc;

use bulkhead_types::{
    Command, Kind, LabelSelector, Namespace, Object, ObjectMeta, ObjectRef, Pod, PodSpec, PriorityClass,
    Profile, ProfileEffect, ProfileRule, ProfileSpec, Rare, RequestFromLimit, ResourceRequirements,
    Toleration, TolerationOperator,
};
use expect_test::{Expect, expect};

use crate::kit::{Cluster, GIB, deployment, facts, map, name, pod, pod_spec, reference};

fn selector(pairs: &[(&str, &str)]) -> Option<LabelSelector> {
    Some(LabelSelector::from_labels(map(pairs)))
}

fn profile(named: &str, rules: Vec<ProfileRule>) -> Command {
    let (meta, spec) = (ObjectMeta::new(None, name(named)), ProfileSpec { rules });
    Command::Create(Object::Profile(Arc::new(Profile { meta, spec })))
}

fn rule(named: &str, pods: &[(&str, &str)], effect: ProfileEffect) -> ProfileRule {
    ProfileRule { name: named.into(), namespace_selector: None, object_selector: selector(pods), effect }
}

fn labels(pairs: &[(&str, &str)]) -> ProfileEffect {
    ProfileEffect { labels: map(pairs), ..ProfileEffect::default() }
}

fn tolerate(key: &str) -> Toleration {
    Toleration {
        key: key.into(),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: None,
        toleration_ms: None,
    }
}

fn find(cluster: &Cluster, named: &str) -> Arc<Pod> {
    match cluster.state().find_object(&reference(Kind::Pod, named)) {
        Some(Object::Pod(pod)) => pod,
        _ => panic!("no pod {named}"),
    }
}

fn written(pod: &Pod) -> String {
    let list = |map: &bulkhead_types::StringMap| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    let tolerations: Vec<_> = pod.spec.tolerations.iter().map(|t| t.key.as_str()).collect();
    let requests = pod.spec.containers[0].requests;
    format!(
        "labels {}\nnotes {}\nnodes {}\ntolerates {}\nclass {}\nrequests {:?} {:?}\n",
        list(&pod.meta.labels),
        list(&pod.meta.annotations),
        list(&pod.spec.node_selector),
        tolerations.join(","),
        pod.spec.priority_class().map_or("none", |class| class.as_str()),
        requests.cpu_millis,
        requests.memory_bytes,
    )
}

/// What a pod of label `app=web` and node selector `disk=ssd` is once it was created beside these profiles.
fn check(profiles: Vec<Command>, expected: Expect) {
    let mut cluster = Cluster::new();
    profiles.into_iter().for_each(|profile| cluster.ok(profile));
    let mut wanted = pod_spec("web:1", 100, 64 << 20);
    wanted.node_selector = map(&[("disk", "ssd")]);
    wanted.tolerations.push(tolerate("own"));
    let limits = ResourceRequirements { cpu_millis: Some(501), ..ResourceRequirements::default() };
    wanted.containers[0].limits = limits;
    let Object::Pod(mut object) = pod("web", wanted) else { unreachable!() };
    Arc::make_mut(&mut object).meta.labels = map(&[("app", "web")]);
    cluster.ok(Command::Create(Object::Pod(object)));
    expected.assert_eq(&written(&find(&cluster, "web")));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn the_own_value_wins_and_then_the_first_profile_by_name() {
    let effect = |zone: &str, class: &str| ProfileEffect {
        labels: map(&[("app", "other"), ("zone", zone)]),
        annotations: map(&[("zone", zone)]),
        node_selector: map(&[("disk", "hdd"), ("zone", zone)]),
        tolerations: vec![tolerate("own"), tolerate(zone)],
        priority_class_name: Some(class.into()),
        request_from_limit: RequestFromLimit::default(),
    };
    check(
        vec![
            profile("b", vec![rule("x", &[], effect("b", "low"))]),
            profile(
                "a",
                vec![rule("x", &[("app", "web")], effect("a", "high")), rule("y", &[], effect("c", "low"))],
            ),
            profile("c", vec![rule("x", &[("app", "db")], effect("d", "low"))]),
        ],
        expect![[r#"
            labels app=web,zone=a
            notes zone=a
            nodes disk=ssd,zone=a
            tolerates own,a,c,b
            class high
            requests Some(100) Some(67108864)
        "#]],
    );
}

#[test]
fn the_manifest_of_a_pod_that_a_profile_changed_can_be_applied_again() {
    let mut cluster = Cluster::new();
    let effect = ProfileEffect {
        request_from_limit: RequestFromLimit { cpu_percent: Some(50), memory_percent: None },
        tolerations: vec![tolerate("spot")],
        ..ProfileEffect::default()
    };
    cluster.ok(profile("a", vec![rule("x", &[], effect)]));
    let mut wanted = pod_spec("web:1", 100, 64 << 20);
    wanted.containers[0].limits =
        ResourceRequirements { cpu_millis: Some(600), ..ResourceRequirements::default() };
    let manifest = Command::Apply(pod("web", wanted.clone()));
    cluster.ok(manifest.clone());
    let present = find(&cluster, "web");
    assert_eq!(present.spec.containers[0].requests.cpu_millis, Some(300));
    cluster.ok(manifest);
    assert_eq!(find(&cluster, "web").spec, present.spec);
    wanted.containers[0].limits.cpu_millis = Some(700);
    let refused = cluster.submit(vec![Command::Apply(pod("web", wanted))]).expect_err("another limit");
    assert_eq!(refused.reason, "a pod's spec cannot change");
}

#[test]
fn rules_look_at_labels_that_pods_have_by_themselves() {
    check(
        vec![profile(
            "a",
            vec![
                rule("x", &[], labels(&[("tier", "gold")])),
                rule("y", &[("tier", "gold")], labels(&[("more", "yes")])),
            ],
        )],
        expect![[r#"
            labels app=web,tier=gold
            notes 
            nodes disk=ssd
            tolerates own
            class none
            requests Some(100) Some(67108864)
        "#]],
    );
}

#[test]
fn requests_become_a_share_of_limits_where_there_are_some() {
    let share = |cpu_percent, memory_percent| ProfileEffect {
        request_from_limit: RequestFromLimit { cpu_percent, memory_percent },
        ..ProfileEffect::default()
    };
    check(
        vec![profile(
            "a",
            vec![rule("x", &[], share(Some(50), None)), rule("y", &[], share(Some(10), Some(50)))],
        )],
        expect![[r#"
            labels app=web
            notes 
            nodes disk=ssd
            tolerates own
            class none
            requests Some(251) Some(67108864)
        "#]],
    );
}

#[test]
fn both_selectors_must_match_and_pods_of_one_template_share_what_they_get() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    let mut meta = ObjectMeta::new(None, name("default"));
    meta.labels = map(&[("team", "blue")]);
    cluster.ok(Command::Apply(Object::Namespace(Arc::new(Namespace { meta }))));
    let rule = |named: &str, team, app| ProfileRule {
        name: named.into(),
        namespace_selector: selector(&[("team", team)]),
        object_selector: selector(&[("app", app)]),
        effect: ProfileEffect { tolerations: vec![tolerate(named)], ..labels(&[(named, "yes")]) },
    };
    cluster.ok(profile(
        "a",
        vec![rule("both", "blue", "web"), rule("one", "blue", "db"), rule("none", "red", "db")],
    ));
    cluster.ok(Command::Create(deployment("web", 3, |_| {})));
    cluster.converge();
    let pods = cluster.active_pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert!(pod.meta.labels.contains_key("both") && !pod.meta.labels.contains_key("one"), "{pod:?}");
        assert_eq!(pod.spec.tolerations, [tolerate("both")]);
        assert!(std::ptr::eq(&raw const *pod.spec, &raw const *pods[0].spec), "one spec in memory");
    }
    // What pods get is no change of their template: nothing is rolled out by it.
    let sets = cluster.sets("web");
    cluster.ok(profile(
        "b",
        vec![ProfileRule { effect: labels(&[("late", "yes")]), ..rule("late", "blue", "web") }],
    ));
    cluster.converge();
    assert_eq!(cluster.sets("web"), sets);
    assert!(cluster.active_pods().iter().all(|pod| !pod.meta.labels.contains_key("late")));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

fn class(named: &str, value: i32, global_default: bool) -> Object {
    let meta = ObjectMeta::new(None, name(named));
    let description = String::new();
    Object::PriorityClass(Arc::new(PriorityClass {
        meta,
        value,
        global_default,
        preemption_policy: None,
        description,
    }))
}

fn of_class(class: Option<&str>) -> PodSpec {
    let mut spec = pod_spec("web:1", 1000, GIB);
    let options =
        bulkhead_types::PodOptions { priority_class: class.map(Into::into).into(), ..Default::default() };
    spec.options = Rare::unless_default(options);
    spec
}

/// Which of the pods, by name and class and in the order of creation, get the room for so many of them.
fn check_order(classes: &[(&str, i32, bool)], pods: &[(&str, Option<&str>)], room: u32, expected: &[&str]) {
    let mut cluster = Cluster::new();
    for (named, value, global_default) in classes {
        cluster.ok(Command::Create(class(named, *value, *global_default)));
    }
    for (named, class) in pods {
        cluster.ok(Command::Create(pod(named, of_class(*class))));
    }
    cluster.settle();
    cluster.node("a", facts(16_000, 64 * GIB, room));
    cluster.settle();
    let placed: Vec<String> = pods
        .iter()
        .filter(|(named, _)| find(&cluster, named).node.is_some())
        .map(|(named, _)| (*named).to_owned())
        .collect();
    assert_eq!(placed, expected, "{classes:?} {pods:?}");
}

#[test]
fn pods_of_higher_priority_are_placed_first() {
    let classes = [("high", 1000, false), ("low", -5, false)];
    let pods = [("a", Some("low")), ("b", None), ("c", Some("high")), ("d", Some("high"))];
    check_order(&classes, &pods, 1, &["c"]);
    check_order(&classes, &pods, 2, &["c", "d"]);
    check_order(&classes, &pods, 3, &["b", "c", "d"]);
    check_order(&[("usual", 7, true), ("low", 1, false)], &[("a", Some("low")), ("b", None)], 1, &["b"]);
    check_order(&classes, &[("a", Some("high")), ("b", Some("system-cluster-critical"))], 1, &["b"]);
    // Who waits for a class that is not there holds up nobody.
    check_order(&classes, &[("a", Some("gone")), ("b", Some("low"))], 2, &["b"]);
}

#[test]
fn a_pod_waits_for_its_class_and_is_told() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Create(pod("a", of_class(Some("late")))));
    cluster.settle();
    let told = find(&cluster, "a").status.message.clone();
    assert_eq!(told, "PriorityClass late does not exist: create it, or let the pod name another one");
    cluster.ok(Command::Create(class("late", 3, false)));
    cluster.settle();
    assert!(find(&cluster, "a").node.is_some());
}

#[test]
fn classes_that_contradict_others_are_refused() {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(class("usual", 7, true)));
    let refusal = |cluster: &mut Cluster, command| cluster.submit(vec![command]).unwrap_err().to_string();
    let refusals = [
        refusal(&mut cluster, Command::Create(class("other", 8, true))),
        refusal(&mut cluster, Command::Apply(class("usual", 8, true))),
        refusal(&mut cluster, Command::Create(class("system-mine", 8, false))),
        refusal(&mut cluster, Command::Create(class("huge", 1_000_000_001, false))),
    ];
    expect![[r#"
        PriorityClass other: globalDefault: PriorityClass usual is the default already: one at most is; set globalDefault: false there first
        PriorityClass usual: value: cannot change after creation; delete the object and create it anew, or give the new one another name
        PriorityClass system-mine: metadata.name: must not begin with "system-": such classes are the system's own
        PriorityClass huge: value: must be at most 1000000000: above are the system's own"#]].assert_eq(&refusals.join("\n"));
    cluster.ok(Command::Apply(class("usual", 7, false)));
    cluster.ok(Command::Create(class("other", 8, true)));
    let of = ObjectRef { kind: Kind::PriorityClass, namespace: None, name: name("usual") };
    cluster.ok(Command::Delete { object: of, grace_ms: None, force: false });
}
