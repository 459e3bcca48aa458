//! What a node's NICs shall be by the policies, and how far they are from it.
//!
//! Policies that select the node are applied from the lowest priority (99) to the highest (0), by name among equals. Of one
//! NIC, groups of VFs of a stronger policy take the place of those that they overlap, or that are of the same resource; others
//! stay beside them, and then the larger number of VFs and MTU holds (the operator's rules).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Device, NicFacts, Node, ObjectId, PciFacts, PfName, ResourceSlice, SRIOV_HOLDERS_MAX,
    SRIOV_INTERFACES_MAX, SriovBlock, SriovInterface, SriovInterfaceStatus, SriovNetworkNodePolicy,
    SriovNetworkNodeState, SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus, SriovSyncStatus,
    SriovVfGroup, VENDOR_MELLANOX, digest128,
};
use smol_str::SmolStr;

use crate::State;

/// What is done with a NIC whose change waits for pods.
const STEP_DRAINING: &str = "Draining";
/// Longest text of an error, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// What policies make of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) spec: SriovNetworkNodeStateSpec,
    /// What policies want and NICs cannot be.
    pub(crate) problems: Vec<String>,
    /// Whether any policy selects the node.
    pub(crate) is_selected: bool,
}

/// The NICs of a node that can have VFs.
fn nics(slice: &ResourceSlice) -> impl Iterator<Item = (&Device, &NicFacts)> {
    let nic = |device: &'_ Device| device.nic().is_some_and(|nic| nic.total_vfs > 0) && !device.is_lost();
    let found = slice.devices.iter().filter(move |device| nic(device));
    found.filter_map(|device| Some((device, device.nic()?))).take(SRIOV_INTERFACES_MAX)
}

/// How fast the link of a NIC is; nothing while it is down, and before anything is told of interfaces.
fn link_speed_mbps(device: &Device, nic: &NicFacts) -> Option<u32> {
    let mut interfaces = device.pci.get().map(PciFacts::interfaces)?.iter();
    interfaces.find(|one| one.name == nic.name)?.link_speed_mbps
}

/// What the NICs of a node shall be. Which NICs a policy may mean is said by vendor and device id; `None` is any, as before
/// [`bulkhead_types::DEVICE_RULES_LEVEL`].
pub(crate) fn desired(
    node: &Node,
    slice: &ResourceSlice,
    policies: &[Arc<SriovNetworkNodePolicy>],
    supported: impl Fn(&SriovNetworkNodePolicy) -> Option<Vec<(u16, u16)>>,
) -> Desired {
    let selects = |policy: &&Arc<SriovNetworkNodePolicy>| {
        policy.spec.node_selector.iter().all(|(key, value)| node.label(key) == Some(value.as_str()))
    };
    let mut selected: Vec<&Arc<SriovNetworkNodePolicy>> = policies.iter().filter(selects).collect();
    selected.sort_by_key(|policy| (Reverse(policy.spec.priority), &policy.meta.name, policy.meta.id));
    let version: Vec<_> = selected.iter().map(|policy| (policy.meta.id, policy.meta.generation)).collect();
    let mut interfaces = BTreeMap::<SmolStr, (u32, SriovInterface)>::new();
    let mut problems = Vec::new();
    for policy in &selected {
        problems.extend(mismatch(policy, slice));
        let supported = supported(policy);
        for (device, nic) in nics(slice) {
            let Some(range) = meant(policy, device, nic) else { continue };
            let ids = (device.vendor, device.device);
            if supported.as_ref().is_some_and(|supported| !supported.contains(&ids)) {
                // Who names no NIC means those that are supported.
                let is_named = !policy.spec.nic_selector.pf_names.is_empty();
                problems.extend(is_named.then(|| unsupported(policy, device, nic)));
                continue;
            }
            match interface(policy, device, nic, range) {
                Err(problem) => problems.push(problem),
                Ok(wanted) => {
                    let priority = policy.spec.priority;
                    let present = interfaces.remove(&device.address);
                    let merged = match present {
                        None => wanted,
                        Some((former, weaker)) => merge(wanted, weaker, former == priority),
                    };
                    interfaces.insert(device.address.clone(), (priority, merged));
                }
            }
        }
    }
    Desired {
        spec: SriovNetworkNodeStateSpec {
            dp_config_version: SmolStr::new(format!("{:x}", digest128(&version) as u64)),
            interfaces: interfaces.into_values().map(|(_, interface)| interface).collect(),
        },
        problems,
        is_selected: !selected.is_empty(),
    }
}

fn unsupported(policy: &SriovNetworkNodePolicy, device: &Device, nic: &NicFacts) -> String {
    let (name, vendor, id) = (&policy.meta.name, device.vendor, device.device);
    format!("policy {name}: {} is {vendor:04x}:{id:04x}, which is not supported", nic.name)
}

