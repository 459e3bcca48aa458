//! Rules for devices: what containers ask for by the names of extended resources, and DeviceClasses.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::{AMOUNT_MAX, Path, Report};
use crate::{
    Container, DEVICE_TEXT_BYTES_MAX, DEVICES_PER_POD_MAX, DeviceClassSpec, DevicePartitioning,
    DeviceSharing, FAULT_RULES_MAX, GPU_MODE_SHARED, GPU_MODE_WHOLE, Hex16, MEMORY_UNIT_MEBIBYTES_MAX,
    NodeGpu, PARTITION_ENTRIES_MAX, PartitionModel, PodSpec, SCALING_PERCENT_MAX, SELECTOR_ENTRIES_MAX,
    SPLIT_COUNT_MAX, check_label_key, is_extended_resource_name,
};

/// Checks the extended resources of a container.
pub(super) fn container(container: &Container, is_init: bool, path: &Path<'_>, report: &mut Report) {
    let Some(extended) = container.options.get().and_then(|options| options.extended.get()) else { return };
    let path = path.field("resources");
    for (field, list) in [("requests", &extended.requests), ("limits", &extended.limits)] {
        let path = path.field(field);
        report.at_most(&path, "extended resources", list.len(), DEVICES_PER_POD_MAX);
        for (name, amount) in list.iter().take(DEVICES_PER_POD_MAX) {
            if !is_extended_resource_name(name) {
                let reason =
                    "is no name of an extended resource: expected DOMAIN/NAME, such as nvidia.com/gpu";
                report.push(&path.key(name), reason);
            }
            if *amount > AMOUNT_MAX {
                report.push(&path.key(name), "is beyond any machine: at most 2^53 is allowed");
            }
        }
    }
    for (name, request) in &extended.requests {
        match extended.limits.get(name) {
            None => {
                let reason =
                    "is required as well: devices are not given beyond a limit, so both must be the same";
                report.push(&path.field("limits").key(name), reason);
            }
            Some(limit) if limit != request => {
                let reason = format!("is {request}, the limit is {limit}: of devices both must be the same");
                report.push(&path.field("requests").key(name), reason);
            }
            Some(_) => {}
        }
    }
    if is_init {
        let reason = "devices are given to containers, not to init containers: ask for it in the container that uses it";
        report.push(&path, reason);
    }
}

/// Refuses devices to pods of a kind that may have none.
pub(super) fn none(spec: &PodSpec, kind: &str, remedy: &str, path: &Path<'_>, report: &mut Report) {
    let path = path.field("containers");
    for (index, container) in spec.containers.iter().enumerate() {
        let asks = container.options.get().is_some_and(|options| options.extended.get().is_some());
        if asks {
            let reason = format!("a {kind} may not ask for devices: {remedy}");
            report.push(&path.index(index).field("resources"), reason);
        }
    }
}

/// Bytes of a container's extended resources, roughly.
pub(super) fn bytes(container: &Container) -> usize {
    let extended = container.options.get().and_then(|options| options.extended.get());
    let names = extended.into_iter().flat_map(|one| one.requests.keys().chain(one.limits.keys()));
    names.map(|name| name.len() + size_of::<u64>()).sum()
}

