//! `delete`: asks for objects to end, and waits until they are gone.

use std::path::PathBuf;
use std::time::Duration;

use bulkhead_types::{Command, Object, ObjectRef};
use clap::Args;

use super::{Context, apply, wait};
use crate::client::Filter;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::{self, Target, object_ref, slash_name};
use crate::time::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// KIND NAME... or KIND/NAME...
    #[arg(value_name = "KIND NAME")]
    what: Vec<String>,
    /// Delete what these manifests name
    #[arg(long, short, value_name = "PATH", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// All of the kind with these labels
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
    /// All of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Grace for pods, in seconds or as 5s; the pod's own when not given
    #[arg(long, value_parser = parse_seconds, value_name = "SECONDS")]
    grace_period: Option<Duration>,
    /// Forget pods at once, without their agent's word that they ended: their guests may still run. Those that must be
    /// unique are killed, and forgotten once they are surely dead. Forget a node whatever it may run
    #[arg(long)]
    force: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// It is no failure when an object is gone already
    #[arg(long)]
    ignore_not_found: bool,
}

/// kubectl's whole seconds, or a duration with a unit.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).or_else(|_| parse_duration(text))
}

pub(crate) async fn run(args: DeleteArgs, context: &Context) -> Result<(), Failure> {
    let grace_ms = args.grace_period.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    if args.force {
        eprintln!(
            "warning: --force does not wait for the agents' word: guests may go on running for a while, unless they must \
             be unique; force a node only when its machine is off"
        );
    }
    let (objects, missing) = find(&args, context).await?;
    let mut asked = Vec::new();
    for object in objects {
        let object_ref = object.object_ref();
        context.submit(Command::Delete { object: object_ref.clone(), grace_ms, force: args.force }).await?;
        if !args.wait {
            emit_line(&format!("{} deleted", slash_name(&object_ref)))?;
        }
        asked.push((object_ref, object.meta().id));
    }
    if args.wait && !asked.is_empty() {
        let report = |object: &ObjectRef| emit_line(&format!("{} deleted", slash_name(object)));
        wait::gone(&context.client, &asked, context.timeout, report).await?;
    }
    if missing.is_empty() || args.ignore_not_found {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Err(super::get::not_found(&all.join(", ")))
}

/// The objects that are there, and those that are not.
async fn find(args: &DeleteArgs, context: &Context) -> Result<(Vec<Object>, Vec<ObjectRef>), Failure> {
    let mut wanted = Vec::new();
    let mut found = Vec::new();
    if args.filename.is_empty() {
        for Target { kind, name } in target::parse(&args.what)? {
            match name {
                Some(name) => wanted.push(object_ref(kind, &context.namespace, name)),
                None if args.all || args.selector.is_some() => {
                    let namespace = Some(context.namespace.clone());
                    let labels = args.selector.clone().unwrap_or_default();
                    let filter = Filter { namespace, labels, ..Filter::default() };
                    found.extend(context.client.list(kind, &filter).await?.0);
                }
                None => return Err(Failure::usage(format!("which {kind}? Give names, --selector or --all"))),
            }
        }
    } else {
        // What was made last goes first: a namespace after what lives in it.
        wanted.extend(
            apply::read_objects(&args.filename, context)?.iter().rev().map(|p| p.object.object_ref()),
        );
    }
    let mut missing = Vec::new();
    for object in wanted {
        match context.client.get(&object).await {
            Ok(present) => found.push(present),
            Err(failure) if failure.class == Class::NotFound => missing.push(object),
            Err(failure) => return Err(failure),
        }
    }
    Ok((found, missing))
}
