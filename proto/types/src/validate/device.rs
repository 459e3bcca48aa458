//! Rules for devices: what containers ask for by the names of extended resources, and DeviceClasses.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::{AMOUNT_MAX, Path, Report};
use crate::{
    Container, DEVICE_TEXT_BYTES_MAX, DEVICES_PER_POD_MAX, DeviceClassSpec, DeviceSharing, Hex16, PodSpec,
    SCALING_PERCENT_MAX, SELECTOR_ENTRIES_MAX, SPLIT_COUNT_MAX, is_extended_resource_name,
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
