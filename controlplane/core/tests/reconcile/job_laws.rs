//! What holds of Jobs whatever becomes of their pods, against a model that only counts.

use std::collections::BTreeSet;

use bulkhead_types::{
    Command, CompletionMode, EventKind, Job, JobSpec, Kind, Object, ObjectId, PodEnd, PodReplacementPolicy,
};
use proptest::prelude::*;

use crate::job_kit::{Fate, cluster, job};
use crate::kit::{Cluster, reference};
use crate::play::{Seen, check_history};

#[derive(Clone, Debug)]
enum Op {
    End(usize, Fate),
    Delete(usize, bool),
    Parallelism(u32),
    Suspend(bool),
    Advance(u64),
    NewLeader,
    Lose,
    Settle,
}

fn any_op() -> impl Strategy<Value = Op> {
    let fate = prop_oneof![
        3 => Just(Fate::Succeeds),
        2 => (1..4i32).prop_map(Fate::Fails),
        2 => Just(Fate::Gone),
    ];
    prop_oneof![
        8 => (0..12usize, fate).prop_map(|(pod, fate)| Op::End(pod, fate)),
        2 => (0..12usize, any::<bool>()).prop_map(|(pod, force)| Op::Delete(pod, force)),
        1 => (0..5u32).prop_map(Op::Parallelism),
        1 => any::<bool>().prop_map(Op::Suspend),
        3 => (1..30_000u64).prop_map(Op::Advance),
        1 => Just(Op::NewLeader),
        1 => Just(Op::Lose),
        3 => Just(Op::Settle),
    ]
}

fn any_spec() -> impl Strategy<Value = JobSpec> {
    let mode = prop_oneof![Just((false, None)), Just((true, None)), (0..3u32).prop_map(|n| (true, Some(n)))];
    let policies = vec![PodReplacementPolicy::TerminatingOrFailed, PodReplacementPolicy::Failed];
    (1..4u32, proptest::option::of(1..6u32), mode, 0..6u32, proptest::sample::select(policies)).prop_map(
        |(parallelism, completions, (indexed, per_index), backoff_limit, policy)| {
            crate::job_kit::job_spec(|spec| {
                spec.parallelism = parallelism;
                spec.completions = if indexed { completions.or(Some(3)) } else { completions };
                if indexed {
                    spec.completion_mode = CompletionMode::Indexed;
                }
                spec.backoff_limit_per_index = per_index;
                spec.backoff_limit = if per_index.is_some() { 1000 } else { backoff_limit };
                spec.pod_replacement_policy = policy;
            })
        },
    )
}

/// The ends of pods as the history tells them, each with what it was counted as.
#[derive(Default, Debug, PartialEq, Eq)]
struct Counted {
    succeeded: u32,
    failed: u32,
}

fn counted(cluster: &Cluster, job: &Job) -> Counted {
    let indexed = job.spec.completion_mode == CompletionMode::Indexed;
    let mut counted = Counted::default();
    let mut indexes = BTreeSet::new();
    for event in cluster.transactions.iter().flat_map(|t| &t.events) {
        let EventKind::JobPodEnded { job: of, end, index, .. } = &event.kind else { continue };
        match end {
            _ if *of != job.meta.id => {}
            PodEnd::Succeeded if !indexed => counted.succeeded += 1,
            PodEnd::Succeeded => _ = indexes.insert(*index),
            PodEnd::Failed => counted.failed += 1,
            PodEnd::Stopped => {}
            other => panic!("there is no policy: {other:?}"),
        }
    }
    counted.succeeded += indexes.len() as u32;
    counted
}

/// Of the pods that came to be those that have ended: terminal, or gone.
fn ended(cluster: &Cluster, job: ObjectId) -> usize {
    let made: BTreeSet<ObjectId> = cluster
        .transactions
        .iter()
        .flat_map(|t| &t.events)
        .filter(|event| matches!(&event.kind, EventKind::OwnedPodCreated { owner, .. } if owner.id == job))
        .map(|event| ObjectId(event.revision))
        .collect();
    let pods = cluster.state().pods();
    let over = |id: &&ObjectId| pods.get(**id).is_none_or(|pod| pod.status.phase.is_terminal());
    made.iter().filter(over).count()
}

fn ends_counted(cluster: &Cluster, id: ObjectId) -> usize {
    let events = cluster.transactions.iter().flat_map(|t| &t.events);
    events.filter(|event| matches!(event.kind, EventKind::JobPodEnded { job, .. } if job == id)).count()
}

