//! CronHorizontalPodAutoscalers over a real machine.

use std::sync::Arc;

use bulkhead_types::{
    AutoscalerMetric, AutoscalerSpec, AutoscalerStatus, Command, CronAutoscalerSpec, CronAutoscalerStatus,
    CronHorizontalPodAutoscaler, CronScaleJob, CronScaleOutcome, CronScaleRun, HorizontalPodAutoscaler, Kind,
    MeasuredResource, MetricTarget, Object, ObjectMeta, RejectionCode, ScaleTarget, ScalingRules,
};

use crate::kit::{Cluster, deployment, name, reference};

const HOUR_MS: u64 = 3_600_000;
/// Midnight of 15 November 2023, a Wednesday, in UTC.
const MIDNIGHT_MS: u64 = 1_700_006_400_000;

pub fn job(named: &str, schedule: &str, target_size: u32) -> CronScaleJob {
    CronScaleJob { name: named.into(), schedule: schedule.into(), target_size, run_once: false }
}

pub fn scaler(target: Kind, jobs: Vec<CronScaleJob>) -> CronHorizontalPodAutoscaler {
    let target = ScaleTarget { kind: target, name: name("web") };
    CronHorizontalPodAutoscaler {
        meta: ObjectMeta::new(Some(name("default")), name("clock")),
        spec: CronAutoscalerSpec { target, time_zone: None, exclude_dates: vec![], jobs },
        status: CronAutoscalerStatus::default(),
    }
}

pub fn object(scaler: CronHorizontalPodAutoscaler) -> Object {
    Object::CronHorizontalPodAutoscaler(Arc::new(scaler))
}

pub fn autoscaler(min_replicas: u32, max_replicas: u32) -> Object {
    let spec = AutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: name("web") },
        min_replicas,
        max_replicas,
        metrics: vec![AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::Utilization(50))],
        scale_up: ScalingRules::scale_up_default(),
        scale_down: ScalingRules::scale_down_default(),
    };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let status = AutoscalerStatus::default();
    Object::HorizontalPodAutoscaler(Arc::new(HorizontalPodAutoscaler { meta, spec, status }))
}

/// A cluster at that midnight with a Deployment of so many pods.
fn cluster(replicas: u32) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.now_ms = MIDNIGHT_MS;
    cluster.ok(Command::Create(deployment("web", replicas, |_| {})));
    cluster
}

/// Goes to an hour of that day, without anything in between.
fn until(cluster: &mut Cluster, hour: u64) {
    cluster.now_ms = MIDNIGHT_MS + hour * HOUR_MS;
    cluster.settle();
}

fn size(cluster: &Cluster) -> u32 {
    cluster.get_deployment("web").spec.replicas
}

fn runs(cluster: &Cluster) -> Vec<CronScaleRun> {
    match cluster.state().find_object(&reference(Kind::CronHorizontalPodAutoscaler, "clock")) {
        Some(Object::CronHorizontalPodAutoscaler(scaler)) => scaler.status.runs.clone(),
        other => panic!("no clock: {other:?}"),
    }
}

fn bounds(cluster: &Cluster) -> (u32, u32) {
    match cluster.state().find_object(&reference(Kind::HorizontalPodAutoscaler, "web")) {
        Some(Object::HorizontalPodAutoscaler(found)) => (found.spec.min_replicas, found.spec.max_replicas),
        other => panic!("no autoscaler: {other:?}"),
    }
}

