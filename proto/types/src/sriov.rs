//! SR-IOV: which virtual functions nodes shall have, and networks that pods attach by them as a second NIC.
//!
//! ```text
//!  SriovNetworkNodePolicy ─► SriovNetworkNodeState (one per node): VFs of which NIC are which resource
//!  SriovNetwork, SriovIBNetwork ◄─ annotation of a pod ─► NetworkAttachment: VF, address, VLAN, ...
//! ```
//!
//! Names are those of the SR-IOV network operator (`sriovnetwork.openshift.io/v1`), of Multus for the annotation, and of
//! whereabouts for addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Hex16, IpCidr, Name, ObjectId, ObjectMeta, Rare, StringMap};

/// The annotation by which a pod names its networks (Multus').
pub const ANNOTATION_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// The annotation that a pod in a guest VM with VFs carries as well.
pub const ANNOTATION_ENABLE_SRIOV: &str = "io.katacontainers.config.runtime.enable_sriov";
/// The ConfigMap, in a policy's namespace, that says which NICs policies may name (the operator's name): each value is
/// `VENDOR PF-DEVICE-ID [VF-DEVICE-ID]`. Without it those of [`SUPPORTED_NICS_DEFAULT`] are supported.
pub const CONFIG_MAP_SUPPORTED_NICS: &str = "supported-nic-ids";
/// The NICs that policies may name unless a ConfigMap says otherwise: vendor and device id of the physical function.
pub const SUPPORTED_NICS_DEFAULT: [(u16, u16); 3] =
    [(VENDOR_INTEL, 0x158b), (VENDOR_MELLANOX, 0x1015), (VENDOR_MELLANOX, 0x1017)];
/// Intel's PCI vendor id.
pub const VENDOR_INTEL: u16 = 0x8086;
/// Mellanox' PCI vendor id.
pub const VENDOR_MELLANOX: u16 = 0x15b3;
/// The domain of resources of VFs while no DeviceClass of virtual functions says another.
pub const SRIOV_RESOURCE_PREFIX: &str = "ecnf.io";
/// The label of a node whose agent can attach networks to guests (`true`).
pub const LABEL_NETWORKS: &str = "node.bulkhead.io/networks";
/// Lowest priority of a policy, and that of one that names none; 0 is the highest.
pub const SRIOV_PRIORITY_MAX: u32 = 99;
/// Largest MTU of a policy.
pub const SRIOV_MTU_MAX: u32 = 9000;
/// Most VFs of a Mellanox NIC.
pub const MELLANOX_VFS_MAX: u32 = 128;
/// Most VFs of any NIC.
pub const NUM_VFS_MAX: u32 = 1024;
/// Most names, or addresses, of NICs in a policy.
pub const NIC_NAMES_MAX: usize = 64;
/// Highest VLAN id.
pub const VLAN_MAX: u32 = 4095;
/// Highest VLAN priority.
pub const VLAN_QOS_MAX: u32 = 7;
/// Most networks of a pod.
pub const NETWORKS_PER_POD_MAX: usize = 16;
/// Most networks of a cluster.
pub const NETWORKS_MAX: usize = 4096;
/// Most policies of a cluster.
pub const SRIOV_POLICIES_MAX: usize = 256;
/// Most entries of a network's `exclude`.
pub const IPAM_EXCLUDES_MAX: usize = 256;
/// Most entries of a network's `routes`.
pub const IPAM_ROUTES_MAX: usize = 32;
/// Most NICs with VFs of one node, and most groups of VFs of one NIC.
pub const SRIOV_INTERFACES_MAX: usize = 128;
/// Most holders that a node's state names for one NIC.
pub const SRIOV_HOLDERS_MAX: usize = 16;

/// Which driver VFs are bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SriovDeviceType {
    /// The NIC's own: for containers that share the host's kernel (`runc`).
    #[default]
    Netdevice = 1,
    /// `vfio-pci`: for guest VMs (`rune`).
    VfioPci = 2,
}

/// What a NIC speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SriovLinkType {
    /// Ethernet.
    Eth = 1,
    /// InfiniBand.
    Ib = 2,
}

/// Whether a VF's link is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VfLinkState {
    /// As the physical function's.
    #[default]
    Auto = 1,
    /// Always.
    Enable = 2,
    /// Never.
    Disable = 3,
}

/// Which NICs are meant: those that every field that is set means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNicSelector {
    /// PCI vendor id of the physical function.
    pub vendor: Option<Hex16>,
    /// PCI device id of the physical function.
    pub device_id: Option<Hex16>,
    /// Names of NICs, each perhaps with the VFs that are meant: `eno1#0-3`.
    pub pf_names: Vec<SmolStr>,
    /// PCI addresses of physical functions.
    pub root_devices: Vec<SmolStr>,
}

