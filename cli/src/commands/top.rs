//! `top`: what pods and nodes use now.

use std::cmp::Reverse;

use bulkhead_proto::v1;
use bulkhead_types::Kind;
use clap::{Args, Subcommand, ValueEnum};

use super::Context;
use crate::failure::{Class, Failure};
use crate::output::{emit, table};

const MIB: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum TopVerb {
    /// What pods use
    #[command(visible_aliases = ["pod", "po"])]
    Pods(PodsArgs),
    /// What the pods of each node use together
    #[command(visible_aliases = ["node", "no"])]
    Nodes(NodesArgs),
    /// What is used of quotas, as `bulkhead quota` shows it
    #[command(visible_alias = "quota")]
    Quotas(super::quota::QuotaArgs),
}

/// What is shown first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SortBy {
    /// Who uses most processor time.
    Cpu,
    /// Who uses most memory.
    Memory,
}

#[derive(Debug, Args)]
pub(crate) struct PodsArgs {
    /// Only these pods
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// A line for each container
    #[arg(long)]
    containers: bool,
    /// A line for each card that a guest has
    #[arg(long, conflicts_with = "containers")]
    devices: bool,
    /// Only with these labels, such as app=web,tier!=db,env in (a,b)
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
    /// By what to sort; by name when not given
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    /// No header
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only these nodes
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A line for each card: how busy it is, its memory, heat and power, and which pod has it
    #[arg(long)]
    devices: bool,
    /// Only with these labels
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
    /// By what to sort; by name when not given
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    /// No header
    #[arg(long)]
    no_headers: bool,
}

pub(crate) async fn run(verb: TopVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        TopVerb::Pods(args) => pods(args, context).await,
        TopVerb::Nodes(args) => nodes(args, context).await,
        TopVerb::Quotas(args) => super::quota::run(args, context).await,
    }
}

async fn pods(args: PodsArgs, context: &Context) -> Result<(), Failure> {
    let namespace = if args.all_namespaces { String::new() } else { context.namespace.to_string() };
    let found = usage(context, Kind::Pod, &namespace, args.selector.as_deref()).await?;
    let found = wanted(found, &args.names, args.sort_by, "pod")?;
    if args.devices {
        let (header, rows) = cards_of_pods(&found, args.all_namespaces);
        return print(&header, &rows, args.no_headers);
    }
    let mut header = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
    if args.containers {
        header[0] = "POD";
        header.insert(1, "NAME");
    }
    if args.all_namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut rows = Vec::new();
    for pod in &found {
        let start: Vec<String> = args
            .all_namespaces
            .then(|| pod.namespace.clone())
            .into_iter()
            .chain([pod.name.clone()])
            .collect();
        let mut row = |container: Option<&str>, cpu_millis, memory_bytes| {
            let mut cells = start.clone();
            cells.extend(container.map(str::to_owned));
            cells.extend([cpu(cpu_millis, pod.window_ms), memory(memory_bytes)]);
            rows.push(cells);
        };
        if args.containers {
            pod.containers.iter().for_each(|c| row(Some(&c.name), c.cpu_millis, c.memory_bytes));
        } else {
            row(None, pod.cpu_millis, pod.memory_bytes);
        }
    }
    print(&header, &rows, args.no_headers)
}