#[test]
fn a_workload_has_the_size_of_the_last_time_that_came() {
    let mut cluster = cluster(2);
    let jobs = vec![job("day", "0 0 8 * * *", 10), job("night", "0 0 20 * * *", 3)];
    cluster.ok(Command::Create(object(scaler(Kind::Deployment, jobs))));
    until(&mut cluster, 7);
    assert_eq!(size(&cluster), 2);
    until(&mut cluster, 8);
    assert_eq!(size(&cluster), 10);
    // By hand it may be another one, until the next time.
    cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 5 });
    until(&mut cluster, 9);
    assert_eq!(size(&cluster), 5);
    // Nobody led for a day and more: both times were missed, the later one holds.
    cluster.new_leader();
    until(&mut cluster, 45);
    assert_eq!(size(&cluster), 3);
    assert_eq!(runs(&cluster).len(), 2);
    let before = cluster.state().revision();
    cluster.new_leader();
    cluster.settle();
    assert_eq!(cluster.state().revision(), before, "no time runs twice");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn zones_excluded_days_and_jobs_that_run_once() {
    let mut cluster = cluster(2);
    let once = CronScaleJob { run_once: true, ..job("once", "0 0 8 * * *", 4) };
    let mut wanted = scaler(Kind::Deployment, vec![once, job("noon", "0 0 12 * * *", 6)]);
    // 12 o'clock in Shanghai is 4 o'clock in UTC, 8 o'clock is midnight.
    wanted.spec.time_zone = Some("Asia/Shanghai".into());
    wanted.spec.exclude_dates = vec!["* * * 16 11 *".into()];
    cluster.ok(Command::Create(object(wanted)));
    until(&mut cluster, 4);
    assert_eq!(size(&cluster), 6);
    // The 16th begins at 16 o'clock of the 15th in UTC.
    cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 9 });
    until(&mut cluster, 24 + 4);
    assert_eq!(size(&cluster), 9);
    let outcomes: Vec<_> = runs(&cluster).iter().map(|run| run.outcome).collect();
    assert_eq!(outcomes, [CronScaleOutcome::Excluded; 2], "the first job ran its only time on that day");
    until(&mut cluster, 48 + 1);
    assert_eq!(size(&cluster), 9);
    until(&mut cluster, 48 + 4);
    assert_eq!(size(&cluster), 6);
}

#[test]
fn an_autoscaler_is_moved_and_not_fought() {
    // The table: bounds, wanted, present; bounds and size afterwards.
    let check = |before: (u32, u32), wanted, present, after, expected| {
        let mut cluster = cluster(present);
        cluster.ok(Command::Create(autoscaler(before.0, before.1)));
        let jobs = vec![job("now", "0 0 8 * * *", wanted)];
        cluster.ok(Command::Create(object(scaler(Kind::HorizontalPodAutoscaler, jobs))));
        until(&mut cluster, 8);
        cluster.advance(60_000);
        assert_eq!((bounds(&cluster), size(&cluster)), (after, expected), "{before:?} {wanted} {present}");
    };
    check((1, 10), 5, 5, (1, 10), 5);
    check((1, 10), 4, 5, (1, 10), 5);
    check((1, 10), 6, 5, (6, 10), 6);
    check((5, 10), 4, 5, (4, 10), 5);
    check((5, 10), 11, 5, (11, 11), 11);
}

#[test]
fn two_do_not_scale_one_thing() {
    let mut cluster = cluster(2);
    cluster.ok(Command::Create(autoscaler(1, 5)));
    let jobs = || vec![job("day", "0 0 8 * * *", 3)];
    let rejection =
        cluster.submit(vec![Command::Create(object(scaler(Kind::Deployment, jobs())))]).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::NotAllowed);
    assert!(rejection.to_string().contains("HorizontalPodAutoscaler default/web"), "{rejection}");
    cluster.ok(Command::Create(object(scaler(Kind::HorizontalPodAutoscaler, jobs()))));
    let mut second = scaler(Kind::HorizontalPodAutoscaler, jobs());
    second.meta.name = name("other");
    assert!(cluster.submit(vec![Command::Create(object(second))]).is_err());
}

#[test]
fn what_cannot_be_scaled_is_said() {
    let mut cluster = Cluster::new();
    cluster.now_ms = MIDNIGHT_MS;
    let jobs = vec![job("day", "0 0 8 * * *", 3)];
    cluster.ok(Command::Create(object(scaler(Kind::StatefulSet, jobs))));
    until(&mut cluster, 8);
    let run = &runs(&cluster)[0];
    assert_eq!(run.outcome, CronScaleOutcome::Failed);
    assert!(run.message.contains("does not exist"), "{run:?}");
    for (schedule, zone) in [("0 8 * * *", None), ("0 0 8 30 2 *", None), ("0 0 8 * * *", Some("Mars"))] {
        let mut wrong = scaler(Kind::StatefulSet, vec![job("day", schedule, 3)]);
        (wrong.meta.name, wrong.spec.time_zone) = (name("wrong"), zone.map(Into::into));
        let rejection = cluster.submit(vec![Command::Create(object(wrong))]).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::Invalid, "{schedule}");
    }
}
