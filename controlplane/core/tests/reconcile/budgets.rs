//! PodDisruptionBudgets over a real machine: what evictions leave.

use std::sync::Arc;

use bulkhead_types::{
    Command, DisruptionBound, DisruptionBudgetSpec, DisruptionBudgetStatus, IntOrPercent, Kind,
    LabelSelector, Object, ObjectMeta, ObjectRef, Pod, PodDisruptionBudget, Rejection, RejectionCode,
    UnhealthyPodEvictionPolicy,
};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, deployment, map, name, reference};

pub fn budget(named: &str, bound: DisruptionBound, policy: UnhealthyPodEvictionPolicy) -> Object {
    let selector = LabelSelector::from_labels(map(&[("app", "web")]));
    let spec = DisruptionBudgetSpec { bound, selector, unhealthy_pod_eviction_policy: policy };
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    let status = DisruptionBudgetStatus::default();
    Object::PodDisruptionBudget(Arc::new(PodDisruptionBudget { meta, spec, status }))
}

fn least(count: u32) -> DisruptionBound {
    DisruptionBound::MinAvailable(IntOrPercent::Int(count))
}

/// A Deployment of so many ready pods, and a budget.
fn cluster(replicas: u32, bound: DisruptionBound) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Create(deployment("web", replicas, |_| {})));
    cluster.ok(Command::Create(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.converge();
    cluster.advance(3000);
    cluster
}

fn pods(cluster: &Cluster) -> Vec<ObjectRef> {
    cluster.active_pods().into_iter().map(|pod| Object::Pod(pod).object_ref()).collect()
}

fn evict(cluster: &mut Cluster, pod: &ObjectRef) -> Result<u64, Rejection> {
    cluster.submit(vec![Command::Evict { pod: pod.clone(), grace_ms: None, autoscaler: None }])
}

/// How many of all pods may be evicted at once, and the status before that: allowed, healthy, must stay, expected.
fn check(replicas: u32, bound: DisruptionBound, evicted: u32, status: [u32; 4]) {
    let mut cluster = cluster(replicas, bound);
    let reference = reference(Kind::PodDisruptionBudget, "web");
    let Some(Object::PodDisruptionBudget(found)) = cluster.state().find_object(&reference) else {
        panic!("no budget")
    };
    let DisruptionBudgetStatus {
        disruptions_allowed, current_healthy, desired_healthy, expected_pods, ..
    } = found.status;
    let seen = [disruptions_allowed, current_healthy, desired_healthy, expected_pods];
    assert_eq!(seen, status, "{replicas} {bound:?}");
    let mut done = 0;
    for pod in pods(&cluster) {
        match evict(&mut cluster, &pod) {
            Ok(_) => done += 1,
            Err(rejection) => {
                assert_eq!(rejection.code, RejectionCode::NotAllowed);
                assert!(rejection.reason.contains("PodDisruptionBudget web"), "{rejection}");
            }
        }
    }
    assert_eq!(done, evicted, "{replicas} {bound:?}");
}

#[test]
fn budgets_leave_what_they_say() {
    use DisruptionBound::{MaxUnavailable, MinAvailable};
    use IntOrPercent::{Int, Percent};
    check(4, MinAvailable(Int(3)), 1, [1, 4, 3, 4]);
    check(4, MinAvailable(Int(9)), 0, [0, 4, 9, 4]);
    check(4, MinAvailable(Int(0)), 4, [4, 4, 0, 4]);
    check(7, MinAvailable(Percent(50)), 3, [3, 7, 4, 7]);
    check(4, MaxUnavailable(Int(1)), 1, [1, 4, 3, 4]);
    check(7, MaxUnavailable(Percent(30)), 3, [3, 7, 4, 7]);
    check(3, MaxUnavailable(Int(0)), 0, [0, 3, 3, 3]);
}

#[test]
fn an_eviction_is_allowed_again_once_another_pod_is_ready() {
    let mut cluster = cluster(3, least(2));
    let all = pods(&cluster);
    evict(&mut cluster, &all[0]).unwrap();
    assert!(evict(&mut cluster, &all[1]).is_err());
    evict(&mut cluster, &all[0]).expect("it ends already: nothing more is lost");
    cluster.converge();
    evict(&mut cluster, &all[1]).unwrap();
}

#[test]
fn pods_that_are_not_healthy_go_by_the_policy() {
    let unready = |cluster: &mut Cluster| -> Arc<Pod> {
        let pod = cluster.active_pods().remove(0);
        cluster.say(pod.meta.id, Say::NotReady);
        pod
    };
    let mut cluster = cluster(3, least(2));
    let pod = unready(&mut cluster);
    // Two of three are healthy, which is enough: the third is no loss.
    evict(&mut cluster, &Object::Pod(pod).object_ref()).unwrap();
    let mut cluster = self::cluster(3, least(3));
    let pod = Object::Pod(unready(&mut cluster)).object_ref();
    assert!(evict(&mut cluster, &pod).is_err(), "too few are healthy: it may become so");
    cluster.ok(Command::Apply(budget("web", least(3), UnhealthyPodEvictionPolicy::AlwaysAllow)));
    evict(&mut cluster, &pod).unwrap();
}

#[test]
fn all_budgets_of_a_pod_must_allow_it_and_deletions_ask_none() {
    let mut cluster = cluster(3, least(1));
    cluster.ok(Command::Create(budget("strict", least(3), UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    let all = pods(&cluster);
    let rejection = evict(&mut cluster, &all[0]).unwrap_err();
    assert!(rejection.reason.contains("PodDisruptionBudget strict"), "{rejection}");
    cluster.ok(Command::Delete { object: all[0].clone(), grace_ms: None, force: false });
    assert!(evict(&mut cluster, &reference(Kind::Pod, "none")).is_err());
    assert!(evict(&mut cluster, &reference(Kind::Deployment, "web")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However two drains race, evictions never leave fewer healthy pods than the budget says.
    #[test]
    fn no_race_of_evictions_goes_below_the_budget(
        replicas in 1..8u32,
        keep in 0..8u32,
        order in proptest::collection::vec((0..8usize, any::<bool>()), 1..30),
    ) {
        let mut cluster = cluster(replicas, least(keep));
        for (pick, settles) in order {
            let all = pods(&cluster);
            if let Some(pod) = all.get(pick % all.len().max(1)) {
                let before = cluster.active_pods().iter().filter(|pod| pod.status.ready).count();
                let evicted = evict(&mut cluster, pod).is_ok();
                let after = cluster.active_pods().iter().filter(|pod| pod.status.ready).count();
                prop_assert!(!evicted || after == before || after >= keep as usize);
            }
            if settles {
                cluster.converge();
            }
        }
    }
}
