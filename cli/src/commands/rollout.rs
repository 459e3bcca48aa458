//! `rollout`: the way of a Deployment, StatefulSet or DaemonSet from one template to the next.

mod delivery;
mod history;
mod stage;
mod status;

use bulkhead_types::{Command, Kind, ObjectRef};
use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};
use crate::time::{now_ms, rfc3339};

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutVerb {
    /// Follow a rollout until it is complete; fails when it exceeds its progress deadline (Deployments have one)
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
    /// Hold a Deployment back: changes of the template start no rollout
    Pause(Which),
    /// Let go again
    Resume(Which),
    /// Replace all pods by new ones of the same template
    Restart(Which),
    /// Let a delivery by steps (Canary, BlueGreen, batches) go on after a pause
    Promote {
        #[command(flatten)]
        which: Which,
        /// Past all steps and pauses that are left
        #[arg(long)]
        full: bool,
    },
    /// End a delivery by steps: all pods are of the stable template again
    Abort(Which),
    /// Begin a delivery that was ended anew, at its first step
    Retry(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// KIND/NAME or KIND NAME of a Deployment, StatefulSet or DaemonSet; NAME alone is a Deployment's
    #[arg(required = true, value_name = "KIND/NAME")]
    what: Vec<String>,
}

impl Which {
    fn rolled(&self, context: &Context) -> Result<ObjectRef, Failure> {
        let object = target::parse_one(&self.what, &context.namespace, Kind::Deployment)?;
        if matches!(object.kind, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet) {
            Ok(object)
        } else {
            let reason = "only Deployments, StatefulSets and DaemonSets have";
            Err(Failure::usage(format!("{object} has no rollouts: {reason}")))
        }
    }

    fn deployment(&self, context: &Context) -> Result<ObjectRef, Failure> {
        let object = self.rolled(context)?;
        if object.kind == Kind::Deployment {
            Ok(object)
        } else {
            Err(Failure::usage(format!("{object} cannot be held back: only Deployments can")))
        }
    }

    fn delivered(&self, context: &Context) -> Result<ObjectRef, Failure> {
        let object = self.rolled(context)?;
        if object.kind == Kind::Deployment {
            Ok(object)
        } else {
            Err(Failure::usage(format!("{object} has no delivery by steps: only Deployments have")))
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
        RolloutVerb::Promote { which, .. } => (which, "promoted"),
        RolloutVerb::Abort(which) => (which, "aborted"),
        RolloutVerb::Retry(which) => (which, "retried"),
    };
    let deployment = match &verb {
        RolloutVerb::Pause(_) | RolloutVerb::Resume(_) => which.deployment(context)?,
        RolloutVerb::Promote { .. } | RolloutVerb::Abort(_) | RolloutVerb::Retry(_) => {
            which.delivered(context)?
        }
        _ => which.rolled(context)?,
    };
    let name = slash_name(&deployment);
    let command = match verb {
        RolloutVerb::Undo { to_revision, .. } => {
            Command::UndoRollout { deployment, to_revision: to_revision.filter(|r| *r > 0) }
        }
        RolloutVerb::Pause(_) => Command::SetPaused { deployment, paused: true },
        RolloutVerb::Resume(_) => Command::SetPaused { deployment, paused: false },
        RolloutVerb::Promote { full, .. } => Command::PromoteRollout { deployment, full },
        RolloutVerb::Abort(_) => Command::AbortRollout { deployment },
        RolloutVerb::Retry(_) => Command::RetryRollout { deployment },
        _ => Command::RestartRollout { deployment, restarted_at: rfc3339(now_ms()).into() },
    };
    context.submit(command).await?;
    emit_line(&format!("{name} {word}"))
}
