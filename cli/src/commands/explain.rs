//! `explain`: why something is as it is, from what the log keeps of the decisions about it.

use bulkhead_types::{Kind, Name, Object};
use clap::{Args, Subcommand};

use super::{Context, events};
use crate::failure::Failure;
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
    /// Why a HorizontalPodAutoscaler set the sizes that it did, and what holds it back now
    #[command(visible_alias = "horizontalpodautoscaler")]
    Hpa(HpaArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HpaArgs {
    /// Its name
    name: String,
    /// How many of its last decisions
    #[arg(long, default_value_t = 10)]
    limit: usize,
}

pub(crate) async fn run(verb: ExplainVerb, context: &Context) -> Result<(), Failure> {
    let ExplainVerb::Hpa(args) = verb;
    let name: Name = target::name(args.name.strip_prefix("hpa/").unwrap_or(&args.name))?;
    let reference = object_ref(Kind::HorizontalPodAutoscaler, &context.namespace, name);
    let Object::HorizontalPodAutoscaler(autoscaler) = context.client.get(&reference).await? else {
        return Err(Failure::failed(format!("the server answered with something else than {reference}")));
    };
    let target = &autoscaler.spec.target;
    let (min, max) = (autoscaler.spec.min_replicas, autoscaler.spec.max_replicas);
    let mut text = format!("{reference} scales {} {} between {min} and {max}.\n", target.kind, target.name);
    for condition in &autoscaler.status.conditions {
        let (kind, status) = (&condition.condition_type, condition.status);
        text += &format!("{kind} is {status:?}: {} ({})\n", condition.message, condition.reason);
    }
    let history = events::of_object(&reference, EVENTS_MAX, context).await?;
    let decisions = history.iter().filter(|entry| entry.event == DECIDED);
    let mut rows: Vec<Vec<String>> = decisions
        .map(|entry| vec![entry.revision.to_string(), rfc3339(entry.at_ms), entry.summary.clone()])
        .collect();
    let surplus = rows.len().saturating_sub(args.limit);
    rows.drain(..surplus);
    if rows.is_empty() {
        text += "No decision of it is kept.\n";
        return emit(&text);
    }
    text += &format!("\n{}", table::render(&HEADER, &rows));
    emit(&text)
}
