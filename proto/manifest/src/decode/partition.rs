//! What DeviceClasses say of partitions, faults and variables.

use std::collections::BTreeMap;

use bulkhead_types::{
    DeviceCount, DeviceFaults, DeviceMemoryUnits, DevicePartitioning, DeviceVisibility, FaultAction,
    FaultRule, MEMORY_UNIT_MEBIBYTES_DEFAULT, PartitionLayout, PartitionModel, PartitionProfile,
    VisibilityRule, VisibleBy,
};
use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Schema};
use super::device::{ids, part};
use crate::tree::{Node, Value};

const PARTITIONING: Schema = Schema { known: &["models", "layouts", "counted"], ..Schema::EMPTY };
const COUNTED: Schema = Schema { known: &["extendedResourceName", "counts"], ..Schema::EMPTY };
const MODEL: Schema =
    Schema { known: &["name", "devices", "capacity", "placedBy", "profiles"], ..Schema::EMPTY };
const PROFILE: Schema =
    Schema { known: &["name", "extendedResourceName", "uses", "placements", "maxCount"], ..Schema::EMPTY };
const LAYOUT: Schema = Schema { known: &["name", "partitions"], ..Schema::EMPTY };
const FAULTS: Schema = Schema { known: &["rules"], ..Schema::EMPTY };
const RULE: Schema = Schema { known: &["action", "codes"], ..Schema::EMPTY };
const VISIBILITY: Schema = Schema { known: &["env", "by", "rule"], ..Schema::EMPTY };
const UNITS: Schema = Schema { known: &["extendedResourceName", "unitMebibytes"], ..Schema::EMPTY };
const ACTIONS: [(&str, FaultAction); 5] = [
    ("Warn", FaultAction::Warn),
    ("KillPod", FaultAction::KillPod),
    ("KillAll", FaultAction::KillAll),
    ("Fence", FaultAction::Fence),
    ("Drain", FaultAction::Drain),
];
const RULES: [(&str, VisibilityRule); 2] = [("Own", VisibilityRule::Own), ("Named", VisibilityRule::Named)];
const BYS: [(&str, VisibleBy); 2] = [("Id", VisibleBy::Id), ("Index", VisibleBy::Index)];

/// How cards are partitioned.
pub(super) fn partitioning(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DevicePartitioning> {
    let fields = d.fields(node, path, &PARTITIONING)?;
    Some(DevicePartitioning {
        models: d.each(&fields, "models", model),
        layouts: d.each(&fields, "layouts", layout),
        counted: part(d, &fields, "counted", counted)?,
    })
}

fn counted(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceCount> {
    let fields = d.fields(node, path, &COUNTED)?;
    let (name, counts) =
        (d.required_text(&fields, "extendedResourceName"), d.required_text(&fields, "counts"));
    Some(DeviceCount { extended_resource_name: name?.into(), counts: counts?.into() })
}

fn model(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PartitionModel> {
    let fields = d.fields(node, path, &MODEL)?;
    Some(PartitionModel {
        name: d.required_text(&fields, "name")?.into(),
        devices: ids(d, &fields, "devices"),
        capacity: amounts(d, &fields, "capacity"),
        placed_by: d.text(&fields, "placedBy").map(Into::into),
        profiles: d.each(&fields, "profiles", profile),
    })
}

fn profile(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PartitionProfile> {
    let fields = d.fields(node, path, &PROFILE)?;
    let (name, resource) =
        (d.required_text(&fields, "name"), d.required_text(&fields, "extendedResourceName"));
    Some(PartitionProfile {
        name: name?.into(),
        extended_resource_name: resource?.into(),
        uses: amounts(d, &fields, "uses"),
        placements: numbers(d, &fields, "placements"),
        max_count: d.number(&fields, "maxCount", u64::from(u32::MAX)).map(narrow),
    })
}

fn layout(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PartitionLayout> {
    let fields = d.fields(node, path, &LAYOUT)?;
    let partitions = amounts(d, &fields, "partitions").into_iter();
    Some(PartitionLayout {
        name: d.required_text(&fields, "name")?.into(),
        partitions: partitions.map(|(name, count)| (name, narrow(count))).collect(),
    })
}

/// What follows from faults.
pub(super) fn faults(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceFaults> {
    let fields = d.fields(node, path, &FAULTS)?;
    let rule = |d: &mut Decoder<'_>, node: &Node, path: &str| {
        let fields = d.fields(node, path, &RULE)?;
        if fields.get("action").is_none() {
            d.missing(&fields, "action");
        }
        let codes = numbers(d, &fields, "codes");
        Some(FaultRule { action: d.choice(&fields, "action", &ACTIONS)?, codes })
    };
    Some(DeviceFaults { rules: d.each(&fields, "rules", rule) })
}

/// The variable that tells a container of its devices.
pub(super) fn visibility(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceVisibility> {
    let fields = d.fields(node, path, &VISIBILITY)?;
    let by = d.choice(&fields, "by", &BYS).unwrap_or_default();
    let rule = d.choice(&fields, "rule", &RULES).filter(|rule| *rule != VisibilityRule::Own).into();
    Some(DeviceVisibility { env: d.required_text(&fields, "env")?.into(), by, rule })
}

/// Shares by units of memory.
pub(super) fn memory_units(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeviceMemoryUnits> {
    let fields = d.fields(node, path, &UNITS)?;
    let unit = d.number(&fields, "unitMebibytes", u64::from(u32::MAX));
    Some(DeviceMemoryUnits {
        extended_resource_name: d.required_text(&fields, "extendedResourceName")?.into(),
        unit_mebibytes: unit.map_or(MEMORY_UNIT_MEBIBYTES_DEFAULT, narrow),
    })
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Whole numbers by name; empty when missing.
fn amounts(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> BTreeMap<SmolStr, u64> {
    let Some(node) = fields.get(name) else { return BTreeMap::new() };
    let path = fields.path(name);
    let Value::Map(entries) = &node.value else {
        d.fail(node.place, &path, "must be a map of whole numbers");
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (key, value) in entries {
        match &value.value {
            Value::Number(text) if text.parse::<u64>().is_ok() => {
                found.insert(SmolStr::from(key.text.as_str()), text.parse().unwrap_or_default());
            }
            _ => d.fail(value.place, &format!("{path}[{}]", key.text), "must be a whole number"),
        }
    }
    found
}

/// A list of whole numbers; empty when missing.
fn numbers(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Vec<u32> {
    d.each(fields, name, |d, node, path| match &node.value {
        Value::Number(text) if text.parse::<u32>().is_ok() => text.parse().ok(),
        _ => {
            d.fail(node.place, path, "must be a whole number");
            None
        }
    })
}
