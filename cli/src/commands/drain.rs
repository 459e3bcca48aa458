//! `drain`: a node without pods.

use std::time::Duration;

use bulkhead_types::{Command, Kind, Object, ObjectRef};
use clap::Args;

use super::delete::parse_seconds;
use super::{Context, cordon, wait};
use crate::client::Filter;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Delete pods too that nobody will start elsewhere
    #[arg(long)]
    force: bool,
    /// Leave pods of DaemonSets where they are: those would come back at once, whatever is done to the node
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Grace for pods, in seconds; the pod's own when not given
    #[arg(long, value_parser = parse_seconds, value_name = "SECONDS")]
    grace_period: Option<Duration>,
    /// Only pods with these labels
    #[arg(long, value_name = "LABELS")]
    pod_selector: Option<String>,
}

pub(crate) async fn run(args: DrainArgs, context: &Context) -> Result<(), Failure> {
    for word in &args.nodes {
        drain(word.strip_prefix("node/").unwrap_or(word), &args, context).await?;
    }
    Ok(())
}

async fn drain(node: &str, args: &DrainArgs, context: &Context) -> Result<(), Failure> {
    let name = target::name(node)?;
    cordon::set(name.clone(), true, context).await?;
    let filter = Filter {
        namespace: None,
        labels: args.pod_selector.clone().unwrap_or_default(),
        fields: format!("spec.nodeName={name}"),
    };
    let (pods, _) = context.client.list(Kind::Pod, &filter).await?;
    let running = pods.iter().filter(|o| matches!(o, Object::Pod(pod) if !pod.status.phase.is_terminal()));
    let is_daemon = |o: &&Object| o.meta().owner.is_some_and(|owner| owner.kind == Kind::DaemonSet);
    let (daemons, running): (Vec<&Object>, Vec<&Object>) = running.partition(is_daemon);
    if !daemons.is_empty() && !args.ignore_daemonsets {
        let daemons: Vec<String> = daemons.iter().map(|o| o.object_ref().to_string()).collect();
        return Err(Failure::failed(format!(
            "cannot drain node/{name}: these belong to DaemonSets, which would start them here again: {}; leave them with \
             --ignore-daemonsets",
            daemons.join(", ")
        )));
    }
    let orphans: Vec<String> =
        running.iter().filter(|o| o.meta().owner.is_none()).map(|o| o.object_ref().to_string()).collect();
    if !orphans.is_empty() && !args.force {
        return Err(Failure::failed(format!(
            "cannot drain node/{name}: nobody will start these elsewhere: {}; delete them anyway with --force",
            orphans.join(", ")
        )));
    }
    let grace_ms = args.grace_period.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let mut asked = Vec::new();
    for object in running {
        let object_ref = object.object_ref();
        let namespace = object_ref.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
        if !object.meta().is_deleting() {
            emit_line(&format!("evicting pod {namespace}/{}", object_ref.name))?;
            context.submit(Command::Delete { object: object_ref.clone(), grace_ms, force: false }).await?;
        }
        asked.push((object_ref, object.meta().id));
    }
    let report = |object: &ObjectRef| emit_line(&format!("pod/{} evicted", object.name));
    wait::gone(&context.client, &asked, context.timeout, report).await?;
    emit_line(&format!("node/{name} drained"))
}
