//! What holds of a StatefulSet whatever users do and pods suffer: every single command of a reconciler is held against
//! the rules in the documentation's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimRetention, Command, Kind, PersistentVolumeClaimSpec, Pod,
    PodManagementPolicy, Rare, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy, StringMap,
    VolumeClaimTemplate, VolumeClaims,
};
use proptest::prelude::*;

use crate::kit::{Cluster, reference};
use crate::play::{self, Chance, Seen, Word, any_chance, check_history, check_repeats, delete};
use crate::sets::{image, is_active, is_available, ordinal, partition, stateful_set, template_of};

#[derive(Clone, Debug)]
enum Op {
    Word(Word),
    Start(u32),
    Image(u32),
    Partition(u32, u32),
    OnDelete,
    DeleteClaim(u32),
    Volumes,
    Chance(Chance),
}

fn any_op() -> impl Strategy<Value = Op> {
    let word = prop_oneof![
        2 => (0u32..7).prop_map(Word::Scale),
        1 => any::<bool>().prop_map(Word::Stop),
        1 => Just(Word::Undo),
        1 => (0u32..100).prop_map(Word::Restart),
    ];
    prop_oneof![
        5 => word.prop_map(Op::Word),
        1 => (0u32..3).prop_map(Op::Start),
        3 => (1u32..4).prop_map(Op::Image),
        2 => (0u32..4, 1u32..4).prop_map(|(from, most)| Op::Partition(from, most)),
        1 => Just(Op::OnDelete),
        1 => (0u32..4).prop_map(Op::DeleteClaim),
        2 => Just(Op::Volumes),
        19 => any_chance().prop_map(Op::Chance),
    ]
}

/// The obvious model: a set's pods by ordinal, at a time.
struct Model<'a> {
    set: &'a StatefulSet,
    now_ms: u64,
    pods: BTreeMap<u32, &'a Arc<Pod>>,
}

impl<'a> Model<'a> {
    fn of(state: &'a State, set: &'a StatefulSet, now_ms: u64) -> Self {
        let mut pods = BTreeMap::new();
        for pod in state.pods_of(set.meta.id) {
            assert!(pods.insert(ordinal(pod), pod).is_none(), "two pods of ordinal {}", ordinal(pod));
        }
        Self { set, now_ms, pods }
    }

    fn well(&self, ordinal: u32) -> bool {
        let min_ready_ms = self.set.spec.min_ready_ms;
        self.pods.get(&ordinal).is_some_and(|pod| is_available(pod, min_ready_ms, self.now_ms))
    }

    fn wanted(&self) -> std::ops::Range<u32> {
        self.set.spec.ordinals()
    }

    fn unavailable(&self) -> u32 {
        self.wanted().filter(|ordinal| !self.well(*ordinal)).count() as u32
    }

    fn ids(&self) -> BTreeSet<u64> {
        self.pods.values().map(|pod| pod.meta.id.0).collect()
    }
}

/// From which ordinal on an update replaces pods, and how many may be missing; `None` when it does not.
fn rolling(spec: &StatefulSetSpec) -> Option<(u32, u32)> {
    match spec.update_strategy {
        StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable } => {
            Some((spec.ordinals_start + partition, max_unavailable.resolve(spec.replicas, true).max(1)))
        }
        StatefulSetUpdateStrategy::OnDelete => None,
    }
}

/// A pod has its claim when it comes, and only the policy takes one away that nobody deleted.
fn check_claims(set: &StatefulSet, before: &State, after: &State) {
    let claims = |state: &State| {
        let mut claims = BTreeMap::new();
        for claim in state.persistent_volume_claims().iter() {
            let ordinal = claim.meta.name.as_str().strip_prefix("data-db-").unwrap().parse::<u32>().unwrap();
            assert!(claims.insert(ordinal, Arc::clone(claim)).is_none(), "two claims of {ordinal}");
        }
        claims
    };
    let (was, is) = (claims(before), claims(after));
    let model = Model::of(before, set, 0);
    // One that is stopped keeps all of its claims.
    let kept = set.spec.ordinals_start..set.spec.ordinals_start + set.spec.replicas;
    for pod in after.pods_of(set.meta.id).filter(|pod| before.pods().get(pod.meta.id).is_none()) {
        let claim = is.get(&ordinal(pod)).unwrap_or_else(|| panic!("{} has no claim", pod.meta.name));
        assert!(!claim.meta.is_deleting() && claim.meta.id < pod.meta.id, "{claim:?}");
        assert!(pod.spec.claims().eq([claim.meta.name.as_str()]));
    }
    for (at, claim) in was.iter().filter(|(_, claim)| !claim.meta.is_deleting()) {
        let stays = is.get(at).is_some_and(|now| now.meta.id == claim.meta.id && !now.meta.is_deleting());
        let policy = set.spec.claims.get().map(|claims| claims.when_scaled);
        let may_go =
            policy == Some(ClaimRetention::Delete) && !kept.contains(at) && !model.pods.contains_key(at);
        assert!(stays || may_go, "the claim of {at} goes");
    }
}

