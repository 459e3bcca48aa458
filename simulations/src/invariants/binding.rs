//! A pod is bound where it may run at that very moment: to a node that is ready, not cordoned, and has the room.
//!
//! The scheduler chose the node a little earlier; whether the choice still holds is `decide`'s to say. Judged from
//! the objects alone, without the code that places.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Binding, NodePhase, Resources};
use smol_str::SmolStr;

use super::{Verdict, Violation};

/// Checks a binding against the State just before its transaction, and the one just after.
///
/// # Errors
/// When the pod must not be bound there.
pub fn check(before: &State, after: &State, binding: &Binding) -> Verdict {
    let violation = |text: &str| {
        let text = format!("pod {} is bound to node {}: {text}", binding.pod, binding.node);
        Err(Violation::new("binding", text))
    };
    let Some(pod) = before.pods().get(binding.pod) else { return violation("the pod is not there") };
    let Some(node) = before.nodes().get(binding.node) else { return violation("the node is not there") };
    if pod.node.is_some() {
        return violation("the pod has a node already");
    }
    if pod.meta.is_deleting() || pod.status.phase.is_terminal() {
        return violation("the pod is about to end, or has ended");
    }
    if node.status.phase != NodePhase::Ready || node.meta.is_deleting() {
        return violation("the node is not ready");
    }
    let bears = |key: &SmolStr| key.is_empty() || key == "node.kubernetes.io/unschedulable";
    if node.spec.unschedulable && !pod.spec.tolerations.iter().any(|toleration| bears(&toleration.key)) {
        return violation("the node is cordoned");
    }
    let living = || after.pods_on(binding.node).filter(|pod| !pod.status.phase.is_terminal());
    let held = living().map(|pod| pod.spec.scheduling_request()).fold(Resources::ZERO, Resources::plus);
    let facts = &node.status.facts;
    if !held.fits_in(facts.allocatable) || living().count() > facts.pods_max as usize {
        return violation("the node has no room for it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Command, Container, Kind, Name, NodeFacts, Object, ObjectMeta, ObjectRef, Pod, PodSpec, PodStatus,
        ResourceRequirements, Shared, Stamped,
    };
    use std::sync::Arc;
    use uuid::Uuid;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn apply(machine: &mut Machine, command: Command) {
        let applied = machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        });
        assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
    }

    fn pod(text: &str) -> Command {
        let requests = ResourceRequirements { cpu_millis: Some(600), ..ResourceRequirements::default() };
        let container = Container { name: "c".into(), image: "i:1".into(), requests, ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(Some(name("default")), name(text));
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    }

    #[test]
    fn pods_where_they_must_not_be_are_noticed() {
        let mut machine = Machine::default();
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        apply(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() });
        apply(&mut machine, Command::RegisterNode { name: name("n"), facts });
        apply(&mut machine, pod("a"));
        apply(&mut machine, pod("b"));
        let find = |kind, namespace: Option<&str>, text: &str| {
            let reference = ObjectRef { kind, namespace: namespace.map(name), name: name(text) };
            machine.state().find_object(&reference).expect("it is there").meta().id
        };
        let node = find(Kind::Node, None, "n");
        let [a, b] = ["a", "b"].map(|text| {
            let pod = find(Kind::Pod, Some("default"), text);
            Binding {
                pod,
                node,
                nodes_considered: 1,
                score: 0,
                devices: vec![],
                networks: vec![],
                cpus: Default::default(),
            }
        });
        let before = machine.state().clone();
        apply(&mut machine, Command::BindPods { bindings: vec![a.clone()] });
        let after = machine.state().clone();
        assert!(check(&before, &after, &a).is_ok());
        assert!(check(&after, &after, &a).is_err(), "it is bound");
        assert!(check(&State::default(), &after, &a).is_err(), "nothing is there");
        apply(&mut machine, Command::SetUnschedulable { node: name("n"), unschedulable: true });
        assert!(check(machine.state(), &after, &b).is_err(), "the node is cordoned");
    }
}
