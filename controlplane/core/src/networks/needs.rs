//! Which networks a pod needs, by its annotation, its resources and what there is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_types::{
    ANNOTATION_ENABLE_SRIOV, ANNOTATION_NETWORKS, DEFAULT_ROUTE_LEVEL, Ipam, NETWORKS_LEVEL, Name,
    NetworkSelection, Pod, PodSpec, SRIOV_RESOURCE_PREFIX, SriovDeviceType, SriovLinkType,
    SriovNetworkNodePolicy, SriovNetworkSpec, StringMap, VENDOR_INTEL, parse_network_selections,
};
use smol_str::SmolStr;

use super::index::{label, network};
use crate::State;

/// One network that a pod is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkNeed {
    /// `NAMESPACE/NAME`.
    pub(crate) network: SmolStr,
    pub(crate) interface: SmolStr,
    pub(crate) mac: Option<SmolStr>,
    /// Gateways of the guest's default routes.
    pub(crate) default_route: Vec<IpAddr>,
    pub(crate) link_type: SriovLinkType,
    pub(crate) spec: SriovNetworkSpec,
    /// Resources whose devices are VFs for it, with their domains.
    pub(crate) resources: Vec<SmolStr>,
}

impl NetworkNeed {
    pub(crate) fn ipam(&self) -> Option<&Ipam> {
        self.spec.ipam.as_ref()
    }
}

/// Why a pod cannot have its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Something is not there yet.
    Waits(String),
    /// It asks for what can never be.
    Broken {
        /// The annotation, or the field of the spec.
        field: String,
        reason: String,
        remedy: String,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waits(reason) => f.write_str(reason),
            Self::Broken { field, reason, remedy } => write!(f, "{field} {reason}: {remedy}"),
        }
    }
}

