//! `scale`: the wanted number of replicas.

use bulkhead_types::{Command, Kind};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// KIND NAME... or KIND/NAME... of Deployments and ReplicaSets
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// How many
    #[arg(long)]
    replicas: u32,
}

pub(crate) async fn run(args: ScaleArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    if let Some(other) = objects.iter().find(|o| !matches!(o.kind, Kind::Deployment | Kind::ReplicaSet)) {
        return Err(Failure::usage(format!(
            "{other} has no replicas: only Deployments and ReplicaSets have"
        )));
    }
    for object in objects {
        let name = slash_name(&object);
        context.submit(Command::Scale { object, replicas: args.replicas }).await?;
        emit_line(&format!("{name} scaled"))?;
    }
    Ok(())
}
