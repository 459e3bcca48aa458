//! Jobs: how they run, succeed and fail.

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_types::{
    Command, CompletionMode, ConditionStatus, ContainerState, ExitCodeOperator, ExitCodeRequirement,
    JOB_COMPLETE, Kind, Object, PodConditionPattern, PodFailureAction, PodFailureRule, PodPhase,
    PodReplacementPolicy, PodReport, PodStatus, RejectionCode, RestartPolicy, SuccessRule,
};

use crate::job_kit::{Fate, cluster, container, job};
use crate::kit::{Cluster, reference};

fn indexed(completions: u32) -> impl Fn(&mut bulkhead_types::JobSpec) {
    move |spec| {
        (spec.parallelism, spec.completions) = (completions, Some(completions));
        spec.completion_mode = CompletionMode::Indexed;
    }
}

fn indexes(cluster: &Cluster, app: &str) -> Vec<String> {
    let key = bulkhead_types::LABEL_JOB_COMPLETION_INDEX;
    let pods = cluster.job_pods(app);
    let mut found: Vec<_> = pods.iter().map(|pod| pod.meta.annotations[key].to_string()).collect();
    found.sort();
    found
}

fn start(app: &str, change: impl FnOnce(&mut bulkhead_types::JobSpec)) -> Cluster {
    let mut cluster = cluster();
    cluster.ok(Command::Create(job(app, change)));
    cluster.settle();
    cluster
}

#[test]
fn one_pod_runs_to_success() {
    let mut cluster = start("a", |_| ());
    assert_eq!(cluster.job_line("a"), "1/0/0");
    cluster.all_end("a", Fate::Succeeds);
    let done = "0/1/0 Complete(CompletionsReached) SuccessCriteriaMet(CompletionsReached)";
    assert_eq!(cluster.job_line("a"), done);
    assert!(cluster.get_job("a").status.completed_at_ms > 0);
    cluster.advance(1_000_000);
    assert_eq!(cluster.job_line("a"), done, "it stays so");
    assert_eq!(cluster.state().pods().len(), 1, "its pod is kept for its logs");
}

#[test]
fn no_more_pods_run_than_are_left_to_do() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (2, Some(3)));
    assert_eq!(cluster.job_line("a"), "2/0/0");
    cluster.all_end("a", Fate::Succeeds);
    assert_eq!(cluster.job_line("a"), "1/2/0");
    cluster.all_end("a", Fate::Succeeds);
    assert_eq!(cluster.get_job("a").status.succeeded, 3);
    assert!(cluster.get_job("a").end().is_some());
}

#[test]
fn failed_pods_are_replaced_later_and_later_until_the_limit() {
    let mut cluster = start("a", |spec| spec.backoff_limit = 2);
    cluster.all_end("a", Fate::Fails(1));
    assert_eq!(cluster.job_line("a"), "0/0/1");
    cluster.advance(9_999);
    assert_eq!(cluster.job_line("a"), "0/0/1", "ten seconds are not over");
    cluster.advance(1);
    assert_eq!(cluster.job_line("a"), "1/0/1");
    cluster.all_end("a", Fate::Fails(1));
    cluster.advance(19_999);
    assert_eq!(cluster.job_line("a"), "0/0/2");
    cluster.advance(1);
    assert_eq!(cluster.job_line("a"), "1/0/2");
    cluster.all_end("a", Fate::Fails(1));
    assert_eq!(
        cluster.job_line("a"),
        "0/0/3 Failed(BackoffLimitExceeded) FailureTarget(BackoffLimitExceeded)"
    );
    assert_eq!(cluster.get_job("a").status.completed_at_ms, 0);
}

#[test]
fn a_success_ends_the_wait_of_others() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (2, Some(4)));
    let pods = cluster.job_pods("a");
    cluster.fate(pods[0].meta.id, Fate::Fails(1));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "1/0/1");
    cluster.fate(pods[1].meta.id, Fate::Succeeds);
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "2/1/1");
}

