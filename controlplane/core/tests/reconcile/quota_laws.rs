//! What holds of quotas whatever users do and pods suffer.

use bulkhead_controlplane_core::{QuotaLevel, State, invariant};
use bulkhead_types::{Command, Kind, LimitType, Measure, Name, Object, QuotaAmounts};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, deployment, pod, pod_spec, rolling};
use crate::quota_kit::{cpu, department, item, named, namespace, project, quota, range, within};
use crate::sets::restored;

const NAMESPACES: [&str; 3] = ["default", "a", "b"];
const PROJECTS: [&str; 2] = ["p", "q"];

#[derive(Clone, Debug)]
enum Op {
    Quota(usize, usize, u64),
    DropQuota(usize, usize),
    Project(usize, bool, u64),
    Department(u64),
    Move(usize, Option<usize>),
    Pod(usize, u64),
    Deploy(usize, u32, u32),
    Range(bool),
    Delete(usize),
    Say(usize, Say),
    Agents,
    Advance(u64),
    NewLeader,
    Lose,
}

fn any_op() -> impl Strategy<Value = Op> {
    let (ns, some) = (0..NAMESPACES.len(), 0..12u64);
    let say = prop_oneof![Just(Say::Ready), Just(Say::Failed), Just(Say::Gone)];
    prop_oneof![
        3 => (ns.clone(), 0..2usize, some.clone()).prop_map(|(ns, which, most)| Op::Quota(ns, which, most)),
        1 => (ns.clone(), 0..2usize).prop_map(|(ns, which)| Op::DropQuota(ns, which)),
        2 => (0..2usize, any::<bool>(), 0..25u64).prop_map(|(p, above, most)| Op::Project(p, above, most)),
        1 => (0..40u64).prop_map(Op::Department),
        2 => (ns.clone(), prop::option::of(0..2usize)).prop_map(|(ns, to)| Op::Move(ns, to)),
        2 => (ns.clone(), 1..4u64).prop_map(|(ns, size)| Op::Pod(ns, size)),
        4 => (ns, 0..8u32, 0..3u32).prop_map(|(ns, replicas, version)| Op::Deploy(ns, replicas, version)),
        1 => any::<bool>().prop_map(Op::Range),
        3 => (0..32usize).prop_map(Op::Delete),
        4 => (0..32usize, say).prop_map(|(pod, say)| Op::Say(pod, say)),
        3 => Just(Op::Agents),
        2 => (1..5000u64).prop_map(Op::Advance),
        1 => Just(Op::NewLeader),
        1 => Just(Op::Lose),
    ]
}

