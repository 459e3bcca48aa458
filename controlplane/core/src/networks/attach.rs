//! What a pod gets of its networks on a node: for each a VF, an address, and everything its agent needs to know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_types::{
    AllocatedDevice, AttachmentRoutes, Binding, NetworkAttachment, NetworkRoute, Node, ObjectId, Pod, Rare,
    VENDOR_INTEL, digest128,
};
use smol_str::SmolStr;

use super::addresses::may_give;
use super::{Addresses, NetworkNeed, needs};
use crate::State;
use crate::devices::NodeDevices;

/// The attachments of a pod that has these devices, without their addresses. Each network takes the next VF of its resource, in
/// the order of containers and device ids.
///
/// # Errors
/// Why they cannot be.
pub(crate) fn attachments(
    pod: ObjectId,
    needs: &[NetworkNeed],
    devices: &[AllocatedDevice],
    ledger: Option<&NodeDevices>,
) -> Result<Vec<NetworkAttachment>, String> {
    let mut sorted: Vec<&AllocatedDevice> = devices.iter().collect();
    sorted.sort();
    let mut left = sorted;
    let mut found = Vec::with_capacity(needs.len());
    for (need, index) in needs.iter().zip(0u64..) {
        let at = left.iter().position(|given| need.resources.contains(&given.resource));
        let at = at.ok_or_else(|| format!("network {}: the pod has no VF for it", need.network))?;
        let given = left.remove(at);
        let device = ledger.and_then(|ledger| ledger.get(&given.device));
        let has_least = need.spec.min_tx_rate.is_some_and(|rate| rate > 0);
        if has_least && device.is_some_and(|one| one.device.vendor == VENDOR_INTEL) {
            return Err(format!(
                "network {}: minTxRate is not supported by NICs of vendor 8086",
                need.network
            ));
        }
        let ipam = need.ipam();
        found.push(NetworkAttachment {
            network: need.network.clone(),
            interface: need.interface.clone(),
            device: given.device.clone(),
            address: None,
            prefix: ipam.map_or(0, |ipam| ipam.range.prefix().into()),
            gateway: ipam.and_then(|ipam| ipam.gateway),
            mac: need.mac.clone().unwrap_or_else(|| mac(pod, index)),
            vlan: need.spec.vlan,
            vlan_qos: need.spec.vlan_qos,
            spoof_chk: need.spec.spoof_chk,
            trust: need.spec.trust,
            min_tx_rate: need.spec.min_tx_rate,
            max_tx_rate: need.spec.max_tx_rate,
            link_state: need.spec.link_state,
            link_type: need.link_type,
            mtu: device.and_then(crate::devices::DeviceUse::mtu),
            routes: Rare::unless_default(routes(need)),
        });
    }
    Ok(found)
}

/// What a pod routes by a network. A route of the network's without a gateway leads over the network's own, as with CNI.
fn routes(need: &NetworkNeed) -> AttachmentRoutes {
    let ipam = need.ipam();
    let own = ipam.and_then(|ipam| ipam.gateway);
    let over = |route: &NetworkRoute| {
        let is_four = route.destination.first().is_ipv4();
        let gateway = route.gateway.or(own.filter(|own| own.is_ipv4() == is_four));
        NetworkRoute { gateway, ..route.clone() }
    };
    AttachmentRoutes {
        default_gateways: need.default_route.clone(),
        routes: ipam.and_then(|ipam| ipam.routes.get()).into_iter().flatten().map(over).collect(),
    }
}

/// A MAC address that is the pod's own: locally administered, the rest from the pod's id.
fn mac(pod: ObjectId, index: u64) -> SmolStr {
    let [a, b, c, d, e, ..] = digest128(&(pod, index)).to_be_bytes();
    SmolStr::new(format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}"))
}

/// Gives each attachment the lowest free address of its network.
///
/// # Errors
/// Which network has none left; then nothing was given.
pub(crate) fn give(
    pod: ObjectId,
    needs: &[NetworkNeed],
    attachments: &mut [NetworkAttachment],
    addresses: &mut Addresses,
) -> Result<(), String> {
    let mut after = addresses.clone();
    for (need, attachment) in needs.iter().zip(attachments) {
        attachment.address = lowest(need, pod, &mut after)?;
    }
    *addresses = after;
    Ok(())
}

/// Whether every network of a pod has an address for it.
///
/// # Errors
/// Which has none left.
pub(crate) fn check_room(needs: &[NetworkNeed], addresses: &Addresses) -> Result<(), String> {
    let mut after = addresses.clone();
    needs.iter().try_for_each(|need| lowest(need, ObjectId(0), &mut after).map(drop))
}

fn lowest(need: &NetworkNeed, pod: ObjectId, addresses: &mut Addresses) -> Result<Option<IpAddr>, String> {
    let Some(ipam) = need.ipam() else { return Ok(None) };
    let address = addresses.lowest_free(ipam).ok_or_else(|| {
        format!(
            "network {}: no address of range {} is free; one is when a pod ends",
            need.network, ipam.range
        )
    })?;
    addresses.take(address, pod);
    Ok(Some(address))
}

/// What one command gives of addresses to pods, on top of the State: none is ever given twice.
#[derive(Debug, Default)]
pub(crate) struct TakenAddresses {
    after: Option<Addresses>,
    /// What a node's devices were found to be, for many pods of one command.
    checked: BTreeMap<ObjectId, bool>,
}

impl TakenAddresses {
    /// Whether a pod may have exactly these attachments on a node; then it has them for the rest of the command.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn take(
        &mut self,
        state: &State,
        pod: &Pod,
        node: &Node,
        binding: &Binding,
    ) -> Result<(), String> {
        if binding.networks.is_empty() && !pod.spec.asks_for_devices() {
            return Ok(());
        }
        let needs = needs(state, pod).map_err(|problem| problem.to_string())?;
        if needs.is_empty() && binding.networks.is_empty() {
            return Ok(());
        }
        if !*self.checked.entry(node.meta.id).or_insert_with(|| node.status.facts.attaches_networks()) {
            return Err("its agent cannot attach networks".to_owned());
        }
        let id = pod.meta.id;
        let expected = attachments(id, &needs, &binding.devices, state.node_devices(node.meta.id))?;
        let is_right = |(given, expected): (&NetworkAttachment, &NetworkAttachment)| {
            NetworkAttachment { address: None, ..given.clone() } == *expected
        };
        if binding.networks.len() != needs.len() || !binding.networks.iter().zip(&expected).all(is_right) {
            return Err("its networks are others by now".to_owned());
        }
        let mut after = self.after.clone().unwrap_or_else(|| state.networks.addresses.clone());
        for (need, given) in needs.iter().zip(&binding.networks) {
            let may_have = match (need.ipam(), given.address) {
                (None, None) => true,
                (Some(ipam), Some(address)) => may_give(ipam, address) && after.take(address, id),
                _ => false,
            };
            if !may_have {
                return Err(format!("its address of network {} is not to be had", given.network));
            }
        }
        self.after = Some(after);
        Ok(())
    }
}
