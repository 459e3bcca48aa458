//! Rules for Profiles and PriorityClasses.

use std::collections::BTreeSet;

use super::{Path, Report, annotations, labels, map_bytes, pod, workload};
use crate::{
    DESCRIPTION_BYTES_MAX, EFFECT_ENTRIES_MAX, Name, PRIORITY_MAX, PROFILE_RULES_MAX, PriorityClass,
    ProfileEffect, ProfileRule, ProfileSpec, SYSTEM_PRIORITY_PREFIX, StringMap,
};

/// Checks what a profile says.
pub(super) fn profile(spec: &ProfileSpec, path: &Path<'_>, report: &mut Report) {
    let path = path.field("rules");
    if spec.rules.is_empty() {
        report.push(&path, "is required: at least one rule");
    }
    report.at_most(&path, "rules", spec.rules.len(), PROFILE_RULES_MAX);
    let mut names = BTreeSet::new();
    for (index, rule) in spec.rules.iter().enumerate().take(PROFILE_RULES_MAX) {
        let path = path.index(index);
        report.check(&path.field("name"), Name::new(&rule.name).map(drop));
        if !names.insert(&rule.name) {
            report.push(&path.field("name"), format!("repeats {:?}", rule.name));
        }
        check_rule(rule, &path, report);
    }
}

fn check_rule(rule: &ProfileRule, path: &Path<'_>, report: &mut Report) {
    let selectors =
        [("namespaceSelector", &rule.namespace_selector), ("objectSelector", &rule.object_selector)];
    if selectors.iter().all(|(_, selector)| selector.is_none()) {
        report.push(path, "needs a namespaceSelector or an objectSelector: an empty one matches everything");
    }
    for (field, selector) in selectors {
        if let Some(selector) = selector {
            workload::requirements(selector, &path.field(field), report);
        }
    }
    if rule.effect == ProfileEffect::default() {
        report.push(&path.field("effect"), "is required: what the pods get");
    }
    effect(&rule.effect, &path.field("effect"), report);
}

fn effect(effect: &ProfileEffect, path: &Path<'_>, report: &mut Report) {
    labels(&effect.labels, &path.field("labels"), report);
    annotations(&effect.annotations, &path.field("annotations"), report);
    labels(&effect.node_selector, &path.field("nodeSelector"), report);
    let maps = [
        ("labels", &effect.labels),
        ("annotations", &effect.annotations),
        ("nodeSelector", &effect.node_selector),
    ];
    for (field, map) in maps {
        report.at_most(&path.field(field), "entries", map.len(), EFFECT_ENTRIES_MAX);
    }
    pod::tolerations(&effect.tolerations, EFFECT_ENTRIES_MAX, &path.field("tolerations"), report);
    if let Some(class) = &effect.priority_class_name {
        report.check(&path.field("priorityClassName"), Name::new(class).map(drop));
    }
    let shares = [
        ("cpuPercent", effect.request_from_limit.cpu_percent),
        ("memoryPercent", effect.request_from_limit.memory_percent),
    ];
    for (field, share) in shares {
        if share.is_some_and(|share| !(1..=100).contains(&share)) {
            report.push(&path.field("requestFromLimit").field(field), "must be from 1 to 100");
        }
    }
}

/// Checks a class.
pub(super) fn priority_class(class: &PriorityClass, report: &mut Report) {
    let root = Path::Root;
    if class.value > PRIORITY_MAX {
        report.push(
            &root.field("value"),
            format!("must be at most {PRIORITY_MAX}: above are the system's own"),
        );
    }
    if class.meta.name.as_str().starts_with(SYSTEM_PRIORITY_PREFIX) {
        let reason =
            format!("must not begin with {SYSTEM_PRIORITY_PREFIX:?}: such classes are the system's own");
        report.push(&root.field("metadata").field("name"), reason);
    }
    if class.description.len() > DESCRIPTION_BYTES_MAX {
        report.push(&root.field("description"), format!("must be at most {DESCRIPTION_BYTES_MAX} bytes"));
    }
}

/// Bytes of a profile's texts.
pub(super) fn bytes(spec: &ProfileSpec) -> usize {
    let of = |effect: &ProfileEffect| {
        let maps: [&StringMap; 3] = [&effect.labels, &effect.annotations, &effect.node_selector];
        let tolerations: usize = effect.tolerations.iter().map(|t| t.key.len() + t.value.len()).sum();
        maps.into_iter().map(map_bytes).sum::<usize>() + tolerations
    };
    spec.rules.iter().map(|rule| of(&rule.effect)).sum()
}
