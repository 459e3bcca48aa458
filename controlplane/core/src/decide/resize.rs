//! Resizes of running pods: what may change, whether there is room, and what agents say came of it.
//!
//! Source: the validation of the `resize` subresource in Kubernetes 1.33 and 1.34.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    ContainerSize, EventKind, Object, ObjectId, ObjectRef, Pod, PodResize, PodStatus, QosClass,
    RESIZED_CONTAINERS_MAX, Rare, Rejection, RejectionCode, ResizeStage, larger_sizes,
};

use super::objects::check_valid;
use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::cpus::needs_of;
use crate::resize::{Room, cut, held, is_waiting, proceed, room, with_sizes};

/// Asks for other sizes.
pub(super) fn resize(
    state: &State,
    reference: &ObjectRef,
    changes: &[ContainerSize],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let pod = match state.find_object(reference).ok_or_else(|| not_found(reference))? {
        Object::Pod(pod) => pod,
        other => {
            let (field, reason) = (other.object_ref().to_string(), "cannot be resized: only pods can");
            return Err(Rejection::new(RejectionCode::Invalid, field, reason)
                .with_remedy("change its template, which replaces its pods, or resize a pod of it"));
        }
    };
    check_standing(reference, &pod)?;
    let present = pod.desired_spec();
    let desired = changed(reference, &pod, &present.sizes(), changes)?;
    if desired == present.sizes() {
        return Ok(());
    }
    check_sizes(state, reference, &pod, &desired)?;
    let id = pod.meta.id;
    let under_way = pod.resize().is_some_and(|resize| resize.stage == ResizeStage::InProgress);
    if !under_way && desired == pod.spec.sizes() {
        // It is what it has: whatever waited waits no more.
        emit.push(EventKind::PodResized { id, sizes: Vec::new(), resize: Rare::NONE });
        return Ok(());
    }
    if let Room::Refused(rejection) = room(state, &pod, &desired) {
        return Err(rejection);
    }
    let (sizes, resize) = proceed(state, &pod, desired, emit.at_ms());
    emit.push(EventKind::PodResized { id, sizes, resize: Rare::some(resize) });
    Ok(())
}

/// Whether the pod has a guest that can be resized.
fn check_standing(reference: &ObjectRef, pod: &Pod) -> Result<(), Rejection> {
    if pod.meta.is_deleting() {
        return Err(not_allowed(reference, "is being deleted"));
    }
    if pod.status.phase.is_terminal() {
        return Err(not_allowed(reference, "has ended: nothing of it runs that could be resized"));
    }
    if pod.node.is_none() {
        return Err(not_allowed(reference, "waits for a node: nothing was allocated to it yet")
            .with_remedy("resize it when it has one, or delete it and create it with other resources"));
    }
    Ok(())
}

/// What the containers shall have.
fn changed(
    reference: &ObjectRef,
    pod: &Pod,
    present: &[ContainerSize],
    changes: &[ContainerSize],
) -> Result<Vec<ContainerSize>, Rejection> {
    let refuse = |path: &str, reason: &str| {
        Rejection::new(RejectionCode::Invalid, format!("{reference}: {path}"), reason.to_owned())
    };
    if changes.is_empty() || changes.len() > RESIZED_CONTAINERS_MAX {
        let reason = format!("a resize names 1 to {RESIZED_CONTAINERS_MAX} containers");
        return Err(refuse("spec.containers", &reason));
    }
    let mut desired = present.to_vec();
    let mut named = BTreeSet::new();
    for change in changes {
        let path = format!("spec.containers[{}].resources", change.name);
        if !named.insert(&change.name) {
            return Err(refuse(&path, "is said twice"));
        }
        let Some(size) = desired.iter_mut().find(|size| size.name == change.name) else {
            return match pod.spec.init_containers.iter().any(|one| one.name == change.name) {
                true => Err(refuse(&path, "is of an init container that ends before the others start")
                    .with_remedy("resize containers, and init containers with restartPolicy Always")),
                false => Err(refuse(&path, "is of no container of this pod")
                    .with_remedy("name one of those that `describe pod` lists")),
            };
        };
        let storage = change.requests.ephemeral_storage_bytes.or(change.limits.ephemeral_storage_bytes);
        if storage.is_some() {
            return Err(refuse(&path, "ephemeral-storage cannot change while a pod runs")
                .with_remedy("resize cpu and memory only, or create the pod anew"));
        }
        *size = size.changed_by(change);
    }
    Ok(desired)
}

