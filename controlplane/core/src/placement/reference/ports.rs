//! Whether a pod may publish its ports where it is bound, asked of every pod: slow, obvious, and without any of the code that
//! keeps the ledger.

use std::net::IpAddr;

use bulkhead_types::{Binding, Container, LABEL_HOST_PORTS, Pod, Protocol};

use crate::State;

/// Judges a binding against the State before it and the bindings of the same transaction before it.
///
/// # Errors
/// What is wrong with it.
pub fn check(state: &State, binding: &Binding, earlier: &[Binding]) -> Result<(), String> {
    let (Some(pod), Some(node)) = (state.pods().get(binding.pod), state.nodes().get(binding.node)) else {
        return Ok(());
    };
    if published(pod).is_empty() {
        return Ok(());
    }
    if node.status.facts.labels.get(LABEL_HOST_PORTS).is_none_or(|value| value != "true") {
        return Err("its node's agent cannot publish ports".to_owned());
    }
    let is_there = |other: &&std::sync::Arc<Pod>| {
        let is_new = earlier.iter().any(|one| one.pod == other.meta.id && one.node == binding.node);
        other.meta.id != pod.meta.id
            && (other.node == Some(binding.node) || is_new)
            && !other.status.phase.is_terminal()
    };
    match state.pods().iter().filter(is_there).find(|other| conflict(pod, other)) {
        Some(other) => Err(format!("pod {} publishes one of its ports there", other.meta.name)),
        None => Ok(()),
    }
}

/// Whether two pods cannot be on one node because of their ports.
#[must_use]
pub fn conflict(a: &Pod, b: &Pod) -> bool {
    let theirs = published(b);
    let meets = |a: &Option<IpAddr>, b: &Option<IpAddr>| match (a, b) {
        (Some(a), Some(b)) => a == b,
        // One of them is on all addresses.
        _ => true,
    };
    published(a).iter().any(|(protocol, port, ip)| {
        theirs.iter().any(|(p, n, other)| (p, n) == (protocol, port) && meets(ip, other))
    })
}

fn published(pod: &Pod) -> Vec<(Protocol, u16, Option<IpAddr>)> {
    let containers: Vec<&Container> = pod.spec.containers.iter().chain(&pod.spec.init_containers).collect();
    let ports = containers.into_iter().flat_map(|container| &container.ports);
    let published = ports.filter_map(|port| {
        let host = port.host.get()?;
        Some((port.protocol, host.port, host.ip.filter(|ip| !ip.is_unspecified())))
    });
    published.collect()
}
