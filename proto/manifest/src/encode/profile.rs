//! Profiles and PriorityClasses as values.

use bulkhead_types::{PreemptionPolicy, PriorityClass, ProfileEffect, ProfileRule, ProfileSpec};
use serde_json::Value;

use super::Fields;
use super::pod::toleration;
use super::workload::selector;

/// What a profile says.
pub(super) fn profile_spec(spec: &ProfileSpec) -> Value {
    Fields::new().list("rules", spec.rules.iter().map(rule)).finish()
}

fn rule(rule: &ProfileRule) -> Value {
    Fields::new()
        .text("name", &rule.name)
        .maybe("namespaceSelector", rule.namespace_selector.as_ref().map(selector))
        .maybe("objectSelector", rule.object_selector.as_ref().map(selector))
        .set("effect", effect(&rule.effect))
        .finish()
}

fn effect(effect: &ProfileEffect) -> Value {
    let shares = effect.request_from_limit;
    let any = shares != Default::default();
    let shares = Fields::new()
        .number("cpuPercent", shares.cpu_percent.map(Into::into))
        .number("memoryPercent", shares.memory_percent.map(Into::into))
        .finish();
    Fields::new()
        .map("labels", &effect.labels)
        .map("annotations", &effect.annotations)
        .map("nodeSelector", &effect.node_selector)
        .list("tolerations", effect.tolerations.iter().map(toleration))
        .optional("priorityClassName", effect.priority_class_name.as_deref())
        .maybe("requestFromLimit", any.then_some(shares))
        .finish()
}

/// A class' fields beside its metadata.
pub(super) fn priority_class(class: &PriorityClass, fields: Fields) -> Fields {
    let fields = fields.set("value", class.value.into());
    let fields = if class.global_default { fields.set("globalDefault", true.into()) } else { fields };
    let policy = class.preemption_policy.map(|policy| match policy {
        PreemptionPolicy::Never => "Never",
        PreemptionPolicy::PreemptLowerPriority => "PreemptLowerPriority",
    });
    fields.optional("preemptionPolicy", policy).nonempty("description", &class.description)
}
