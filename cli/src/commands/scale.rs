//! `scale`: the wanted number of replicas.

use bulkhead_types::{Command, Kind, ObjectRef};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// KIND NAME... or KIND/NAME... of Deployments, ReplicaSets, StatefulSets and ElasticWorkloads
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// How many
    #[arg(long)]
    replicas: u32,
}

pub(crate) async fn run(args: ScaleArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    let has_replicas = |object: &&ObjectRef| {
        matches!(object.kind, Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::ElasticWorkload)
    };
    if let Some(other) = objects.iter().find(|object| !has_replicas(object)) {
        let reason = match other.kind {
            Kind::DaemonSet => "it has one pod on every node that suits",
            _ => "only Deployments, ReplicaSets, StatefulSets and ElasticWorkloads have",
        };
        return Err(Failure::usage(format!("{other} has no replicas: {reason}")));
    }
    for object in objects {
        let name = slash_name(&object);
        context.submit(Command::Scale { object, replicas: args.replicas }).await?;
        emit_line(&format!("{name} scaled"))?;
    }
    Ok(())
}