/// Checks a DeviceClass.
pub(super) fn class(spec: &DeviceClassSpec, path: &Path<'_>, report: &mut Report) {
    let mut names = BTreeSet::new();
    resource_name(&spec.extended_resource_name, &path.field("extendedResourceName"), &mut names, report);
    let selector = path.field("selector");
    let lists = [
        ("vendors", &spec.selector.vendors),
        ("devices", &spec.selector.devices),
        ("classes", &spec.selector.classes),
    ];
    for (field, list) in lists {
        entries::<Hex16>(list, &selector.field(field), report);
    }
    for (field, list) in [("models", &spec.selector.models), ("drivers", &spec.selector.drivers)] {
        let path = selector.field(field);
        entries::<SmolStr>(list, &path, report);
        for (index, text) in list.iter().enumerate().take(SELECTOR_ENTRIES_MAX) {
            if text.is_empty() || text.len() > DEVICE_TEXT_BYTES_MAX {
                let reason = format!("must have 1 to {DEVICE_TEXT_BYTES_MAX} bytes");
                report.push(&path.index(index), reason);
            }
        }
    }
    if spec.selector.precision() == [false; 5] {
        let reason = "must say which devices: at least one of vendors, devices, classes, models and drivers";
        report.push(&selector, reason);
    }
    if let Some(shared) = &spec.sharing {
        sharing(shared, &path.field("sharing"), &mut names, report);
    }
    if let Some(name) = spec.memory_resource_name.get() {
        resource_name(name, &path.field("memoryResourceName"), &mut names, report);
    }
    for key in spec.node_labels.get().into_iter().flat_map(|one| one.keys()) {
        report.check(&path.field("nodeLabels"), check_label_key(key));
    }
    for key in spec.selection.get().into_iter().flat_map(|one| one.keys()) {
        report.check(&path.field("selection"), check_label_key(key));
    }
    if let Some(all) = spec.partitioning.get() {
        partitioning(all, &names, &path.field("partitioning"), report);
    }
    if let Some(faults) = spec.faults.get() {
        let path = path.field("faults");
        let path = path.field("rules");
        report.at_most(&path, "rules", faults.rules.len(), FAULT_RULES_MAX);
        for (index, rule) in faults.rules.iter().enumerate().take(FAULT_RULES_MAX) {
            report.at_most(&path.index(index), "codes", rule.codes.len(), FAULT_RULES_MAX);
        }
    }
    if let Some(visibility) = spec.visibility.get() {
        let is_name = |text: &str| {
            let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
            text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) && text.chars().all(is_word)
        };
        if !is_name(&visibility.env) || visibility.env.len() > DEVICE_TEXT_BYTES_MAX {
            let reason =
                "is no name of a variable: expected letters, digits and _, such as CXPU_VISIBLE_DEVICES";
            report.push(&path.field("visibility").field("env"), reason);
        }
    }
}

fn partitioning(all: &DevicePartitioning, names: &BTreeSet<&str>, path: &Path<'_>, report: &mut Report) {
    let models = path.field("models");
    report.at_most(&models, "models", all.models.len(), PARTITION_ENTRIES_MAX);
    for (index, model) in all.models.iter().enumerate().take(PARTITION_ENTRIES_MAX) {
        partition_model(model, names, &models.index(index), report);
    }
    if let Some(counted) = all.counted.get() {
        let path = path.field("counted");
        let mut own = BTreeSet::from_iter(names.iter().copied());
        resource_name(&counted.extended_resource_name, &path.field("extendedResourceName"), &mut own, report);
        text(&counted.counts, &path.field("counts"), report);
    }
    let layouts = path.field("layouts");
    report.at_most(&layouts, "layouts", all.layouts.len(), PARTITION_ENTRIES_MAX);
    for (index, layout) in all.layouts.iter().enumerate().take(PARTITION_ENTRIES_MAX) {
        let path = layouts.index(index);
        text(&layout.name, &path.field("name"), report);
        if [GPU_MODE_WHOLE, GPU_MODE_SHARED].contains(&layout.name.as_str()) {
            report.push(&path.field("name"), "is the name of a mode without partitions");
        }
        let path = path.field("partitions");
        report.at_most(&path, "profiles", layout.partitions.len(), PARTITION_ENTRIES_MAX);
        let placed: Vec<_> = (all.models.iter().take(PARTITION_ENTRIES_MAX))
            .filter_map(|model| all.layout(model, &layout.name))
            .collect();
        if let Some(Err(reason)) = placed.iter().find(|one| one.is_err()) {
            report.push(&path, format!("do not fit on a card: {reason}"));
        } else if placed.is_empty() {
            report.push(&path, "are profiles of no model");
        }
    }
}