/// A NIC's name with the VFs that are meant, as `pfNames` have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PfName<'a> {
    /// The NIC's name.
    pub name: &'a str,
    /// The first and last VF that is meant; all when unset.
    pub range: Option<(u32, u32)>,
}

impl<'a> PfName<'a> {
    /// Reads `NAME` or `NAME#FIRST-LAST`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no NIC's name: expected NAME or NAME#FIRST-LAST, such as eno1#0-3");
        let (name, range) = match text.split_once('#') {
            None => (text, None),
            Some((name, range)) => (name, Some(range)),
        };
        let is_name = !name.is_empty() && name.len() <= 15 && name.bytes().all(|b| b.is_ascii_graphic());
        if !is_name || name.contains('/') {
            return Err(bad());
        }
        let Some(range) = range else { return Ok(Self { name, range: None }) };
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| is_number)
        };
        let bounds = range.split_once('-').and_then(|(a, b)| number(a).zip(number(b)));
        let (first, last) = bounds.ok_or_else(bad)?;
        if first > last {
            return Err(format!("{text:?}: the first VF is after the last"));
        }
        Ok(Self { name, range: Some((first, last)) })
    }
}

/// What is wanted of nodes' NICs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkNodePolicySpec {
    /// The resource that pods ask for, without its domain; several policies may share one.
    pub resource_name: SmolStr,
    /// Only nodes with all of these labels.
    pub node_selector: StringMap,
    /// 0 to [`SRIOV_PRIORITY_MAX`]: of policies that mean the same VFs that of the smallest number has them.
    pub priority: u32,
    /// 1 to [`SRIOV_MTU_MAX`]; the NIC's own when unset.
    pub mtu: Option<u32>,
    /// How many VFs each NIC shall have.
    pub num_vfs: u32,
    /// Which NICs.
    pub nic_selector: SriovNicSelector,
    /// Which driver the VFs are bound to.
    pub device_type: SriovDeviceType,
    /// RDMA through the VFs; not with `vfio-pci`.
    pub is_rdma: bool,
    /// Only NICs that speak this, when set.
    pub link_type: Option<SriovLinkType>,
}

/// Which virtual functions nodes shall have, and which resource they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkNodePolicy {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: SriovNetworkNodePolicySpec,
}

/// Which addresses a network gives out (whereabouts).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ipam {
    /// The network. Its first and last address are never given out.
    pub range: IpCidr,
    /// The lowest address that is given out; the range's lowest when unset.
    pub range_start: Option<IpAddr>,
    /// The highest address that is given out; the range's highest when unset.
    pub range_end: Option<IpAddr>,
    /// Networks that are never given out of.
    pub exclude: Vec<IpCidr>,
    /// The network's gateway; never given out.
    pub gateway: Option<IpAddr>,
    /// What its pods route by it. Needs [`crate::DEFAULT_ROUTE_LEVEL`].
    #[serde(default)]
    pub routes: Rare<Vec<NetworkRoute>>,
}

/// A route by a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// Where it leads.
    pub destination: IpCidr,
    /// Over which address; in a network the network's own gateway when unset, and straight by the NIC where there is none.
    pub gateway: Option<IpAddr>,
}

/// What a pod's guest routes by a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttachmentRoutes {
    /// Its default routes lead over these, at most one of each family; then no other NIC of the guest has one of that family.
    pub default_gateways: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<NetworkRoute>,
}

/// What a pod may choose for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkCapabilities {
    /// Its addresses.
    pub ips: bool,
    /// Its MAC address.
    pub mac: bool,
}

/// What is wanted of an Ethernet network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkSpec {
    /// The resource whose VFs attach pods, without its domain.
    pub resource_name: SmolStr,
    /// Only pods of this namespace may attach; the network's own when unset.
    pub network_namespace: Option<Name>,
    /// Which addresses are given out; none when unset.
    pub ipam: Option<Ipam>,
    /// Whether the VF's link is up.
    pub link_state: VfLinkState,
    /// What pods may choose.
    pub capabilities: NetworkCapabilities,
    /// VLAN id; 0 is none.
    pub vlan: u32,
    /// VLAN priority.
    pub vlan_qos: u32,
    /// Whether the NIC drops packets of other MAC addresses; the NIC's default when unset.
    pub spoof_chk: Option<bool>,
    /// Whether the VF may change its MAC address and receive everything; the NIC's default when unset.
    pub trust: Option<bool>,
    /// Least rate of sending that is kept for the VF, Mbit/s; not on Intel.
    pub min_tx_rate: Option<u32>,
    /// Highest rate of sending, Mbit/s; 0 is unlimited.
    pub max_tx_rate: Option<u32>,
}

