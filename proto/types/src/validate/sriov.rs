//! Rules for SR-IOV policies and networks, each with what would be acceptable.
//!
//! Source: "SriovNetworkNodePolicy" and "SriovNetwork" of the SR-IOV network operator, with the product's narrower bounds;
//! whereabouts for `ipam`. Which NICs are supported is data and looked at when a policy is applied.

use std::net::IpAddr;

use super::{Path, Report, check_label_value, labels};
use crate::{
    IPAM_EXCLUDES_MAX, IPAM_ROUTES_MAX, IpCidr, Ipam, MELLANOX_VFS_MAX, NIC_NAMES_MAX, NUM_VFS_MAX, PfName,
    SRIOV_MTU_MAX, SRIOV_PRIORITY_MAX, SriovDeviceType, SriovLinkType, SriovNetworkNodePolicySpec,
    SriovNetworkSpec, SriovNicSelector, VENDOR_INTEL, VENDOR_MELLANOX, VLAN_MAX, VLAN_QOS_MAX, ip_to_bits,
    is_pci_address,
};

/// A network needs that many bits for hosts: its first and last address are never given out.
const HOST_BITS_MIN: u8 = 2;

/// Checks a policy.
pub(super) fn policy(spec: &SriovNetworkNodePolicySpec, path: &Path<'_>, report: &mut Report) {
    resource_name(&spec.resource_name, path, report);
    labels(&spec.node_selector, &path.field("nodeSelector"), report);
    let vendor = spec.nic_selector.vendor.map(|id| id.0);
    let (is_mellanox, is_intel) = (vendor == Some(VENDOR_MELLANOX), vendor == Some(VENDOR_INTEL));
    let vfio = spec.device_type == SriovDeviceType::VfioPci;
    let most = if is_mellanox { MELLANOX_VFS_MAX } else { NUM_VFS_MAX };
    let checks = [
        (spec.priority > SRIOV_PRIORITY_MAX, "priority", "must be from 0 to 99; the smaller one wins".into()),
        (
            spec.mtu.is_some_and(|mtu| !(1..=SRIOV_MTU_MAX).contains(&mtu)),
            "mtu",
            "must be from 1 to 9000".into(),
        ),
        (!(1..=most).contains(&spec.num_vfs), "numVfs", format!("must be from 1 to {most}")),
        (
            spec.is_rdma && vfio,
            "isRdma",
            "must be false with deviceType vfio-pci: a guest brings up RDMA itself".into(),
        ),
        (
            spec.link_type == Some(SriovLinkType::Ib) && is_intel,
            "linkType",
            "must not be IB of vendor 8086: only NICs of vendor 15b3 speak InfiniBand".into(),
        ),
    ];
    for (field, reason) in
        checks.into_iter().filter(|(bad, ..)| *bad).map(|(_, field, reason)| (field, reason))
    {
        report.push(&path.field(field), reason);
    }
    nic_selector(&spec.nic_selector, spec.num_vfs, &path.field("nicSelector"), report);
}

fn resource_name(name: &str, path: &Path<'_>, report: &mut Report) {
    let path = path.field("resourceName");
    if name.is_empty() {
        report.push(&path, "is required");
    }
    report.check(&path, check_label_value(name));
}

fn nic_selector(selector: &SriovNicSelector, num_vfs: u32, path: &Path<'_>, report: &mut Report) {
    let SriovNicSelector { vendor, device_id, pf_names, root_devices } = selector;
    let has_other = vendor.is_some() || device_id.is_some() || !pf_names.is_empty();
    if !has_other && root_devices.is_empty() {
        report.push(path, "must say which NICs: at least one of vendor, deviceID and pfNames");
    } else if !has_other {
        let reason = "needs one of vendor, deviceID and pfNames as well: an address alone may be another device on another node";
        report.push(&path.field("rootDevices"), reason);
    }
    let names = path.field("pfNames");
    report.at_most(&names, "names", pf_names.len(), NIC_NAMES_MAX);
    let mut seen = std::collections::BTreeSet::new();
    for (index, text) in pf_names.iter().enumerate().take(NIC_NAMES_MAX) {
        let path = names.index(index);
        match PfName::parse(text) {
            Err(reason) => report.push(&path, reason),
            Ok(name) if !seen.insert(name.name) => report.push(&path, format!("repeats {}", name.name)),
            Ok(PfName { range: Some((_, last)), .. }) if last >= num_vfs => {
                report.push(
                    &path,
                    format!(
                        "names VF {last}, but numVfs is {num_vfs}: the last is {}",
                        num_vfs.saturating_sub(1)
                    ),
                );
            }
            Ok(_) => {}
        }
    }
    let addresses = path.field("rootDevices");
    report.at_most(&addresses, "addresses", root_devices.len(), NIC_NAMES_MAX);
    for (index, text) in root_devices.iter().enumerate().take(NIC_NAMES_MAX) {
        if !is_pci_address(text) {
            let reason = format!("{text:?} is no PCI address: expected DDDD:BB:DD.F, such as 0000:61:00.0");
            report.push(&addresses.index(index), reason);
        }
    }
}

