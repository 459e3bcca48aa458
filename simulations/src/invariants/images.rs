//! What is known of the images of nodes is what their agents have, once the faults are over; and never more than is told.

use bulkhead_controlplane_core::State;
use bulkhead_types::{IMAGES_LEVEL, NodeImages, ObjectId};

use super::{Verdict, ensure};

/// Checks what is known at the end against what nodes have; nothing of a node that is lost.
///
/// # Errors
/// With the first node of which something else is known.
pub fn check(state: &State, has: &[(ObjectId, NodeImages)], lost: Option<ObjectId>) -> Verdict {
    if state.feature_level() < IMAGES_LEVEL {
        return Ok(());
    }
    has.iter().filter(|(id, _)| Some(*id) != lost).try_for_each(|(id, has)| {
        let Some(node) = state.nodes().get(*id) else { return Ok(()) };
        let known = node.status.images.get().cloned().unwrap_or_default();
        ensure(known == *has && known.check().is_ok(), "images", || {
            format!("node {} has images {has:?}, and is known to have {known:?}", node.meta.name)
        })
    })
}

#[cfg(test)]
mod tests {
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Command, FEATURE_LEVEL_MAX, MemberId, Name, NodeFacts, NodeImage, Resources, Stamped,
    };
    use uuid::Uuid;

    use super::*;

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

    #[test]
    fn images_that_are_not_known_are_noticed() {
        let mut machine = Machine::default();
        let members = vec![(MemberId(1), "a:1".into())];
        apply(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(1), members });
        let member = Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(2),
            address: "a:1".into(),
            version: "0".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        };
        apply(&mut machine, member);
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        apply(&mut machine, Command::RegisterNode { name: Name::new("n").expect("a name"), facts });
        let node = machine.state().nodes().iter().next().expect("the node").meta.id;
        let image = NodeImage { digest: "sha256:0".into(), names: vec!["web:1".into()], size_bytes: 5 };
        let (images, none) = (NodeImages { images: vec![image] }, NodeImages::default());
        let check = |machine: &Machine, has: &NodeImages, lost, is_good: bool| {
            assert_eq!(check(machine.state(), &[(node, has.clone())], lost).is_ok(), is_good, "{has:?}");
        };
        check(&machine, &images, None, true);
        apply(&mut machine, Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
        check(&machine, &none, None, true);
        check(&machine, &images, None, false);
        check(&machine, &images, Some(node), true);
        apply(&mut machine, Command::ReportImages { node, incarnation: 1, images: images.clone() });
        check(&machine, &images, None, true);
        check(&machine, &none, None, false);
    }
}
