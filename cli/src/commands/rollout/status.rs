//! `rollout status`: follows a rollout to its end.

use bulkhead_types::{Kind, Object};
use clap::Args;

use super::Which;
use super::stage::{Stage, stage};
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
    let object = args.which.rolled(context)?;
    if args.revision > 0 && object.kind != Kind::Deployment {
        return Err(Failure::usage("--revision is for Deployments only"));
    }
    let filter = Filter {
        namespace: object.namespace.clone(),
        fields: format!("metadata.name={}", object.name),
        ..Filter::default()
    };
    let (found, revision) = context.client.list(object.kind, &filter).await?;
    let Some(mut rolled) = found.first().cloned() else {
        return Err(get::not_found(&object.to_string()));
    };
    let id = rolled.meta().id;
    let mut watcher = context.client.watch(object.kind, &filter, &found, revision);
    let progress = Progress::start(format!("{object} is rolled out"));
    let mut last = String::new();
    loop {
        if let Object::Deployment(deployment) = &rolled
            && args.revision > 0
            && deployment.status.rollout_revision > args.revision
        {
            return Err(Failure::failed(format!(
                "revision {} of {object} was replaced by revision {}",
                args.revision, deployment.status.rollout_revision
            )));
        }
        match stage(&rolled) {
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
        rolled = loop {
            match watcher.next().await? {
                (Change::Gone, gone, _) if gone.meta().id == id => {
                    return Err(Failure::new(Class::NotFound, format!("{object} was deleted")));
                }
                (Change::Present, now, _) if now.meta().id == id => break now,
                _ => {}
            }
        };
    }
}