#[test]
fn pods_that_end_in_one_report_are_counted_each_once() {
    let mut cluster = cluster();
    cluster.ok(Command::SetUnschedulable { node: crate::kit::name("node-1"), unschedulable: true });
    cluster.ok(Command::Create(job("a", |spec| {
        indexed(4)(spec);
        spec.backoff_limit_per_index = Some(0);
    })));
    cluster.settle();
    let pods: Vec<_> = cluster.job_pods("a").iter().map(|pod| pod.meta.id).collect();
    let fates = [Fate::Succeeds, Fate::Fails(1), Fate::Succeeds, Fate::Fails(2)];
    cluster.fates(&pods.iter().copied().zip(fates).collect::<Vec<_>>());
    let status = &cluster.get_job("a").status;
    assert_eq!((status.succeeded, status.failed), (2, 2));
    assert_eq!(
        (status.completed_indexes.to_string(), status.failed_indexes.to_string()),
        ("0,2".into(), "1,3".into())
    );
    // What was counted is not counted again: not by a later report, nor when the pod goes.
    cluster.fate(pods[1], Fate::Fails(1));
    cluster.ok(Command::Delete { object: reference_of(&cluster, pods[3]), grace_ms: None, force: true });
    let status = &cluster.get_job("a").status;
    assert_eq!((status.succeeded, status.failed), (2, 2));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "0/2/2 Failed(FailedIndexes) FailureTarget(FailedIndexes)");
}

fn reference_of(cluster: &Cluster, pod: bulkhead_types::ObjectId) -> bulkhead_types::ObjectRef {
    Object::Pod(cluster.state().pods().get(pod).unwrap().clone()).object_ref()
}

#[test]
fn a_pod_that_goes_without_a_word_has_failed() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (3, Some(3)));
    let pods = cluster.job_pods("a");
    // Deleted by a user, and gone; deleted by force; with its node.
    let delete = |cluster: &Cluster, at: usize, force| Command::Delete {
        object: reference_of(cluster, pods[at].meta.id),
        grace_ms: None,
        force,
    };
    cluster.ok(delete(&cluster, 0, false));
    assert_eq!(cluster.get_job("a").status.failed, 0, "it has not ended yet");
    cluster.fate(pods[0].meta.id, Fate::Gone);
    assert_eq!(cluster.get_job("a").status.failed, 1);
    cluster.ok(delete(&cluster, 1, true));
    assert_eq!(cluster.get_job("a").status.failed, 2);
    let node = pods[2].node.unwrap();
    cluster.silent.push(node);
    cluster.advance(20_000);
    let node = Object::Node(cluster.state().nodes().get(node).unwrap().clone()).object_ref();
    cluster.ok(Command::Delete { object: node, grace_ms: None, force: false });
    assert_eq!(cluster.get_job("a").status.failed, 3);
}

#[test]
fn indexes_have_a_pod_each_and_the_lowest_come_first() {
    let mut cluster = start("a", |spec| {
        indexed(5)(spec);
        spec.parallelism = 2;
    });
    assert_eq!(indexes(&cluster, "a"), ["0", "1"]);
    let pods = cluster.job_pods("a");
    assert!(pods[1].meta.name.as_str().starts_with("a-1-"), "{}", pods[1].meta.name);
    cluster.fate(pods[1].meta.id, Fate::Succeeds);
    cluster.settle();
    assert_eq!(indexes(&cluster, "a"), ["0", "2"]);
    for _ in 0..3 {
        cluster.all_end("a", Fate::Succeeds);
    }
    assert_eq!(cluster.get_job("a").status.completed_indexes.to_string(), "0-4");
    assert!(cluster.get_job("a").status.condition(JOB_COMPLETE).is_some());
}