async fn nodes(args: NodesArgs, context: &Context) -> Result<(), Failure> {
    let found = usage(context, Kind::Node, "", args.selector.as_deref()).await?;
    let found = wanted(found, &args.names, args.sort_by, "node")?;
    if args.devices {
        let (header, rows) = cards_of_nodes(&found);
        return print(&header, &rows, args.no_headers);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|node| {
            let room = node.allocatable.unwrap_or_default();
            vec![
                node.name.clone(),
                format!("{}m", node.cpu_millis),
                share(node.cpu_millis, room.cpu_millis),
                memory(node.memory_bytes),
                share(node.memory_bytes, room.memory_bytes),
            ]
        })
        .collect();
    print(&["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], &rows, args.no_headers)
}

/// What is said of a card beside where it is.
const OF_CARD: [&str; 7] = ["GPU", "MODEL", "GPU(%)", "MEMORY(bytes)", "TEMP(C)", "POWER(W)", "RESET"];

/// A card of a guest is not with its host's driver: nothing of it is measured, which is not 0.
fn of_card(card: &v1::CardUsage) -> [String; 7] {
    let usage = card.usage.clone().unwrap_or_default();
    let unknown = if usage.in_guest { "-" } else { "<unknown>" };
    let or = |text: Option<String>| text.unwrap_or_else(|| unknown.to_owned());
    let busy = usage.utilization_percent.map(|percent| format!("{percent}%"));
    let busy = if usage.in_guest { Some("in a guest".to_owned()) } else { busy };
    let memory = match (usage.memory_used_bytes, usage.memory_bytes) {
        (Some(used), Some(all)) => Some(format!("{}/{}", memory(used), memory(all))),
        (None, Some(all)) => Some(format!("{unknown}/{}", memory(all))),
        _ => None,
    };
    let text = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    [
        usage.index.to_string(),
        text(usage.model, &usage.address),
        or(busy),
        or(memory),
        or(usage.temperature_celsius.map(|degrees| degrees.to_string())),
        or(usage.power_milliwatts.map(|milliwatts| (milliwatts / 1000).to_string())),
        text(usage.last_reset, "-"),
    ]
}

fn cards_of_nodes(nodes: &[v1::ObjectUsage]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = ["NODE"].into_iter().chain(OF_CARD).chain(["POD"]).collect();
    let row = |node: &v1::ObjectUsage, card: &v1::CardUsage| {
        let pod = match (card.pod_name.as_str(), card.pod_namespace.as_str()) {
            ("", _) => "-".to_owned(),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        [node.name.clone()].into_iter().chain(of_card(card)).chain([pod]).collect()
    };
    let rows = nodes.iter().flat_map(|node| node.devices.iter().map(move |card| row(node, card)));
    (header, rows.collect())
}

fn cards_of_pods(pods: &[v1::ObjectUsage], with_namespace: bool) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let namespace = with_namespace.then_some("NAMESPACE");
    let header = namespace.into_iter().chain(["POD"]).chain(OF_CARD).collect();
    let row = |pod: &v1::ObjectUsage, card: &v1::CardUsage| {
        let namespace = with_namespace.then(|| pod.namespace.clone());
        namespace.into_iter().chain([pod.name.clone()]).chain(of_card(card)).collect()
    };
    let rows = pods.iter().flat_map(|pod| pod.devices.iter().map(move |card| row(pod, card)));
    (header, rows.collect())
}

fn print(header: &[&str], rows: &[Vec<String>], no_headers: bool) -> Result<(), Failure> {
    let text = table::render(header, rows);
    let body = if no_headers { text.split_once('\n').map_or("", |(_, rows)| rows) } else { &text };
    emit(body)
}

/// Processor time in thousandths of a core; unknown until there was a window to measure it over.
fn cpu(millis: u64, window_ms: u64) -> String {
    if window_ms == 0 { "<unknown>".to_owned() } else { format!("{millis}m") }
}

fn memory(bytes: u64) -> String {
    format!("{}Mi", bytes / MIB)
}

fn share(used: u64, of: u64) -> String {
    let percent = u128::from(used) * 100;
    percent.checked_div(u128::from(of)).map_or_else(|| "<unknown>".to_owned(), |share| format!("{share}%"))
}

/// Those that are asked for, in the order that is asked for.
fn wanted(
    mut found: Vec<v1::ObjectUsage>,
    names: &[String],
    sort_by: Option<SortBy>,
    kind: &str,
) -> Result<Vec<v1::ObjectUsage>, Failure> {
    if let Some(missing) = names.iter().find(|name| found.iter().all(|one| one.name != **name)) {
        let reason = format!("nothing is known of {kind}/{missing}: it does not run, or has not told yet");
        return Err(Failure::new(Class::NotFound, reason));
    }
    found.retain(|one| names.is_empty() || names.contains(&one.name));
    found.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    match sort_by {
        Some(SortBy::Cpu) => found.sort_by_key(|one| Reverse(one.cpu_millis)),
        Some(SortBy::Memory) => found.sort_by_key(|one| Reverse(one.memory_bytes)),
        None => {}
    }
    Ok(found)
}

async fn usage(
    context: &Context,
    kind: Kind,
    namespace: &str,
    selector: Option<&str>,
) -> Result<Vec<v1::ObjectUsage>, Failure> {
    let mut request = v1::UsageRequest {
        kind: v1::Kind::from(kind).into(),
        namespace: namespace.to_owned(),
        label_selector: selector.unwrap_or_default().to_owned(),
        ..v1::UsageRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let client = &context.client;
        let page = client
            .call(|channel| {
                let request = client.request(request.clone());
                async move { crate::client::queries(channel).usage(request).await }
            })
            .await?;
        found.extend(page.items);
        if page.continue_token.is_empty() {
            return Ok(found);
        }
        request.continue_token = page.continue_token;
    }
}