/// The VFs of a NIC that a policy means, of as many as it wants; `None` when it does not mean the NIC.
fn meant(policy: &SriovNetworkNodePolicy, device: &Device, nic: &NicFacts) -> Option<(u32, u32)> {
    let (spec, selector) = (&policy.spec, &policy.spec.nic_selector);
    let all = (0, spec.num_vfs.saturating_sub(1));
    let names = || selector.pf_names.iter().filter_map(|text| PfName::parse(text).ok());
    let range = match selector.pf_names.is_empty() {
        true => all,
        false => names().find(|name| name.name == nic.name)?.range.unwrap_or(all),
    };
    let is_meant = selector.vendor.is_none_or(|vendor| vendor.0 == device.vendor)
        && selector.device_id.is_none_or(|id| id.0 == device.device)
        && (selector.root_devices.is_empty() || selector.root_devices.contains(&device.address))
        && (spec.link_type.is_none() || nic.link_type.is_none() || spec.link_type == nic.link_type);
    is_meant.then_some(range)
}

/// Names and addresses of a policy that are different NICs of a node.
fn mismatch(policy: &SriovNetworkNodePolicy, slice: &ResourceSlice) -> Option<String> {
    let selector = &policy.spec.nic_selector;
    if selector.pf_names.is_empty() || selector.root_devices.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> =
        selector.pf_names.iter().filter_map(|text| Some(PfName::parse(text).ok()?.name)).collect();
    let is_other = |(device, nic): &(&Device, &NicFacts)| {
        names.contains(nic.name.as_str()) != selector.root_devices.contains(&device.address)
    };
    let (device, nic) = nics(slice).find(is_other)?;
    Some(format!(
        "policy {}: pfNames and rootDevices name different NICs: {} is at {}",
        policy.meta.name, nic.name, device.address
    ))
}

/// What a policy makes of a NIC.
fn interface(
    policy: &SriovNetworkNodePolicy,
    device: &Device,
    nic: &NicFacts,
    (first, last): (u32, u32),
) -> Result<SriovInterface, String> {
    let spec = &policy.spec;
    // Mellanox' number is set in the NIC's firmware, so what it can have now says nothing.
    if device.vendor == VENDOR_MELLANOX {
        if spec.num_vfs > bulkhead_types::MELLANOX_VFS_MAX {
            return Err(format!(
                "policy {}: {} of vendor 15b3 can have 128 VFs, not {}",
                policy.meta.name, nic.name, spec.num_vfs
            ));
        }
    } else if spec.num_vfs > nic.total_vfs {
        return Err(format!(
            "policy {}: {} can have {} VFs, not {}",
            policy.meta.name, nic.name, nic.total_vfs, spec.num_vfs
        ));
    }
    let group = SriovVfGroup {
        resource_name: spec.resource_name.clone(),
        policy_name: SmolStr::new(policy.meta.name.as_str()),
        first,
        last,
        device_type: spec.device_type,
        is_rdma: spec.is_rdma,
        mtu: spec.mtu,
    };
    Ok(SriovInterface {
        pci_address: device.address.clone(),
        name: nic.name.clone(),
        num_vfs: spec.num_vfs,
        mtu: spec.mtu,
        link_type: spec.link_type,
        vf_groups: vec![group],
    })
}

/// A NIC by a policy, over what weaker policies made of it.
fn merge(mut wanted: SriovInterface, weaker: SriovInterface, is_equal: bool) -> SriovInterface {
    let overlaps = |a: &SriovVfGroup, b: &SriovVfGroup| a.first <= b.last && b.first <= a.last;
    let own = wanted.vf_groups.clone();
    let is_replaced = |group: &SriovVfGroup| {
        own.iter().any(|new| new.resource_name == group.resource_name || overlaps(new, group))
    };
    let kept: Vec<SriovVfGroup> = weaker.vf_groups.into_iter().filter(|group| !is_replaced(group)).collect();
    if kept.is_empty() && !is_equal {
        return wanted;
    }
    wanted.vf_groups.extend(kept);
    wanted.vf_groups.truncate(SRIOV_INTERFACES_MAX);
    wanted.vf_groups.sort_by_key(|group| group.first);
    wanted.mtu = wanted.mtu.max(weaker.mtu);
    wanted.num_vfs = wanted.num_vfs.max(weaker.num_vfs);
    wanted
}

/// The pods that have VFs of a NIC, by its address, each once.
pub(crate) fn holders_of(state: &State, node: ObjectId, pci_address: &str) -> Vec<ObjectId> {
    let Some(ledger) = state.node_devices(node) else { return Vec::new() };
    let parents: BTreeSet<&SmolStr> =
        (ledger.iter().filter(|(_, one)| one.device.address == pci_address)).map(|(id, _)| id).collect();
    let vfs =
        ledger.iter().filter(|(_, one)| one.device.parent.as_ref().is_some_and(|id| parents.contains(id)));
    let pods: BTreeSet<ObjectId> = vfs.flat_map(|(_, one)| one.holders.iter().map(|(pod, _)| *pod)).collect();
    pods.into_iter().collect()
}