fn partition_model(model: &PartitionModel, names: &BTreeSet<&str>, path: &Path<'_>, report: &mut Report) {
    text(&model.name, &path.field("name"), report);
    entries::<Hex16>(&model.devices, &path.field("devices"), report);
    report.at_most(&path.field("capacity"), "things", model.capacity.len(), PARTITION_ENTRIES_MAX);
    let slices = model.placed_by.as_ref().map(|name| model.capacity.get(name).copied().unwrap_or(0));
    if slices.is_some_and(|slices| !(1..=64).contains(&slices)) {
        report.push(&path.field("placedBy"), "must name something in capacity, of which there are 1 to 64");
    }
    let path = path.field("profiles");
    report.at_most(&path, "profiles", model.profiles.len(), PARTITION_ENTRIES_MAX);
    let mut seen = BTreeSet::new();
    for (index, profile) in model.profiles.iter().enumerate().take(PARTITION_ENTRIES_MAX) {
        let path = path.index(index);
        text(&profile.name, &path.field("name"), report);
        if !seen.insert(&profile.name) {
            report.push(&path.field("name"), format!("repeats {}", profile.name));
        }
        let own = BTreeSet::from_iter(names.iter().copied());
        resource_name(
            &profile.extended_resource_name,
            &path.field("extendedResourceName"),
            &mut { own },
            report,
        );
        report.at_most(&path.field("placements"), "places", profile.placements.len(), PARTITION_ENTRIES_MAX);
        if profile.uses.values().all(|amount| *amount == 0) {
            report.push(&path.field("uses"), "must say what a partition uses of its card");
        }
        for name in profile.uses.keys().filter(|name| !model.capacity.contains_key(*name)) {
            report.push(&path.field("uses").key(name), "is nothing that the card has: see capacity");
        }
        let (Some(slices), Some(by)) = (slices, &model.placed_by) else { continue };
        let size = profile.uses.get(by).copied().unwrap_or(0);
        let ends = profile.placements.iter().map(|start| u64::from(*start).saturating_add(size));
        if size == 0 || profile.placements.is_empty() || ends.max().is_some_and(|end| end > slices) {
            report.push(
                &path.field("placements"),
                format!("must be places for {size} of {slices} slices of {by}"),
            );
        }
    }
}

fn text(text: &str, path: &Path<'_>, report: &mut Report) {
    if text.is_empty() || text.len() > DEVICE_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        report.push(path, format!("must have 1 to {DEVICE_TEXT_BYTES_MAX} bytes, and no control characters"));
    }
}

/// Checks the mode of a node's cards.
pub(super) fn node_gpu(gpu: &NodeGpu, path: &Path<'_>, report: &mut Report) {
    text(&gpu.mode, &path.field("gpuMode"), report);
}

fn entries<T>(list: &[T], path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "entries", list.len(), SELECTOR_ENTRIES_MAX);
}

fn sharing<'a>(
    sharing: &'a DeviceSharing,
    path: &Path<'_>,
    names: &mut BTreeSet<&'a str>,
    report: &mut Report,
) {
    let fields = ["extendedResourceName", "memoryResourceName", "coresResourceName"];
    for (field, name) in fields.into_iter().zip(sharing.resource_names()) {
        resource_name(name, &path.field(field), names, report);
    }
    if let Some(units) = sharing.memory_units.get() {
        let path = path.field("memoryUnits");
        resource_name(&units.extended_resource_name, &path.field("extendedResourceName"), names, report);
        if !(1..=MEMORY_UNIT_MEBIBYTES_MAX).contains(&units.unit_mebibytes) {
            report
                .push(&path.field("unitMebibytes"), format!("must be from 1 to {MEMORY_UNIT_MEBIBYTES_MAX}"));
        }
    }
    if let Some(slots) = sharing.slots_resource_name.get() {
        resource_name(slots, &path.field("slotsResourceName"), names, report);
    }
    if sharing.default_count.get().is_some_and(|count| !(1..=DEVICES_PER_POD_MAX as u32).contains(count)) {
        report.push(&path.field("defaultCount"), format!("must be from 1 to {DEVICES_PER_POD_MAX}"));
    }
    if !(1..=SPLIT_COUNT_MAX).contains(&sharing.split_count) {
        report.push(&path.field("splitCount"), format!("must be from 1 to {SPLIT_COUNT_MAX}"));
    }
    let scalings = [
        ("memoryScalingPercent", sharing.memory_scaling_percent),
        ("coreScalingPercent", sharing.core_scaling_percent),
    ];
    for (field, percent) in scalings {
        if !(1..=SCALING_PERCENT_MAX).contains(&percent) {
            report.push(&path.field(field), format!("must be from 1 to {SCALING_PERCENT_MAX}"));
        }
    }
}

fn resource_name<'a>(name: &'a str, path: &Path<'_>, names: &mut BTreeSet<&'a str>, report: &mut Report) {
    if !is_extended_resource_name(name) {
        report.push(path, "is no name of an extended resource: expected DOMAIN/NAME, such as nvidia.com/gpu");
    } else if !names.insert(name) {
        report.push(path, format!("repeats {name}: each resource has a name of its own"));
    }
}
