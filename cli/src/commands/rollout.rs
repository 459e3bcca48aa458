//! `rollout`: a Deployment's way from one template to the next.

mod history;
mod status;

use bulkhead_types::{Command, Deployment, Kind, Object, ObjectRef};
use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};
use crate::time::{now_ms, rfc3339};

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutVerb {
    /// Follow a rollout until it is complete; fails when it exceeds its progress deadline
    Status(status::StatusArgs),
    /// Show the revisions that can be gone back to
    History(history::HistoryArgs),
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        which: Which,
        /// Which revision; the one before the current when not given
        #[arg(long)]
        to_revision: Option<u64>,
    },
    /// Hold back: changes of the template start no rollout
    Pause(Which),
    /// Let go again
    Resume(Which),
    /// Replace all pods by new ones of the same template
    Restart(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// deployment/NAME, deployment NAME, or NAME
    #[arg(required = true, value_name = "DEPLOYMENT")]
    what: Vec<String>,
}

impl Which {
    fn deployment(&self, context: &Context) -> Result<ObjectRef, Failure> {
        let object = target::parse_one(&self.what, &context.namespace, Kind::Deployment)?;
        if object.kind == Kind::Deployment {
            Ok(object)
        } else {
            Err(Failure::usage(format!("{object} has no rollouts: only Deployments have")))
        }
    }
}

pub(crate) async fn run(verb: RolloutVerb, context: &Context) -> Result<(), Failure> {
    let (which, word) = match &verb {
        RolloutVerb::Status(args) => return status::run(args, context).await,
        RolloutVerb::History(args) => return history::run(args, context).await,
        RolloutVerb::Undo { which, .. } => (which, "rolled back"),
        RolloutVerb::Pause(which) => (which, "paused"),
        RolloutVerb::Resume(which) => (which, "resumed"),
        RolloutVerb::Restart(which) => (which, "restarted"),
    };
    let deployment = which.deployment(context)?;
    let name = slash_name(&deployment);
    let command = match verb {
        RolloutVerb::Undo { to_revision, .. } => {
            Command::UndoRollout { deployment, to_revision: to_revision.filter(|r| *r > 0) }
        }
        RolloutVerb::Pause(_) => Command::SetPaused { deployment, paused: true },
        RolloutVerb::Resume(_) => Command::SetPaused { deployment, paused: false },
        _ => Command::RestartRollout { deployment, restarted_at: rfc3339(now_ms()).into() },
    };
    context.submit(command).await?;
    emit_line(&format!("{name} {word}"))
}

/// Reads a Deployment.
async fn read(object: &ObjectRef, context: &Context) -> Result<std::sync::Arc<Deployment>, Failure> {
    match context.client.get(object).await? {
        Object::Deployment(deployment) => Ok(deployment),
        other => Err(Failure::failed(format!("the server sent {} for {object}", other.object_ref()))),
    }
}
