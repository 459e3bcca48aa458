//! `cordon` and `uncordon`: whether nodes get new pods.

use bulkhead_types::{Command, Kind, Name, Object, ObjectRef};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Args)]
pub(crate) struct CordonArgs {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: CordonArgs, unschedulable: bool, context: &Context) -> Result<(), Failure> {
    for word in &args.nodes {
        set(target::name(word.strip_prefix("node/").unwrap_or(word))?, unschedulable, context).await?;
    }
    Ok(())
}

/// Cordons or uncordons one node, and says so.
pub(crate) async fn set(name: Name, unschedulable: bool, context: &Context) -> Result<(), Failure> {
    let word = if unschedulable { "cordoned" } else { "uncordoned" };
    let object = ObjectRef { kind: Kind::Node, namespace: None, name: name.clone() };
    if let Object::Node(node) = context.client.get(&object).await?
        && node.spec.unschedulable == unschedulable
    {
        return emit_line(&format!("node/{name} already {word}"));
    }
    context.submit(Command::SetUnschedulable { node: name.clone(), unschedulable }).await?;
    emit_line(&format!("node/{name} {word}"))
}
