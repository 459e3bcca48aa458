//! Hard quotas: what is refused and how, what workloads do meanwhile, and what a rollout, a failed create and a race charge.

use std::sync::Arc;

use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    BuiltinClass, Command, Condition, DELIVERY_LEVEL, Kind, LABEL_PROJECT, LimitAmounts, LimitRatios,
    LimitType, Measure, Object, QuotaStatus, ResourceRequirements,
};
use expect_test::{Expect, expect};

use crate::job_kit::{cron_job, job};
use crate::kit::{
    Cluster, Say, deployment, facts, map, name, pod, pod_spec, reference, replica_set, rolling,
};
use crate::quota_kit::{
    amounts, bare, cpu, department, item, named, namespace, project, quota, range, used, within,
};
use crate::sets::{daemon_set, restored, stateful_set};
use crate::stateful_laws::data_claims;

const NONE: ResourceRequirements =
    ResourceRequirements { cpu_millis: None, memory_bytes: None, ephemeral_storage_bytes: None };

fn cluster(objects: Vec<Object>) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    objects.into_iter().for_each(|object| cluster.ok(Command::Apply(object)));
    cluster
}

/// What is said of an object, where those objects are; nothing is charged when it is refused.
#[track_caller]
fn check(objects: Vec<Object>, wanted: Object, expected: Expect) {
    let mut cluster = cluster(objects);
    let before = cluster.state().clone();
    let said = match cluster.submit(vec![Command::Apply(wanted)]) {
        Ok(_) => "done".to_owned(),
        Err(rejection) => {
            let levels = before.quota_levels(&name("default"));
            assert!(levels.into_iter().all(|l| before.quota_use(&l) == cluster.state().quota_use(&l)));
            rejection.to_string()
        }
    };
    assert_eq!(invariant::check(cluster.state()), []);
    expected.assert_eq(&said);
}

fn small(named: &str) -> Object {
    pod(named, pod_spec("web:1", 500, 64 << 20))
}

fn three_levels() -> Vec<Object> {
    vec![
        department("sales", &[("pods", 3)]),
        project("shop", Some("sales"), &[("requests.cpu", 1000)]),
        namespace("default", Some("shop")),
    ]
}

