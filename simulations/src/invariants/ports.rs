//! No port of a node is published by two pods, and none where the node's agent cannot.
//!
//! Judged from pods and nodes alone, without the ledger of the control plane.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference;
use bulkhead_types::{Binding, EventKind, Transaction};

use super::{Verdict, Violation};

/// Checks the bindings of a transaction against the State before it, one after the other.
///
/// # Errors
/// With the first that must not be.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    let mut earlier: Vec<Binding> = Vec::new();
    for event in &transaction.events {
        let EventKind::PodBound(binding) = &event.kind else { continue };
        reference::ports::check(before, binding, &earlier).map_err(|reason| {
            Violation::new(
                "ports",
                format!("pod {} is bound to node {}: {reason}", binding.pod, binding.node),
            )
        })?;
        earlier.push(binding.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Command, Container, ContainerPort, Event, FEATURE_LEVEL_MAX, HostPort, LABEL_HOST_PORTS, MemberId,
        Name, NodeFacts, Object, ObjectMeta, Pod, PodSpec, PodStatus, Protocol, Rare, Resources, Shared,
        Stamped, StringMap,
    };
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn apply(machine: &mut Machine, commands: Vec<Command>) -> Transaction {
        let applied = machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands,
        });
        assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
        applied.transaction
    }

    fn pod(text: &str, port: u16) -> Command {
        let host = Rare::some(HostPort { port, ip: None });
        let port = ContainerPort { name: None, container_port: 80, protocol: Protocol::Tcp, host };
        let container =
            Container { name: "c".into(), image: "i:1".into(), ports: vec![port], ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(Some(name("default")), name(text));
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    }

    fn register(text: &str, can: &'static str) -> Command {
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let labels = StringMap::from([(LABEL_HOST_PORTS.into(), can.into())]);
        let facts =
            NodeFacts { capacity: room, allocatable: room, pods_max: 9, labels, ..NodeFacts::default() };
        Command::RegisterNode { name: name(text), facts }
    }

    #[test]
    fn a_port_with_two_holders_and_one_that_nobody_publishes_are_noticed() {
        let mut machine = Machine::default();
        let members = vec![(MemberId(1), "a:1".into())];
        apply(&mut machine, vec![Command::InitCluster { cluster_id: Uuid::from_u128(1), members }]);
        let member = Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(2),
            address: "a:1".into(),
            version: "0".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        };
        apply(&mut machine, vec![member]);
        apply(&mut machine, vec![Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX }]);
        apply(&mut machine, vec![register("can", "true"), register("cannot", "false")]);
        apply(&mut machine, vec![pod("a", 80), pod("b", 80), pod("c", 81)]);
        let nodes: Vec<_> = machine.state().nodes().iter().map(|node| node.meta.id).collect();
        let pods: Vec<_> = machine.state().pods().iter().map(|pod| pod.meta.id).collect();
        let binding = |pod: usize, node: usize| Binding {
            pod: pods[pod],
            node: nodes[node],
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        };
        let wanted = vec![binding(0, 0), binding(1, 0), binding(2, 0), binding(1, 1)];
        let before = machine.state().clone();
        let good = apply(&mut machine, vec![Command::BindPods { bindings: wanted }]);
        let bound = |event: &&Event| matches!(event.kind, EventKind::PodBound(_));
        assert_eq!(good.events.iter().filter(bound).count(), 2, "decide passes over the others");
        assert_eq!(check(&before, &good), Ok(()));
        let event = |binding: Binding| Event { revision: 9, kind: EventKind::PodBound(binding) };
        let bad = |bindings: Vec<Binding>| Transaction {
            events: bindings.into_iter().map(event).collect(),
            ..good.clone()
        };
        assert!(check(&before, &bad(vec![binding(0, 0), binding(1, 0)])).is_err(), "two in one command");
        assert!(check(machine.state(), &bad(vec![binding(1, 0)])).is_err(), "one after the other");
        assert!(check(&before, &bad(vec![binding(0, 1)])).is_err(), "where nobody publishes");
    }
}
