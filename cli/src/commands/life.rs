//! `stop`, `start` and `redeploy`: the life of a Deployment as a whole.

use bulkhead_types::{Command, Kind, ObjectRef};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};
use crate::time::{now_ms, rfc3339};

#[derive(Debug, Args)]
pub(crate) struct LifeArgs {
    /// KIND NAME... or KIND/NAME... of Deployments; redeploy also takes StatefulSets and DaemonSets
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Stop,
    Start,
    Redeploy,
}

pub(crate) async fn run(args: LifeArgs, step: Step, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    let fits = |object: &&ObjectRef| match step {
        Step::Redeploy => matches!(object.kind, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet),
        Step::Stop | Step::Start => matches!(object.kind, Kind::Deployment | Kind::StatefulSet),
    };
    if let Some(other) = objects.iter().find(|object| !fits(object)) {
        let reason = match step {
            Step::Redeploy => "cannot be redeployed: only Deployments, StatefulSets and DaemonSets can",
            _ => "cannot be stopped or started: only Deployments and StatefulSets can",
        };
        return Err(Failure::usage(format!("{other} {reason}")));
    }
    for object in objects {
        let name = slash_name(&object);
        let (command, done) = match step {
            Step::Stop => (Command::SetStopped { object, stopped: true }, "stopped"),
            Step::Start => (Command::SetStopped { object, stopped: false }, "started"),
            Step::Redeploy => {
                let restarted_at = rfc3339(now_ms()).into();
                (Command::RestartRollout { deployment: object, restarted_at }, "redeployed")
            }
        };
        context.submit(command).await?;
        emit_line(&format!("{name} {done}"))?;
    }
    Ok(())
}
