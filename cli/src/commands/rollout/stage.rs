//! Where a rollout stands, by kubectl's rules and in its words.

use bulkhead_types::{
    ConditionStatus, DaemonSet, DaemonSetUpdateStrategy, Deployment, Object, StatefulSet,
    StatefulSetUpdateStrategy,
};

/// Where a rollout stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Going(String),
    Complete(String),
    Stuck(String),
}

/// Where the rollout of an object stands.
pub(super) fn stage(object: &Object) -> Stage {
    match object {
        Object::Deployment(deployment) => deployment_stage(deployment),
        Object::StatefulSet(set) => stateful_set_stage(set),
        Object::DaemonSet(set) => daemon_set_stage(set),
        other => Stage::Stuck(format!("{} has no rollouts", other.object_ref())),
    }
}

const ON_DELETE: &str = "rollout status is only available for the RollingUpdate strategy";

fn deployment_stage(deployment: &Deployment) -> Stage {
    let (spec, status, name) = (&deployment.spec, &deployment.status, &deployment.meta.name);
    if status.observed_generation < deployment.meta.generation {
        return Stage::Going("Waiting for deployment spec update to be observed...".to_owned());
    }
    let progressing = status.conditions.iter().find(|c| c.condition_type == "Progressing");
    if progressing.is_some_and(|c| c.reason == "ProgressDeadlineExceeded") {
        return Stage::Stuck(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    if spec.stopped {
        return Stage::Stuck(format!(
            "deployment \"{name}\" is stopped: nothing rolls out until it is started"
        ));
    }
    if let Some(stage) = super::delivery::stage(deployment) {
        return stage;
    }
    let failure = status.conditions.iter().find(|c| c.condition_type == "ReplicaFailure");
    let failure = failure.filter(|c| c.status == ConditionStatus::True);
    let why = failure.map_or_else(String::new, |c| format!(" ({})", c.message));
    let waiting = |what: String| {
        Stage::Going(format!("Waiting for deployment \"{name}\" rollout to finish: {what}...{why}"))
    };
    if status.updated_replicas < spec.replicas {
        let (updated, wanted) = (status.updated_replicas, spec.replicas);
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if status.replicas > status.updated_replicas {
        waiting(format!("{} old replicas are pending termination", status.replicas - status.updated_replicas))
    } else if status.available_replicas < status.updated_replicas {
        let (available, updated) = (status.available_replicas, status.updated_replicas);
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        Stage::Complete(format!("deployment \"{name}\" successfully rolled out"))
    }
}

fn stateful_set_stage(set: &StatefulSet) -> Stage {
    let (spec, status) = (&set.spec, &set.status);
    let StatefulSetUpdateStrategy::RollingUpdate { partition, .. } = spec.update_strategy else {
        return Stage::Stuck(ON_DELETE.to_owned());
    };
    if status.observed_generation < set.meta.generation {
        return Stage::Going("Waiting for statefulset spec update to be observed...".to_owned());
    }
    if spec.stopped {
        let name = &set.meta.name;
        return Stage::Stuck(format!(
            "statefulset \"{name}\" is stopped: nothing rolls out until it is started"
        ));
    }
    if status.ready_replicas < spec.replicas {
        return Stage::Going(format!(
            "Waiting for {} pods to be ready...",
            spec.replicas - status.ready_replicas
        ));
    }
    if partition > 0 {
        let wanted = spec.replicas.saturating_sub(partition);
        let updated = status.updated_replicas;
        if updated < wanted {
            let figures = format!("{updated} out of {wanted} new pods have been updated");
            return Stage::Going(format!("Waiting for partitioned roll out to finish: {figures}..."));
        }
        return Stage::Complete(format!(
            "partitioned roll out complete: {updated} new pods have been updated..."
        ));
    }
    let revision = &status.update_revision;
    if status.update_revision != status.current_revision {
        let updated = status.updated_replicas;
        return Stage::Going(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {revision}..."
        ));
    }
    let current = status.current_replicas;
    Stage::Complete(format!("statefulset rolling update complete {current} pods at revision {revision}..."))
}

fn daemon_set_stage(set: &DaemonSet) -> Stage {
    let (status, name) = (&set.status, &set.meta.name);
    if set.spec.update_strategy == DaemonSetUpdateStrategy::OnDelete {
        return Stage::Stuck(ON_DELETE.to_owned());
    }
    if status.observed_generation < set.meta.generation {
        return Stage::Going("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let waiting = |what: String| {
        Stage::Going(format!("Waiting for daemon set \"{name}\" rollout to finish: {what}..."))
    };
    let wanted = status.desired_number_scheduled;
    if status.updated_number_scheduled < wanted {
        let updated = status.updated_number_scheduled;
        waiting(format!("{updated} out of {wanted} new pods have been updated"))
    } else if status.number_available < wanted {
        waiting(format!("{} of {wanted} updated pods are available", status.number_available))
    } else {
        Stage::Complete(format!("daemon set \"{name}\" successfully rolled out"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bulkhead_types::{
        Condition, DeploymentSpec, DeploymentStatus, DeploymentStrategy, LabelSelector, Name, ObjectMeta,
        PodSpec, PodTemplate, Shared, StringMap,
    };

    pub(in crate::commands::rollout) fn check(change: impl FnOnce(&mut Deployment), expected: Stage) {
        let name = Name::new("web").expect("a name");
        let template = PodTemplate {
            labels: StringMap::new(),
            annotations: StringMap::new(),
            spec: Shared::new(PodSpec::default()),
        };
        let mut deployment = Deployment {
            meta: ObjectMeta { generation: 2, ..ObjectMeta::new(Some(name.clone()), name) },
            spec: DeploymentSpec {
                replicas: 3,
                selector: LabelSelector::default(),
                template,
                strategy: DeploymentStrategy::Recreate,
                min_ready_ms: 0,
                progress_deadline_ms: 1,
                revision_history_limit: 1,
                paused: false,
                stopped: false,
                delivery: Default::default(),
            },
            status: DeploymentStatus {
                observed_generation: 2,
                replicas: 3,
                updated_replicas: 3,
                available_replicas: 3,
                ..DeploymentStatus::default()
            },
        };
        change(&mut deployment);
        assert_eq!(stage(&Object::Deployment(deployment.into())), expected);
    }

    pub(in crate::commands::rollout) fn going(text: &str) -> Stage {
        Stage::Going(text.to_owned())
    }

    #[test]
    fn stages_follow_the_status() {
        check(|_| {}, Stage::Complete("deployment \"web\" successfully rolled out".to_owned()));
        check(
            |d| d.status.observed_generation = 1,
            going("Waiting for deployment spec update to be observed..."),
        );
        check(
            |d| d.status.updated_replicas = 1,
            going(
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
            ),
        );
        check(
            |d| d.status.replicas = 4,
            going(
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
            ),
        );
        check(
            |d| d.status.available_replicas = 2,
            going(
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
            ),
        );
    }

    #[test]
    fn why_it_waits_is_told() {
        check(
            |d| {
                d.status.updated_replicas = 1;
                d.status.conditions.push(Condition {
                    condition_type: "ReplicaFailure".into(),
                    status: ConditionStatus::True,
                    reason: "PodsUnschedulable".into(),
                    message: "1 pods cannot be placed".to_owned(),
                    last_transition_ms: 1,
                    last_update_ms: 1,
                });
            },
            going(
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated... (1 pods cannot be placed)",
            ),
        );
        check(
            |d| d.spec.stopped = true,
            Stage::Stuck("deployment \"web\" is stopped: nothing rolls out until it is started".to_owned()),
        );
    }

    #[test]
    fn a_missed_deadline_is_a_failure() {
        check(
            |d| {
                d.status.updated_replicas = 1;
                d.status.conditions.push(Condition {
                    condition_type: "Progressing".into(),
                    status: ConditionStatus::False,
                    reason: "ProgressDeadlineExceeded".into(),
                    message: String::new(),
                    last_transition_ms: 1,
                    last_update_ms: 1,
                });
            },
            Stage::Stuck("deployment \"web\" exceeded its progress deadline".to_owned()),
        );
    }

    fn stateful_set(change: impl FnOnce(&mut StatefulSet)) -> Stage {
        let text = include_str!("../../../../examples/statefulset.yaml").to_owned();
        let namespace = bulkhead_types::Name::new("default").expect("a name");
        let source = bulkhead_manifest::Source { name: "-".to_owned(), text };
        let mut parsed = bulkhead_manifest::parse(&[source], Some(&namespace)).expect("the example is good");
        let Object::StatefulSet(set) = parsed.remove(0).object else { unreachable!("it is one") };
        let mut set = (*set).clone();
        set.meta.generation = 2;
        set.status.observed_generation = 2;
        (set.status.ready_replicas, set.status.updated_replicas, set.status.current_replicas) = (2, 2, 2);
        (set.status.current_revision, set.status.update_revision) = ("db-b".into(), "db-b".into());
        change(&mut set);
        stage(&Object::StatefulSet(set.into()))
    }

    #[test]
    fn stages_of_stateful_sets_follow_the_status() {
        let done = "statefulset rolling update complete 2 pods at revision db-b...";
        assert_eq!(stateful_set(|_| ()), Stage::Complete(done.to_owned()));
        let unseen = "Waiting for statefulset spec update to be observed...";
        assert_eq!(stateful_set(|set| set.meta.generation = 3), going(unseen));
        let partitioned = |updated: u32| {
            stateful_set(move |set| {
                let max_unavailable = bulkhead_types::IntOrPercent::Int(1);
                let strategy = StatefulSetUpdateStrategy::RollingUpdate { partition: 1, max_unavailable };
                set.spec.update_strategy = strategy;
                set.status.updated_replicas = updated;
                set.status.current_revision = "db-a".into();
            })
        };
        let waiting = "Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated...";
        assert_eq!(partitioned(0), going(waiting));
        let done = "partitioned roll out complete: 1 new pods have been updated...";
        assert_eq!(partitioned(1), Stage::Complete(done.to_owned()));
    }
}
