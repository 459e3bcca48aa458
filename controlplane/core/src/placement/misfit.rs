//! Reasons against a node, in Kubernetes' words where it has them.

use bulkhead_types::{HugePageSize, Name, Taint};
use smol_str::SmolStr;

/// Why a node cannot take a pod. The order is that in which they are looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// Its lease ran out, or it is fenced.
    NotReady,
    /// It is being deleted.
    Deleting,
    /// It is cordoned.
    Unschedulable,
    /// The pod asks for another node by name.
    NodeName,
    /// It does not match the pod's node selector or required node affinity.
    NodeAffinity,
    /// It has a taint that the pod does not tolerate.
    Taint(Taint),
    /// A volume of the pod is on another node.
    Volume {
        /// The claim.
        claim: Name,
        /// That node.
        node: SmolStr,
    },
    /// The pod has claims, and the node's agent keeps no volumes.
    NoVolumes,
    /// Its pods use as many claims as they may.
    TooManyVolumes,
    /// It has as many pods as it may.
    TooManyPods,
    /// Not enough processor time is free.
    InsufficientCpu,
    /// Not enough memory is free.
    InsufficientMemory,
    /// Too little memory that its guest could have pinned.
    InsufficientPinnedMemory,
    /// Too few huge pages of a size.
    InsufficientHugePages(HugePageSize),
    /// Not enough disk is free.
    InsufficientEphemeralStorage,
    /// Not enough devices are free that the pod asks for by this name.
    InsufficientDevice(SmolStr),
    /// It has devices that are enough, and not of those that the pod's annotations choose.
    DeviceChoice,
    /// It has the devices, and its agent cannot attach them to guests.
    NoDevices,
    /// It has the virtual functions, and its agent cannot attach networks to guests.
    NoNetworks,
    /// The pod publishes ports, and the node's agent cannot.
    NoHostPorts,
    /// Another pod there has a port that the pod publishes.
    HostPorts,
    /// It does not report its CPUs, of which the pod wants some for itself.
    NoCpuTopology,
    /// Its topology manager has another policy than the pod wants.
    NumaPolicy,
    /// Not so many CPUs are free for one pod, or not where its NUMA policy wants them with its devices and memory.
    NumaTopology,
    /// A pod more would be too many in its domain, beside the others.
    TopologySpread,
    /// It lacks the label by which the pod is to be spread.
    TopologySpreadLabel,
    /// No pod that the pod must be near is in its domain.
    PodAffinity,
    /// A pod that the pod must be away from is in its domain.
    PodAntiAffinity,
    /// A pod that must be away from this one is in its domain.
    ExistingPodAntiAffinity,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotReady => "node(s) not ready",
            Self::Deleting => "node(s) being deleted",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Taint(taint) => {
                return write!(f, "node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value);
            }
            Self::Volume { claim, node } => {
                return write!(
                    f,
                    "node(s) didn't have PersistentVolumeClaim {claim}, which is on node {node}"
                );
            }
            Self::NoVolumes => "node(s) keep no volumes",
            Self::TooManyVolumes => "node(s) exceed max volume count",
            Self::TooManyPods => "Too many pods",
            Self::InsufficientCpu => "Insufficient cpu",
            Self::InsufficientMemory => "Insufficient memory",
            Self::InsufficientPinnedMemory => "Insufficient memory to pin for a guest with devices",
            Self::InsufficientHugePages(size) => return write!(f, "Insufficient {}", size.resource()),
            Self::InsufficientEphemeralStorage => "Insufficient ephemeral-storage",
            Self::InsufficientDevice(resource) => return write!(f, "Insufficient {resource}"),
            Self::DeviceChoice => {
                "node(s) didn't have free devices of those that the pod's annotations choose"
            }
            Self::NoDevices => "node(s) cannot attach devices",
            Self::NoNetworks => "node(s) cannot attach networks",
            Self::NoHostPorts => "node(s) cannot publish ports",
            Self::HostPorts => "node(s) didn't have free ports for the requested pod ports",
            Self::NoCpuTopology => "node(s) report no CPU topology",
            Self::NumaPolicy => "node(s) didn't match the pod's NUMA topology policy",
            Self::NumaTopology => "node(s) didn't have CPUs to pin that fit the pod's NUMA topology policy",
            Self::TopologySpread => "node(s) didn't match pod topology spread constraints",
            Self::TopologySpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::PodAffinity => "node(s) didn't match pod affinity rules",
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingPodAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
        })
    }
}
