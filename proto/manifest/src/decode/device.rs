//! DeviceClasses.

use bulkhead_types::{
    DeviceClassSpec, DeviceNodeLabels, DeviceRole, DeviceSelection, DeviceSelector, DeviceSharing, Hex16,
    Rare, SPLIT_COUNT_DEFAULT, SchedulerPolicy,
};

use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Schema};
use super::partition;
use crate::tree::Node;

const CLASS: Schema = Schema {
    known: &[
        "extendedResourceName",
        "selector",
        "sharing",
        "partitioning",
        "faults",
        "visibility",
        "memoryResourceName",
        "nodeLabels",
        "selection",
    ],
    ..Schema::EMPTY
};
const NODE_LABELS: Schema = Schema { known: &["count", "memory", "model"], ..Schema::EMPTY };
const SELECTION: Schema =
    Schema { known: &["useModels", "avoidModels", "useIds", "avoidIds"], ..Schema::EMPTY };
const SELECTOR: Schema =
    Schema { known: &["vendors", "devices", "classes", "models", "drivers", "role"], ..Schema::EMPTY };
const SHARING: Schema = Schema {
    known: &[
        "extendedResourceName",
        "memoryResourceName",
        "coresResourceName",
        "splitCount",
        "memoryScalingPercent",
        "coreScalingPercent",
        "nodeSchedulerPolicy",
        "deviceSchedulerPolicy",
        "memoryUnits",
        "slotsResourceName",
        "defaultCount",
    ],
    ..Schema::EMPTY
};
const ROLES: [(&str, DeviceRole); 2] = [("Whole", DeviceRole::Whole), ("Virtual", DeviceRole::Virtual)];
const POLICIES: [(&str, SchedulerPolicy); 2] =
    [("Binpack", SchedulerPolicy::Binpack), ("Spread", SchedulerPolicy::Spread)];

/// What is wanted of a class.
pub(super) fn class(d: &mut Decoder<'_>, node: &Node) -> Option<DeviceClassSpec> {
    let fields = d.fields(node, "spec", &CLASS)?;
    let extended_resource_name = d.required_text(&fields, "extendedResourceName");
    if fields.get("selector").is_none() {
        d.missing(&fields, "selector");
    }
    let selector = fields.get("selector").and_then(|node| selector(d, node, &fields.path("selector")));
    let sharing = match fields.get("sharing").filter(|node| !node.is_null()) {
        None => None,
        Some(node) => Some(sharing(d, node, &fields.path("sharing"))?),
    };
    Some(DeviceClassSpec {
        extended_resource_name: extended_resource_name?.into(),
        selector: selector?,
        sharing,
        partitioning: part(d, &fields, "partitioning", partition::partitioning)?,
        faults: part(d, &fields, "faults", partition::faults)?,
        visibility: part(d, &fields, "visibility", partition::visibility)?,
        memory_resource_name: d.text(&fields, "memoryResourceName").map(SmolStr::from).into(),
        node_labels: part(d, &fields, "nodeLabels", node_labels)?,
        selection: part(d, &fields, "selection", selection)?,
    })
}

fn node_labels(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceNodeLabels> {
    let fields = d.fields(node, path, &NODE_LABELS)?;
    let mut key = |name| d.text(&fields, name).map(SmolStr::from);
    Some(DeviceNodeLabels { count: key("count"), memory: key("memory"), model: key("model") })
}

fn selection(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceSelection> {
    let fields = d.fields(node, path, &SELECTION)?;
    let mut key = |name| d.text(&fields, name).map(SmolStr::from);
    let (use_models, avoid_models) = (key("useModels"), key("avoidModels"));
    Some(DeviceSelection { use_models, avoid_models, use_ids: key("useIds"), avoid_ids: key("avoidIds") })
}

/// A part that may be left out; `None` when it is there and wrong.
pub(super) fn part<T>(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    name: &str,
    read: impl Fn(&mut Decoder<'_>, &Node, &str) -> Option<T>,
) -> Option<Rare<T>> {
    match fields.get(name).filter(|node| !node.is_null()) {
        None => Some(Rare::NONE),
        Some(node) => read(d, node, &fields.path(name)).map(Rare::some),
    }
}

fn selector(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceSelector> {
    let fields = d.fields(node, path, &SELECTOR)?;
    Some(DeviceSelector {
        vendors: ids(d, &fields, "vendors"),
        devices: ids(d, &fields, "devices"),
        classes: ids(d, &fields, "classes"),
        models: d.texts(&fields, "models").into_iter().map(Into::into).collect(),
        drivers: d.texts(&fields, "drivers").into_iter().map(Into::into).collect(),
        role: d.choice(&fields, "role", &ROLES).unwrap_or_default(),
    })
}

pub(super) fn ids(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Vec<Hex16> {
    let mut ids = Vec::new();
    for (index, text) in d.texts(fields, name).into_iter().enumerate() {
        match Hex16::try_from(text) {
            Ok(id) => ids.push(id),
            Err(error) => d.fail(fields.place(name), &format!("{}[{index}]", fields.path(name)), error),
        }
    }
    ids
}

fn sharing(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceSharing> {
    let fields = d.fields(node, path, &SHARING)?;
    let mut name = |field| d.required_text(&fields, field).map(Into::into);
    let (extended, memory, cores) =
        (name("extendedResourceName"), name("memoryResourceName"), name("coresResourceName"));
    let mut number = |field, default| match d.number(&fields, field, u64::from(u32::MAX)) {
        Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
        None => default,
    };
    let (split_count, memory_scaling_percent, core_scaling_percent) = (
        number("splitCount", SPLIT_COUNT_DEFAULT),
        number("memoryScalingPercent", 100),
        number("coreScalingPercent", 100),
    );
    let default_count = d.number(&fields, "defaultCount", u64::from(u32::MAX));
    let default_count = default_count.and_then(|count| u32::try_from(count).ok());
    Some(DeviceSharing {
        extended_resource_name: extended?,
        memory_resource_name: memory?,
        cores_resource_name: cores?,
        split_count,
        memory_scaling_percent,
        core_scaling_percent,
        node_scheduler_policy: d.choice(&fields, "nodeSchedulerPolicy", &POLICIES).unwrap_or_default(),
        device_scheduler_policy: d.choice(&fields, "deviceSchedulerPolicy", &POLICIES).unwrap_or_default(),
        memory_units: part(d, &fields, "memoryUnits", partition::memory_units)?,
        slots_resource_name: d.text(&fields, "slotsResourceName").map(SmolStr::from).into(),
        default_count: default_count.into(),
    })
}