/// An Ethernet network that pods attach by a VF.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetwork {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: SriovNetworkSpec,
}

/// What is wanted of an InfiniBand network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovIBNetworkSpec {
    /// The resource whose VFs attach pods, without its domain.
    pub resource_name: SmolStr,
    /// Only pods of this namespace may attach; the network's own when unset.
    pub network_namespace: Option<Name>,
    /// Which addresses are given out; none when unset.
    pub ipam: Option<Ipam>,
    /// Whether the VF's link is up.
    pub link_state: VfLinkState,
    /// What pods may choose.
    pub capabilities: NetworkCapabilities,
}

impl SriovIBNetworkSpec {
    /// The same with what only Ethernet has left at its default.
    #[must_use]
    pub fn as_network(&self) -> SriovNetworkSpec {
        SriovNetworkSpec {
            resource_name: self.resource_name.clone(),
            network_namespace: self.network_namespace.clone(),
            ipam: self.ipam.clone(),
            link_state: self.link_state,
            capabilities: self.capabilities,
            ..SriovNetworkSpec::default()
        }
    }
}

/// An InfiniBand network that pods attach by a VF.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovIBNetwork {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: SriovIBNetworkSpec,
}

/// VFs of a NIC that are one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovVfGroup {
    /// The resource, without its domain.
    pub resource_name: SmolStr,
    /// The policy that says so.
    pub policy_name: SmolStr,
    /// The first VF.
    pub first: u32,
    /// The last VF.
    pub last: u32,
    /// Which driver they are bound to.
    pub device_type: SriovDeviceType,
    /// RDMA through them.
    pub is_rdma: bool,
    /// Their MTU; the NIC's own when unset.
    pub mtu: Option<u32>,
}

/// What a NIC shall be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovInterface {
    /// The physical function's PCI address.
    pub pci_address: SmolStr,
    /// Its name.
    pub name: SmolStr,
    /// How many VFs it shall have.
    pub num_vfs: u32,
    /// Its MTU; as it is when unset.
    pub mtu: Option<u32>,
    /// What it shall speak; as it does when unset.
    pub link_type: Option<SriovLinkType>,
    /// Which VFs are which resource; at most [`SRIOV_INTERFACES_MAX`], by their first VF.
    pub vf_groups: Vec<SriovVfGroup>,
}

/// What a node's NICs shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkNodeStateSpec {
    /// Changes with the policies that select the node.
    pub dp_config_version: SmolStr,
    /// The NICs that policies mean, by PCI address; at most [`SRIOV_INTERFACES_MAX`].
    pub interfaces: Vec<SriovInterface>,
}

/// What a NIC is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovInterfaceStatus {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device_id: u16,
    /// Its driver; empty for none.
    pub driver: SmolStr,
    /// What it speaks, as far as is known.
    pub link_type: Option<SriovLinkType>,
    /// Its MAC address; empty when unknown.
    pub mac: SmolStr,
    /// Its MTU; 0 when unknown.
    pub mtu: u32,
    /// Its name; empty without a driver.
    pub name: SmolStr,
    /// Its PCI address.
    pub pci_address: SmolStr,
    /// How many VFs it can have.
    pub total_vfs: u32,
    /// How many it has.
    pub num_vfs: u32,
    /// How fast its link is, in Mbit/s, while that is up. Needs [`crate::PCI_FACTS_LEVEL`].
    #[serde(default)]
    pub link_speed_mbps: Rare<u32>,
}

/// Whether a node's NICs are what they shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SriovSyncStatus {
    /// They are.
    #[default]
    Succeeded = 1,
    /// The node's agent has something to do.
    InProgress = 2,
    /// A change waits for pods that have VFs of the NIC.
    Blocked = 3,
    /// They cannot be, or the agent failed.
    Failed = 4,
}

/// A NIC whose change waits for pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovBlock {
    /// The physical function's PCI address.
    pub pci_address: SmolStr,
    /// The pods that have VFs of it, as `NAMESPACE/NAME`; at most [`SRIOV_HOLDERS_MAX`].
    pub holders: Vec<SmolStr>,
}

/// What a node's NICs are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkNodeStateStatus {
    /// The NICs that can have VFs, by PCI address; at most [`SRIOV_INTERFACES_MAX`].
    pub interfaces: Vec<SriovInterfaceStatus>,
    /// Whether they are what they shall be.
    pub sync_status: SriovSyncStatus,
    /// What is done now, such as `Draining`; empty for nothing.
    pub step: SmolStr,
    /// Why they cannot be; empty when nothing is wrong.
    pub last_sync_error: String,
    /// NICs whose change waits for pods: their VFs are given to nobody new.
    pub blocked: Vec<SriovBlock>,
}