#[test]
fn the_index_is_in_the_environment_of_every_container() {
    let cluster = start("a", indexed(2));
    for pod in cluster.job_pods("a") {
        let intent = intent_of(cluster.state(), pod.node.unwrap()).unwrap();
        let found = intent.pods.iter().find(|found| found.id == pod.meta.id).unwrap();
        let env = &found.spec.containers[0].env;
        assert_eq!(env[0].name, "JOB_COMPLETION_INDEX");
        assert_eq!(env[0].value, pod.meta.annotations[bulkhead_types::LABEL_JOB_COMPLETION_INDEX]);
        assert!(pod.spec.containers[0].env.is_empty(), "the pods share one spec");
    }
}

#[test]
fn a_queue_of_work_ends_with_its_pods_after_one_success() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (3, None));
    let pods = cluster.job_pods("a");
    cluster.fate(pods[0].meta.id, Fate::Succeeds);
    cluster.advance(60_000);
    assert_eq!(cluster.job_line("a"), "2/1/0", "nothing new, and the others finish");
    cluster.fate(pods[1].meta.id, Fate::Fails(1));
    cluster.fate(pods[2].meta.id, Fate::Succeeds);
    cluster.advance(60_000);
    assert_eq!(
        cluster.job_line("a"),
        "0/2/1 Complete(CompletionsReached) SuccessCriteriaMet(CompletionsReached)"
    );
}

#[test]
fn the_deadline_ends_everything_and_wins_over_the_back_off_limit() {
    let mut cluster = start("a", |spec| {
        (spec.parallelism, spec.completions) = (2, Some(2));
        (spec.active_deadline_ms, spec.backoff_limit) = (Some(30_000), 0);
    });
    cluster.advance(29_999);
    assert_eq!(cluster.job_line("a"), "2/0/0");
    let first = cluster.job_pods("a")[0].meta.id;
    cluster.now_ms += 1;
    cluster.fate(first, Fate::Fails(1));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "0/0/1 FailureTarget(DeadlineExceeded)", "a pod has yet to end");
    cluster.stop_all();
    assert_eq!(cluster.job_line("a"), "0/0/1 Failed(DeadlineExceeded) FailureTarget(DeadlineExceeded)");
}

#[test]
fn suspension_stops_pods_without_counting_them_and_starts_the_clock_anew() {
    let mut cluster = start("a", |spec| {
        indexed(2)(spec);
        (spec.active_deadline_ms, spec.backoff_limit) = (Some(30_000), 0);
    });
    cluster.advance(20_000);
    let suspend = |suspended| Command::SetSuspended { object: reference(Kind::Job, "a"), suspended };
    cluster.ok(suspend(true));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "0/0/0 Suspended(JobSuspended)");
    assert_eq!(cluster.get_job("a").status.started_at_ms, 0);
    // Even one that says that it succeeded: it was told to stop.
    let ending: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.id).collect();
    cluster.fate(ending[0], Fate::Succeeds);
    cluster.stop_all();
    cluster.advance(60_000);
    assert_eq!(cluster.job_line("a"), "0/0/0 Suspended(JobSuspended)");
    cluster.ok(suspend(false));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "2/0/0 !Suspended(JobResumed)");
    cluster.advance(29_000);
    assert_eq!(cluster.get_job("a").status.active, 2);
    cluster.all_end("a", Fate::Succeeds);
    assert!(cluster.get_job("a").status.condition(JOB_COMPLETE).is_some());
    let refused = cluster.submit(vec![suspend(true)]).unwrap_err();
    assert_eq!(refused.code, RejectionCode::NotAllowed);
}

#[test]
fn an_ended_job_goes_when_its_time_is_over_with_its_pods() {
    let mut cluster = start("a", |spec| spec.ttl_after_finished_ms = Some(60_000));
    cluster.all_end("a", Fate::Succeeds);
    cluster.advance(59_999);
    assert_eq!(cluster.state().jobs().len(), 1);
    cluster.advance(1);
    cluster.stop_all();
    assert_eq!((cluster.state().jobs().len(), cluster.state().pods().len()), (0, 0));
}

