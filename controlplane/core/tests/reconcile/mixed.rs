//! All kinds at once. Users, agents and time do anything; a small model knows only what users said last, and from that
//! what must be there once everybody is well. Every command of a reconciler on the way is held against the laws of its
//! kind, so that no kind keeps its promises at the expense of another.

mod model;

use bulkhead_types::{Command, Kind, OwnerRef, Pod};
use proptest::prelude::*;

use crate::job_kit::Fate;
use crate::kit::{Cluster, GIB, facts, name, reference};
use crate::play::{self, Chance, Seen, Word, any_chance, check_history, delete};
use crate::{daemon_laws, delivery_laws, job_laws, laws, stateful_laws};
use model::{Model, NAMES, kind_of};

/// Stands for all workloads.
const ALL: &str = "*";

#[derive(Clone, Debug)]
enum Op {
    Word(usize, Word),
    Image(usize, u32),
    Apply(usize),
    Remove(usize),
    Bare(usize),
    Unbare(usize),
    Suspend(bool),
    Label(usize, bool),
    Join(usize),
    /// A machine burns down; the operator says so.
    Burn(usize),
    /// What each pod of `auto` uses, in thousandths of a core.
    Use(u64),
    /// A pod of a Job ends.
    End(usize, Fate),
    Guests,
    Chance(Chance),
}

fn any_op() -> impl Strategy<Value = Op> {
    let word = prop_oneof![
        4 => (0u32..5).prop_map(Word::Scale),
        1 => any::<bool>().prop_map(Word::Pause),
        2 => any::<bool>().prop_map(Word::Stop),
        1 => (0u32..100).prop_map(Word::Restart),
        2 => prop::bool::weighted(0.2).prop_map(|full| Word::Promote { full }),
        1 => Just(Word::Abort),
        1 => Just(Word::Retry),
    ];
    let fate = prop_oneof![3 => Just(Fate::Succeeds), 1 => (1..4i32).prop_map(Fate::Fails)];
    let which = || 0usize..NAMES.len();
    prop_oneof![
        9 => (which(), word).prop_map(|(at, word)| Op::Word(at, word)),
        5 => (which(), 1u32..4).prop_map(|(at, version)| Op::Image(at, version)),
        3 => which().prop_map(Op::Apply),
        2 => which().prop_map(Op::Remove),
        1 => (0usize..3).prop_map(Op::Bare),
        1 => (0usize..3).prop_map(Op::Unbare),
        1 => any::<bool>().prop_map(Op::Suspend),
        1 => (0usize..5, any::<bool>()).prop_map(|(node, is)| Op::Label(node, is)),
        1 => (0usize..5).prop_map(Op::Join),
        1 => (0usize..5).prop_map(Op::Burn),
        1 => prop::sample::select(vec![20u64, 50, 100]).prop_map(Op::Use),
        3 => (0usize..8, fate).prop_map(|(at, fate)| Op::End(at, fate)),
        4 => Just(Op::Guests),
        14 => any_chance().prop_map(Op::Chance),
    ]
}

/// What must hold of every command of a reconciler. Bounds of Deployments are promised while their spec is stable: what
/// users just `touched` is left out.
fn check(seen: &Seen<'_>, touched: &str) {
    for pod in seen.before.pods().iter() {
        let now = seen.after.pods().get(pod.meta.id);
        assert!(now.is_none_or(|now| now.meta.owner == pod.meta.owner), "{} changes hands", pod.meta.name);
    }
    let of_clock = |owner: OwnerRef| seen.after.cron_jobs().get(owner.id).is_some();
    let nightly = seen.after.jobs().iter().filter(|job| job.meta.owner.is_some_and(of_clock));
    assert!(
        nightly.filter(|job| job.end().is_none()).count() <= 1,
        "two jobs of one CronJob that forbids it"
    );
    job_laws::check_parallelism(seen);
    // What is on a lost node is not available: that is no decision.
    if seen.by == "node-lifecycle" {
        return;
    }
    for deployment in seen.after.deployments().iter() {
        delivery_laws::check_steps(seen, deployment);
        if touched != ALL && deployment.meta.name.as_str() != touched {
            laws::check_bounds(seen, deployment);
        }
    }
    seen.before.stateful_sets().iter().for_each(|set| stateful_laws::check(seen, set));
    seen.before.daemon_sets().iter().for_each(|set| daemon_laws::check(seen, set));
}

/// The workload whose bounds a move may change at once.
fn touched(op: &Op) -> &'static str {
    match op {
        Op::Word(at, _) | Op::Image(at, _) | Op::Apply(at) | Op::Remove(at) => NAMES[*at],
        Op::Burn(_) | Op::Chance(Chance::Delete(_)) => ALL,
        _ => "",
    }
}

fn is_loss(op: &Op) -> bool {
    matches!(op, Op::Chance(Chance::Lose))
}

