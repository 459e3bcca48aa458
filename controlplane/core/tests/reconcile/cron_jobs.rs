//! CronJobs: which jobs start when, and which stay.

use std::collections::BTreeMap;

use bulkhead_types::{
    ANNOTATION_SCHEDULED_AT, Command, ConcurrencyPolicy, CronJobSpec, EventKind, Kind, Object, RejectionCode,
};
use proptest::prelude::*;

use crate::job_kit::{Fate, cluster, cron_job};
use crate::kit::{Cluster, name, reference};

const MINUTE_MS: u64 = 60_000;

/// A cluster with a CronJob, at a full hour.
fn start(schedule: &str, change: impl FnOnce(&mut CronJobSpec)) -> Cluster {
    let mut cluster = cluster();
    cluster.now_ms = 3_600_000;
    cluster.ok(Command::Create(cron_job("c", schedule, change)));
    cluster.settle();
    cluster
}

fn jobs(cluster: &Cluster) -> Vec<String> {
    cluster.state().jobs().iter().map(|job| job.meta.name.to_string()).collect()
}

fn finish(cluster: &mut Cluster, fate: Fate) {
    let pods: Vec<_> = cluster.active_pods().iter().map(|pod| pod.meta.id).collect();
    pods.into_iter().for_each(|pod| cluster.fate(pod, fate));
    cluster.settle();
}

#[test]
fn each_time_has_its_job_named_after_it() {
    let mut cluster = start("*/5 * * * *", |_| ());
    cluster.advance(5 * MINUTE_MS - 1);
    assert_eq!(jobs(&cluster), Vec::<String>::new());
    cluster.advance(1);
    assert_eq!(jobs(&cluster), ["c-65"]);
    let job = cluster.get_job("c-65");
    assert_eq!(job.meta.annotations[ANNOTATION_SCHEDULED_AT], "1970-01-01T01:05:00Z");
    let status = &cluster.get_cron_job("c").status;
    assert_eq!((status.last_schedule_ms, status.active.len()), (65 * MINUTE_MS, 1));
    finish(&mut cluster, Fate::Succeeds);
    let status = &cluster.get_cron_job("c").status;
    assert_eq!((status.last_successful_ms, status.active.len()), (65 * MINUTE_MS, 0));
    cluster.advance(5 * MINUTE_MS);
    assert_eq!(jobs(&cluster), ["c-65", "c-70"]);
}

#[test]
fn seconds_name_jobs_by_seconds() {
    let mut cluster = start("*/20 * * * * *", |_| ());
    cluster.advance(40_000);
    assert_eq!(jobs(&cluster), ["c-3620", "c-3640"]);
}

#[test]
fn runs_overlap_are_skipped_or_replace_each_other() {
    let check = |policy, expected: &[&str], after_end: &[&str]| {
        let mut cluster = start("* * * * *", |spec| spec.concurrency_policy = policy);
        cluster.advance(2 * MINUTE_MS + 1000);
        cluster.stop_all();
        assert_eq!(jobs(&cluster), expected, "{policy:?}");
        finish(&mut cluster, Fate::Succeeds);
        assert_eq!(jobs(&cluster), after_end, "{policy:?}");
    };
    check(ConcurrencyPolicy::Allow, &["c-61", "c-62"], &["c-61", "c-62"]);
    // The run that could not start does so late, because it may be as late as it likes.
    check(ConcurrencyPolicy::Forbid, &["c-61"], &["c-61", "c-62"]);
    check(ConcurrencyPolicy::Replace, &["c-62"], &["c-62"]);
}

#[test]
fn a_run_that_is_too_late_does_not_start() {
    let check = |late_ms: u64, expected: &[&str]| {
        let mut cluster = start("0 * * * *", |spec| spec.starting_deadline_ms = Some(10_000));
        // Nobody leads at the full hour.
        cluster.now_ms = 2 * 3_600_000 + late_ms;
        cluster.new_leader();
        cluster.settle();
        assert_eq!(jobs(&cluster), expected, "{late_ms} ms late");
    };
    check(10_000, &["c-120"]);
    check(11_000, &[]);
}

#[test]
fn of_many_missed_runs_the_last_one_starts_and_the_rest_is_told() {
    let mut cluster = start("* * * * *", |_| ());
    cluster.now_ms += 100 * MINUTE_MS;
    cluster.settle();
    assert_eq!(jobs(&cluster), ["c-160"]);
    assert!(cluster.get_cron_job("c").status.conditions.is_empty());
    cluster.now_ms += 365 * 24 * 60 * MINUTE_MS;
    cluster.settle();
    assert_eq!(jobs(&cluster), ["c-160", "c-525760"]);
    let conditions = &cluster.get_cron_job("c").status.conditions;
    assert_eq!(
        (conditions[0].condition_type.as_str(), conditions[0].reason.as_str()),
        ("MissedSchedule", "TooManyMissedTimes")
    );
}

#[test]
fn suspended_means_nothing_starts() {
    let mut cluster = start("* * * * *", |spec| spec.suspend = true);
    cluster.advance(10 * MINUTE_MS);
    assert_eq!(jobs(&cluster), Vec::<String>::new());
    let object = reference(Kind::CronJob, "c");
    cluster.ok(Command::SetSuspended { object, suspended: false });
    cluster.settle();
    assert_eq!(jobs(&cluster), ["c-70"], "the last missed one, as in Kubernetes");
}

