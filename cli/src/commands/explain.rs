//! `explain`: why something is as it is, from what the log keeps of the decisions about it.

use bulkhead_types::{Condition, Kind, Name, Object, ObjectRef, UpdateMode};
use clap::{Args, Subcommand};

use super::{Context, events};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::output::describe::{RECOMMENDATION_COLUMNS, recommendations};
use crate::output::{emit, table};
use crate::target::{self, object_ref};
use crate::time::rfc3339;

/// Events of an autoscaler that are looked through for its decisions.
const EVENTS_MAX: u32 = 1000;
/// The event with a decision of an autoscaler.
const DECIDED: &str = "StatusChanged";
const HEADER: [&str; 3] = ["REVISION", "AT", "DECISION, AND THE FIGURES THAT IT WAS TAKEN FROM"];

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainVerb {
    /// Why a pod waits, for whose end it waits, or for whom it ends
    #[command(visible_alias = "po")]
    Pod(NamedArgs),
    /// Why a HorizontalPodAutoscaler set the sizes that it did, and what holds it back now
    #[command(visible_alias = "horizontalpodautoscaler")]
    Hpa(DecisionArgs),
    /// What a VerticalPodAutoscaler recommends, by how much it knows, and what it recommended before
    #[command(visible_alias = "verticalpodautoscaler")]
    Vpa(DecisionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// Its name
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct DecisionArgs {
    /// Its name
    name: String,
    /// How many of its last decisions
    #[arg(long, default_value_t = 10)]
    limit: usize,
}

pub(crate) async fn run(verb: ExplainVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ExplainVerb::Pod(args) => pod(args, context).await,
        ExplainVerb::Hpa(args) => horizontal(args, context).await,
        ExplainVerb::Vpa(args) => vertical(args, context).await,
    }
}

async fn pod(args: NamedArgs, context: &Context) -> Result<(), Failure> {
    let name: Name = target::name(args.name.strip_prefix("pod/").unwrap_or(&args.name))?;
    let reference = object_ref(Kind::Pod, &context.namespace, name);
    let object = context.client.get(&reference).await?;
    let Object::Pod(pod) = &object else {
        return Err(Failure::failed(format!("the server answered with something else than {reference}")));
    };
    let directory = Directory::complete(&context.client, std::slice::from_ref(&object)).await?;
    let name_of =
        |kind, id| directory.name_of(kind, id).map_or_else(|| id.to_string(), |name| name.to_string());
    let mut text = match (pod.node, pod.status.nominated_node.get()) {
        (Some(node), _) => format!("{reference} is on node {}.\n", name_of(Kind::Node, node)),
        (None, Some(node)) => {
            format!(
                "{reference} waits for room that is kept for it on node {}.\n",
                name_of(Kind::Node, *node)
            )
        }
        (None, None) => format!("{reference} waits for a node.\n"),
    };
    if !pod.status.message.is_empty() {
        text += &format!("{}: {}\n", pod.status.reason, pod.status.message);
    }
    if let Some(preemptor) = pod.meta.deletion.as_ref().and_then(|deletion| deletion.preemptor) {
        text += &format!("It ends for pod {}, which has a higher priority.\n", name_of(Kind::Pod, preemptor));
    }
    emit(&text)
}

async fn horizontal(args: DecisionArgs, context: &Context) -> Result<(), Failure> {
    let name: Name = target::name(args.name.strip_prefix("hpa/").unwrap_or(&args.name))?;
    let reference = object_ref(Kind::HorizontalPodAutoscaler, &context.namespace, name);
    let Object::HorizontalPodAutoscaler(autoscaler) = context.client.get(&reference).await? else {
        return Err(Failure::failed(format!("the server answered with something else than {reference}")));
    };
    let target = &autoscaler.spec.target;
    let (min, max) = (autoscaler.spec.min_replicas, autoscaler.spec.max_replicas);
    let mut text = format!("{reference} scales {} {} between {min} and {max}.\n", target.kind, target.name);
    text += &conditions(&autoscaler.status.conditions);
    text += &decisions(&reference, args.limit, context).await?;
    emit(&text)
}

async fn vertical(args: DecisionArgs, context: &Context) -> Result<(), Failure> {
    let name: Name = target::name(args.name.strip_prefix("vpa/").unwrap_or(&args.name))?;
    let reference = object_ref(Kind::VerticalPodAutoscaler, &context.namespace, name);
    let Object::VerticalPodAutoscaler(vertical) = context.client.get(&reference).await? else {
        return Err(Failure::failed(format!("the server answered with something else than {reference}")));
    };
    let (spec, target) = (&vertical.spec, &vertical.spec.target);
    let does = match spec.update_mode {
        UpdateMode::Off => "recommends requests for the pods of".to_owned(),
        UpdateMode::Initial => "sets the requests of new pods of".to_owned(),
        UpdateMode::Auto => format!(
            "sets the requests of new pods, and replaces others while {} more live, of",
            spec.min_replicas
        ),
    };
    let mut text = format!("{reference} {does} {} {}.\n", target.kind, target.name);
    text += &conditions(&vertical.status.conditions);
    let rows = recommendations(&vertical);
    if !rows.is_empty() {
        text += &format!("\n{}", table::render(&RECOMMENDATION_COLUMNS, &rows));
    }
    text += &decisions(&reference, args.limit, context).await?;
    emit(&text)
}

fn conditions(conditions: &[Condition]) -> String {
    let line = |condition: &Condition| {
        let (kind, status) = (&condition.condition_type, condition.status);
        format!("{kind} is {status:?}: {} ({})\n", condition.message, condition.reason)
    };
    conditions.iter().map(line).collect()
}

/// The last decisions of an autoscaler, as its events tell them.
async fn decisions(reference: &ObjectRef, limit: usize, context: &Context) -> Result<String, Failure> {
    let history = events::of_object(reference, EVENTS_MAX, context).await?;
    let decisions = history.iter().filter(|entry| entry.event == DECIDED);
    let mut rows: Vec<Vec<String>> = decisions
        .map(|entry| vec![entry.revision.to_string(), rfc3339(entry.at_ms), entry.summary.clone()])
        .collect();
    let surplus = rows.len().saturating_sub(limit);
    rows.drain(..surplus);
    if rows.is_empty() {
        return Ok("No decision of it is kept.\n".to_owned());
    }
    Ok(format!("\n{}", table::render(&HEADER, &rows)))
}
