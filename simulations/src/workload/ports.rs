//! Pods that publish ports of their nodes.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, ContainerPort, FEATURE_LEVEL_MAX, HostPort, PORTS_LEVEL, PodSpec, Protocol, Rare, Shared,
};

use crate::rng::Rng;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < PORTS_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Lets the first container of a pod publish a port, of few that there are.
pub(super) fn publish(rng: &mut Rng, spec: &mut Shared<PodSpec>) {
    let ip = rng.pick(&[None, None, Some([10, 0, 0, 1]), Some([10, 0, 0, 2])]).map(|ip| ip.into());
    let host = HostPort { port: *rng.pick(&[80, 443, 8080]), ip };
    let mut published = PodSpec::clone(spec);
    if let Some(container) = published.containers.first_mut() {
        let (protocol, host) = (Protocol::Tcp, Rare::some(host));
        container.ports = vec![ContainerPort { name: None, container_port: 8080, protocol, host }];
    }
    *spec = Shared::new(published);
}
