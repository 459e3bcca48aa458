//! A volume has one writer, or readers that are told apart from writers rightly, and never both; what is copied is not written to; what was made is never made anew, and never deleted while
//! anything needs it; nothing shrinks.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ClaimIntent, ClaimSourceKind, EventKind, Object, ObjectId, ObjectStatus, PodIntent, Transaction,
    VolumeOrder, VolumeTask,
};
use uuid::Uuid;

use super::{Verdict, Violation, ensure};

/// What is on a node's disk, and who has it.
#[derive(Clone, Debug)]
pub struct Disks<'a> {
    /// The sizes of volumes and snapshots, by what their files are named by.
    pub sizes: &'a BTreeMap<Uuid, u64>,
    /// What living guests have for themselves.
    pub held: BTreeSet<Uuid>,
    /// What living guests read, beside others.
    pub read: BTreeSet<Uuid>,
    /// With what something is being done.
    pub busy: BTreeSet<Uuid>,
}

fn violation(text: String) -> Verdict {
    Err(Violation::new("volumes", text))
}

/// Checks that what a pod only reads is what it cannot want to write: that would be lost.
///
/// # Errors
/// When it may write, by what it and the claim say.
pub fn reads(state: &State, pod: &PodIntent) -> Verdict {
    for claim in pod.claims.iter().filter(|claim| claim.read_only) {
        let name = &claim.claim_name;
        let written = pod.spec.written_claims().any(|written| written == name);
        // A claim that is gone, or another one by now, says nothing of this one.
        let found = state.claim(Some(&pod.namespace), name).filter(|found| found.status.volume == claim.uid);
        let Some(mode) = found.map(|found| found.spec.access_mode) else { continue };
        ensure(mode.may_share() && !(written && mode.may_write()), "volumes", || {
            format!("pod {} only reads claim {name}, to which it may write", pod.name)
        })?;
    }
    Ok(())
}

/// Checks the start of a guest with these volumes.
///
/// # Errors
/// When it must not have one of them now.
pub fn starts(pod: ObjectId, claims: &[ClaimIntent], disks: &Disks<'_>) -> Verdict {
    for ClaimIntent { claim_name, uid, used, read_only, .. } in claims {
        if disks.read.contains(uid) && !read_only {
            return violation(format!("pod {pod}: other guests read the volume of claim {claim_name}"));
        }
        if disks.held.contains(uid) {
            return violation(format!("pod {pod}: another guest has the volume of claim {claim_name}"));
        }
        if disks.busy.contains(uid) {
            return violation(format!("pod {pod}: the volume of claim {claim_name} is being copied"));
        }
        if *used && !disks.sizes.contains_key(uid) {
            return violation(format!("pod {pod}: the data of claim {claim_name} is gone"));
        }
    }
    Ok(())
}

/// Checks the beginning of something with a volume, beside a guest or without one.
///
/// # Errors
/// When somebody could write to what is copied.
pub fn begins(order: &VolumeOrder, has_guest: bool, disks: &Disks<'_>) -> Verdict {
    let subject = if order.task == VolumeTask::Expand { order.volume } else { order.source };
    if disks.held.contains(&subject) && !has_guest {
        return violation(format!("{} behind the back of a guest: {order:?}", order.task.as_str()));
    }
    // What was made before is left alone: an older intent may ask for it again.
    let is_made = disks.sizes.contains_key(&order.volume);
    if order.task != VolumeTask::Expand && disks.held.contains(&order.volume) && !is_made {
        return violation(format!("a guest has what is only made: {order:?}"));
    }
    Ok(())
}

/// Checks the deletion of a volume or snapshot.
///
/// # Errors
/// When anything needs it.
pub fn deleted(state: &State, volume: Uuid, disks: &Disks<'_>) -> Verdict {
    if [&disks.held, &disks.read, &disks.busy].iter().any(|some| some.contains(&volume)) {
        return violation(format!("{volume} is deleted while a guest or a copy has it"));
    }
    match needs(state, volume) {
        Some(who) => violation(format!("{volume} is deleted, which {who} needs")),
        None => Ok(()),
    }
}