impl SriovNetworkNodeStateStatus {
    /// Whether it says how fast links are, which servers below [`crate::PCI_FACTS_LEVEL`] do not know.
    #[must_use]
    pub fn says_link_speed(&self) -> bool {
        self.interfaces.iter().any(|one| one.link_speed_mbps.get().is_some())
    }
}

/// The NICs of one node, by the node's own name. Written by the control plane only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SriovNetworkNodeState {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// Whose NICs they are.
    pub node: ObjectId,
    /// What they shall be. A NIC whose VFs pods have stays what it was.
    pub spec: SriovNetworkNodeStateSpec,
    /// What they are.
    pub status: SriovNetworkNodeStateStatus,
}

impl SriovNetworkNodeState {
    /// Whether a NIC's change waits for pods.
    #[must_use]
    pub fn is_blocked(&self, pci_address: &str) -> bool {
        self.status.blocked.iter().any(|block| block.pci_address == pci_address)
    }
}

/// What an agent says of a physical function that is a NIC, beside what it says of every device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NicFacts {
    /// Its name; empty without a driver.
    pub name: SmolStr,
    /// Its MAC address; empty when unknown.
    pub mac: SmolStr,
    /// Its MTU; 0 when unknown.
    pub mtu: u32,
    /// What it speaks, as far as is known.
    pub link_type: Option<SriovLinkType>,
    /// How many VFs it can have.
    pub total_vfs: u32,
    /// How many it has.
    pub num_vfs: u32,
    /// What the agent does with it now; empty for nothing.
    pub step: SmolStr,
    /// Why the agent could not make it what it shall be; empty when nothing is wrong.
    pub sync_error: SmolStr,
}

/// A network that a pod is attached to, with everything that its agent needs for it. Chosen with the pod's node; it stays
/// what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network, as `NAMESPACE/NAME`.
    pub network: SmolStr,
    /// The NIC's name in the guest, such as `net1`.
    pub interface: SmolStr,
    /// The VF: its device id on the pod's node.
    pub device: SmolStr,
    /// The pod's address there; none when the network gives none out.
    pub address: Option<IpAddr>,
    /// How many bits of the address are the network's.
    pub prefix: u32,
    /// The network's gateway.
    pub gateway: Option<IpAddr>,
    /// The VF's MAC address.
    pub mac: SmolStr,
    /// VLAN id; 0 is none.
    pub vlan: u32,
    /// VLAN priority.
    pub vlan_qos: u32,
    /// Whether the NIC drops packets of other MAC addresses.
    pub spoof_chk: Option<bool>,
    /// Whether the VF may change its MAC address and receive everything.
    pub trust: Option<bool>,
    /// Least rate of sending, Mbit/s.
    pub min_tx_rate: Option<u32>,
    /// Highest rate of sending, Mbit/s.
    pub max_tx_rate: Option<u32>,
    /// Whether the VF's link is up.
    pub link_state: VfLinkState,
    /// What the network speaks.
    pub link_type: SriovLinkType,
    /// The VF's MTU; as it is when unset.
    pub mtu: Option<u32>,
    /// What the guest routes by it. Needs [`crate::DEFAULT_ROUTE_LEVEL`].
    #[serde(default)]
    pub routes: Rare<AttachmentRoutes>,
}

impl NetworkAttachment {
    /// The gateways of the guest's default routes by it.
    #[must_use]
    pub fn default_gateways(&self) -> &[IpAddr] {
        self.routes.get().map_or(&[], |routes| &routes.default_gateways)
    }
}

impl crate::Pod {
    /// The networks that it was attached to with its node.
    #[must_use]
    pub fn networks(&self) -> &[NetworkAttachment] {
        self.status.networks.get().map_or(&[], Vec::as_slice)
    }
}

impl crate::Device {
    /// What is said of it as a NIC that can have VFs.
    #[must_use]
    pub fn nic(&self) -> Option<&NicFacts> {
        self.nic.get().filter(|_| self.parent.is_none())
    }
}

/// Whether a text is a PCI address, `dddd:bb:dd.f`.
#[must_use]
pub fn is_pci_address(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_hexdigit);
    bytes.len() == 12
        && is_hex(0..4)
        && bytes[4] == b':'
        && is_hex(5..7)
        && bytes[7] == b':'
        && is_hex(8..10)
        && bytes[10] == b'.'
        && (b'0'..=b'7').contains(&bytes[11])
}

/// Whether a text is a MAC address of one device: six bytes in hexadecimal digits with colons, not a group's.
#[must_use]
pub fn is_mac_address(text: &str) -> bool {
    let parts: Vec<Option<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
    parts.len() == 6 && parts.iter().all(Option::is_some) && parts[0].is_some_and(|first| first & 1 == 0)
}
