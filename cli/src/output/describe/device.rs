//! Devices of nodes, what containers ask for of them, and DeviceClasses.

use bulkhead_types::{
    Container, DeviceClassSpec, DeviceRole, Hex16, NodeGpu, Pod, VisibilityRule, format_bytes,
};
use smol_str::SmolStr;

use super::{NodeView, Page};
use crate::commands::device::device_rows;

/// What a node has of each resource, and every device with who holds it.
pub(super) fn node(page: &mut Page, gpu: Option<&NodeGpu>, view: &NodeView) {
    let NodeView { ledger, slice, names } = view;
    if let Some(gpu) = gpu {
        let now = slice.gpu_mode().map_or("unknown", |mode| mode.as_str());
        let is_there = if ledger.is_reconfiguring() {
            format!("Reconfiguring, now {now}")
        } else {
            "observed".to_owned()
        };
        page.line("GPU mode", format!("{} ({is_there}), partitions {}", gpu.mode, gpu.strategy.as_str()));
    }
    let row = |(resource, count): (smol_str::SmolStr, bulkhead_controlplane_core::devices::ResourceCount)| {
        let figures = [count.capacity, count.allocatable, count.allocated].map(|figure| figure.to_string());
        // Cut off, never rounded up: 3 of 14 are 21 %.
        let percent = format!("{}%", u128::from(count.allocated) * 100 / u128::from(count.capacity.max(1)));
        [vec![resource.to_string()], figures.to_vec(), vec![percent]].concat()
    };
    let rows: Vec<Vec<String>> = ledger.counts().into_iter().map(row).collect();
    if !rows.is_empty() {
        let header = ["RESOURCE", "CAPACITY", "ALLOCATABLE", "ALLOCATED", "USED"];
        page.section("Device resources", |page| page.table(&header, &rows));
    }
    let header = ["INDEX", "DEVICE", "RESOURCE", "ID", "NUMA", "STATUS", "HOLDER", "MEMORY"];
    page.section("Devices", |page| page.table(&header, &device_rows(ledger, names)));
    super::functions::tables(page, slice);
    let fault = |one: &bulkhead_types::HandledFault| {
        let pod =
            one.fault.pod.map_or("-".to_owned(), |pod| names.get(&pod).cloned().unwrap_or(pod.to_string()));
        let at = crate::time::rfc3339(one.fault.at_ms);
        vec![
            at,
            one.fault.device.to_string(),
            one.fault.code.to_string(),
            one.action.as_str().to_owned(),
            pod,
        ]
    };
    let rows: Vec<Vec<String>> =
        slice.state.get().into_iter().flat_map(|state| &state.faults).map(fault).collect();
    if !rows.is_empty() {
        let header = ["TIME", "DEVICE", "FAULT", "ACTION", "POD"];
        page.section("Device faults", |page| page.table(&header, &rows));
    }
}

/// `nvidia.com/gpu 2`.
pub(super) fn asked(container: &Container) -> String {
    let asked = container.extended_resources().map(|(name, amount)| format!("{name} {amount}"));
    asked.collect::<Vec<_>>().join(", ")
}

/// What a pod was given, a line each.
pub(super) fn given(pod: &Pod) -> Vec<String> {
    let line = |device: &bulkhead_types::AllocatedDevice| {
        let share = device.share.map_or_else(String::new, |share| {
            format!(", {} of memory, {} % of compute", format_bytes(share.memory_bytes), share.cores)
        });
        format!("{} for {}: {}{share}", device.resource, device.container, device.device)
    };
    pod.devices().iter().map(line).collect()
}

/// What a class says beside what its devices are.
fn rules(page: &mut Page, spec: &DeviceClassSpec) {
    let keys = |keys: Vec<&SmolStr>| keys.into_iter().map(SmolStr::as_str).collect::<Vec<_>>().join(", ");
    page.optional(
        "Labels of nodes",
        keys(spec.node_labels.get().into_iter().flat_map(|one| one.keys()).collect()),
    );
    page.optional("Chosen by", keys(spec.selection.get().into_iter().flat_map(|one| one.keys()).collect()));
    if let Some(counted) = spec.partitioning.get().and_then(|all| all.counted.get()) {
        page.line(
            "Counted",
            format!("{} of each card as {}", counted.counts, counted.extended_resource_name),
        );
    }
}

pub(super) fn class(page: &mut Page, spec: &DeviceClassSpec) {
    page.line("Resource", spec.extended_resource_name.as_str());
    let ids = |list: &[Hex16]| list.iter().map(|id| String::from(*id)).collect::<Vec<_>>().join(", ");
    let texts = |list: &[smol_str::SmolStr]| list.join(", ");
    page.optional("Vendors", ids(&spec.selector.vendors));
    page.optional("Devices", ids(&spec.selector.devices));
    page.optional("Classes", ids(&spec.selector.classes));
    page.optional("Models", texts(&spec.selector.models));
    page.optional("Drivers", texts(&spec.selector.drivers));
    let role = match spec.selector.role {
        DeviceRole::Whole => "whole cards",
        DeviceRole::Virtual => "virtual functions",
    };
    page.line("Offers", role);
    if let Some(all) = spec.partitioning.get() {
        let model = |model: &bulkhead_types::PartitionModel| {
            let profiles: Vec<&str> = model.profiles.iter().map(|one| one.name.as_str()).collect();
            vec![model.name.to_string(), profiles.join(", ")]
        };
        let rows: Vec<Vec<String>> = all.models.iter().map(model).collect();
        page.section("Partitions", |page| page.table(&["MODEL", "PROFILES"], &rows));
    }
    if let Some(faults) = spec.faults.get() {
        let codes = |codes: &[u32]| codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let row =
            |rule: &bulkhead_types::FaultRule| vec![rule.action.as_str().to_owned(), codes(&rule.codes)];
        let rows: Vec<Vec<String>> = faults.rules.iter().map(row).collect();
        page.section("Faults", |page| page.table(&["ACTION", "CODES"], &rows));
    }
    if let Some(visibility) = spec.visibility.get() {
        let rule = match visibility.rule.get().copied().unwrap_or_default() {
            VisibilityRule::Own => "",
            VisibilityRule::Named => ", in which containers name the cards that are theirs",
        };
        page.line("Variable", format!("{}{rule}", visibility.env));
    }
    rules(page, spec);
    page.optional(
        "Least memory",
        spec.memory_resource_name.get().map(ToString::to_string).unwrap_or_default(),
    );
    let Some(sharing) = &spec.sharing else { return };
    page.section("Sharing", |page| {
        let [count, memory, cores] = sharing.resource_names();
        page.line("Cards", count.as_str());
        page.line("Memory of each", format!("{memory}, in MiB"));
        page.line("Compute of each", format!("{cores}, in per cent"));
        page.line("Pods on a card", sharing.split_count.to_string());
        page.optional(
            "Places",
            sharing.slots_resource_name.get().map(ToString::to_string).unwrap_or_default(),
        );
        if let Some(units) = sharing.memory_units.get() {
            page.line(
                "Memory units",
                format!("{}, of {} MiB", units.extended_resource_name, units.unit_mebibytes),
            );
        }
        let percent = (sharing.memory_scaling_percent, sharing.core_scaling_percent);
        page.line("Offered", format!("{} % of memory, {} % of compute", percent.0, percent.1));
        let policies = (sharing.node_scheduler_policy, sharing.device_scheduler_policy);
        page.line("Policy", format!("nodes {}, cards {}", policies.0.as_str(), policies.1.as_str()));
    });
}