#[test]
fn a_terminating_pod_is_replaced_at_once_or_when_it_has_ended() {
    let check = |policy, expected_while: u32| {
        let mut cluster = start("a", |spec| spec.pod_replacement_policy = policy);
        let pod = cluster.job_pods("a")[0].meta.id;
        let object = reference_of(&cluster, pod);
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
        cluster.settle();
        assert_eq!(cluster.get_job("a").status.active, expected_while, "{policy:?}");
        assert_eq!(cluster.get_job("a").status.terminating, 1);
        cluster.fate(pod, Fate::Gone);
        cluster.advance(10_000);
        assert_eq!(cluster.job_line("a"), "1/0/1");
    };
    check(PodReplacementPolicy::TerminatingOrFailed, 1);
    check(PodReplacementPolicy::Failed, 0);
}

fn on_codes(action: PodFailureAction, operator: ExitCodeOperator, values: &[i32]) -> PodFailureRule {
    let on_exit_codes = Some(ExitCodeRequirement { container_name: None, operator, values: values.to_vec() });
    PodFailureRule { action, on_exit_codes, on_pod_conditions: Vec::new() }
}

fn on_disruption(action: PodFailureAction) -> PodFailureRule {
    let pattern =
        PodConditionPattern { condition_type: "DisruptionTarget".into(), status: ConditionStatus::True };
    PodFailureRule { action, on_exit_codes: None, on_pod_conditions: vec![pattern] }
}

#[test]
fn the_failure_policy_judges_each_end() {
    let check = |fate: Fate, deleted: bool, expected: &str| {
        let mut cluster = start("a", |spec| {
            spec.pod_replacement_policy = PodReplacementPolicy::Failed;
            spec.pod_failure_policy = vec![
                on_disruption(PodFailureAction::Ignore),
                on_codes(PodFailureAction::FailJob, ExitCodeOperator::In, &[42]),
                on_codes(PodFailureAction::Ignore, ExitCodeOperator::NotIn, &[1, 2]),
            ];
        });
        let pod = cluster.job_pods("a")[0].meta.id;
        if deleted {
            let object = reference_of(&cluster, pod);
            cluster.ok(Command::Delete { object, grace_ms: None, force: false });
        }
        cluster.fate(pod, fate);
        cluster.settle();
        assert_eq!(cluster.job_line("a"), expected, "{fate:?}");
    };
    check(Fate::Fails(42), false, "0/0/1 Failed(PodFailurePolicy) FailureTarget(PodFailurePolicy)");
    check(Fate::Fails(1), false, "0/0/1");
    check(Fate::Fails(7), false, "0/0/0");
    check(Fate::Fails(42), true, "0/0/0");
    check(Fate::Gone, true, "0/0/0");
}

#[test]
fn the_policy_names_pod_and_rule() {
    let mut cluster = start("a", |spec| {
        spec.pod_replacement_policy = PodReplacementPolicy::Failed;
        spec.pod_failure_policy = vec![on_codes(PodFailureAction::FailJob, ExitCodeOperator::In, &[42])];
    });
    let pod = cluster.job_pods("a")[0].clone();
    cluster.all_end("a", Fate::Fails(42));
    let message = cluster.get_job("a").end().unwrap().message.clone();
    let expected = format!(
        "Container main for pod default/{} failed with exit code 42 matching FailJob rule at index 0",
        pod.meta.name
    );
    assert_eq!(message, expected);
}

