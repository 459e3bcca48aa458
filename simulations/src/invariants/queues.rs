//! Groups of pods get their nodes as wholes, and queues hold no more than they may.
//!
//! Judged by the slow reference evaluation, which asks every pod and shares nothing with the code that decides.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference::queues::judge;
use bulkhead_types::Transaction;

use super::{Verdict, Violation};

/// Checks the bindings of a transaction.
///
/// # Errors
/// With the group that is bound in part, or the queue that holds too much, is closed or is not there.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    judge(before, after, transaction).map_err(|text| Violation::new("queues", text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use bulkhead_controlplane_core::{Machine, State};
    use bulkhead_types::{
        ANNOTATION_QUEUE_NAME, Binding, Command, Event, EventKind, FEATURE_LEVEL_MAX, LABEL_POD_GROUP,
        LABEL_POD_GROUP_MIN_AVAILABLE, MemberId, Name, Object, ObjectMeta, Pod, PodSpec, PodStatus, Shared,
        Stamped, StringMap,
    };
    use uuid::Uuid;

    /// A State with a pod and a transaction that binds it, whoever decided that.
    fn bound(labels: StringMap, annotations: StringMap) -> (State, State, Transaction) {
        let mut machine = Machine::default();
        let mut apply = |commands: Vec<Command>| {
            machine.apply_stamped(&Stamped {
                request_id: Uuid::nil(),
                actor: "user:test".into(),
                proposed_at_ms: 1,
                trace_context: None,
                preconditions: vec![],
                commands,
            })
        };
        apply(vec![Command::InitCluster {
            cluster_id: Uuid::from_u128(1),
            members: vec![(MemberId(1), "a:1".into())],
        }]);
        apply(vec![Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(2),
            address: "a:1".into(),
            version: "1".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        }]);
        apply(vec![Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX }]);
        let name = |text| Name::new(text).expect("a name");
        let mut meta = ObjectMeta::new(Some(name("default")), name("p"));
        (meta.labels, meta.annotations) = (labels, annotations);
        let spec = Shared::new(PodSpec {
            containers: vec![bulkhead_types::Container {
                name: "c".into(),
                image: "i:1".into(),
                ..Default::default()
            }],
            ..PodSpec::default()
        });
        let pod = Pod { meta, spec, node: None, status: PodStatus::default() };
        let applied = apply(vec![Command::Create(Object::Pod(Arc::new(pod)))]);
        let before = machine.state().clone();
        let pod = before.pods().iter().next().expect("a pod").meta.id;
        let binding = Binding {
            pod,
            node: pod,
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        };
        let event = Event { revision: before.revision() + 1, kind: EventKind::PodBound(binding) };
        let transaction = Transaction { events: vec![event], ..applied.transaction };
        let mut after = before.clone();
        bulkhead_controlplane_core::evolve::evolve(&mut after, &transaction);
        (before, after, transaction)
    }

    fn map(entries: &[(&str, &str)]) -> StringMap {
        entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn check_bound(labels: &[(&str, &str)], annotations: &[(&str, &str)], wrong: Option<&str>) {
        let (before, after, transaction) = bound(map(labels), map(annotations));
        let found = check(&before, &after, &transaction).map_err(|violation| violation.to_string());
        match wrong {
            None => assert_eq!(found, Ok(())),
            Some(text) => assert!(found.as_ref().is_err_and(|found| found.contains(text)), "{found:?}"),
        }
    }

    #[test]
    fn a_group_in_part_and_a_queue_that_is_not_there_are_seen() {
        check_bound(&[], &[], None);
        let labels = [(LABEL_POD_GROUP, "g"), (LABEL_POD_GROUP_MIN_AVAILABLE, "2")];
        check_bound(&labels, &[], Some("pod group g is bound in part"));
        check_bound(&[], &[(ANNOTATION_QUEUE_NAME, "q")], Some("there is no queue q"));
    }
}