/// Who needs a volume or snapshot.
fn needs(state: &State, volume: Uuid) -> Option<String> {
    let mut claims = state.persistent_volume_claims().iter();
    let bound = |claim: &bulkhead_types::PersistentVolumeClaim| claim.bound_node().is_some();
    if let Some(claim) =
        claims.find(|one| bound(one) && one.status.volume == volume && !one.meta.is_deleting())
    {
        return Some(format!("claim {}", claim.meta.name));
    }
    let mut snapshots = state.volume_snapshots().iter();
    let is_kept = |one: &bulkhead_types::VolumeSnapshot| one.status.ready && one.status.volume == volume;
    if let Some(snapshot) = snapshots.find(|one| is_kept(one) && !one.meta.is_deleting()) {
        return Some(format!("snapshot {}", snapshot.meta.name));
    }
    let mut retained = state.persistent_volumes().iter();
    if let Some(kept) = retained.find(|one| one.spec.volume == volume && !one.meta.is_deleting()) {
        return Some(format!("PersistentVolume {}", kept.meta.name));
    }
    // Copies that are still to be made.
    let copies =
        state.persistent_volume_claims().iter().filter(|claim| bound(claim) && claim.awaits_source());
    for claim in copies {
        let Some(source) = claim.source.get() else { continue };
        let namespace = claim.meta.namespace.as_ref();
        let named = match source.kind {
            ClaimSourceKind::PersistentVolumeClaim => {
                state.claim(namespace, &source.name).map(|source| source.status.volume)
            }
            ClaimSourceKind::VolumeSnapshot => {
                state.volume_snapshot(namespace, &source.name).map(|source| source.status.volume)
            }
        };
        if named == Some(volume) {
            return Some(format!("claim {}, which is made of it,", claim.meta.name));
        }
    }
    None
}