#[test]
fn a_refusal_names_the_level_the_resource_the_request_and_what_is_left() {
    check(
        vec![quota("default", "compute", &[("cpu", 700), ("pods", 9)]), small("a")],
        small("b"),
        expect![
            "Pod default/b: does not fit in ResourceQuota default/compute: requests.cpu: 500m asked for, 200m of 700m left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    check(
        vec![
            quota("default", "a", &[("pods", 9)]),
            quota("default", "b", &[("memory", 200 << 20), ("pods", 1)]),
            small("a"),
        ],
        small("b"),
        expect![
            "Pod default/b: does not fit in ResourceQuota default/b: pods: 1 asked for, 0 of 1 left; requests.memory: 135559905 asked for, 74155295 of 200Mi left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    check(
        [three_levels(), vec![small("a")]].concat(),
        pod("b", pod_spec("web:1", 600, 64 << 20)),
        expect![
            "Pod default/b: does not fit in Project shop: requests.cpu: 600m asked for, 500m of 1 left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    let tiny = |named| pod(named, pod_spec("web:1", 10, 1 << 20));
    check(
        [three_levels(), vec![tiny("a"), tiny("b"), tiny("c")]].concat(),
        tiny("d"),
        expect![
            "Pod default/d: does not fit in Department sales: pods: 1 asked for, 0 of 3 left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    check(
        vec![quota("default", "objects", &[("count/deployments.apps", 1)]), deployment("a", 0, |_| {})],
        deployment("b", 0, |_| {}),
        expect![
            "Deployment default/b: does not fit in ResourceQuota default/objects: count/deployments.apps: 1 asked for, 0 of 1 left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    check(
        vec![quota("default", "compute", &[("limits.memory", 1 << 30)])],
        pod("a", bare(NONE, ResourceRequirements { memory_bytes: Some(1 << 30), ..NONE })),
        expect![
            "Pod default/a: does not fit in ResourceQuota default/compute: limits.memory: 1162325524 asked for, 1Gi of 1Gi left; ask for less, end what is not needed, or raise that quota"
        ],
    );
}

fn claim(named: &str, storage_bytes: u64) -> Object {
    let meta = bulkhead_types::ObjectMeta::new(Some(name("default")), name(named));
    let spec = bulkhead_types::PersistentVolumeClaimSpec {
        access_mode: bulkhead_types::AccessMode::ReadWriteOnce,
        storage_bytes,
        storage_class: BuiltinClass::Local,
        class: Default::default(),
        volume_name: Default::default(),
    };
    let claim = bulkhead_types::PersistentVolumeClaim {
        meta,
        spec,
        source: Default::default(),
        status: Default::default(),
    };
    Object::PersistentVolumeClaim(Arc::new(claim))
}

#[test]
fn storage_is_limited_by_class_and_by_size() {
    let class = "local.storageclass.storage.k8s.io/requests.storage";
    check(
        vec![quota("default", "q", &[(class, 5 << 30)]), claim("a", 3 << 30)],
        claim("b", 3 << 30),
        expect![
            "PersistentVolumeClaim default/b: does not fit in ResourceQuota default/q: local.storageclass.storage.k8s.io/requests.storage: 3Gi asked for, 2Gi of 5Gi left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    check(
        vec![quota("default", "q", &[("persistentvolumeclaims", 0)])],
        claim("b", 1),
        expect![
            "PersistentVolumeClaim default/b: does not fit in ResourceQuota default/q: persistentvolumeclaims: 1 asked for, 0 of 0 left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    let mut sizes = item(LimitType::PersistentVolumeClaim);
    sizes.min = LimitAmounts { storage_bytes: Some(1 << 30), ..sizes.min };
    sizes.max = LimitAmounts { storage_bytes: Some(2 << 30), ..sizes.max };
    check(
        vec![range("sizes", vec![sizes.clone()])],
        claim("b", 1 << 20),
        expect![
            "PersistentVolumeClaim default/b: spec.resources.requests.storage: is 1Mi: the minimum of a PersistentVolumeClaim is 1Gi by LimitRange sizes; ask for another size"
        ],
    );
    check(
        vec![range("sizes", vec![sizes.clone()])],
        claim("b", 3 << 30),
        expect![
            "PersistentVolumeClaim default/b: spec.resources.requests.storage: is 3Gi: the maximum of a PersistentVolumeClaim is 2Gi by LimitRange sizes; ask for another size"
        ],
    );
    check(vec![range("sizes", vec![sizes])], claim("b", 2 << 30), expect![["done"]]);
}

#[test]
fn once_limited_it_must_be_said() {
    let limits = [("requests.cpu", 1000)];
    check(
        vec![quota("default", "q", &limits)],
        pod("a", bare(NONE, NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.requests.cpu: is required of container main: ResourceQuota default/q limits requests.cpu; say it, or give the namespace a LimitRange with defaults"
        ],
    );
    check(vec![quota("default", "q", &limits)], pod("a", bare(NONE, cpu(100))), expect![["done"]]);
    check(
        vec![quota("default", "q", &[("limits.cpu", 1000)])],
        pod("a", bare(cpu(100), NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.limits.cpu: is required of container main: ResourceQuota default/q limits limits.cpu; say it, or give the namespace a LimitRange with defaults"
        ],
    );
    let above = vec![project("shop", None, &[("memory", 1 << 30)]), namespace("default", Some("shop"))];
    check(
        above,
        pod("a", bare(cpu(100), NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.requests.memory: is required of container main: Project shop limits requests.memory; say it, or give the namespace a LimitRange with defaults"
        ],
    );
    let mut usual = item(LimitType::Container);
    usual.default = cpu(200);
    check(
        vec![quota("default", "q", &limits), range("usual", vec![usual])],
        pod("a", bare(NONE, NONE)),
        expect![["done"]],
    );
}

#[test]
fn limit_ranges_bound_what_a_pod_asks_for() {
    let with = |change: fn(&mut bulkhead_types::LimitRangeItem), limit_type| {
        let mut item = item(limit_type);
        change(&mut item);
        vec![range("bounds", vec![item])]
    };
    let container = LimitType::Container;
    check(
        with(|i| i.min.compute = cpu(200), container),
        pod("a", bare(cpu(100), NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.requests.cpu: is 100m: the minimum of a Container is 200m by LimitRange bounds; change it, or the LimitRange"
        ],
    );
    check(
        with(|i| i.max.compute = cpu(200), container),
        pod("a", bare(NONE, cpu(300))),
        expect![
            "Pod default/a: spec.containers[0].resources.limits.cpu: is 300m: the maximum of a Container is 200m by LimitRange bounds; change it, or the LimitRange"
        ],
    );
    check(
        with(|i| i.max.compute = cpu(200), container),
        pod("a", bare(cpu(300), NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.requests.cpu: is 300m, above the limit, which is 200m by the defaults of the namespace's LimitRanges; say the limit"
        ],
    );
    check(
        with(|i| i.default = cpu(200), container),
        pod("a", bare(cpu(300), NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.requests.cpu: is 300m, above the limit, which is 200m by the defaults of the namespace's LimitRanges; say the limit"
        ],
    );
    let ratio = |i: &mut bulkhead_types::LimitRangeItem| {
        i.max_limit_request_ratio = LimitRatios { cpu: Some(1500), ..LimitRatios::default() };
    };
    check(
        with(ratio, container),
        pod("a", bare(cpu(100), cpu(200))),
        expect![
            "Pod default/a: spec.containers[0].resources.limits.cpu: is 200m: a Container may have 1.5 times the request, which is 100m by LimitRange bounds; change it, or the LimitRange"
        ],
    );
    check(with(ratio, container), pod("a", bare(cpu(100), cpu(150))), expect![["done"]]);
    check(
        with(ratio, container),
        pod("a", bare(NONE, NONE)),
        expect![
            "Pod default/a: spec.containers[0].resources.limits.cpu: needs a request and a limit above 0: a Container may have 1.5 times the request by LimitRange bounds; change it, or the LimitRange"
        ],
    );
    check(
        with(|i| i.max.compute = cpu(200), LimitType::Pod),
        pod("a", bare(NONE, cpu(300))),
        expect![
            "Pod default/a: spec.containers[*].resources.limits.cpu: is 300m: the maximum of a Pod is 200m by LimitRange bounds; change it, or the LimitRange"
        ],
    );
    check(
        with(|i| i.min.compute = cpu(200), LimitType::Pod),
        pod("a", bare(NONE, NONE)),
        expect![
            "Pod default/a: spec.containers[*].resources.requests.cpu: is not given: the minimum of a Pod is 200m by LimitRange bounds; change it, or the LimitRange"
        ],
    );
}

#[test]
fn defaults_are_given_where_pods_come_to_be_in_the_order_of_names() {
    let mut first = item(LimitType::Container);
    (first.default_request, first.max.compute) = (cpu(100), cpu(400));
    let mut second = item(LimitType::Container);
    second.default = ResourceRequirements { memory_bytes: Some(1 << 30), cpu_millis: Some(9), ..NONE };
    let mut cluster = cluster(vec![range("b", vec![second]), range("a", vec![first])]);
    let given = bare(NONE, NONE);
    cluster.ok(Command::Create(replica_set("web", 1, given.clone())));
    cluster.settle();
    let web = cluster.active_pods().remove(0);
    let container = &web.spec.containers[0];
    assert_eq!(
        container.requests,
        ResourceRequirements { cpu_millis: Some(100), memory_bytes: Some(1 << 30), ..NONE }
    );
    assert_eq!(
        container.limits,
        ResourceRequirements { cpu_millis: Some(400), memory_bytes: Some(1 << 30), ..NONE }
    );
    let set = cluster.state().replica_sets().iter().next().unwrap();
    assert_eq!(*set.spec.template.spec, given, "templates stay as they are");
    cluster.ok(Command::Create(pod("own", given.clone())));
    cluster.ok(Command::Apply(pod("own", given)));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn sums_below_a_level_are_never_above_it() {
    let base = || {
        vec![
            department("sales", &[("pods", 10)]),
            project("shop", Some("sales"), &[("pods", 6)]),
            namespace("default", Some("shop")),
            namespace("other", Some("shop")),
            quota("default", "q", &[("pods", 4)]),
        ]
    };
    check(
        base(),
        quota("other", "q", &[("pods", 3)]),
        expect![
            "ResourceQuota other/q: spec.hard: would make the quotas of its namespaces 7 of pods together, and Project shop has 6; give less, lower others, or raise Project shop first"
        ],
    );
    check(base(), quota("other", "q", &[("pods", 2)]), expect![["done"]]);
    check(
        base(),
        project("shop", Some("sales"), &[("pods", 3)]),
        expect![
            "Project shop: spec.hard: would make the quotas of its namespaces 4 of pods together, and Project shop has 3; give less, lower others, or raise Project shop first"
        ],
    );
    check(
        base(),
        project("web", Some("sales"), &[("pods", 5)]),
        expect![
            "Project web: spec.hard: would make the quotas of its projects 11 of pods together, and Department sales has 10; give less, lower others, or raise Department sales first"
        ],
    );
    check(
        base(),
        department("sales", &[("pods", 5)]),
        expect![
            "Department sales: spec.hard: would make the quotas of its projects 6 of pods together, and Department sales has 5; give less, lower others, or raise Department sales first"
        ],
    );
    let third = vec![namespace("third", None), quota("third", "q", &[("pods", 9)])];
    check(
        [base(), third].concat(),
        namespace("third", Some("shop")),
        expect![
            "Namespace third: metadata.labels[bulkhead.io/project]: would make the quotas of its namespaces 13 of pods together, and Project shop has 6; give less, lower others, or raise Project shop first"
        ],
    );
    // The lowest of a namespace's quotas is what it may have.
    check(base(), quota("default", "wide", &[("pods", 100)]), expect![["done"]]);
    let mut cluster = cluster([base(), vec![quota("default", "wide", &[("pods", 100)])]].concat());
    let object = reference(Kind::ResourceQuota, "q");
    let refusal = cluster.submit(vec![Command::Delete { object, grace_ms: None, force: false }]).unwrap_err();
    expect!["ResourceQuota default/q: would make the quotas of its namespaces 100 of pods together, and Project shop has 6; give less, lower others, or raise Project shop first"].assert_eq(&refusal.to_string());
}

#[test]
fn who_belongs_to_whom_is_looked_at() {
    check(
        vec![],
        namespace("default", Some("none")),
        expect![
            "Project none, which Namespace default: metadata.labels[bulkhead.io/project] names: does not exist; create it first"
        ],
    );
    check(
        vec![],
        project("shop", Some("none"), &[]),
        expect![
            "Department none, which Project shop: spec.department names: does not exist; create it first"
        ],
    );
    let base = || {
        vec![
            department("sales", &[("pods", 1)]),
            project("full", None, &[("cpu", 700)]),
            project("shop", Some("sales"), &[]),
            small("a"),
            small("b"),
        ]
    };
    check(
        base(),
        namespace("default", Some("full")),
        expect![
            "Namespace default: metadata.labels[bulkhead.io/project]: what is there already does not fit in Project full: requests.cpu: 1 would come, 700m of 700m left; end some of it first, or raise that quota"
        ],
    );
    check(
        base(),
        namespace("default", Some("shop")),
        expect![
            "Namespace default: metadata.labels[bulkhead.io/project]: what is there already does not fit in Department sales: pods: 2 would come, 1 of 1 left; end some of it first, or raise that quota"
        ],
    );
    let inside = [base(), vec![namespace("default", Some("full"))]];
    let inside = inside
        .map(|objects| objects.into_iter().filter(|o| o.meta().name.as_str() != "b").collect::<Vec<_>>());
    check(inside.concat(), project("full", Some("sales"), &[("cpu", 700)]), expect![["done"]]);
    let mut cluster = cluster(inside.concat());
    cluster.ok(Command::Apply(project("full", Some("sales"), &[("cpu", 700)])));
    for (kind, text) in [(Kind::Project, "full"), (Kind::Department, "sales")] {
        let object = named(kind, None, text);
        let refusal = cluster.submit(vec![Command::Delete { object, grace_ms: None, force: false }]);
        let expected = match kind {
            Kind::Project => {
                expect!["Project full: Namespace default belongs to it; move or delete that namespace first"]
            }
            _ => expect!["Department sales: Project full belongs to it; move or delete that project first"],
        };
        expected.assert_eq(&refusal.unwrap_err().to_string());
    }
    cluster.ok(Command::Apply(namespace("default", None)));
    let object = named(Kind::Project, None, "full");
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    assert_eq!(invariant::check(cluster.state()), []);
}

#[test]
fn the_label_means_nothing_before_its_level() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), DELIVERY_LEVEL);
    cluster.ok(Command::Apply(namespace("default", Some("none"))));
    let refusal = cluster.submit(vec![Command::Create(quota("default", "q", &[("pods", 1)]))]).unwrap_err();
    expect!["featureLevel: needs level 7, the cluster runs at level 6; upgrade every server, then run `bulkhead cluster feature-level set 7`"].assert_eq(&refusal.to_string());
    cluster.ok(Command::Create(small("a")));
    assert_eq!(used(&cluster, "default", Measure::Pods), 1, "counted from the beginning");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// The condition that says why pods are missing.
fn failure(conditions: &[Condition]) -> String {
    let found = conditions.iter().find(|c| c.condition_type == "ReplicaFailure");
    found.map_or_else(|| "none".to_owned(), |c| format!("{}: {}", c.reason, c.message))
}

/// Who waits is looked at a moment after there may be room.
fn go_on(cluster: &mut Cluster) {
    cluster.settle();
    cluster.advance(200);
    cluster.converge();
}

fn set_hard(cluster: &mut Cluster, hard: &[(&str, u64)]) {
    cluster.ok(Command::Apply(quota("default", "q", hard)));
}

#[test]
fn a_deployment_waits_with_the_reason_and_goes_on_when_there_is_room() {
    let mut cluster = cluster(vec![quota("default", "q", &[("pods", 2)])]);
    cluster.ok(Command::Create(deployment("web", 4, |_| {})));
    cluster.converge();
    assert_eq!(cluster.active_pods().len(), 2, "as many as fit, and no more");
    let web = cluster.get_deployment("web");
    let said = failure(&web.status.conditions);
    assert!(said.starts_with("FailedCreate: Pod default/web-"), "{said}");
    assert!(
        said.ends_with("does not fit in ResourceQuota default/q: pods: 1 asked for, 0 of 2 left"),
        "{said}"
    );
    let before = cluster.proposals.len();
    cluster.advance(600_000);
    assert!(cluster.proposals.len() < before + 30, "nothing is tried again and again");
    set_hard(&mut cluster, &[("pods", 3)]);
    go_on(&mut cluster);
    assert_eq!(cluster.active_pods().len(), 3);
    // Room that another pod leaves is room as well.
    set_hard(&mut cluster, &[("pods", 4)]);
    cluster.ok(Command::Create(small("guest")));
    cluster.converge();
    assert_eq!(cluster.active_pods().len(), 4);
    cluster.advance(200);
    let guest = cluster.state().find(Kind::Pod, Some(&name("default")), &name("guest")).unwrap();
    cluster.say(guest, Say::Failed);
    go_on(&mut cluster);
    assert_eq!(cluster.get_deployment("web").status.available_replicas, 4, "a pod that ended does not count");
    assert_eq!(failure(&cluster.get_deployment("web").status.conditions), "none");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn room_of_another_namespace_of_the_project_wakes_as_well() {
    let mut cluster = cluster(vec![
        project("shop", None, &[("pods", 1)]),
        namespace("default", Some("shop")),
        namespace("other", Some("shop")),
        within("other", small("guest")),
    ]);
    cluster.ok(Command::Create(replica_set("web", 1, pod_spec("web:1", 10, 1 << 20))));
    cluster.converge();
    assert_eq!(cluster.active_pods().len(), 1);
    let set = cluster.state().replica_sets().iter().next().unwrap();
    assert!(set.status.failure.get().unwrap().message.contains("Project shop"), "{:?}", set.status);
    let object = named(Kind::Pod, Some("other"), "guest");
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.converge();
    go_on(&mut cluster);
    assert_eq!(cluster.active_pods()[0].meta.namespace, Some(name("default")));
    assert!(cluster.state().replica_sets().iter().next().unwrap().status.failure.get().is_none());
}

#[test]
fn sets_and_jobs_wait_as_well() {
    let mut cluster = cluster(vec![quota("default", "q", &[("pods", 0)])]);
    cluster.ok(Command::Create(stateful_set("db", 2, |_| {})));
    cluster.ok(Command::Create(daemon_set("log", |_| {})));
    cluster.ok(Command::Create(job("once", |spec| spec.parallelism = 1)));
    cluster.converge();
    assert_eq!(cluster.active_pods().len(), 0);
    for (of, conditions) in [
        ("db-0", &cluster.get_stateful_set("db").status.conditions),
        ("log", &cluster.get_daemon_set("log").status.conditions),
        ("once", &cluster.get_job("once").status.conditions),
    ] {
        let said = failure(conditions);
        let expected = format!(
            "FailedCreate: Pod default/{of}: does not fit in ResourceQuota default/q: pods: 1 asked for, 0 of 0 left"
        );
        assert_eq!(said, expected);
    }
    let before = cluster.proposals.len();
    cluster.advance(600_000);
    assert!(cluster.proposals.len() < before + 30, "nothing is tried again and again");
    set_hard(&mut cluster, &[("pods", 5)]);
    go_on(&mut cluster);
    assert_eq!(cluster.active_pods().len(), 5);
    for conditions in [
        &cluster.get_stateful_set("db").status.conditions,
        &cluster.get_daemon_set("log").status.conditions,
        &cluster.get_job("once").status.conditions,
    ] {
        assert_eq!(failure(conditions), "none");
    }
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn the_claims_of_a_stateful_set_come_with_its_pods_or_not_at_all() {
    let mut cluster = cluster(vec![quota("default", "q", &[("pods", 1), ("persistentvolumeclaims", 9)])]);
    cluster.ok(Command::Create(stateful_set("db", 2, |spec| {
        spec.claims = data_claims(Default::default(), Default::default());
        spec.pod_management_policy = bulkhead_types::PodManagementPolicy::Parallel;
    })));
    cluster.settle();
    assert_eq!(used(&cluster, "default", Measure::Pods), 1);
    assert_eq!(used(&cluster, "default", Measure::Claims), 1, "no claim for a pod that does not fit");
    set_hard(&mut cluster, &[("persistentvolumeclaims", 1)]);
    go_on(&mut cluster);
    assert_eq!(used(&cluster, "default", Measure::Pods), 1, "no pod for a claim that does not fit");
    set_hard(&mut cluster, &[("persistentvolumeclaims", 2)]);
    go_on(&mut cluster);
    assert_eq!(
        (used(&cluster, "default", Measure::Pods), used(&cluster, "default", Measure::Claims)),
        (2, 2)
    );
}

#[test]
fn objects_that_workloads_make_are_counted() {
    let mut cluster =
        cluster(vec![quota("default", "q", &[("count/replicasets.apps", 0), ("count/jobs.batch", 0)])]);
    cluster.ok(Command::Create(deployment("web", 1, |_| {})));
    cluster.ok(Command::Create(cron_job("tick", "* * * * *", |_| {})));
    cluster.converge();
    cluster.advance(120_000);
    let said = failure(&cluster.get_deployment("web").status.conditions);
    assert!(said.contains("count/replicasets.apps: 1 asked for, 0 of 0 left"), "{said}");
    let said = failure(&cluster.get_cron_job("tick").status.conditions);
    assert!(said.contains("count/jobs.batch: 1 asked for, 0 of 0 left"), "{said}");
    set_hard(&mut cluster, &[("count/replicasets.apps", 1), ("count/jobs.batch", 1)]);
    go_on(&mut cluster);
    assert_eq!(cluster.get_deployment("web").status.available_replicas, 1);
    assert_eq!(used(&cluster, "default", Measure::Count(Kind::Job)), 1);
    assert_eq!(failure(&cluster.get_cron_job("tick").status.conditions), "none");
}

#[test]
fn an_elastic_workload_says_which_unit_does_not_fit() {
    let mut cluster = cluster(vec![quota("default", "q", &[("count/deployments.apps", 1)])]);
    cluster.ok(Command::Create(deployment("web", 1, |_| {})));
    cluster.ok(Command::Create(crate::elastic::object(crate::elastic::usual(5))));
    cluster.converge();
    let synced = |cluster: &Cluster| {
        let found = cluster.state().elastic_workloads().iter().next().unwrap().clone();
        let condition = found.status.conditions[0].clone();
        format!("{}: {}", condition.reason, condition.message)
    };
    expect!["FailedCreate: unit spot: does not fit in ResourceQuota default/q: count/deployments.apps: 1 asked for, 0 of 1 left"].assert_eq(&synced(&cluster));
    set_hard(&mut cluster, &[("count/deployments.apps", 3)]);
    go_on(&mut cluster);
    expect!["UnitsFollow: "].assert_eq(&synced(&cluster));
    assert_eq!(used(&cluster, "default", Measure::Count(Kind::Deployment)), 3);
}

fn status(cluster: &Cluster, object: &bulkhead_types::ObjectRef) -> QuotaStatus {
    match cluster.state().find_object(object).unwrap() {
        Object::ResourceQuota(one) => one.status.clone(),
        Object::Project(one) => one.status.clone(),
        Object::Department(one) => one.status.clone(),
        other => panic!("{} is no quota", other.kind()),
    }
}

#[test]
fn a_quota_below_the_use_is_shown_and_lets_nothing_in() {
    let mut cluster = cluster([three_levels(), vec![quota("default", "q", &[("pods", 3)])]].concat());
    let tiny = |named| pod(named, pod_spec("web:1", 10, 1 << 20));
    for named in ["a", "b", "c"] {
        cluster.ok(Command::Create(tiny(named)));
    }
    set_hard(&mut cluster, &[("pods", 1)]);
    cluster.converge();
    cluster.advance(3000);
    let own = status(&cluster, &reference(Kind::ResourceQuota, "q"));
    assert_eq!(own, QuotaStatus { hard: amounts(&[("pods", 1)]), used: amounts(&[("pods", 3)]) });
    let above = status(&cluster, &named(Kind::Project, None, "shop"));
    assert_eq!(above.used, amounts(&[("requests.cpu", 30)]));
    assert_eq!(status(&cluster, &named(Kind::Department, None, "sales")).used, amounts(&[("pods", 3)]));
    let object = reference(Kind::Pod, "a");
    cluster.ok(Command::Delete { object, grace_ms: Some(0), force: false });
    cluster.converge();
    cluster.advance(3000);
    assert_eq!(status(&cluster, &reference(Kind::ResourceQuota, "q")).used, amounts(&[("pods", 2)]));
    let refusal = cluster.submit(vec![Command::Create(tiny("d"))]).unwrap_err();
    expect!["Pod default/d: does not fit in ResourceQuota default/q: pods: 1 asked for, 0 of 1 left; ask for less, end what is not needed, or raise that quota"].assert_eq(&refusal.to_string());
    let again = restored(cluster.state());
    assert_eq!(again.digest(), cluster.state().digest());
    assert_eq!(invariant::check(&again), [], "what was counted is counted again");
}

/// Pain 24: "quota exceeded in a rolling update".
#[test]
fn pain_24_a_rolling_update_stays_within_the_quota_and_ends() {
    let mut cluster = cluster(vec![quota("default", "q", &[("pods", 4), ("cpu", 400)])]);
    cluster.ok(Command::Create(deployment("web", 4, |spec| spec.strategy = rolling(2, 1))));
    cluster.converge();
    cluster.watch(|seen| {
        let after = seen.after;
        let level = after.quota_levels(&name("default")).next().unwrap();
        let used = after.quota_use(&level);
        assert!(used.of(&Measure::Pods) <= 4 && used.of(&Measure::RequestsCpu) <= 400, "{used:?}");
    });
    cluster.set_image("web", "web:2");
    for _ in 0..100 {
        cluster.converge();
        cluster.advance(100);
    }
    let status = &cluster.get_deployment("web").status;
    assert_eq!((status.updated_replicas, status.available_replicas, status.replicas), (4, 4, 4));
    assert_eq!(failure(&status.conditions), "none");
}

/// Pain 24: "leaked by a failed create".
#[test]
fn pain_24_a_refused_create_charges_nothing() {
    let mut cluster = cluster(vec![quota("default", "q", &[("pods", 2)]), small("a")]);
    for _ in 0..5 {
        // The second of a bundle does not fit, the third is no pod at all: nothing of it stays.
        let bundle = ["b", "c"].map(|named| Command::Create(small(named)));
        cluster.submit(bundle.to_vec()).unwrap_err();
        let twice = vec![Command::Create(small("b")), Command::Create(small("a"))];
        cluster.submit(twice).unwrap_err();
        assert_eq!(used(&cluster, "default", Measure::Pods), 1);
    }
    cluster.ok(Command::Create(small("b")));
    assert!(cluster.submit(vec![Command::Create(small("c"))]).is_err());
    for named in ["a", "b"] {
        cluster.ok(Command::Delete { object: reference(Kind::Pod, named), grace_ms: None, force: false });
    }
    cluster.converge();
    assert_eq!(used(&cluster, "default", Measure::Count(Kind::Pod)), 0);
    assert_eq!(invariant::check(cluster.state()), []);
}

/// Pain 24: "lost in a race".
#[test]
fn pain_24_of_two_creations_that_race_one_fits() {
    let mut cluster = cluster(vec![quota("default", "q", &[("cpu", 700)])]);
    let (one, other) = (
        cluster.stamped("user:one", vec![Command::Create(small("a"))]),
        cluster.stamped("user:other", vec![Command::Create(small("b"))]),
    );
    // In one batch of the log: both were looked at before either was there.
    let outcomes = [one, other].map(|stamped| cluster.apply(&stamped).transaction.outcome);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
    assert_eq!(used(&cluster, "default", Measure::RequestsCpu), 500);
    // Two leaders that ask for the same pods of a set take the room of one.
    cluster.ok(Command::Create(replica_set("web", 9, pod_spec("web:1", 100, 1 << 20))));
    let set = cluster.state().replica_sets().iter().next().unwrap().meta.id;
    for names in [["x-1", "x-2"], ["y-1", "y-2"]] {
        let names = names.map(name).to_vec();
        let stamped =
            cluster.stamped("system:replica-set", vec![Command::CreatePods { replica_set: set, names }]);
        _ = cluster.apply(&stamped);
    }
    assert_eq!(used(&cluster, "default", Measure::RequestsCpu), 700);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn what_the_guest_itself_needs_is_counted() {
    let mut cluster = cluster(vec![small("a")]);
    let overhead = 64 << 20;
    assert_eq!(used(&cluster, "default", Measure::RequestsMemory), (64 << 20) + overhead + ((64 << 20) / 50));
    assert_eq!(used(&cluster, "default", Measure::LimitsMemory), 0);
    cluster.node("node-9", facts(1000, 1 << 30, 10));
    let labels = map(&[(LABEL_PROJECT, "late")]);
    // A project that comes later than its namespaces' labels would have them counted; there are none such from level 7 on.
    assert!(
        cluster
            .submit(vec![Command::Apply(namespace("x", labels.get(LABEL_PROJECT).map(|l| l.as_str())))])
            .is_err()
    );
}
