//! At the moment of each binding other pods let the pod be there: affinity, anti-affinity from both sides, and spreading,
//! and its own node affinity holds.
//!
//! Judged by the slow reference evaluation, which asks every pod and every node and shares nothing with the code that places.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference::Scene;
use bulkhead_types::{EventKind, ObjectId, Transaction};

use super::{Verdict, Violation};

/// Checks the bindings of a transaction against the State before it, one after the other.
///
/// # Errors
/// With the first that breaks a rule.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    let says = |id: ObjectId| before.pods().get(id).is_some_and(|pod| pod.spec.placement().is_some());
    let mut bound: Vec<(ObjectId, ObjectId)> = Vec::new();
    for event in &transaction.events {
        let EventKind::PodBound(binding) = &event.kind else { continue };
        let (pod, node) = (before.pods().get(binding.pod), before.nodes().get(binding.node));
        let (Some(pod), Some(node)) = (pod, node) else { continue };
        let broken = |text: String| {
            let text = format!("pod {} is bound to node {}: {text}", pod.meta.name, node.meta.name);
            Err(Violation::new("placement", text))
        };
        if pod.spec.node_affinity().is_some_and(|affinity| !affinity.allows(node)) {
            return broken("its node affinity rules that out".to_owned());
        }
        // Most clusters have no pod that says anything; then there is nothing to ask.
        let matters = says(binding.pod) || before.pods().iter().any(|pod| says(pod.meta.id));
        if matters && let Err(misfit) = Scene::of(before, &bound).check(pod, node) {
            return broken(misfit.to_string());
        }
        bound.push((binding.pod, binding.node));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Binding, Command, Container, Event, FEATURE_LEVEL_MAX, LabelSelector, MemberId, Name, NodeFacts,
        Object, ObjectMeta, Pod, PodAffinity, PodAffinityTerm, PodOptions, PodPlacement, PodSpec, PodStatus,
        Rare, Resources, Shared, Stamped, StringMap,
    };
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn apply(machine: &mut Machine, command: Command) -> Transaction {
        let applied = machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        });
        assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
        applied.transaction
    }

    /// A pod that wants no other of its app on its node.
    fn pod(text: &str) -> Command {
        let app = StringMap::from([("app".into(), "web".into())]);
        let term = PodAffinityTerm {
            label_selector: Some(LabelSelector::from_labels(app.clone())),
            topology_key: "kubernetes.io/hostname".into(),
            ..PodAffinityTerm::default()
        };
        let affinity = PodAffinity { required: vec![term], preferred: Vec::new() };
        let placement = PodPlacement { pod_anti_affinity: Rare::some(affinity), ..PodPlacement::default() };
        let options = PodOptions { placement: Rare::some(placement), ..PodOptions::default() };
        let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
        let spec =
            PodSpec { containers: vec![container], options: Rare::some(options), ..PodSpec::default() };
        let spec = Shared::new(spec);
        let mut meta = ObjectMeta::new(Some(name("default")), name(text));
        meta.labels = app;
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    }

    #[test]
    fn a_pod_where_another_does_not_want_it_is_noticed() {
        let mut machine = Machine::default();
        let members = vec![(MemberId(1), "a:1".into())];
        apply(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(1), members });
        apply(
            &mut machine,
            Command::RegisterMember {
                member: MemberId(1),
                storage_uid: Uuid::from_u128(2),
                address: "a:1".into(),
                version: "0".into(),
                feature_level_max: FEATURE_LEVEL_MAX,
            },
        );
        apply(&mut machine, Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        apply(&mut machine, Command::RegisterNode { name: name("n"), facts });
        apply(&mut machine, pod("a"));
        apply(&mut machine, pod("b"));
        let node = machine.state().nodes().iter().next().expect("the node").meta.id;
        let bindings: Vec<_> = machine
            .state()
            .pods()
            .iter()
            .map(|pod| Binding {
                pod: pod.meta.id,
                node,
                nodes_considered: 1,
                score: 0,
                devices: vec![],
                networks: vec![],
                cpus: Default::default(),
            })
            .collect();
        let before = machine.state().clone();
        let good = apply(&mut machine, Command::BindPods { bindings: bindings.clone() });
        assert!(check(&before, &good).is_ok(), "decide passes over the second");
        let event = |binding: &Binding| Event { revision: 9, kind: EventKind::PodBound(binding.clone()) };
        let both = Transaction { events: bindings.iter().map(event).collect(), ..good.clone() };
        assert!(check(&before, &both).is_err(), "two in one command");
        let second = Transaction { events: vec![event(&bindings[1])], ..good };
        assert!(check(machine.state(), &second).is_err(), "one after the other");
    }
}
