//! VerticalPodAutoscalers.

use bulkhead_types::{
    ContainerResourcePolicy, ContainerScalingMode, ControlledValues, MeasuredResource, RECOMMENDED_RESOURCES,
    UpdateMode, VERTICAL_MIN_REPLICAS_DEFAULT, VerticalAutoscalerSpec,
};

use super::autoscaler::target_ref;
use super::container::amounts;
use super::decoder::{Decoder, Fields, Schema};
use super::workload::count;
use crate::tree::Node;

const AUTOSCALER: Schema = Schema {
    known: &["targetRef", "updatePolicy", "resourcePolicy"],
    not_yet: &["recommenders"],
    ..Schema::EMPTY
};
const UPDATE_POLICY: Schema =
    Schema { known: &["updateMode", "minReplicas"], not_yet: &["evictionRequirements"], ..Schema::EMPTY };
const RESOURCE_POLICY: Schema = Schema { known: &["containerPolicies"], ..Schema::EMPTY };
const CONTAINER_POLICY: Schema = Schema {
    known: &["containerName", "mode", "minAllowed", "maxAllowed", "controlledResources", "controlledValues"],
    ..Schema::EMPTY
};

/// `Recreate` is what `Auto` does: guests are not resized in place.
const MODES: [(&str, UpdateMode); 4] = [
    ("Off", UpdateMode::Off),
    ("Initial", UpdateMode::Initial),
    ("Recreate", UpdateMode::Auto),
    ("Auto", UpdateMode::Auto),
];
const SCALING_MODES: [(&str, ContainerScalingMode); 2] =
    [("Auto", ContainerScalingMode::Auto), ("Off", ContainerScalingMode::Off)];
const VALUES: [(&str, ControlledValues); 2] = [
    ("RequestsAndLimits", ControlledValues::RequestsAndLimits),
    ("RequestsOnly", ControlledValues::RequestsOnly),
];

/// What is wanted of a VerticalPodAutoscaler.
pub(super) fn autoscaler(d: &mut Decoder<'_>, node: &Node) -> Option<VerticalAutoscalerSpec> {
    let fields = d.fields(node, "spec", &AUTOSCALER)?;
    let target = target_ref(d, &fields, "targetRef");
    let part = |d: &mut Decoder<'_>, name: &str, schema| {
        let path = fields.path(name);
        fields.get(name).and_then(|node| d.fields(node, &path, schema))
    };
    let (mut update_mode, mut min_replicas) = (UpdateMode::default(), VERTICAL_MIN_REPLICAS_DEFAULT);
    if let Some(update) = part(d, "updatePolicy", &UPDATE_POLICY) {
        update_mode = d.choice(&update, "updateMode", &MODES).unwrap_or_default();
        min_replicas = count(d, &update, "minReplicas").unwrap_or(min_replicas);
    }
    let policies = match part(d, "resourcePolicy", &RESOURCE_POLICY) {
        Some(resource) => d.each(&resource, "containerPolicies", policy),
        None => Vec::new(),
    };
    Some(VerticalAutoscalerSpec { target: target?, update_mode, min_replicas, policies })
}

fn policy(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ContainerResourcePolicy> {
    let fields = d.fields(node, path, &CONTAINER_POLICY)?;
    let container = d.required_text(&fields, "containerName");
    let min_allowed = amounts(d, &fields, "minAllowed");
    let max_allowed = amounts(d, &fields, "maxAllowed");
    let controlled_resources = controlled(d, &fields);
    Some(ContainerResourcePolicy {
        mode: d.choice(&fields, "mode", &SCALING_MODES).unwrap_or_default(),
        controlled_values: d.choice(&fields, "controlledValues", &VALUES).unwrap_or_default(),
        container: container?.into(),
        min_allowed,
        max_allowed,
        controlled_resources: controlled_resources?,
    })
}

/// Both when the list is not given.
fn controlled(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<Vec<MeasuredResource>> {
    const NAME: &str = "controlledResources";
    if fields.get(NAME).is_none() {
        return Some(RECOMMENDED_RESOURCES.to_vec());
    }
    let texts = d.texts(fields, NAME);
    let mut found = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match RECOMMENDED_RESOURCES.iter().find(|resource| resource.as_str() == text) {
            Some(resource) => found.push(*resource),
            None => {
                let path = format!("{}[{index}]", fields.path(NAME));
                d.fail(fields.place(NAME), &path, format!("{text:?} is not one of cpu, memory"));
            }
        }
    }
    (found.len() == texts.len()).then_some(found)
}