fn perform(cluster: &mut Cluster, model: &mut Model, op: &Op) {
    match op {
        Op::Word(at, word) => {
            let object = reference(kind_of(NAMES[*at]), NAMES[*at]);
            if cluster.submit(vec![word.of(object)]).is_ok() {
                model.hear(NAMES[*at], word);
            }
        }
        Op::Image(at, version) => model.change_image(cluster, NAMES[*at], *version),
        Op::Apply(at) => model.apply(cluster, NAMES[*at]),
        Op::Remove(at) => model.remove(cluster, NAMES[*at]),
        Op::Bare(at) => model.create_bare(cluster, *at),
        Op::Unbare(at) => {
            let bare = Model::bare_name(*at);
            if cluster.submit(vec![delete(Kind::Pod, &bare)]).is_ok() {
                model.bare.remove(&bare);
            }
        }
        Op::Suspend(suspended) => {
            let object = reference(Kind::CronJob, "clock");
            _ = cluster.submit(vec![Command::SetSuspended { object, suspended: *suspended }]);
        }
        Op::Label(at, is) => {
            let node = format!("node-{at}");
            if cluster.state().find(Kind::Node, None, &name(&node)).is_some() {
                let disk = if *is { "fast" } else { "slow" };
                cluster.change_node(&node, |node| _ = node.meta.labels.insert("disk".into(), disk.into()));
            }
        }
        Op::Join(at) => join(cluster, *at),
        Op::Burn(at) => burn(cluster, model, *at),
        Op::Use(millis) => model.use_millis = *millis,
        Op::End(at, fate) => {
            let of_job = |pod: &&std::sync::Arc<Pod>| is_of_job(pod);
            let pods: Vec<_> = cluster.active_pods().iter().filter(of_job).map(|pod| pod.meta.id).collect();
            if let Some(pod) = pods.get(at % pods.len().max(1)) {
                cluster.fate(*pod, *fate);
            }
        }
        Op::Guests => model.start_guests(cluster),
        Op::Chance(chance) => {
            if let Chance::Delete(at) = chance
                && let Some(pod) = cluster.pick(*at)
            {
                model.bare.remove(pod.meta.name.as_str());
            }
            cluster.befall(chance);
        }
    }
}

fn is_of_job(pod: &Pod) -> bool {
    pod.meta.owner.is_some_and(|owner| owner.kind == Kind::Job)
}

/// A node with a fast disk joins, or its agent starts again.
fn join(cluster: &mut Cluster, at: usize) {
    let node = format!("node-{at}");
    cluster.node(&node, facts(16_000, 64 * GIB, 100));
    cluster.change_node(&node, |node| _ = node.meta.labels.insert("disk".into(), "fast".into()));
}

/// A machine is lost with all that is on it; two others are left.
fn burn(cluster: &mut Cluster, model: &mut Model, at: usize) {
    let node = cluster.state().find(Kind::Node, None, &name(&format!("node-{at}")));
    let Some(node) = node.filter(|_| cluster.state().nodes().len() > 2) else { return };
    cluster.silent.push(node);
    cluster.advance(60_000);
    cluster.state().pods_on(node).for_each(|pod| _ = model.bare.remove(pod.meta.name.as_str()));
    let object = reference(Kind::Node, &format!("node-{at}"));
    cluster.ok(Command::Delete { object, grace_ms: None, force: true });
    cluster.silent.clear();
}

/// Everybody does as they should from now on, until all is as the model says.
fn heal(cluster: &mut Cluster, model: &Model) {
    cluster.watch(|seen| check(seen, ALL));
    for name in ["web", "canary", "auto"] {
        _ = cluster.submit(vec![Word::Pause(false).of(reference(Kind::Deployment, name))]);
    }
    let object = reference(Kind::CronJob, "clock");
    _ = cluster.submit(vec![Command::SetSuspended { object, suspended: false }]);
    // A lost word comes back after a while.
    cluster.advance(40_000);
    cluster.watch(|seen| check(seen, ""));
    let mut said = Ok(());
    for _ in 0..200 {
        model.start_guests(cluster);
        let jobs: Vec<_> = cluster.active_pods().into_iter().filter(|pod| is_of_job(pod)).collect();
        jobs.iter().for_each(|pod| cluster.fate(pod.meta.id, Fate::Succeeds));
        let canary = Word::Promote { full: false }.of(reference(Kind::Deployment, "canary"));
        _ = cluster.submit(vec![canary]);
        cluster.advance(5000);
        said = model.at_rest(cluster);
        if said.is_ok() {
            return;
        }
    }
    panic!("never at rest: {}", said.unwrap_err());
}

proptest! {
    #![proptest_config(play::cases(32))]

    #[test]
    fn all_kinds_keep_their_promises_beside_each_other(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut cluster = Cluster::new();
        (0..4).for_each(|at| join(&mut cluster, at));
        let mut model = Model::start(&mut cluster);
        cluster.settle();
        let mut exempt = "";
        play::play(&mut cluster, &ops, is_loss, |cluster, op| {
            // A lost word of the user's comes back after a while; until then the old spec rules.
            exempt = if is_loss(op) { exempt } else { touched(op) };
            let touched = exempt;
            cluster.watch(move |seen| check(seen, touched));
            perform(cluster, &mut model, op);
            if is_loss(op) {
                cluster.advance(40_000);
            }
        });
        heal(&mut cluster, &model);
        for job in cluster.state().jobs().iter() {
            job_laws::check(&cluster, job, &mut None);
        }
        check_history(&cluster);
        // Another leader sees nothing to do.
        let digest = cluster.state().digest();
        cluster.new_leader();
        cluster.settle();
        prop_assert_eq!(cluster.state().digest(), digest, "{:#?}", cluster.transactions.last());
    }
}
