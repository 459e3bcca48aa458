//! `device` and `get devices`: the devices of nodes, who holds them, and which are kept from pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::devices::{DeviceUse, NodeDevices, ledger_of};
use bulkhead_types::{
    Command, DeviceClass, DeviceHealth, Kind, Name, Node, NodeGpu, Object, ObjectId, PartitionStrategy, Pod,
    ResourceSlice, SriovNetworkNodeState,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use crate::client::Filter;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::target;

/// Columns of devices.
const COLUMNS: [&str; 9] =
    ["NODE", "INDEX", "DEVICE", "RESOURCE", "ID", "NUMA", "STATUS", "HOLDER", "MEMORY"];

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceVerb {
    /// Give a device to no further pod; whoever has it keeps it
    Cordon(DeviceArgs),
    /// Give a device to pods again
    Uncordon(DeviceArgs),
    /// Show the devices of all nodes, or of some
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// The node's name
    node: String,
    /// The device: its id or UUID, PCI address or index
    device: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Names of nodes; all without one
    nodes: Vec<String>,
}

pub(crate) async fn run(verb: DeviceVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DeviceVerb::Cordon(args) => set(args, true, context).await,
        DeviceVerb::Uncordon(args) => set(args, false, context).await,
        DeviceVerb::List(args) => list(&args.nodes, context).await,
    }
}

