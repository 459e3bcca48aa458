//! CronHorizontalPodAutoscalers.

use bulkhead_schedule::{Schedule, ScheduleError, day_schedule};
use bulkhead_types::{CronAutoscalerSpec, CronScaleJob};

use super::autoscaler::target_ref;
use super::decoder::{Decoder, Fields, Schema};
use super::workload::count;
use crate::tree::Node;

const SPEC: Schema =
    Schema { known: &["scaleTargetRef", "timeZone", "excludeDates", "jobs"], ..Schema::EMPTY };
const JOB: Schema = Schema { known: &["name", "schedule", "targetSize", "runOnce"], ..Schema::EMPTY };

/// What is wanted of a size by the clock.
pub(super) fn cron_autoscaler(d: &mut Decoder<'_>, node: &Node) -> Option<CronAutoscalerSpec> {
    let fields = d.fields(node, "spec", &SPEC)?;
    let target = target_ref(d, &fields, "scaleTargetRef");
    let time_zone = d.text(&fields, "timeZone").filter(|zone| !zone.is_empty());
    if let Err(ScheduleError::TimeZone(reason)) = Schedule::new("* * * * *", time_zone.as_deref()) {
        d.fail(fields.place("timeZone"), &fields.path("timeZone"), reason);
    }
    let exclude_dates = d.texts(&fields, "excludeDates");
    for (index, date) in exclude_dates.iter().enumerate() {
        if let Err(error) = day_schedule(date, None) {
            let path = format!("{}[{index}]", fields.path("excludeDates"));
            d.fail(fields.place("excludeDates"), &path, error.to_string());
        }
    }
    if fields.get("jobs").is_none() {
        d.missing(&fields, "jobs");
    }
    let jobs = d.each(&fields, "jobs", job);
    Some(CronAutoscalerSpec {
        target: target?,
        time_zone: time_zone.map(Into::into),
        exclude_dates: exclude_dates.into_iter().map(Into::into).collect(),
        jobs,
    })
}

fn job(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<CronScaleJob> {
    let fields = d.fields(node, path, &JOB)?;
    let name = d.required_text(&fields, "name");
    let schedule = d.required_text(&fields, "schedule");
    if let Some(schedule) = &schedule {
        check(d, &fields, schedule);
    }
    if fields.get("targetSize").is_none() {
        d.missing(&fields, "targetSize");
    }
    let target_size = count(d, &fields, "targetSize");
    Some(CronScaleJob {
        name: name?.into(),
        schedule: schedule?.into(),
        target_size: target_size?,
        run_once: d.boolean(&fields, "runOnce").unwrap_or_default(),
    })
}

fn check(d: &mut Decoder<'_>, fields: &Fields<'_>, schedule: &str) {
    let reason = match Schedule::new(schedule, None) {
        Ok(schedule) if schedule.has_seconds() => return,
        Ok(_) => "needs six fields: second, minute, hour, day of month, month, day of week".to_owned(),
        Err(error) => error.to_string(),
    };
    d.fail(fields.place("schedule"), &fields.path("schedule"), reason);
}
