//! The garbage collector takes what nobody wants, and nothing else: objects whose owner is gone, what is in a
//! namespace that ends, and pods that have ended.

use bulkhead_controlplane_core::State;
use bulkhead_types::{EventKind, Kind, Object, ObjectId, Transaction};

use super::{Verdict, Violation};

/// The actor whose deletions are looked at.
const ACTOR: &str = "system:garbage";

/// Checks a transaction against the State just before it.
///
/// # Errors
/// With the first object that is still wanted.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    if transaction.actor != ACTOR {
        return Ok(());
    }
    for event in &transaction.events {
        let (EventKind::ObjectDeleted { kind, id } | EventKind::DeletionRequested { kind, id, .. }) =
            &event.kind
        else {
            continue;
        };
        if let Some(why) = wanted(before, *kind, *id) {
            let text = format!("{kind} {id} is collected, although {why}");
            return Err(Violation::new("garbage", text));
        }
    }
    Ok(())
}

/// Why an object is no garbage, if it is none.
fn wanted(before: &State, kind: Kind, id: ObjectId) -> Option<String> {
    let object = before.object(kind, id)?;
    if let Object::Pod(pod) = &object
        && pod.status.phase.is_terminal()
    {
        return None;
    }
    let meta = object.meta();
    // Somebody asked for it to end; it waited for those that it is copied for.
    if matches!(kind, Kind::PersistentVolumeClaim | Kind::VolumeSnapshot) && meta.is_deleting() {
        return None;
    }
    let namespace = match &object {
        Object::Namespace(_) => Some(meta.name.clone()),
        _ => meta.namespace.clone(),
    };
    let ends = before
        .namespaces()
        .iter()
        .any(|namespace_| Some(&namespace_.meta.name) == namespace.as_ref() && namespace_.meta.is_deleting());
    if ends {
        return None;
    }
    match meta.owner {
        Some(owner) => {
            before.object(owner.kind, owner.id).map(|o| format!("its owner {} lives", o.object_ref()))
        }
        None => Some("it has no owner, and its namespace stays".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Command, Container, Event, Name, ObjectMeta, Pod, PodSpec, PodStatus, Shared, Stamped,
    };
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn a_pod_that_is_wanted_is_not_collected() {
        let name = |text: &str| Name::new(text).expect("a name");
        let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(Some(name("default")), name("p"));
        let pod = Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() }));
        let mut machine = Machine::default();
        for command in [
            Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() },
            Command::Create(pod),
        ] {
            machine.apply_stamped(&Stamped {
                request_id: Uuid::nil(),
                actor: "system:test".into(),
                proposed_at_ms: 5,
                trace_context: None,
                preconditions: Vec::new(),
                commands: vec![command],
            });
        }
        let id = machine.state().pods().iter().next().expect("the pod is there").meta.id;
        let transaction = |actor: &str, id| Transaction {
            request_id: Uuid::nil(),
            actor: actor.into(),
            at_ms: 6,
            trace_context: None,
            outcome: Ok(9),
            events: vec![Event { revision: 9, kind: EventKind::ObjectDeleted { kind: Kind::Pod, id } }],
        };
        assert!(check(machine.state(), &transaction(ACTOR, id)).is_err());
        assert!(check(machine.state(), &transaction("user:a", id)).is_ok());
        assert!(check(machine.state(), &transaction(ACTOR, ObjectId(99))).is_ok(), "it is gone already");
    }
}