/// Pods, and processor time of them.
fn most(count: u64) -> [(&'static str, u64); 2] {
    [("pods", count), ("requests.cpu", count * 100)]
}

fn command(op: &Op, state: &State) -> Option<Command> {
    let pods = || state.pods().iter().map(|pod| Object::Pod(pod.clone()).object_ref());
    let delete = |object| Command::Delete { object, grace_ms: None, force: false };
    Some(match op {
        Op::Quota(ns, which, count) => {
            Command::Apply(quota(NAMESPACES[*ns], ["x", "y"][*which], &most(*count)[..=*which]))
        }
        Op::DropQuota(ns, which) => {
            delete(named(Kind::ResourceQuota, Some(NAMESPACES[*ns]), ["x", "y"][*which]))
        }
        Op::Project(which, above, count) => {
            Command::Apply(project(PROJECTS[*which], above.then_some("d"), &most(*count)))
        }
        Op::Department(count) => Command::Apply(department("d", &most(*count))),
        Op::Move(ns, to) => Command::Apply(namespace(NAMESPACES[*ns], to.map(|to| PROJECTS[to]))),
        Op::Pod(ns, size) => {
            let spec = pod_spec("web:1", size * 100, 1 << 20);
            Command::Apply(within(NAMESPACES[*ns], pod(&format!("own-{}", state.revision()), spec)))
        }
        Op::Deploy(ns, replicas, version) => {
            let object = deployment("web", *replicas, |spec| {
                spec.strategy = rolling(2, 1);
                spec.template.spec =
                    bulkhead_types::Shared::new(pod_spec(&format!("web:{version}"), 100, 1 << 20));
            });
            Command::Apply(within(NAMESPACES[*ns], object))
        }
        Op::Range(strict) => {
            let mut bounds = item(LimitType::Container);
            (bounds.default, bounds.max.compute) = (cpu(150), cpu(if *strict { 150 } else { 1000 }));
            Command::Apply(range("r", vec![bounds]))
        }
        Op::Delete(at) => delete(pods().nth(*at)?),
        _ => return None,
    })
}

/// Every quota there is: its level and what it allows.
fn quotas(state: &State) -> Vec<(QuotaLevel, QuotaAmounts)> {
    let own = state.resource_quotas().iter().map(|one| {
        let namespace: Name = one.meta.namespace.clone().unwrap();
        (QuotaLevel::Namespace(namespace), one.spec.hard.clone())
    });
    let projects = state.projects().iter();
    let projects = projects.map(|one| (QuotaLevel::Project(one.meta.name.clone()), one.spec.hard.clone()));
    let departments = state.departments().iter();
    let departments =
        departments.map(|one| (QuotaLevel::Department(one.meta.name.clone()), one.spec.hard.clone()));
    own.chain(projects).chain(departments).collect()
}

/// No command takes a level above what it may have, nor further above when that was lowered.
fn check_use(before: &State, after: &State) {
    for (level, hard) in quotas(after) {
        for measure in [Measure::Pods, Measure::RequestsCpu] {
            let Some(hard) = hard.of(&measure) else { continue };
            let [was, is] = [before, after].map(|state| state.quota_use(&level).of(&measure));
            assert!(is <= was.max(u128::from(hard)), "{level:?} {}: {was} to {is} of {hard}", measure.name());
        }
    }
}

fn play(ops: &[Op]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(4);
    for object in [department("d", &[]), project("p", None, &[]), project("q", None, &[])] {
        cluster.ok(Command::Apply(object));
    }
    NAMESPACES.iter().for_each(|one| cluster.ok(Command::Apply(namespace(one, None))));
    cluster.watch(|seen| check_use(seen.before, seen.after));
    for (at, op) in ops.iter().enumerate() {
        let before = cluster.state().clone();
        if let Some(command) = command(op, &before) {
            _ = cluster.submit(vec![command]);
            check_use(&before, cluster.state());
            assert_eq!(invariant::check(cluster.state()), []);
        }
        match op {
            Op::Say(at, say) => {
                if let Some(pod) = before.pods().iter().nth(*at) {
                    cluster.say(pod.meta.id, *say);
                }
            }
            Op::Agents => _ = cluster.agents(),
            Op::Advance(ms) => cluster.advance(*ms),
            Op::NewLeader => cluster.new_leader(),
            Op::Lose => cluster.lose(),
            _ => {}
        }
        if !matches!(ops.get(at + 1), Some(Op::Lose)) {
            cluster.settle();
        }
    }
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_level_has_more_than_it_may_and_all_counts_agree(ops in prop::collection::vec(any_op(), 1..40)) {
        let mut cluster = play(&ops);
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest(), "events alone lead to the same State");
        prop_assert_eq!(invariant::check(&restored(cluster.state())), []);
        // Once nothing is limited, everything that is wanted comes.
        PROJECTS.iter().for_each(|one| cluster.ok(Command::Apply(project(one, None, &[]))));
        let quotas = NAMESPACES.iter().flat_map(|ns| ["x", "y"].map(|one| named(Kind::ResourceQuota, Some(ns), one)));
        for object in quotas.chain([named(Kind::LimitRange, Some("default"), "r")]) {
            // It may not be there.
            _ = cluster.submit(vec![Command::Delete { object, grace_ms: None, force: false }]);
        }
        let done = |cluster: &Cluster| {
            cluster.state().deployments().iter().all(|one| one.status.available_replicas == one.spec.replicas)
        };
        for _ in 0..60 {
            cluster.converge();
            if done(&cluster) {
                break;
            }
            cluster.advance(5000);
        }
        prop_assert!(done(&cluster), "{:?}", cluster.state().deployments().iter().collect::<Vec<_>>());
    }
}
