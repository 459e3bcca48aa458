//! Jobs and CronJobs as manifests: the examples, there and back, and what is wrong with others.

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{
    CompletionMode, ConcurrencyPolicy, Kind, Name, Object, ObjectId, PodFailureAction, PodReplacementPolicy,
    validate,
};
use uuid::Uuid;

fn read(text: &str) -> Object {
    let source = Source { name: "-".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    let mut parsed = parse(&[source], Some(&namespace)).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert_eq!(parsed.len(), 1, "{text}");
    parsed.remove(0).object
}

/// What is read of an example is valid, and is read again from what is printed of it.
fn example(text: &str) -> Object {
    let no_name = |_: Kind, _: ObjectId| None;
    let object = read(text);
    assert_eq!(validate(&object), Vec::new());
    let names = Names { cluster_id: Some(Uuid::nil()), name_of: &no_name };
    let printed = to_yaml(&object, names);
    assert_eq!(read(&printed), object, "{printed}");
    object
}

#[test]
fn the_examples_are_read_and_printed() {
    let Object::Job(job) = example(include_str!("../../../examples/job.yaml")) else { panic!("a Job") };
    assert_eq!((job.spec.parallelism, job.spec.completions), (1, Some(1)));
    assert_eq!(job.spec.pod_replacement_policy, PodReplacementPolicy::Failed, "the policy's default");
    assert_eq!(job.spec.pod_failure_policy[1].action, PodFailureAction::FailJob);
    assert_eq!(job.spec.active_deadline_ms, Some(600_000));

    let indexed = example(include_str!("../../../examples/job-indexed.yaml"));
    let Object::Job(job) = indexed else { panic!("a Job") };
    assert_eq!((job.spec.parallelism, job.spec.completions), (3, Some(8)));
    assert_eq!(job.spec.completion_mode, CompletionMode::Indexed);
    assert_eq!(job.spec.backoff_limit, i32::MAX as u32, "failures count per index");

    let cron_job = example(include_str!("../../../examples/cronjob.yaml"));
    let Object::CronJob(cron_job) = cron_job else { panic!("a CronJob") };
    assert_eq!(cron_job.spec.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(cron_job.spec.concurrency_policy, ConcurrencyPolicy::Forbid);
}

/// Each message, as `line path: text`, begins as expected.
fn mistakes(text: &str, expected: &[&str]) {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    let errors = parse(&[source], Some(&namespace)).expect_err("there are mistakes");
    let found: Vec<String> = errors
        .iter()
        .map(|error| {
            let text = error.to_string();
            let (place, message) = text.split_once(' ').expect("place and message");
            format!("{} {message}", place.split(':').nth(1).expect("a line"))
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} is not {expected:?}");
    }
}

#[test]
fn schedules_and_zones_are_checked_where_they_stand() {
    let cron_job = |schedule: &str, zone: &str| {
        include_str!("../../../examples/cronjob.yaml")
            .replace("30 2 * * *", schedule)
            .replace("Europe/Berlin", zone)
    };
    mistakes(&cron_job("30 2 * *", "Europe/Berlin"), &["8 spec.schedule: must have five fields"]);
    mistakes(&cron_job("30 25 * * *", "UTC"), &["8 spec.schedule: hour: 25 is not between 0 and 23"]);
    mistakes(&cron_job("30 2 * * *", "Mars/Olympus"), &["9 spec.timeZone: \"Mars/Olympus\" is no time zone"]);
}

#[test]
fn what_a_job_cannot_be_is_told_with_its_line() {
    let job = |from: &str, to: &str| include_str!("../../../examples/job.yaml").replace(from, to);
    mistakes(
        &job("restartPolicy: Never", "restartPolicy: Always"),
        &[
            "11 spec.podFailurePolicy: needs restartPolicy Never",
            "23 spec.template.spec.restartPolicy: must be",
        ],
    );
    mistakes(
        &job("type: DisruptionTarget", "type: Ready"),
        &["15 spec.podFailurePolicy.rules[0].onPodConditions[0].type: must be DisruptionTarget"],
    );
    mistakes(
        &job("action: FailJob", "action: FailIndex"),
        &["16 spec.podFailurePolicy.rules[1].action: FailIndex needs backoffLimitPerIndex"],
    );
    mistakes(
        &job("values: [42]", "values: [0]"),
        &["20 spec.podFailurePolicy.rules[1].onExitCodes.values: must not"],
    );
    mistakes(&job("backoffLimit: 3", "backofLimit: 3"), &["8 spec.backofLimit: "]);
}
