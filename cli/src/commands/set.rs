//! `set`: one concern of workloads, without touching the rest.

mod strategy;
mod template;

use bulkhead_types::{Kind, ObjectRef};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::Context;
use super::change::{Manner, change};
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

/// Who manages what is set.
const MANAGER: &str = "bulkhead-set";

#[derive(Debug, Subcommand)]
pub(crate) enum SetVerb {
    /// Set images: CONTAINER=IMAGE..., or *=IMAGE for all containers
    Image(template::ImageArgs),
    /// Set requests and limits of containers
    Resources(template::ResourcesArgs),
    /// Set and remove environment variables: NAME=VALUE..., NAME-...
    Env(template::EnvArgs),
    /// Set how a workload goes from one template to the next
    Strategy(strategy::StrategyArgs),
    /// Set on which nodes pods may run
    Scheduling(template::SchedulingArgs),
}

/// What all of them take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(verb: SetVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        SetVerb::Image(args) => {
            let (objects, pairs) = split(&args.words, |word| word.contains('='), context)?;
            let images = pairs.iter().map(|pair| template::pair(pair)).collect::<Result<Vec<_>, _>>()?;
            if images.is_empty() {
                return Err(Failure::usage("no image is given: CONTAINER=IMAGE"));
            }
            each(&objects, &args.common, "image updated", context, |_, value, object| {
                template::set_images(pod_spec(value, object)?, &images)
            })
            .await
        }
        SetVerb::Resources(args) => {
            let amounts = template::Amounts::read(&args)?;
            let (objects, _) = split(&args.what, |_| false, context)?;
            each(&objects, &args.common, "resource requirements updated", context, |_, value, object| {
                template::set_resources(pod_spec(value, object)?, &args.containers, &amounts)
            })
            .await
        }
        SetVerb::Env(args) => {
            let is_edit = |word: &str| word.contains('=') || word.ends_with('-');
            let (objects, edits) = split(&args.words, is_edit, context)?;
            if edits.is_empty() {
                return Err(Failure::usage(
                    "no variable is given: NAME=VALUE to set one, NAME- to remove one",
                ));
            }
            each(&objects, &args.common, "env updated", context, |_, value, object| {
                template::set_env(pod_spec(value, object)?, &args.containers, &edits)
            })
            .await
        }
        SetVerb::Strategy(args) => {
            let (objects, _) = split(&args.what, |_| false, context)?;
            each(&objects, &args.common, "strategy updated", context, |kind, value, _| {
                strategy::set(kind, value, &args)
            })
            .await
        }
        SetVerb::Scheduling(args) => {
            let (objects, _) = split(&args.what, |_| false, context)?;
            each(&objects, &args.common, "scheduling updated", context, |_, value, object| {
                template::set_scheduling(pod_spec(value, object)?, &args)
            })
            .await
        }
    }
}

/// Words that name objects, and those that say what to do.
fn split(
    words: &[String],
    is_edit: impl Fn(&str) -> bool,
    context: &Context,
) -> Result<(Vec<ObjectRef>, Vec<String>), Failure> {
    let (edits, objects) = words.iter().cloned().partition(|word| is_edit(word));
    Ok((target::parse_named(&objects as &Vec<String>, &context.namespace)?, edits))
}

async fn each(
    objects: &[ObjectRef],
    common: &Common,
    done: &str,
    context: &Context,
    edit: impl Fn(Kind, &mut Value, &ObjectRef) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let manner = Manner { manager: MANAGER, dry_run: common.dry_run };
    for object in objects {
        let changed = change(object, manner, context, |value| edit(object.kind, value, object)).await?;
        let dry_run = if common.dry_run { " (dry run)" } else { "" };
        let done = if changed { done } else { "not changed" };
        emit_line(&format!("{} {done}{dry_run}", slash_name(object)))?;
    }
    Ok(())
}

/// The pod that a workload is made of.
fn pod_spec<'v>(value: &'v mut Value, object: &ObjectRef) -> Result<&'v mut Map<String, Value>, Failure> {
    let path = match object.kind {
        Kind::CronJob => "/spec/jobTemplate/spec/template/spec",
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::ReplicaSet | Kind::Job => {
            "/spec/template/spec"
        }
        _ => return Err(Failure::usage(format!("{object} has no template of pods that could be changed"))),
    };
    let found = value.pointer_mut(path).and_then(Value::as_object_mut);
    found.ok_or_else(|| Failure::failed(format!("{object} has no template of pods")))
}
