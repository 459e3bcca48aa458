//! `suspend` and `resume`: whether a Job's pods, or a CronJob's jobs, may start.

use bulkhead_types::{Command, Kind};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct SuspendArgs {
    /// KIND NAME... or KIND/NAME... of Jobs and CronJobs
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
}

pub(crate) async fn run(args: SuspendArgs, suspended: bool, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    if let Some(other) = objects.iter().find(|o| !matches!(o.kind, Kind::Job | Kind::CronJob)) {
        return Err(Failure::usage(format!("{other} cannot be suspended: only Jobs and CronJobs can")));
    }
    let done = if suspended { "suspended" } else { "resumed" };
    for object in objects {
        let name = slash_name(&object);
        context.submit(Command::SetSuspended { object, suspended }).await?;
        emit_line(&format!("{name} {done}"))?;
    }
    Ok(())
}
