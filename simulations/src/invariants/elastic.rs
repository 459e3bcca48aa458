//! No level of the elastic quota tree gets more than its max. (That nobody is made to end of what is its leaf's own is judged with
//! every preemption.)
//!
//! Judged by the slow reference evaluation, which asks every pod and shares nothing with the code that decides.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference::elastic::judge;
use bulkhead_types::Transaction;

use super::{Verdict, Violation};

/// Checks the bindings of a transaction.
///
/// # Errors
/// With the level that holds too much.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    judge(before, after, transaction).map_err(|text| Violation::new("elastic", text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::invariants::preemption;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Binding, Command, Container, Deletion, ELASTIC_QUOTA_NAMESPACE, ElasticQuota, ElasticQuotaTree,
        ElasticQuotaTreeSpec, Event, EventKind, FEATURE_LEVEL_MAX, Kind, MemberId, Name, Namespace,
        NodeFacts, Object, ObjectId, ObjectMeta, Pod, PodSpec, PodStatus, QuotaAmounts, QuotaResource, Rare,
        ResourceRequirements, Resources, Shared, Stamped,
    };
    use uuid::Uuid;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn apply(machine: &mut Machine, command: Command) -> Transaction {
        let applied = machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "user:test".into(),
            proposed_at_ms: 1,
            trace_context: None,
            preconditions: vec![],
            commands: vec![command],
        });
        let outcome = &applied.transaction.outcome;
        assert!(outcome.is_ok(), "{outcome:?}");
        applied.transaction
    }

    fn namespace(text: &str) -> Command {
        Command::Create(Object::Namespace(Arc::new(Namespace { meta: ObjectMeta::new(None, name(text)) })))
    }

    fn pod(of: &str, named: &str) -> Command {
        let requests = ResourceRequirements { cpu_millis: Some(1000), ..ResourceRequirements::default() };
        let container = Container { name: "c".into(), image: "i:1".into(), requests, ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(Some(name(of)), name(named));
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    }

    fn tree(max: u64, min: [u64; 2]) -> Command {
        let amounts = |cpu: u64| -> QuotaAmounts {
            [(QuotaResource::parse("cpu").expect("a resource"), cpu)].into_iter().collect()
        };
        let leaf = |of: &str, min: u64| ElasticQuota {
            name: of.into(),
            max: amounts(max),
            min: amounts(min),
            children: vec![],
            namespaces: vec![name(of)],
        };
        let root = ElasticQuota {
            name: "root".into(),
            max: amounts(3000),
            min: amounts(3000),
            children: vec![leaf("a", min[0]), leaf("b", min[1])],
            namespaces: vec![],
        };
        let meta = ObjectMeta::new(Some(name(ELASTIC_QUOTA_NAMESPACE)), name("tree"));
        let (spec, status) = (ElasticQuotaTreeSpec { root }, Default::default());
        Command::Create(Object::ElasticQuotaTree(Arc::new(ElasticQuotaTree { meta, spec, status })))
    }

    /// A node, a tree, and a pod in each of its two leaves.
    fn machine(tree: Command) -> Machine {
        let mut machine = Machine::default();
        let cluster_id = Uuid::from_u128(1);
        apply(&mut machine, Command::InitCluster { cluster_id, members: vec![(MemberId(1), "a:1".into())] });
        apply(
            &mut machine,
            Command::RegisterMember {
                member: MemberId(1),
                storage_uid: Uuid::from_u128(2),
                address: "a:1".into(),
                version: "1".into(),
                feature_level_max: FEATURE_LEVEL_MAX,
            },
        );
        apply(&mut machine, Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
        let all = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 40,
            ephemeral_storage_bytes: 1 << 40,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 9, ..NodeFacts::default() };
        apply(&mut machine, Command::RegisterNode { name: name("n"), facts });
        for text in [ELASTIC_QUOTA_NAMESPACE, "a", "b"] {
            apply(&mut machine, namespace(text));
        }
        apply(&mut machine, pod("a", "p"));
        apply(&mut machine, pod("b", "q"));
        apply(&mut machine, tree);
        machine
    }

    fn find(state: &State, named: &str) -> ObjectId {
        state.pods().iter().find(|pod| pod.meta.name.as_str() == named).expect("a pod").meta.id
    }

    /// What somebody decided, whoever that was.
    fn decided(machine: &Machine, kinds: Vec<EventKind>) -> (State, State, Transaction) {
        let before = machine.state().clone();
        let revision = before.revision();
        let events = kinds.into_iter().zip(1..).map(|(kind, more)| Event { revision: revision + more, kind });
        let mut scratch = machine.clone();
        let like = apply(&mut scratch, namespace("any"));
        let transaction = Transaction { events: events.collect(), ..like };
        let mut after = before.clone();
        bulkhead_controlplane_core::evolve::evolve(&mut after, &transaction);
        (before, after, transaction)
    }

    fn bound(machine: &Machine, named: &str) -> EventKind {
        let state = machine.state();
        let node = state.nodes().iter().next().expect("a node").meta.id;
        let pod = find(state, named);
        EventKind::PodBound(Binding {
            pod,
            node,
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Rare::NONE,
        })
    }

    #[test]
    fn a_level_above_its_max_is_seen() {
        for (max, wrong) in [(1000, false), (999, true)] {
            let machine = machine(tree(max, [0, 0]));
            let (before, after, transaction) = decided(&machine, vec![bound(&machine, "p")]);
            let found = check(&before, &after, &transaction).map_err(|violation| violation.to_string());
            assert_eq!(found.is_err(), wrong, "{found:?}");
            assert!(!wrong || found.is_err_and(|text| text.contains("level a holds 1000")));
        }
    }

    #[test]
    fn who_ends_without_having_borrowed_is_seen() {
        for (min, wrong) in [([0, 1000], false), ([1000, 1000], true), ([500, 1000], true), ([0, 0], true)] {
            let mut machine = machine(tree(3000, min));
            let node = machine.state().nodes().iter().next().expect("a node").meta.id;
            let EventKind::PodBound(binding) = bound(&machine, "p") else { unreachable!() };
            apply(&mut machine, Command::BindPods { bindings: vec![binding] });
            let (victim, pod) = (find(machine.state(), "p"), find(machine.state(), "q"));
            let present = machine.state().pods().get(pod).expect("it waits").status.clone();
            let status = PodStatus { nominated_node: Rare::some(node), ..present };
            let deletion = Deletion { requested_at_ms: 1, grace_ms: 0, by_job: false, preemptor: Some(pod) };
            let reason = "Preempted".into();
            let (before, _, transaction) = decided(
                &machine,
                vec![
                    EventKind::PodStatusChanged { id: pod, status },
                    EventKind::DeletionRequested { kind: Kind::Pod, id: victim, deletion, reason },
                ],
            );
            let found = preemption::check(&before, &transaction);
            assert_eq!(found.is_err(), wrong, "{min:?}: {found:?}");
        }
    }
}