#[test]
fn indexes_fail_for_themselves() {
    let mut cluster = start("a", |spec| {
        indexed(3)(spec);
        (spec.backoff_limit, spec.backoff_limit_per_index) = (i32::MAX as u32, Some(1));
        spec.pod_replacement_policy = PodReplacementPolicy::Failed;
        spec.pod_failure_policy = vec![on_codes(PodFailureAction::FailIndex, ExitCodeOperator::In, &[9])];
    });
    let pods = cluster.job_pods("a");
    cluster.fate(pods[0].meta.id, Fate::Fails(1));
    cluster.fate(pods[1].meta.id, Fate::Fails(9));
    cluster.settle();
    assert_eq!(indexes(&cluster, "a"), ["2"], "index 0 waits, index 1 has failed");
    assert_eq!(cluster.get_job("a").status.failed_indexes.to_string(), "1");
    cluster.advance(10_000);
    assert_eq!(indexes(&cluster, "a"), ["0", "2"]);
    let again = cluster.job_pods("a").into_iter().find(|pod| pod.meta.name.as_str().starts_with("a-0-"));
    cluster.fate(again.unwrap().meta.id, Fate::Fails(1));
    cluster.all_end("a", Fate::Succeeds);
    assert_eq!(cluster.get_job("a").status.failed_indexes.to_string(), "0-1");
    assert_eq!(cluster.job_line("a"), "0/1/3 Failed(FailedIndexes) FailureTarget(FailedIndexes)");
}

#[test]
fn too_many_failed_indexes_fail_the_job() {
    let mut cluster = start("a", |spec| {
        indexed(4)(spec);
        (spec.backoff_limit_per_index, spec.max_failed_indexes) = (Some(0), Some(1));
    });
    let pods = cluster.job_pods("a");
    cluster.fate(pods[0].meta.id, Fate::Fails(1));
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "3/0/1");
    cluster.fate(pods[1].meta.id, Fate::Fails(1));
    cluster.settle();
    cluster.stop_all();
    let ended = "0/0/2 Failed(MaxFailedIndexesExceeded) FailureTarget(MaxFailedIndexesExceeded)";
    assert_eq!(cluster.job_line("a"), ended);
}

#[test]
fn a_success_policy_ends_a_job_early() {
    let mut cluster = start("a", |spec| {
        indexed(4)(spec);
        let of = |text: &str| Some(text.parse().unwrap());
        spec.success_policy = vec![
            SuccessRule { succeeded_indexes: of("0,3"), succeeded_count: None },
            SuccessRule { succeeded_indexes: of("1-2"), succeeded_count: Some(1) },
        ];
    });
    let pods = cluster.job_pods("a");
    cluster.fate(pods[0].meta.id, Fate::Succeeds);
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "3/1/0");
    cluster.fate(pods[2].meta.id, Fate::Succeeds);
    cluster.settle();
    assert_eq!(cluster.job_line("a"), "0/2/0 SuccessCriteriaMet(SuccessPolicy)");
    cluster.stop_all();
    assert_eq!(cluster.job_line("a"), "0/2/0 Complete(SuccessPolicy) SuccessCriteriaMet(SuccessPolicy)");
    assert_eq!(cluster.get_job("a").end().unwrap().message, "Matched rules at index 1");
}

#[test]
fn restarts_of_containers_count_towards_the_limit() {
    let mut cluster = start("a", |spec| {
        spec.backoff_limit = 2;
        let mut pod = bulkhead_types::PodSpec::clone(&spec.template.spec);
        pod.restart_policy = RestartPolicy::OnFailure;
        spec.template.spec = bulkhead_types::Shared::new(pod);
    });
    let pod = cluster.job_pods("a")[0].clone();
    let node = cluster.state().nodes().get(pod.node.unwrap()).unwrap().clone();
    let mut restarts = |count| {
        cluster.sequence += 1;
        let running = container(ContainerState::Running { started_at_ms: 1 }, count);
        let status =
            PodStatus { phase: PodPhase::Running, containers: vec![running], ..PodStatus::default() };
        let report = PodReport { pod: pod.meta.id, sequence: cluster.sequence, status, gone: false };
        let (incarnation, reports) = (node.status.incarnation, vec![report]);
        cluster.ok(Command::ReportPods { node: node.meta.id, incarnation, reports });
        cluster.settle();
        cluster.job_line("a")
    };
    assert_eq!(restarts(1), "1/0/0");
    assert_eq!(restarts(2), "0/0/0 FailureTarget(BackoffLimitExceeded)");
}