/// A command of a reconciler does to a set's pods only what the documentation says.
pub fn check(seen: &Seen<'_>, set: &StatefulSet) {
    let &Seen { now_ms, before, after, .. } = seen;
    let (was, is) = (Model::of(before, set, now_ms), Model::of(after, set, now_ms));
    let in_order = set.spec.pod_management_policy == PodManagementPolicy::OrderedReady;
    let former = was.ids();
    for (at, pod) in is.pods.iter().filter(|(_, pod)| !former.contains(&pod.meta.id.0)) {
        assert!(was.wanted().contains(at), "{at} is not wanted");
        let below = was.wanted().take_while(|ordinal| ordinal < at);
        assert!(!in_order || below.into_iter().all(|ordinal| was.well(ordinal)), "{at} came too early");
        let keeps = rolling(&set.spec).is_some_and(|(from, _)| *at < from);
        let template = template_of(after, pod);
        let current = bulkhead_types::Name::new(&set.status.current_revision).ok();
        let current = current
            .and_then(|name| before.find(Kind::ControllerRevision, set.meta.namespace.as_ref(), &name));
        let current = current.and_then(|id| before.controller_revisions().get(id)).map(|row| &row.template);
        let expected = current.filter(|_| keeps).unwrap_or(&set.spec.template);
        assert_eq!(template, *expected, "{at} has another template than wanted");
    }
    for (at, pod) in was.pods.iter().filter(|(_, pod)| !pod.meta.is_deleting()) {
        let stays = is.pods.get(at).is_some_and(|now| now.meta.id == pod.meta.id && !now.meta.is_deleting());
        if !stays && is_active(pod) {
            check_given_up(&was, &is, before, *at, pod);
        }
    }
}

fn check_given_up(was: &Model<'_>, is: &Model<'_>, before: &State, at: u32, pod: &Pod) {
    let set = was.set;
    let in_order = set.spec.pod_management_policy == PodManagementPolicy::OrderedReady;
    if !was.wanted().contains(&at) {
        let others = was.pods.iter().filter(|(other, _)| !was.wanted().contains(other) && **other != at);
        let others: Vec<_> = others.filter(|(_, pod)| is_active(pod)).map(|(other, _)| *other).collect();
        assert!(!in_order || others.iter().all(|other| *other < at), "{at} goes before {others:?}");
        assert!(!in_order || was.unavailable() == 0, "{at} goes while others are not ready");
        let ending = was.pods.values().filter(|pod| pod.meta.is_deleting()).count();
        assert!(!in_order || ending == 0, "{at} goes while another one ends");
        return;
    }
    let Some((from, most)) = rolling(&set.spec) else { panic!("{at} is given up, although OnDelete") };
    assert!(at >= from, "{at} is below the partition {from}");
    assert_ne!(template_of(before, pod), set.spec.template, "{at} has the wanted template");
    let bound = most.max(was.unavailable());
    assert!(is.unavailable() <= bound, "{} unavailable, of {bound}", is.unavailable());
    if was.well(at) {
        let higher = was.wanted().filter(|other| *other > at && was.well(*other) && is.well(*other));
        for other in higher {
            assert_eq!(template_of(before, was.pods[&other]), set.spec.template, "{at} goes before {other}");
        }
    }
}

fn perform(cluster: &mut Cluster, op: &Op) {
    match op {
        // Some are refused: without history, or twice in a second, or while it is stopped.
        Op::Word(word) => _ = cluster.submit(vec![word.of(reference(Kind::StatefulSet, "db"))]),
        Op::Start(start) => cluster.change_stateful_set("db", |spec| spec.ordinals_start = *start),
        Op::Image(version) => cluster.change_stateful_set("db", |spec| spec.template = image("db", *version)),
        Op::Partition(from, most) => {
            cluster.change_stateful_set("db", |spec| spec.update_strategy = partition(*from, *most));
        }
        Op::OnDelete => {
            let on_delete = StatefulSetUpdateStrategy::OnDelete;
            cluster.change_stateful_set("db", |spec| spec.update_strategy = on_delete);
        }
        Op::DeleteClaim(at) => {
            _ = cluster.submit(vec![delete(Kind::PersistentVolumeClaim, &format!("data-db-{at}"))]);
        }
        Op::Volumes => _ = cluster.delete_volumes(),
        Op::Chance(chance) => cluster.befall(chance),
    }
}

