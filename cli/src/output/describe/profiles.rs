//! Profiles and PriorityClasses in full.

use bulkhead_types::{LabelSelector, PriorityClass, Profile, ProfileEffect, ProfileRule};

use super::{Page, row};

pub(super) fn priority_class(page: &mut Page, class: &PriorityClass) {
    page.line("Value", class.value.to_string());
    page.line("Global default", if class.global_default { "yes" } else { "no" });
    page.line("Preemption", "Never: its pods are placed first, running ones are not ended for them");
    page.line("Description", class.description.as_str());
}

pub(super) fn profile(page: &mut Page, profile: &Profile) {
    page.section("Rules, in order", |page| {
        for rule in &profile.spec.rules {
            page.section(&rule.name, |page| one(page, rule));
        }
    });
}

fn one(page: &mut Page, rule: &ProfileRule) {
    let selector = |selector: &Option<LabelSelector>| match selector {
        Some(selector) if selector.is_empty() => "<all>".to_owned(),
        Some(selector) => row::selector(selector),
        None => "<all>".to_owned(),
    };
    page.line("Namespaces", selector(&rule.namespace_selector));
    page.line("Pods", selector(&rule.object_selector));
    effect(page, &rule.effect);
}

fn effect(page: &mut Page, effect: &ProfileEffect) {
    for (title, map) in [
        ("Add labels", &effect.labels),
        ("Add annotations", &effect.annotations),
        ("Add node selector", &effect.node_selector),
    ] {
        if !map.is_empty() {
            page.map(title, map);
        }
    }
    if !effect.tolerations.is_empty() {
        page.line("Add tolerations", effect.tolerations.len().to_string());
    }
    if let Some(class) = &effect.priority_class_name {
        page.line("Priority class", class.as_str());
    }
    let shares = effect.request_from_limit;
    for (title, share) in [("CPU request", shares.cpu_percent), ("Memory request", shares.memory_percent)] {
        if let Some(share) = share {
            page.line(title, format!("{share} % of the limit"));
        }
    }
}
