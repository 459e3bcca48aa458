//! `rollout status`: follows a rollout to its end.

use bulkhead_types::{Deployment, Kind, Object};
use clap::Args;

use super::Which;
use crate::client::{Change, Filter};
use crate::commands::{Context, get};
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::progress::Progress;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    which: Which,
    /// Go on until the rollout is complete
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    watch: bool,
    /// Fail when another rollout takes the place of this revision
    #[arg(long, default_value_t = 0)]
    revision: u64,
}

/// Where a rollout stands.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Going(String),
    Complete(String),
    Stuck(String),
}

pub(crate) async fn run(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let follow = follow(args, context);
    match context.timeout {
        None => follow.await,
        Some(limit) => tokio::time::timeout(limit, follow).await.unwrap_or_else(|_| {
            Err(Failure::new(Class::Unavailable, format!("the rollout is not complete after {limit:?}")))
        }),
    }
}

async fn follow(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let object = args.which.deployment(context)?;
    let filter = Filter {
        namespace: object.namespace.clone(),
        fields: format!("metadata.name={}", object.name),
        ..Filter::default()
    };
    let (found, revision) = context.client.list(Kind::Deployment, &filter).await?;
    let Some(Object::Deployment(mut deployment)) = found.first().cloned() else {
        return Err(get::not_found(&object.to_string()));
    };
    let id = deployment.meta.id;
    let mut watcher = context.client.watch(Kind::Deployment, &filter, &found, revision);
    let progress = Progress::start(format!("{object} is rolled out"));
    let mut last = String::new();
    loop {
        if args.revision > 0 && deployment.status.rollout_revision > args.revision {
            return Err(Failure::failed(format!(
                "revision {} of {object} was replaced by revision {}",
                args.revision, deployment.status.rollout_revision
            )));
        }
        match stage(&deployment) {
            Stage::Complete(message) => return progress.suspend(|| emit_line(&message)),
            Stage::Stuck(message) => return Err(Failure::failed(message)),
            Stage::Going(message) => {
                if message != last {
                    progress.suspend(|| emit_line(&message))?;
                    last = message;
                }
            }
        }
        if !args.watch {
            return Ok(());
        }
        deployment = loop {
            match watcher.next().await? {
                (Change::Gone, gone, _) if gone.meta().id == id => {
                    return Err(Failure::new(Class::NotFound, format!("{object} was deleted")));
                }
                (Change::Present, Object::Deployment(now), _) if now.meta.id == id => break now,
                _ => {}
            }
        };
    }
}

/// kubectl's rules and words.
fn stage(deployment: &Deployment) -> Stage {
    let (spec, status, name) = (&deployment.spec, &deployment.status, &deployment.meta.name);
    if status.observed_generation < deployment.meta.generation {
        return Stage::Going("Waiting for deployment spec update to be observed...".to_owned());
    }
    let progressing = status.conditions.iter().find(|c| c.condition_type == "Progressing");
    if progressing.is_some_and(|c| c.reason == "ProgressDeadlineExceeded") {
        return Stage::Stuck(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let waiting = |what: String| {
        Stage::Going(format!("Waiting for deployment \"{name}\" rollout to finish: {what}..."))
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

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{
        Condition, ConditionStatus, DeploymentSpec, DeploymentStatus, DeploymentStrategy, LabelSelector,
        Name, ObjectMeta, PodSpec, PodTemplate, Shared, StringMap,
    };

    fn check(change: impl FnOnce(&mut Deployment), expected: Stage) {
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
        assert_eq!(stage(&deployment), expected);
    }

    fn going(text: &str) -> Stage {
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
}