/// Each end of a pod is counted once, as what it was; and what was said of the whole is not taken back.
pub fn check(cluster: &Cluster, job: &Job, end: &mut Option<String>) {
    let indexed = job.spec.completion_mode == CompletionMode::Indexed;
    assert_eq!(ends_counted(cluster, job.meta.id), ended(cluster, job.meta.id), "each end is counted once");
    let counts = counted(cluster, job);
    let lenient = indexed && job.spec.backoff_limit_per_index.is_some();
    // An index that failed for good may not succeed after all.
    if !lenient {
        assert_eq!((job.status.succeeded, job.status.failed), (counts.succeeded, counts.failed));
    } else {
        assert!(job.status.succeeded <= counts.succeeded);
        assert_eq!(job.status.failed, counts.failed);
    }
    if indexed {
        assert_eq!(u64::from(job.status.succeeded), job.status.completed_indexes.count());
        let both = job.status.completed_indexes.iter().find(|i| job.status.failed_indexes.contains(*i));
        assert_eq!(both, None);
    }
    let said = job.end().map(|c| c.condition_type.to_string());
    assert!(end.is_none() || *end == said, "a result is final: {end:?}, then {said:?}");
    *end = said;
}

/// No command of a reconciler lets more pods run than may.
pub fn check_parallelism(seen: &Seen<'_>) {
    for job in seen.after.jobs().iter() {
        let (was, is) = (seen.before.active_pods(job.meta.id), seen.after.active_pods(job.meta.id));
        assert!(is <= was.max(job.spec.parallelism), "{is} active, {} allowed", job.spec.parallelism);
    }
}

fn apply(cluster: &mut Cluster, spec: &mut JobSpec, op: &Op) {
    match op {
        Op::End(at, fate) => {
            // Only one that is told to end goes without a word.
            let told = |pod: &bulkhead_types::Pod| *fate != Fate::Gone || pod.meta.is_deleting();
            if let Some(pod) = cluster.pick(*at).filter(|pod| told(pod)) {
                cluster.fate(pod.meta.id, *fate);
            }
        }
        Op::Delete(at, force) => {
            if let Some(pod) = cluster.pick(*at) {
                let object = Object::Pod(pod).object_ref();
                cluster.ok(Command::Delete { object, grace_ms: None, force: *force });
            }
        }
        Op::Parallelism(parallelism) => {
            spec.parallelism = *parallelism;
            let present = cluster.get_job("a").spec.suspend;
            let wanted = JobSpec { suspend: present, ..spec.clone() };
            cluster.ok(Command::Apply(job("a", |spec| *spec = wanted)));
        }
        Op::Suspend(suspended) => {
            let object = reference(Kind::Job, "a");
            _ = cluster.submit(vec![Command::SetSuspended { object, suspended: *suspended }]);
        }
        Op::Advance(ms) => cluster.leap(*ms),
        Op::NewLeader => cluster.new_leader(),
        Op::Lose => cluster.lose(),
        Op::Settle => cluster.settle(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn jobs_keep_their_promises(spec in any_spec(), ops in proptest::collection::vec(any_op(), 1..60)) {
        let mut cluster = cluster();
        let mut spec = spec;
        cluster.watch(check_parallelism);
        let wanted = spec.clone();
        cluster.ok(Command::Create(job("a", |spec| *spec = wanted)));
        let mut end = None;
        for op in &ops {
            apply(&mut cluster, &mut spec, op);
            check(&cluster, &cluster.get_job("a"), &mut end);
        }
        // Everybody does as they should from now on: the job ends, and its result stands.
        spec.parallelism = 2;
        apply(&mut cluster, &mut spec, &Op::Parallelism(2));
        apply(&mut cluster, &mut spec, &Op::Suspend(false));
        for _ in 0..60 {
            cluster.leap(400_000);
            let open: Vec<_> = cluster.state().pods().iter()
                .filter(|pod| !pod.status.phase.is_terminal()).cloned().collect();
            for pod in open {
                let fate = if pod.meta.is_deleting() { Fate::Gone } else { Fate::Succeeds };
                cluster.fate(pod.meta.id, fate);
            }
            cluster.settle();
        }
        check(&cluster, &cluster.get_job("a"), &mut end);
        let done = cluster.get_job("a");
        let status = &done.status;
        let over = status.failed > done.spec.backoff_limit || !status.failed_indexes.is_empty();
        prop_assert!(done.end().is_some(), "{:?}", status);
        if end.as_deref() == Some("Failed") {
            prop_assert!(over, "{:?}", status);
        } else {
            prop_assert!(status.succeeded >= done.spec.completions.unwrap_or(1), "{:?}", status);
        }
        prop_assert_eq!((status.active, status.terminating), (0, 0));
        check_history(&cluster);
    }
}
