//! Profiles and PriorityClasses.

use bulkhead_types::{
    LabelSelector, ObjectMeta, PreemptionPolicy, PriorityClass, ProfileEffect, ProfileRule, ProfileSpec,
    RequestFromLimit,
};

use super::decoder::{Decoder, Fields, Schema};
use super::pod::toleration;
use super::workload::selector_at;
use crate::tree::Node;

const PROFILE: Schema = Schema { known: &["rules"], ..Schema::EMPTY };
const RULE: Schema =
    Schema { known: &["name", "namespaceSelector", "objectSelector", "effect"], ..Schema::EMPTY };
const EFFECT: Schema = Schema {
    known: &["labels", "annotations", "nodeSelector", "tolerations", "priorityClassName", "requestFromLimit"],
    ..Schema::EMPTY
};
const SHARES: Schema = Schema { known: &["cpuPercent", "memoryPercent"], ..Schema::EMPTY };

/// What a profile says.
pub(super) fn profile(d: &mut Decoder<'_>, node: &Node) -> Option<ProfileSpec> {
    let fields = d.fields(node, "spec", &PROFILE)?;
    Some(ProfileSpec { rules: d.each(&fields, "rules", rule) })
}

fn rule(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ProfileRule> {
    let fields = d.fields(node, path, &RULE)?;
    let name = d.required_text(&fields, "name");
    let namespace_selector = optional_selector(d, &fields, "namespaceSelector");
    let object_selector = optional_selector(d, &fields, "objectSelector");
    let effect = match fields.get("effect") {
        Some(node) => effect(d, node, &fields.path("effect"))?,
        None => {
            d.missing(&fields, "effect");
            return None;
        }
    };
    Some(ProfileRule { name: name?.into(), namespace_selector, object_selector, effect })
}

fn optional_selector(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<LabelSelector> {
    selector_at(d, fields.get(name)?, &fields.path(name))
}

fn effect(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ProfileEffect> {
    let fields = d.fields(node, path, &EFFECT)?;
    let request_from_limit =
        fields.get("requestFromLimit").and_then(|node| shares(d, node, &fields.path("requestFromLimit")));
    Some(ProfileEffect {
        labels: d.string_map(&fields, "labels"),
        annotations: d.string_map(&fields, "annotations"),
        node_selector: d.string_map(&fields, "nodeSelector"),
        tolerations: d.each(&fields, "tolerations", toleration),
        priority_class_name: d.text(&fields, "priorityClassName").filter(|n| !n.is_empty()).map(Into::into),
        request_from_limit: request_from_limit.unwrap_or_default(),
    })
}

fn shares(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<RequestFromLimit> {
    let fields = d.fields(node, path, &SHARES)?;
    let mut share =
        |name| d.number_between(&fields, name, 1, 100).and_then(|share| u32::try_from(share).ok());
    Some(RequestFromLimit { cpu_percent: share("cpuPercent"), memory_percent: share("memoryPercent") })
}

/// A class' content.
pub(super) fn priority_class(d: &mut Decoder<'_>, fields: &Fields<'_>, meta: ObjectMeta) -> PriorityClass {
    if fields.get("value").is_none() {
        d.missing(fields, "value");
    }
    let value = d.number_between(fields, "value", i64::from(i32::MIN), i64::from(i32::MAX));
    PriorityClass {
        meta,
        value: value.and_then(|value| i32::try_from(value).ok()).unwrap_or_default(),
        global_default: d.boolean(fields, "globalDefault").unwrap_or_default(),
        preemption_policy: preemption_policy(d, fields),
        description: d.text(fields, "description").unwrap_or_default(),
    }
}

fn preemption_policy(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<PreemptionPolicy> {
    let reason = match d.text(fields, "preemptionPolicy").as_deref()? {
        "Never" => return Some(PreemptionPolicy::Never),
        "PreemptLowerPriority" => return Some(PreemptionPolicy::PreemptLowerPriority),
        other => format!("{other:?} is not one of Never, PreemptLowerPriority"),
    };
    d.fail(fields.place("preemptionPolicy"), &fields.path("preemptionPolicy"), reason);
    None
}