/// One claim for each pod, with what becomes of it: when the set is deleted, and when it is scaled.
pub fn data_claims(when_deleted: ClaimRetention, when_scaled: ClaimRetention) -> Rare<VolumeClaims> {
    let template = VolumeClaimTemplate {
        name: "data".into(),
        labels: StringMap::new(),
        annotations: StringMap::new(),
        spec: PersistentVolumeClaimSpec {
            access_mode: AccessMode::ReadWriteOncePod,
            storage_bytes: 1 << 30,
            storage_class: BuiltinClass::Local,
            class: Default::default(),
            volume_name: Default::default(),
        },
    };
    Rare::some(VolumeClaims { templates: vec![template], when_deleted, when_scaled })
}

fn play(policy: PodManagementPolicy, min_ready_ms: u64, ops: &[Op], claims: ClaimRetention) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(3);
    cluster.watch(|seen| {
        for set in seen.before.stateful_sets().iter() {
            check_claims(set, seen.before, seen.after);
            check(seen, set);
        }
    });
    cluster.ok(Command::Apply(stateful_set("db", 3, |spec| {
        spec.pod_management_policy = policy;
        spec.min_ready_ms = min_ready_ms;
        spec.revision_history_limit = 2;
        spec.claims = data_claims(claims, claims);
    })));
    cluster.settle();
    play::play(&mut cluster, ops, |op| matches!(op, Op::Chance(Chance::Lose)), perform);
    cluster
}

/// Lets everything get well: then every wanted ordinal has an available pod, and nothing else is there.
fn heal(cluster: &mut Cluster) {
    // A lost word comes back after a while.
    cluster.advance(40_000);
    _ = cluster.submit(vec![Word::Stop(false).of(reference(Kind::StatefulSet, "db"))]);
    let is_done = play::heal(cluster, |cluster| {
        let set = cluster.get_stateful_set("db");
        let model = Model::of(cluster.state(), &set, cluster.now_ms);
        let from = rolling(&set.spec).map_or(u32::MAX, |(from, _)| from);
        let updated = |(at, pod): (&u32, &&Arc<Pod>)| {
            *at < from || template_of(cluster.state(), pod) == set.spec.template
        };
        model.unavailable() == 0
            && model.pods.len() as u32 == set.spec.replicas
            && model.pods.iter().all(updated)
    });
    assert!(is_done, "never done: {} {:#?}", cluster.ordinals("db"), cluster.get_stateful_set("db").status);
}

proptest! {
    #![proptest_config(play::cases(96))]

    #[test]
    fn ordinals_keep_their_order_and_rollouts_end(
        in_order in any::<bool>(),
        min_ready_ms in prop_oneof![Just(0u64), Just(7000)],
        ops in prop::collection::vec(any_op(), 1..40),
        claims in prop_oneof![Just(ClaimRetention::Retain), Just(ClaimRetention::Delete)],
    ) {
        let policy = if in_order { PodManagementPolicy::OrderedReady } else { PodManagementPolicy::Parallel };
        let mut cluster = play(policy, min_ready_ms, &ops, claims);
        heal(&mut cluster);
        let set = cluster.get_stateful_set("db");
        let (spec, status) = (&set.spec, &set.status);
        prop_assert_eq!(status.observed_generation, set.meta.generation);
        let counts = (status.replicas, status.ready_replicas, status.available_replicas);
        prop_assert_eq!(counts, (spec.replicas, spec.replicas, spec.replicas));
        if spec.update_strategy == partition(0, 1) {
            prop_assert_eq!(&status.current_revision, &status.update_revision);
        }
        prop_assert!(cluster.state().controller_revisions().len() <= 2 + 2 + spec.replicas as usize);
        check_history(&cluster);
        let there = cluster.state().persistent_volume_claims().len();
        match claims {
            ClaimRetention::Delete => prop_assert_eq!(there, spec.replicas as usize),
            ClaimRetention::Retain => prop_assert!(there >= spec.replicas as usize),
        }
        cluster.watch(|_| panic!("a set at rest is left alone"));
        cluster.new_leader();
        cluster.settle();
        cluster.watch(|_| ());
        cluster.ok(delete(Kind::StatefulSet, "db"));
        let ending = cluster.state().persistent_volume_claims().iter().filter(|one| one.meta.is_deleting());
        let ending = ending.count();
        cluster.converge();
        let left = cluster.state().persistent_volume_claims().len();
        prop_assert_eq!(left, if claims == ClaimRetention::Retain { there - ending } else { 0 });
    }
}

proptest! {
    // Each case is run twice, and a difference shows at once or never.
    #![proptest_config(play::cases(24))]

    #[test]
    fn equal_inputs_give_equal_outputs(ops in prop::collection::vec(any_op(), 1..25)) {
        check_repeats(|| play(PodManagementPolicy::OrderedReady, 0, &ops, ClaimRetention::Delete));
    }
}
