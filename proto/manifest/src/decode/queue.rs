//! PodGroups and Queues.

use std::collections::BTreeMap;

use bulkhead_types::{
    Measure, Name, POD_GROUP_MIN_AVAILABLE_MAX, PodGroupSpec, QUEUE_DEFAULT, QUEUE_WEIGHT_DEFAULT,
    QUEUE_WEIGHT_MAX, QueueSpec, QueueState, QuotaAmounts, QuotaResource, is_extended_resource_name,
};
use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Schema};
use super::quota::by_resource;
use crate::tree::{Node, Value};

const POD_GROUP: Schema = Schema {
    known: &[
        "minMember",
        "minTaskMember",
        "minResources",
        "queue",
        "priorityClassName",
        "scheduleTimeoutSeconds",
    ],
    not_yet: &["networkTopology", "subGroupPolicy"],
    ..Schema::EMPTY
};
const QUEUE: Schema = Schema {
    known: &["weight", "capability", "reclaimable", "state"],
    not_yet: &["affinity", "deserved", "extendClusters", "guarantee", "parent", "priority", "type"],
    ..Schema::EMPTY
};
const STATES: [(&str, QueueState); 2] = [("Open", QueueState::Open), ("Closed", QueueState::Closed)];

/// What is wanted of a group.
pub(super) fn pod_group(d: &mut Decoder<'_>, node: &Node) -> Option<PodGroupSpec> {
    let fields = d.fields(node, "spec", &POD_GROUP)?;
    let most = i64::from(POD_GROUP_MIN_AVAILABLE_MAX);
    let min_member = d.number_between(&fields, "minMember", 1, most);
    let default = || Name::new(QUEUE_DEFAULT).expect("a name");
    Some(PodGroupSpec {
        min_member: min_member.and_then(|number| u32::try_from(number).ok()).unwrap_or(1),
        min_task_member: tasks(d, &fields, most),
        min_resources: amounts(d, &fields, "minResources"),
        queue: name(d, &fields, "queue").unwrap_or_else(default),
        priority_class_name: name(d, &fields, "priorityClassName"),
        schedule_timeout_ms: d.seconds(&fields, "scheduleTimeoutSeconds"),
    })
}

/// What is wanted of a queue.
pub(super) fn queue(d: &mut Decoder<'_>, node: &Node) -> Option<QueueSpec> {
    let fields = d.fields(node, "spec", &QUEUE)?;
    let weight = d.number_between(&fields, "weight", 1, i64::from(QUEUE_WEIGHT_MAX));
    if d.boolean(&fields, "reclaimable") == Some(true) {
        let reason = "is not offered: queues do not take back what others have; leave it out, or say false";
        d.fail(fields.place("reclaimable"), &fields.path("reclaimable"), reason);
    }
    Some(QueueSpec {
        weight: weight.and_then(|number| u32::try_from(number).ok()).unwrap_or(QUEUE_WEIGHT_DEFAULT),
        capability: amounts(d, &fields, "capability"),
        state: d.choice(&fields, "state", &STATES).unwrap_or_default(),
    })
}

fn name(d: &mut Decoder<'_>, fields: &Fields<'_>, field: &str) -> Option<Name> {
    let text = d.text(fields, field).filter(|text| !text.is_empty())?;
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            d.fail(fields.place(field), &fields.path(field), error.to_string());
            None
        }
    }
}

fn tasks(d: &mut Decoder<'_>, fields: &Fields<'_>, most: i64) -> BTreeMap<SmolStr, u32> {
    let mut tasks = BTreeMap::new();
    let Some(node) = fields.get("minTaskMember") else { return tasks };
    let path = fields.path("minTaskMember");
    let Value::Map(entries) = &node.value else {
        d.fail(node.place, &path, format!("expected a map of whole numbers, found {}", node.describe()));
        return tasks;
    };
    for (key, value) in entries {
        let path = format!("{path}[{}]", key.text);
        let number = match &value.value {
            Value::Number(text) => text.parse::<u32>().ok().filter(|n| (1..=most).contains(&i64::from(*n))),
            _ => None,
        };
        match number {
            Some(number) => _ = tasks.insert(key.text.as_str().into(), number),
            None => d.fail(value.place, &path, format!("must be a whole number from 1 to {most}")),
        }
    }
    tasks
}

/// Amounts by resource, those of devices by the resource's own name, as containers ask for it.
pub(super) fn amounts(d: &mut Decoder<'_>, fields: &Fields<'_>, field: &str) -> QuotaAmounts {
    by_resource(d, fields, field, |text| {
        if is_extended_resource_name(text) {
            return Ok(Measure::Extended(text.into()).into());
        }
        QuotaResource::parse(text).map_err(|_| {
            "is no resource: use cpu, memory, ephemeral-storage, pods, hugepages-2Mi, hugepages-1Gi, or the name of a device resource such as nvidia.com/gpu"
                .to_owned()
        })
    })
}