fn of_annotation(key: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Problem {
    let field = format!("metadata.annotations[{key}]");
    Problem::Broken { field, reason: reason.into(), remedy: remedy.into() }
}

/// The networks of a pod, in the order of its annotation; none for nearly all pods, which costs a look at their resources.
///
/// # Errors
/// Why it cannot have them, or not yet.
pub(crate) fn needs(state: &State, pod: &Pod) -> Result<Vec<NetworkNeed>, Problem> {
    if !pod.spec.asks_for_devices() {
        return Ok(Vec::new());
    }
    let Some(namespace) = &pod.meta.namespace else { return Ok(Vec::new()) };
    needs_of(state, namespace, &pod.meta.annotations, &pod.spec)
}

/// The same of a pod, or of a template's pods, whatever they ask for.
pub(crate) fn needs_of(
    state: &State,
    namespace: &Name,
    annotations: &StringMap,
    spec: &PodSpec,
) -> Result<Vec<NetworkNeed>, Problem> {
    let Some(text) = annotations.get(ANNOTATION_NETWORKS) else { return Ok(Vec::new()) };
    if state.feature_level() < NETWORKS_LEVEL {
        return Ok(Vec::new());
    }
    let selections = parse_network_selections(text).map_err(|reason| {
        of_annotation(ANNOTATION_NETWORKS, reason, "write NAMESPACE/NETWORK, with commas between several")
    })?;
    if selections.is_empty() {
        return Ok(Vec::new());
    }
    if state.feature_level() < DEFAULT_ROUTE_LEVEL
        && selections.iter().any(|one| !one.default_route.is_empty())
    {
        let reason = format!("asks for a default-route, which needs feature level {DEFAULT_ROUTE_LEVEL}");
        let remedy = "leave it out, or raise the cluster's level once every server knows it";
        return Err(of_annotation(ANNOTATION_NETWORKS, reason, remedy));
    }
    check_alone(namespace, annotations, &selections)?;
    let found: Vec<NetworkNeed> =
        selections.iter().map(|selection| need(state, namespace, selection)).collect::<Result<_, _>>()?;
    check_resources(&found, spec)?;
    found.iter().try_for_each(|need| check_policies(state, need))?;
    Ok(found)
}

/// What a pod says must hold whatever there is.
fn check_alone(
    namespace: &Name,
    annotations: &StringMap,
    selections: &[NetworkSelection],
) -> Result<(), Problem> {
    let foreign =
        selections.iter().find_map(|one| one.namespace.as_ref().filter(|other| *other != namespace));
    if let Some(other) = foreign {
        let reason = format!("names a network of namespace {other}, whose pods alone may attach");
        let remedy = format!("name a network whose networkNamespace is {namespace}");
        return Err(of_annotation(ANNOTATION_NETWORKS, reason, remedy));
    }
    if annotations.get(ANNOTATION_ENABLE_SRIOV).is_none_or(|value| value != "true") {
        let reason = "must be \"true\" for a pod of runtimeClassName rune that attaches networks";
        return Err(of_annotation(ANNOTATION_ENABLE_SRIOV, reason, "set it to \"true\", in quotes"));
    }
    Ok(())
}

fn need(state: &State, namespace: &Name, selection: &NetworkSelection) -> Result<NetworkNeed, Problem> {
    let found = label(namespace, &selection.name);
    let Some(network) = network(state, namespace, &selection.name) else {
        return Err(Problem::Waits(format!(
            "network {found} does not exist: create a SriovNetwork or SriovIBNetwork {} whose networkNamespace is {namespace}",
            selection.name
        )));
    };
    if selection.mac.is_some() && !network.spec.capabilities.mac {
        let reason = format!("asks for a MAC address, which network {found} does not allow");
        let remedy = "leave it out, or give the network capabilities '{\"mac\": true}'";
        return Err(of_annotation(ANNOTATION_NETWORKS, reason, remedy));
    }
    let prefixes = state.devices.classes.prefixes();
    let resources = prefixes.map(|prefix| full_name(prefix, &network.spec.resource_name)).collect();
    Ok(NetworkNeed {
        network: found,
        interface: selection.interface.clone(),
        mac: selection.mac.clone(),
        default_route: selection.default_route.clone(),
        link_type: network.link_type,
        spec: network.spec.into_owned(),
        resources,
    })
}

/// The resource that pods ask for.
pub(crate) fn full_name(prefix: &str, resource_name: &str) -> SmolStr {
    SmolStr::new(format!("{prefix}/{resource_name}"))
}

/// A VF for each network: as many of its resource as there are networks with it.
fn check_resources(needs: &[NetworkNeed], spec: &PodSpec) -> Result<(), Problem> {
    let mut wanted = BTreeMap::<&SmolStr, (u64, &NetworkNeed)>::new();
    for need in needs {
        wanted.entry(&need.spec.resource_name).or_insert((0, need)).0 += 1;
    }
    for (count, need) in wanted.values() {
        let asked: u64 = (spec.containers.iter().flat_map(bulkhead_types::Container::extended_resources))
            .filter(|(name, _)| need.resources.contains(name))
            .map(|(_, amount)| amount)
            .sum();
        if asked == *count {
            continue;
        }
        let default = || full_name(SRIOV_RESOURCE_PREFIX, &need.spec.resource_name);
        let resource = need.resources.first().cloned().unwrap_or_else(default);
        return Err(Problem::Broken {
            field: format!("spec.containers[0].resources.limits[{resource}]"),
            reason: format!("is {asked}, but {count} networks are attached by it, such as {}", need.network),
            remedy: format!(
                "ask for {count} in requests and limits: the pod's, the network's and the policy's resource must be the same"
            ),
        });
    }
    Ok(())
}

/// Some policy offers VFs for guests under the network's resource, of NICs that can do what the network wants.
fn check_policies(state: &State, need: &NetworkNeed) -> Result<(), Problem> {
    let resource = &need.spec.resource_name;
    let policies =
        || state.sriov_network_node_policies.iter().filter(|policy| policy.spec.resource_name == *resource);
    let waits = |reason: String| Err(Problem::Waits(format!("network {}: {reason}", need.network)));
    let is_for_guests = |policy: &&std::sync::Arc<SriovNetworkNodePolicy>| {
        policy.spec.device_type == SriovDeviceType::VfioPci
    };
    if policies().next().is_none() {
        return waits(format!("no SriovNetworkNodePolicy has resourceName {resource}: create one"));
    }
    if !policies().any(|policy| is_for_guests(&policy)) {
        return waits(format!(
            "no SriovNetworkNodePolicy of resourceName {resource} has deviceType vfio-pci, which pods of runtimeClassName rune need"
        ));
    }
    let is_intel = |policy: &std::sync::Arc<SriovNetworkNodePolicy>| {
        policy.spec.nic_selector.vendor.is_some_and(|vendor| vendor.0 == VENDOR_INTEL)
    };
    let has_least = need.spec.min_tx_rate.is_some_and(|rate| rate > 0);
    if has_least && policies().filter(is_for_guests).all(is_intel) {
        return waits(
            "minTxRate is not supported by NICs of vendor 8086: take it away, or offer other NICs".into(),
        );
    }
    Ok(())
}