#[test]
fn only_so_many_old_jobs_are_kept() {
    let mut cluster = start("* * * * *", |spec| {
        (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit) = (2, 0);
        spec.job_template.spec.backoff_limit = 0;
    });
    for fate in [Fate::Succeeds, Fate::Succeeds, Fate::Fails(1), Fate::Succeeds] {
        cluster.advance(MINUTE_MS);
        finish(&mut cluster, fate);
    }
    cluster.stop_all();
    assert_eq!(jobs(&cluster), ["c-62", "c-64"]);
    assert_eq!(cluster.state().pods().len(), 2, "their pods went with the others");
}

#[test]
fn a_user_runs_it_now() {
    let mut cluster = start("0 0 1 1 *", |spec| spec.suspend = true);
    let run = || Command::RunCronJob { cron_job: reference(Kind::CronJob, "c"), name: name("by-hand") };
    cluster.ok(run());
    cluster.settle();
    let job = cluster.get_job("by-hand");
    assert_eq!(job.meta.annotations["cronjob.kubernetes.io/instantiate"], "manual");
    assert_eq!(cluster.get_cron_job("c").status.active, [job.meta.id]);
    assert_eq!(cluster.get_cron_job("c").status.last_schedule_ms, 0);
    assert_eq!(cluster.submit(vec![run()]).unwrap_err().code, RejectionCode::AlreadyExists);
}

#[test]
fn jobs_go_with_their_cron_job() {
    let mut cluster = start("* * * * *", |_| ());
    cluster.advance(MINUTE_MS);
    cluster.ok(Command::Delete { object: reference(Kind::CronJob, "c"), grace_ms: None, force: false });
    cluster.settle();
    cluster.stop_all();
    assert_eq!((cluster.state().jobs().len(), cluster.state().pods().len()), (0, 0));
}

#[test]
fn bad_schedules_and_zones_are_refused_with_their_field() {
    let mut cluster = cluster();
    let mut check = |schedule: &str, zone: Option<&str>, field: &str, reason: &str| {
        let object = cron_job("c", schedule, |spec| spec.time_zone = zone.map(Into::into));
        let refused = cluster.submit(vec![Command::Create(object)]).unwrap_err();
        assert_eq!(refused.code, RejectionCode::Invalid);
        assert!(refused.field.ends_with(field) && refused.reason.contains(reason), "{refused}");
    };
    check("61 * * * *", None, "spec.schedule", "minute: 61 is not between 0 and 59");
    check("* * * * *", Some("Mars/Olympus"), "spec.timeZone", "no time zone");
}

/// What another leader proposes that does not know of the job yet, which is gone again.
#[test]
fn a_time_that_had_its_job_is_refused() {
    let mut cluster = start("* * * * *", |_| ());
    cluster.advance(MINUTE_MS);
    let job = cluster.get_job("c-61");
    cluster.ok(Command::Delete { object: reference(Kind::Job, "c-61"), grace_ms: None, force: false });
    let cron_job = cluster.get_cron_job("c");
    let (owner, generation) = (job.meta.owner.unwrap(), cron_job.meta.generation);
    let again = Command::CreateOwned { owner, generation, object: Object::Job(job) };
    assert_eq!(cluster.submit(vec![again]).unwrap_err().code, RejectionCode::Conflict);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Each time starts at most one job, although leaders change, answers are lost, jobs end and are removed.
    #[test]
    fn no_time_is_started_twice(
        steps in proptest::collection::vec((0..6u8, 1..200_000u64), 1..40),
        kept in 0..2u32,
    ) {
        let mut cluster = start("* * * * *", |spec| {
            spec.successful_jobs_history_limit = kept;
            spec.job_template.spec.ttl_after_finished_ms = Some(0);
        });
        for (what, ms) in steps {
            match what {
                0 => cluster.new_leader(),
                1 => cluster.lose(),
                2 => _ = cluster.step(),
                3 => finish(&mut cluster, Fate::Succeeds),
                4 => cluster.now_ms += ms,
                _ => cluster.leap(ms),
            }
        }
        // What was lost is proposed again after half a minute at most.
        cluster.settle();
        cluster.leap(31_000);
        let mut starts = BTreeMap::<String, u32>::new();
        for event in cluster.transactions.iter().flat_map(|t| &t.events) {
            if let EventKind::ObjectCreated(Object::Job(job)) = &event.kind {
                *starts.entry(job.meta.annotations[ANNOTATION_SCHEDULED_AT].to_string()).or_default() += 1;
            }
        }
        prop_assert!(starts.values().all(|count| *count == 1), "{:?}", starts);
        // None of the last ones is missing: the leader that is there now has started what was due.
        let due_ms = cluster.now_ms / MINUTE_MS * MINUTE_MS;
        if due_ms > 3_600_000 {
            prop_assert_eq!(cluster.get_cron_job("c").status.last_schedule_ms, due_ms);
        }
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    }
}