async fn set(args: DeviceArgs, cordoned: bool, context: &Context) -> Result<(), Failure> {
    let node: Name = target::name(args.node.strip_prefix("node/").unwrap_or(&args.node))?;
    let device = args.device.as_str().into();
    context.submit(Command::SetDeviceCordoned { node, device, cordoned }).await?;
    let word = if cordoned { "cordoned" } else { "uncordoned" };
    emit_line(&format!("device {} of node/{} {word}", args.device, args.node))
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Say how the cards of a node shall be used
    GpuMode(GpuModeArgs),
    /// Say which pool nodes are of
    SetPool(super::node_pool::SetPoolArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GpuModeArgs {
    /// The node's name
    node: String,
    /// `whole`, `shared`, a layout of partitions such as all-1g.10gb or 3g.40gb-2g.20gb, or `none` for none in particular
    mode: String,
    /// How partitions are named: `mixed` by their profiles, `single` as whole cards
    #[arg(long, default_value = "mixed", value_parser = ["mixed", "single"])]
    strategy: String,
}

/// `node gpu-mode` and `node set-pool`.
pub(crate) async fn run_node(verb: NodeVerb, context: &Context) -> Result<(), Failure> {
    let args = match verb {
        NodeVerb::GpuMode(args) => args,
        NodeVerb::SetPool(args) => return super::node_pool::set_pool(args, context).await,
    };
    let node: Name = target::name(args.node.strip_prefix("node/").unwrap_or(&args.node))?;
    let strategy = match args.strategy.as_str() {
        "single" => PartitionStrategy::Single,
        _ => PartitionStrategy::Mixed,
    };
    let gpu = (args.mode != "none").then(|| NodeGpu { mode: args.mode.as_str().into(), strategy });
    context.submit(Command::SetGpuMode { node, gpu }).await?;
    emit_line(&format!("GPU mode of node/{} is to be {}", args.node, args.mode))
}

/// Everything that ledgers are made of.
pub(crate) struct Devices {
    slices: Vec<Arc<ResourceSlice>>,
    nics: Vec<Arc<SriovNetworkNodeState>>,
    classes: Vec<Arc<DeviceClass>>,
    pods: Vec<Arc<Pod>>,
    nodes: Vec<Arc<Node>>,
}

impl Devices {
    pub(crate) async fn read(context: &Context) -> Result<Self, Failure> {
        let mut found = Self {
            slices: Vec::new(),
            nics: Vec::new(),
            classes: Vec::new(),
            pods: Vec::new(),
            nodes: Vec::new(),
        };
        for kind in [Kind::ResourceSlice, Kind::DeviceClass, Kind::Pod, Kind::Node] {
            for object in context.client.list(kind, &Filter::default()).await?.0 {
                match object {
                    Object::ResourceSlice(one) => found.slices.push(one),
                    Object::DeviceClass(one) => found.classes.push(one),
                    Object::Pod(one) if !one.devices().is_empty() => found.pods.push(one),
                    Object::Node(one) => found.nodes.push(one),
                    _ => {}
                }
            }
        }
        // Servers that know of no such kind have no policies either.
        if let Ok((states, _)) = context.client.list(Kind::SriovNetworkNodeState, &Filter::default()).await {
            found.nics.extend(states.into_iter().filter_map(|object| match object {
                Object::SriovNetworkNodeState(one) => Some(one),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// The ledger of a node, when it reports devices.
    pub(crate) fn of_node(&self, node: ObjectId) -> Option<NodeDevices> {
        let slice = self.slices.iter().find(|slice| slice.node == node)?;
        Some(self.ledger(slice))
    }

    fn ledger(&self, slice: &ResourceSlice) -> NodeDevices {
        let node = self.nodes.iter().find(|node| node.meta.id == slice.node);
        let nics = self.nics.iter().find(|nics| nics.node == slice.node).map(|nics| &**nics);
        ledger_of(slice, node.and_then(|node| node.spec.gpu.get()), nics, &self.classes, &self.pods)
    }

    /// What a node's agent said of its devices.
    pub(crate) fn slice_of_node(&self, node: ObjectId) -> Option<&Arc<ResourceSlice>> {
        self.slices.iter().find(|slice| slice.node == node)
    }

    /// The names of pods, for people.
    pub(crate) fn names(&self) -> BTreeMap<ObjectId, String> {
        let name = |pod: &Arc<Pod>| {
            let namespace = pod.meta.namespace.as_ref().map_or("", |name| name.as_str());
            (pod.meta.id, format!("{namespace}/{}", pod.meta.name))
        };
        self.pods.iter().map(name).collect()
    }
}

/// `get devices [NODE...]`.
pub(crate) async fn list(nodes: &[String], context: &Context) -> Result<(), Failure> {
    let devices = Devices::read(context).await?;
    let names = devices.names();
    let is_wanted = |slice: &&Arc<ResourceSlice>| {
        nodes.is_empty() || nodes.iter().any(|node| node == slice.meta.name.as_str())
    };
    let mut rows = Vec::new();
    for slice in devices.slices.iter().filter(is_wanted) {
        let ledger = devices.ledger(slice);
        for cells in device_rows(&ledger, &names) {
            rows.push([vec![slice.meta.name.to_string()], cells].concat());
        }
    }
    if rows.is_empty() {
        return emit_line("No devices: no node reports any.");
    }
    emit(&table::render(&COLUMNS, &rows))
}

/// `get devices [NODE...] -o json` and `-o yaml`: everything that is known of each.
pub(crate) async fn values(nodes: &[String], context: &Context) -> Result<Value, Failure> {
    let devices = Devices::read(context).await?;
    let names = devices.names();
    let is_wanted = |slice: &&Arc<ResourceSlice>| {
        nodes.is_empty() || nodes.iter().any(|node| node == slice.meta.name.as_str())
    };
    let mut items = Vec::new();
    for slice in devices.slices.iter().filter(is_wanted) {
        let ledger = devices.ledger(slice);
        let mut used: Vec<&DeviceUse> = ledger.iter().map(|(_, device)| device).collect();
        used.sort_by_key(|device| (device.device.index, &device.device.id));
        items.extend(used.into_iter().filter_map(|one| device_item(slice, one, &names)));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

fn device_item(slice: &ResourceSlice, used: &DeviceUse, names: &BTreeMap<ObjectId, String>) -> Option<Value> {
    let mut value = bulkhead_manifest::device_value(slice, slice.device(&used.device.id)?);
    let name = |(pod, _): &(ObjectId, _)| names.get(pod).cloned().unwrap_or_else(|| pod.to_string());
    value["status"] = status(used).into();
    value["holders"] = used.holders.iter().map(name).collect::<Vec<_>>().into();
    if let Some(resource) = used.resource() {
        value["resource"] = resource.to_string().into();
    }
    Some(value)
}

/// A row for each device of a node, in the order of their numbers.
pub(crate) fn device_rows(ledger: &NodeDevices, names: &BTreeMap<ObjectId, String>) -> Vec<Vec<String>> {
    let mut devices: Vec<&DeviceUse> = ledger.iter().map(|(_, device)| device).collect();
    devices.sort_by_key(|device| (device.device.index, &device.device.id));
    devices.into_iter().map(|device| device_row(device, names)).collect()
}

fn device_row(used: &DeviceUse, names: &BTreeMap<ObjectId, String>) -> Vec<String> {
    let device = &used.device;
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let holder = |(pod, share): &(ObjectId, Option<bulkhead_types::DeviceShare>)| {
        let name = names.get(pod).cloned().unwrap_or_else(|| pod.to_string());
        match share {
            None => name,
            Some(share) => {
                format!("{name} ({}, {} %)", bulkhead_types::format_bytes(share.memory_bytes), share.cores)
            }
        }
    };
    vec![
        device.index.to_string(),
        device.id.to_string(),
        or_dash(used.resource().map(ToString::to_string)),
        format!("{:04x}:{:04x}", device.vendor, device.device),
        or_dash(device.numa_node.map(|node| node.to_string())),
        status(used),
        or_dash(Some(used.holders.iter().map(holder).collect::<Vec<_>>().join(", "))),
        or_dash(
            (device.capacity.memory_bytes > 0)
                .then(|| bulkhead_types::format_bytes(device.capacity.memory_bytes)),
        ),
    ]
}

/// Whether it works, and what keeps it from pods.
fn status(used: &DeviceUse) -> String {
    let device = &used.device;
    let health = match &device.health {
        DeviceHealth::Healthy => "Healthy".to_owned(),
        DeviceHealth::Unhealthy { code, .. } => format!("Unhealthy: {code}"),
        DeviceHealth::Lost { .. } => "Lost".to_owned(),
    };
    let cordoned = used.is_cordoned.then(|| "SchedulingDisabled".to_owned());
    let fenced = used.fence.as_ref().map(|fence| format!("Fenced: fault {}", fence.code));
    let split = used.is_split.then(|| "split into parts".to_owned());
    let in_use = (!device.in_use_by.is_empty()).then(|| format!("used by {}", device.in_use_by));
    [Some(health), cordoned, fenced, split, in_use].into_iter().flatten().collect::<Vec<_>>().join(",")
}