/// What a node's state is now: a NIC whose VFs pods have stays what it was, and its change waits for them.
pub(crate) fn settle(
    state: &State,
    slice: &ResourceSlice,
    present: Option<&SriovNetworkNodeState>,
    desired: Desired,
) -> (SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus) {
    let by_address = |list: &[SriovInterface]| -> BTreeMap<SmolStr, SriovInterface> {
        list.iter().map(|one| (one.pci_address.clone(), one.clone())).collect()
    };
    let was = present.map(|present| by_address(&present.spec.interfaces)).unwrap_or_default();
    let wanted = by_address(&desired.spec.interfaces);
    let facts: BTreeMap<&SmolStr, &NicFacts> =
        nics(slice).map(|(device, nic)| (&device.address, nic)).collect();
    let addresses: BTreeSet<&SmolStr> = was.keys().chain(wanted.keys()).collect();
    let (mut interfaces, mut blocked, mut is_behind) = (Vec::new(), Vec::new(), false);
    for address in addresses {
        let nic = facts.get(address);
        let wanted = wanted.get(address).cloned().or_else(|| left_over(was.get(address)?, nic.copied()?));
        let mut is = wanted;
        if is.as_ref() != was.get(address) {
            let holders = holders_of(state, slice.node, address);
            if !holders.is_empty() {
                is = was.get(address).cloned();
                let holders = holders.into_iter().take(SRIOV_HOLDERS_MAX).map(|id| name_of(state, id));
                blocked.push(SriovBlock { pci_address: address.clone(), holders: holders.collect() });
            }
        }
        is_behind |= is.as_ref().is_some_and(|one| nic.is_none_or(|nic| nic.num_vfs != one.num_vfs));
        interfaces.extend(is);
    }
    interfaces.truncate(SRIOV_INTERFACES_MAX);
    let of_nic = |(device, nic): (&Device, &NicFacts)| SriovInterfaceStatus {
        vendor: device.vendor,
        device_id: device.device,
        driver: device.driver.clone(),
        link_type: nic.link_type,
        mac: nic.mac.clone(),
        mtu: nic.mtu,
        name: nic.name.clone(),
        pci_address: device.address.clone(),
        total_vfs: nic.total_vfs,
        num_vfs: nic.num_vfs,
        link_speed_mbps: link_speed_mbps(device, nic).into(),
    };
    let of_agent = nics(slice).filter(|(_, nic)| !nic.sync_error.is_empty());
    let of_agent = of_agent.map(|(_, nic)| format!("{}: {}", nic.name, nic.sync_error));
    let errors: Vec<String> = desired.problems.iter().cloned().chain(of_agent).collect();
    let step = nics(slice).map(|(_, nic)| &nic.step).find(|step| !step.is_empty());
    // The agent knows who else on its host has VFs, of which nothing is known here.
    let waits = |nic: &NicFacts| nic.step == STEP_DRAINING && !nic.sync_error.is_empty();
    let is_free = blocked.is_empty() && !nics(slice).any(|(_, nic)| waits(nic));
    let (sync_status, step) = match (is_free, errors.is_empty(), is_behind) {
        (false, ..) => (SriovSyncStatus::Blocked, SmolStr::new_static(STEP_DRAINING)),
        (_, false, _) => (SriovSyncStatus::Failed, step.cloned().unwrap_or_default()),
        (.., true) => (SriovSyncStatus::InProgress, step.cloned().unwrap_or_default()),
        _ => (SriovSyncStatus::Succeeded, step.cloned().unwrap_or_default()),
    };
    let mut last_sync_error = errors.join("; ");
    while last_sync_error.len() > ERROR_BYTES_MAX {
        last_sync_error.pop();
    }
    let interfaces_now = nics(slice).map(of_nic).collect();
    let spec = SriovNetworkNodeStateSpec { interfaces, ..desired.spec };
    (
        spec,
        SriovNetworkNodeStateStatus {
            interfaces: interfaces_now,
            sync_status,
            step,
            last_sync_error,
            blocked,
        },
    )
}

/// A NIC that no policy means any more shall have no VFs, until it has none.
fn left_over(was: &SriovInterface, nic: &NicFacts) -> Option<SriovInterface> {
    let none =
        SriovInterface { num_vfs: 0, mtu: None, link_type: None, vf_groups: Vec::new(), ..was.clone() };
    (nic.num_vfs > 0).then_some(none)
}

fn name_of(state: &State, pod: ObjectId) -> SmolStr {
    let pod = state.pods().get(pod);
    pod.map_or_else(SmolStr::default, |pod| {
        let namespace = pod.meta.namespace.as_ref().map_or("", |name| name.as_str());
        SmolStr::new(format!("{namespace}/{}", pod.meta.name))
    })
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