#[test]
fn parallelism_follows_the_spec_both_ways() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (1, Some(10)));
    let apply = |cluster: &mut Cluster, parallelism| {
        cluster.ok(Command::Apply(job("a", |spec| {
            (spec.parallelism, spec.completions) = (parallelism, Some(10))
        })));
        cluster.settle();
    };
    apply(&mut cluster, 4);
    assert_eq!(cluster.job_line("a"), "4/0/0");
    apply(&mut cluster, 2);
    cluster.stop_all();
    assert_eq!(cluster.job_line("a"), "2/0/0", "what it had too many of is no failure");
    let refused =
        cluster.submit(vec![Command::Apply(job("a", |spec| spec.completions = Some(3)))]).unwrap_err();
    assert!(refused.field.ends_with("spec.completions"), "{refused}");
}

#[test]
fn an_elastic_job_forgets_the_indexes_that_it_has_no_more() {
    let mut cluster = start("a", indexed(4));
    let pods = cluster.job_pods("a");
    cluster.fate(pods[3].meta.id, Fate::Succeeds);
    cluster.fate(pods[0].meta.id, Fate::Succeeds);
    cluster.settle();
    cluster.ok(Command::Apply(job("a", indexed(2))));
    cluster.settle();
    cluster.stop_all();
    assert_eq!(cluster.job_line("a"), "1/1/0");
    assert_eq!(indexes(&cluster, "a"), ["1"]);
    cluster.all_end("a", Fate::Succeeds);
    assert!(cluster.get_job("a").status.condition(JOB_COMPLETE).is_some());
}

/// What a leader proposes that looked a while ago.
#[test]
fn what_was_found_on_other_counts_is_not_told() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (2, Some(2)));
    let (stale, pods) = (cluster.get_job("a"), cluster.job_pods("a"));
    cluster.fate(pods[0].meta.id, Fate::Succeeds);
    let mut status = stale.status.clone();
    status.conditions.push(bulkhead_types::Condition {
        condition_type: bulkhead_types::JOB_FAILURE_TARGET.into(),
        status: ConditionStatus::True,
        reason: "DeadlineExceeded".into(),
        message: String::new(),
        last_transition_ms: 1,
        last_update_ms: 1,
    });
    let id = stale.meta.id;
    let said = |status: &bulkhead_types::JobStatus| Command::SetStatus {
        id,
        status: bulkhead_types::ObjectStatus::Job(status.clone()),
    };
    cluster.ok(said(&status));
    let now = &cluster.get_job("a").status;
    assert_eq!((now.succeeded, now.conditions.len()), (1, 0), "a success was counted since");
    status.succeeded = 1;
    cluster.ok(said(&status));
    assert_eq!(cluster.get_job("a").status.conditions.len(), 1);

    // Nor does it get pods that it has no room for, nor lose those that it needs.
    let owner = bulkhead_types::OwnerRef { kind: Kind::Job, id };
    let stamp = |name: &str| bulkhead_types::PodStamp {
        name: crate::kit::name(name),
        index: None,
        node: None,
        revision: None,
    };
    let pods = vec![stamp("x"), stamp("y")];
    cluster.ok(Command::CreateOwnedPods { owner, generation: stale.meta.generation, pods });
    assert_eq!(cluster.state().active_pods(id), 1, "it has a verdict");
}

#[test]
fn pods_that_a_job_needs_are_not_too_many() {
    let mut cluster = start("a", |spec| (spec.parallelism, spec.completions) = (2, Some(2)));
    let job = cluster.get_job("a").meta.id;
    let pods: Vec<_> = cluster.job_pods("a").iter().map(|pod| pod.meta.id).collect();
    let delete = Command::DeletePods { pods, surplus_of: Some(job), reason: "TooManyActivePods".into() };
    cluster.ok(delete);
    assert_eq!(cluster.state().active_pods(job), 2);
}