/// Whether a pod of its kind may have such sizes.
fn check_sizes(
    state: &State,
    reference: &ObjectRef,
    pod: &Pod,
    desired: &[ContainerSize],
) -> Result<(), Rejection> {
    let wanted = with_sizes(pod, desired, &Rare::NONE);
    let (was, is) = (pod.desired_spec().qos_class(), wanted.spec.qos_class());
    if was != is {
        let reason = format!("the pod's QoS class would change from {was:?} to {is:?}");
        return Err(Rejection::new(RejectionCode::Invalid, format!("{reference}: spec.containers"), reason)
            .with_remedy("keep limits and requests in the relation that they have, or create the pod anew"));
    }
    check_valid(state, &Object::Pod(Arc::new(wanted)))?;
    let class = QosClass::of(&pod.meta.labels);
    let pinned = pod.cpus().is_some() || !matches!(needs_of(pod), Ok(None));
    if pinned || matches!(class, Some(QosClass::Lse | QosClass::Lsr)) {
        return Err(not_allowed(
            reference,
            "has CPUs or NUMA nodes of its own, which were chosen for its size",
        )
        .with_remedy("create it anew with other resources"));
    }
    let memory = |sizes: &[ContainerSize]| -> Vec<_> {
        sizes.iter().map(|size| (size.reserved().memory_bytes, size.limits.memory_bytes)).collect()
    };
    // Nothing of such a guest is taken back by a balloon, and what is added to it is ordinary memory.
    let had_otherwise = pod.spec.options.get().is_some_and(|options| options.guest_memory.get().is_some());
    let stays = !pod.devices().is_empty() || had_otherwise || !pod.spec.huge_pages().is_none();
    if stays && memory(&pod.desired_spec().sizes()) != memory(desired) {
        return Err(not_allowed(
            reference,
            "has devices of its node or huge pages, so its guest's memory is had from the start and stays as large",
        )
        .with_remedy("resize cpu only, or create it anew"));
    }
    Ok(())
}

/// Takes the room for resizes that wait for it, one after another, each on top of those before.
pub(super) fn admit(state: &State, pods: &[ObjectId], emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    let mut scratch = state.clone();
    for id in pods {
        let Some(pod) = scratch.pods.get(*id).filter(|pod| is_waiting(pod)).cloned() else { continue };
        let desired = pod.resize().expect("it waits").desired.clone();
        let (sizes, resize) = proceed(&scratch, &pod, desired, emit.at_ms());
        if resize.stage == ResizeStage::Deferred {
            continue;
        }
        let resize = Rare::some(resize);
        scratch.put(Object::Pod(Arc::new(with_sizes(&pod, &sizes, &resize))));
        emit.push(EventKind::PodResized { id: *id, sizes, resize });
    }
    Ok(())
}

/// What an agent says of a resize that is under way: that it is done, or that it cannot be.
pub(super) fn follow(pod: &Pod, status: &PodStatus, emit: &mut Emit<'_>) {
    let under_way = pod.resize().filter(|resize| resize.stage == ResizeStage::InProgress);
    let Some((resize, actual)) = under_way.zip(status.actual.get()) else { return };
    let id = pod.meta.id;
    if actual.containers == resize.desired {
        emit.push(EventKind::PodResized { id, sizes: resize.desired.clone(), resize: Rare::NONE });
        return;
    }
    if !actual.refused || actual.wanted != resize.desired {
        return;
    }
    let present = pod.spec.sizes();
    // No agent makes a pod count for more than it was given.
    let names = |sizes: &[ContainerSize]| -> Vec<_> { sizes.iter().map(|size| size.name.clone()).collect() };
    let is_within =
        names(&actual.containers) == names(&present) && larger_sizes(&present, &actual.containers) == present;
    let sizes = if is_within { actual.containers.clone() } else { Vec::new() };
    let message = cut(format!("{}: {}", actual.reason, actual.message));
    let (stage, since_ms) = (ResizeStage::Infeasible, emit.at_ms());
    let resize = PodResize { desired: resize.desired.clone(), stage, message, since_ms };
    emit.push(EventKind::PodResized { id, sizes, resize: Rare::some(resize) });
}

/// What agents say of sizes, bounded.
pub(super) fn told(pod: &Pod, seen: &PodStatus) -> Rare<bulkhead_types::ActualSizes> {
    let most = held(pod, &[]).len();
    Rare::from(seen.actual.get().cloned().map(|mut told| {
        told.containers.truncate(most);
        told.wanted.truncate(most);
        told.reason = super::pods::cut_word(&told.reason);
        told.message = cut(told.message);
        told
    }))
}
