//! Where a pod is reached: the address of its guest on its node's network, and its node's own.
//!
//! Source: `podIP`, `podIPs`, `hostIP` and `hostIPs` of "PodStatus v1 core" in the Kubernetes API reference.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The label of a node whose guests have a network (`true`): see [`crate::NodeFacts::connects_pods`].
pub const LABEL_POD_NETWORK: &str = "node.bulkhead.io/pod-network";
/// Most addresses of a pod: one of each family.
pub const POD_IPS_MAX: usize = 2;

/// Where a pod is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodAddresses {
    /// The pod's own, the first of which is `podIP`; at most [`POD_IPS_MAX`].
    pub pod_ips: Vec<IpAddr>,
    /// Its node's.
    pub host_ip: Option<IpAddr>,
}

/// What stands for the pod's address in a value that is resolved before the address is known: the node's agent puts that in
/// its place. No other value holds a NUL.
pub const POD_IP_PLACE: &str = "\0status.podIP\0";
/// The same for the node's address.
pub const HOST_IP_PLACE: &str = "\0status.hostIP\0";