/// Checks that nothing shrinks by a transaction.
///
/// # Errors
/// With the claim.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        let (id, capacity, storage) = match &event.kind {
            EventKind::StatusChanged { id, status: ObjectStatus::PersistentVolumeClaim(status) } => {
                (*id, Some(status.capacity_bytes), None)
            }
            EventKind::SpecChanged(Object::PersistentVolumeClaim(claim)) => {
                (claim.meta.id, None, Some(claim.spec.storage_bytes))
            }
            _ => continue,
        };
        let Some(former) = before.persistent_volume_claims().get(id) else { continue };
        let shrinks = capacity.is_some_and(|bytes| bytes < former.status.capacity_bytes)
            || storage.is_some_and(|bytes| bytes < former.spec.storage_bytes);
        ensure(!shrinks, "volumes", || format!("claim {} shrinks", former.meta.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::Machine;
    use bulkhead_controlplane_core::evolve::evolve;
    use bulkhead_types::{
        AccessMode, BuiltinClass, Command, Event, MemberId, Name, ObjectMeta, PersistentVolume,
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, PersistentVolumeSpec,
        Stamped,
    };

    use super::*;
    use crate::volumes::names;

    fn claim(uid: u128, used: bool) -> ClaimIntent {
        let (claim_name, uid) = ("data".into(), Uuid::from_u128(uid));
        ClaimIntent { claim_name, uid, size_bytes: 5, used, read_only: false }
    }

    fn order(task: VolumeTask, volume: u128, source: u128) -> VolumeOrder {
        let (volume, source) = (Uuid::from_u128(volume), Uuid::from_u128(source));
        VolumeOrder { id: ObjectId(7), task, volume, source, size_bytes: 5 }
    }

    #[test]
    fn a_second_writer_a_torn_copy_and_lost_data_are_noticed() {
        let sizes = [1, 2, 6].map(|one| (Uuid::from_u128(one), 5)).into();
        let disks = Disks { sizes: &sizes, held: names(&[1]), read: names(&[6]), busy: names(&[2]) };
        let pod = ObjectId(9);
        let fails = |verdict: Verdict| verdict.expect_err("noticed").to_string();
        assert!(fails(starts(pod, &[claim(1, true)], &disks)).contains("another guest"));
        assert!(fails(starts(pod, &[claim(2, true)], &disks)).contains("copied"));
        assert!(fails(starts(pod, &[claim(3, true)], &disks)).contains("gone"));
        starts(pod, &[claim(3, false)], &disks).expect("its first use");
        assert!(fails(starts(pod, &[claim(6, true)], &disks)).contains("other guests read"));
        let reader = |uid| ClaimIntent { read_only: true, ..claim(uid, true) };
        assert!(fails(starts(pod, &[reader(1)], &disks)).contains("another guest"));
        starts(pod, &[reader(6)], &disks).expect("they read together");
        begins(&order(VolumeTask::Snapshot, 4, 6), false, &disks).expect("nobody writes");
        assert!(fails(begins(&order(VolumeTask::Snapshot, 4, 1), false, &disks)).contains("behind"));
        assert!(
            fails(begins(
                &order(VolumeTask::Restore, 5, 4),
                false,
                &Disks { held: names(&[5]), ..disks.clone() }
            ))
            .contains("only made")
        );
        begins(&order(VolumeTask::Restore, 1, 4), false, &disks).expect("it was made before");
        begins(&order(VolumeTask::Snapshot, 4, 1), true, &disks).expect("its guest stands still");
        let state = State::default();
        for volume in [1, 2, 6] {
            assert!(fails(deleted(&state, Uuid::from_u128(volume), &disks)).contains("deleted while"));
        }
        deleted(&state, Uuid::from_u128(3), &disks).expect("nobody needs it");
    }

    #[test]
    fn what_is_needed_and_what_shrinks_is_noticed() {
        let name = |text| Name::new(text).expect("a name");
        let mut machine = Machine::default();
        let meta = ObjectMeta::new(Some(name("default")), name("data"));
        let (access_mode, storage_class) = (AccessMode::ReadWriteOnce, BuiltinClass::Local);
        let spec = PersistentVolumeClaimSpec {
            access_mode,
            storage_bytes: 5,
            storage_class,
            class: Default::default(),
            volume_name: Default::default(),
        };
        let (source, status) = (Default::default(), PersistentVolumeClaimStatus::default());
        let object = PersistentVolumeClaim { meta, spec, source, status };
        let members = vec![(MemberId(1), "a:1".into())];
        let init = Command::InitCluster { cluster_id: Uuid::from_u128(7), members };
        let member = Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(8),
            address: "a:1".into(),
            version: "0.1.0".into(),
            feature_level_max: bulkhead_types::FEATURE_LEVEL_MAX,
        };
        let raise = Command::RaiseFeatureLevel { level: bulkhead_types::FEATURE_LEVEL_MAX };
        let create = Command::Create(Object::PersistentVolumeClaim(Arc::new(object)));
        for command in [init, member, raise, create] {
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
        let state = machine.state();
        let claim = state.claim(Some(&name("default")), "data").expect("there").clone();
        let mut smaller = PersistentVolumeClaim::clone(&claim);
        smaller.spec.storage_bytes = 4;
        let kind = EventKind::SpecChanged(Object::PersistentVolumeClaim(Arc::new(smaller)));
        let transaction = Transaction {
            request_id: Uuid::nil(),
            actor: "user:test".into(),
            at_ms: 5,
            trace_context: None,
            outcome: Ok(9),
            events: vec![Event { revision: 9, kind }],
        };
        let shrinks = check(state, &transaction).expect_err("noticed").to_string();
        assert!(shrinks.contains("claim data shrinks"), "{shrinks}");
        let none = BTreeMap::new();
        let disks = Disks { sizes: &none, held: names(&[]), read: names(&[]), busy: names(&[]) };
        // It has no volume yet, so nobody needs the one without a name.
        deleted(state, claim.status.volume, &disks).expect("not bound");
        // What was retained is needed until somebody deletes its object.
        let retained = Uuid::from_u128(4);
        deleted(state, retained, &disks).expect("of nobody");
        let mut state = state.clone();
        let revision = state.revision() + 1;
        let object = Object::PersistentVolume(Arc::new(persistent_volume(retained)));
        let events = vec![Event { revision, kind: EventKind::ObjectCreated(object) }];
        evolve(&mut state, &Transaction { outcome: Ok(revision), events, ..transaction });
        let needed = deleted(&state, retained, &disks).expect_err("noticed").to_string();
        assert!(needed.contains("PersistentVolume pvc-"), "{needed}");
    }

    fn persistent_volume(volume: Uuid) -> PersistentVolume {
        let spec = PersistentVolumeSpec {
            node: ObjectId(5),
            node_name: "node-0".into(),
            volume,
            capacity_bytes: 5,
            claim_namespace: "default".into(),
            claim_namespace_id: ObjectId(2),
            claim_name: "data".into(),
            class: Default::default(),
            first_used_at_ms: Default::default(),
        };
        PersistentVolume { meta: ObjectMeta::new(None, PersistentVolume::name_of(volume)), spec }
    }
}
