//! Devices of nodes, what containers ask for of them, and DeviceClasses.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::devices::NodeDevices;
use bulkhead_types::{Container, DeviceClassSpec, DeviceRole, Hex16, ObjectId, Pod, format_bytes};

use super::Page;
use crate::commands::device::device_rows;

/// What a node has of each resource, and every device with who holds it.
pub(super) fn node(page: &mut Page, ledger: &NodeDevices, names: &BTreeMap<ObjectId, String>) {
    let row = |(resource, count): (smol_str::SmolStr, bulkhead_controlplane_core::devices::ResourceCount)| {
        let figures = [count.capacity, count.allocatable, count.allocated].map(|figure| figure.to_string());
        [vec![resource.to_string()], figures.to_vec()].concat()
    };
    let rows: Vec<Vec<String>> = ledger.counts().into_iter().map(row).collect();
    if !rows.is_empty() {
        let header = ["RESOURCE", "CAPACITY", "ALLOCATABLE", "ALLOCATED"];
        page.section("Device resources", |page| page.table(&header, &rows));
    }
    let header = ["INDEX", "DEVICE", "RESOURCE", "ID", "NUMA", "STATUS", "HOLDER", "MEMORY"];
    page.section("Devices", |page| page.table(&header, &device_rows(ledger, names)));
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
    let Some(sharing) = &spec.sharing else { return };
    page.section("Sharing", |page| {
        let [count, memory, cores] = sharing.resource_names();
        page.line("Cards", count.as_str());
        page.line("Memory of each", format!("{memory}, in MiB"));
        page.line("Compute of each", format!("{cores}, in per cent"));
        page.line("Pods on a card", sharing.split_count.to_string());
        let percent = (sharing.memory_scaling_percent, sharing.core_scaling_percent);
        page.line("Offered", format!("{} % of memory, {} % of compute", percent.0, percent.1));
        let policies = (sharing.node_scheduler_policy, sharing.device_scheduler_policy);
        page.line("Policy", format!("nodes {}, cards {}", policies.0.as_str(), policies.1.as_str()));
    });
}
