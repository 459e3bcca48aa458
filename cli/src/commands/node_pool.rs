//! `node set-pool` and `node-operation`: which pool a node is of, and what becomes of operations on many nodes.

use bulkhead_types::{
    Command, Kind, LABEL_NODE_POOL, NODE_POOL_DEFAULT, Name, NodeOperationControl, ObjectRef,
};
use clap::{Args, Subcommand};

use super::{Context, label};
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Args)]
pub(crate) struct SetPoolArgs {
    /// The pool's name
    #[arg(value_parser = |text: &str| Name::new(text))]
    pool: Name,
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeOperationVerb {
    /// Begin no further node; what was begun goes on
    Pause(Which),
    /// Go on, at a batch of one; nodes that failed are tried again first
    Resume(Which),
    /// Give an operation up; only one that is paused
    Cancel(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The operation's name
    name: String,
}

/// `node set-pool`.
pub(crate) async fn set_pool(args: SetPoolArgs, context: &Context) -> Result<(), Failure> {
    let pool = ObjectRef { kind: Kind::NodePool, namespace: None, name: args.pool.clone() };
    if args.pool.as_str() != NODE_POOL_DEFAULT {
        context.client.get(&pool).await.map_err(|failure| match failure.class {
            Class::NotFound => Failure::new(
                Class::NotFound,
                format!(
                    "there is no NodePool {}: create it first, so that the node gets what it gives",
                    args.pool
                ),
            ),
            _ => failure,
        })?;
    }
    for word in &args.nodes {
        let name = target::name(word.strip_prefix("node/").unwrap_or(word))?;
        let node = ObjectRef { kind: Kind::Node, namespace: None, name: name.clone() };
        let changed =
            label::set(&node, LABEL_NODE_POOL, args.pool.as_str(), "bulkhead-node", context).await?;
        let word = if changed { "is of" } else { "is already of" };
        emit_line(&format!("node/{name} {word} pool {}", args.pool))?;
    }
    Ok(())
}

/// `node-operation`.
pub(crate) async fn run(verb: NodeOperationVerb, context: &Context) -> Result<(), Failure> {
    let (which, control, done) = match verb {
        NodeOperationVerb::Pause(which) => (which, NodeOperationControl::Pause, "paused"),
        NodeOperationVerb::Resume(which) => (which, NodeOperationControl::Resume, "resumed"),
        NodeOperationVerb::Cancel(which) => (which, NodeOperationControl::Cancel, "cancelled"),
    };
    let word = which.name.strip_prefix("nodeoperation/").unwrap_or(&which.name);
    let operation = target::name(word)?;
    context.submit(Command::ControlNodeOperation { operation: operation.clone(), control }).await?;
    emit_line(&format!("nodeoperation/{operation} {done}"))
}