/// Checks a network.
pub(super) fn network(spec: &SriovNetworkSpec, path: &Path<'_>, report: &mut Report) {
    resource_name(&spec.resource_name, path, report);
    let least = spec.min_tx_rate.unwrap_or(0);
    let is_over = spec.max_tx_rate.is_none_or(|most| most != 0 && least > most) && least > 0;
    let checks = [
        (spec.vlan > VLAN_MAX, "vlan", "must be from 0 to 4095; 0 is none"),
        (spec.vlan_qos > VLAN_QOS_MAX, "vlanQoS", "must be from 0 to 7"),
        (
            spec.vlan_qos > 0 && spec.vlan == 0,
            "vlanQoS",
            "needs a vlan above 0: the priority is part of its tag",
        ),
        (is_over, "minTxRate", "must be at most maxTxRate, which must be set as well"),
    ];
    for (_, field, reason) in checks.into_iter().filter(|(bad, ..)| *bad) {
        report.push(&path.field(field), reason);
    }
    if let Some(given) = &spec.ipam {
        ipam(given, &path.field("ipam"), report);
    }
}

fn ipam(ipam: &Ipam, path: &Path<'_>, report: &mut Report) {
    let range = ipam.range;
    if range.host_bits() < HOST_BITS_MIN {
        report.push(
            &path.field("range"),
            format!("{range} has no address to give out: leave at least 2 bits for hosts"),
        );
        return;
    }
    let is_same_family = |address: IpAddr| address.is_ipv4() == range.first().is_ipv4();
    for (field, address) in
        [("range_start", ipam.range_start), ("range_end", ipam.range_end), ("gateway", ipam.gateway)]
    {
        let Some(address) = address else { continue };
        if !range.contains(address) {
            report.push(&path.field(field), format!("{address} is not in the range {range}"));
        }
    }
    if let Some((start, end)) = ipam.range_start.zip(ipam.range_end)
        && is_same_family(start)
        && is_same_family(end)
        && ip_to_bits(start) > ip_to_bits(end)
    {
        report.push(&path.field("range_end"), format!("{end} is before range_start, {start}"));
    }
    routes(ipam, &path.field("routes"), report);
    let path = path.field("exclude");
    report.at_most(&path, "networks", ipam.exclude.len(), IPAM_EXCLUDES_MAX);
    for (index, exclude) in ipam.exclude.iter().enumerate().take(IPAM_EXCLUDES_MAX) {
        if !touches(range, *exclude) {
            report.push(&path.index(index), format!("{exclude} excludes nothing of the range {range}"));
        }
    }
}

fn routes(ipam: &Ipam, path: &Path<'_>, report: &mut Report) {
    let routes = ipam.routes.get().map_or(&[][..], Vec::as_slice);
    report.at_most(path, "routes", routes.len(), IPAM_ROUTES_MAX);
    for (index, route) in routes.iter().enumerate().take(IPAM_ROUTES_MAX) {
        let path = path.index(index);
        if route.destination.prefix() == 0 {
            let reason =
                "is the default route: a pod asks for it by default-route in k8s.v1.cni.cncf.io/networks";
            report.push(&path.field("dst"), reason);
        }
        let is_four = route.destination.first().is_ipv4();
        if let Some(gateway) = route.gateway.filter(|gateway| gateway.is_ipv4() != is_four) {
            report.push(
                &path.field("gw"),
                format!("{gateway} is of another family than {}", route.destination),
            );
        }
    }
}

/// Whether two networks have an address in common: then one of them is in the other.
fn touches(a: IpCidr, b: IpCidr) -> bool {
    a.contains(b.first()) || b.contains(a.first())
}
