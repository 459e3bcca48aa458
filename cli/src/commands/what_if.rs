//! `what-if`: what would happen, tried by a server on a copy of the State.

use std::path::PathBuf;

use bulkhead_proto::v1;
use bulkhead_types::{HugePages, Resources, parse_millis, parse_units};
use clap::Args;

use super::{Context, apply, change, label, taint};
use crate::client::queries;
use crate::failure::Failure;
use crate::output::{emit, table};

const POD_COLUMNS: [&str; 5] = ["OUTCOME", "NAMESPACE", "POD", "NODE", "REASON"];
const NODE_COLUMNS: [&str; 4] = ["NODE", "PODS", "CPU", "MEMORY"];
const MIB: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed. Several questions are asked at once: nodes come first, then the files are applied, \
then the nodes are drained.\n\nExamples:\n  bulkhead what-if --drain node-1,node-2\n  bulkhead what-if --add-nodes 3 --like node-1 \
-f web.yaml\n  bulkhead what-if --add-nodes 1 --cpu 64 --memory 256Gi --at 41200"
)]
pub(crate) struct WhatIfArgs {
    /// Drain these nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    drain: Vec<String>,
    /// Add so many nodes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    add_nodes: Option<u32>,
    /// What added nodes are like: this one, without its pods
    #[arg(long, value_name = "NODE", requires = "add_nodes", conflicts_with_all = ["cpu", "memory", "labels", "taints"])]
    like: Option<String>,
    /// What pods may use of each added node: cores, such as 64 or 500m
    #[arg(long, value_name = "QUANTITY", requires = "add_nodes", requires = "memory", value_parser = parse_millis)]
    cpu: Option<u64>,
    /// The same of memory, such as 256Gi
    #[arg(long, value_name = "QUANTITY", requires = "add_nodes", requires = "cpu", value_parser = parse_units)]
    memory: Option<u64>,
    /// Labels of added nodes
    #[arg(long, value_name = "KEY=VALUE", requires = "add_nodes", value_delimiter = ',')]
    labels: Vec<String>,
    /// Taints of added nodes
    #[arg(long, value_name = "KEY=VALUE:EFFECT", requires = "add_nodes", value_delimiter = ',')]
    taints: Vec<String>,
    /// Apply this file, directory, or - for standard input; may be repeated
    #[arg(long, short, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Ask about the cluster as it was at this revision
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
}

pub(crate) async fn run(args: WhatIfArgs, context: &Context) -> Result<(), Failure> {
    let request = request(args, context)?;
    let answer = context
        .client
        .call(|channel| {
            let request = context.client.request(request.clone());
            async move { queries(channel).what_if(request).await }
        })
        .await?;
    if !answer.errors.is_empty() {
        return Err(change::refused(&answer.errors));
    }
    emit(&shown(&answer))
}

fn request(args: WhatIfArgs, context: &Context) -> Result<v1::WhatIfRequest, Failure> {
    let files = match args.filename.is_empty() {
        true => Vec::new(),
        false => apply::request(&args.filename, apply::MANAGER_DEFAULT, false, true)?.files,
    };
    let node = |text: &str| text.strip_prefix("node/").unwrap_or(text).to_owned();
    let allocatable = args.cpu.zip(args.memory).map(|(cpu_millis, memory_bytes)| Resources {
        cpu_millis,
        memory_bytes,
        // Disks of new nodes are not what such a question is about.
        ephemeral_storage_bytes: u64::MAX >> 2,
        huge_pages: HugePages::NONE,
        pinned_memory_bytes: 0,
    });
    if args.add_nodes.is_some() && args.like.is_none() && allocatable.is_none() {
        return Err(Failure::usage("--add-nodes needs --like NODE, or --cpu and --memory"));
    }
    let add_nodes = args.add_nodes.map(|count| -> Result<_, Failure> {
        Ok(v1::AddedNodes {
            count,
            like: args.like.as_deref().map(node).unwrap_or_default(),
            allocatable: allocatable.as_ref().map(Into::into),
            pods_max: 0,
            labels: label::parse(&args.labels)?,
            taints: args
                .taints
                .iter()
                .map(|word| Ok((&taint::parse(word)?).into()))
                .collect::<Result<_, Failure>>()?,
        })
    });
    Ok(v1::WhatIfRequest {
        drain_nodes: args.drain.iter().map(|word| node(word)).collect(),
        add_nodes: add_nodes.transpose()?.into_iter().collect(),
        files,
        namespace: context.namespace.to_string(),
        at_revision: args.at.unwrap_or(0),
        actor: context.client.actor().to_owned(),
        field_manager: apply::MANAGER_DEFAULT.to_owned(),
    })
}

fn word(pod: &v1::PodFate) -> &'static str {
    match pod.outcome() {
        v1::PodOutcome::Placed => "placed",
        v1::PodOutcome::Waits => "waits",
        v1::PodOutcome::Ends => "ends",
        v1::PodOutcome::Stays => "stays",
        v1::PodOutcome::Unspecified => "unknown",
    }
}

fn shown(answer: &v1::WhatIfResponse) -> String {
    let mut text = String::new();
    let count = |outcome| answer.pods.iter().filter(|pod| pod.outcome() == outcome).count();
    let row = |pod: &v1::PodFate| {
        let name = if pod.is_new { format!("{} (new)", pod.name) } else { pod.name.clone() };
        vec![word(pod).to_owned(), pod.namespace.clone(), name, pod.node.clone(), pod.reason.clone()]
    };
    if !answer.pods.is_empty() {
        let rows: Vec<Vec<String>> = answer.pods.iter().map(row).collect();
        text += &table::render(&POD_COLUMNS, &rows);
        text += "\n";
    }
    if !answer.nodes.is_empty() {
        let rows: Vec<Vec<String>> = answer.nodes.iter().map(node_row).collect();
        text += &table::render(&NODE_COLUMNS, &rows);
        text += "\n";
    }
    if answer.pods_left_out + answer.nodes_left_out > 0 {
        let (pods, nodes) = (answer.pods_left_out, answer.nodes_left_out);
        text += &format!("And {pods} more pods, {nodes} more nodes, which are not counted below.\n");
    }
    let (placed, waits) = (count(v1::PodOutcome::Placed), count(v1::PodOutcome::Waits));
    let (ends, stays) = (count(v1::PodOutcome::Ends), count(v1::PodOutcome::Stays));
    text += &format!(
        "At revision {}: {ends} pods would end, {placed} be placed, {waits} wait, {stays} stay on drained nodes.\n",
        answer.revision
    );
    if !answer.at_rest {
        text += "There was no time to see how it ends: ask about less.\n";
    }
    text
}

fn node_row(node: &v1::NodeOutlook) -> Vec<String> {
    let (before, after) = (node.before.unwrap_or_default(), node.after.unwrap_or_default());
    let requests = |load: &v1::NodeLoad| load.requests.unwrap_or_default();
    let all = node.allocatable.unwrap_or_default();
    let (was, is) = (requests(&before), requests(&after));
    let cores = |millis: u64| format!("{}m", millis);
    let mib = |bytes: u64| format!("{}Mi", bytes.div_ceil(MIB));
    let name = if node.is_new { format!("{} (new)", node.name) } else { node.name.clone() };
    vec![
        name,
        format!("{} -> {}", before.pods, after.pods),
        format!("{} -> {} of {}", cores(was.cpu_millis), cores(is.cpu_millis), cores(all.cpu_millis)),
        format!("{} -> {} of {}", mib(was.memory_bytes), mib(is.memory_bytes), mib(all.memory_bytes)),
    ]
}
