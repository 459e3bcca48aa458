//! Devices: what agents say of them, who is kept from them, and what may be asked of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    DEVICE_CLASSES_MAX, DEVICES_LEVEL, DEVICES_MAX, Device, DeviceHealth, DeviceReport, DeviceState,
    EventKind, HandledFault, Kind, Name, Node, Object, ObjectId, ObjectMeta, PARTITIONS_LEVEL, PciFacts,
    PciFlaw, PodSpec, PodStatus, REASON_DEVICE_LOST, REASON_DEVICE_UNHEALTHY, Rare, Rejection, RejectionCode,
    ResourceSlice, StringMap, share_pci_traits,
};
use smol_str::SmolStr;

use super::nodes::{check_incarnation, check_not_fenced};
use super::{Emit, faults, gpu_mode, not_allowed, not_found};
use crate::State;
use crate::devices::{Needs, Says, SyncedLabels, card_count, known_pci_traits, synced_labels, trouble};
use crate::evolve::note_fault;

/// What an agent says of its devices. A report that was seen before is passed over, and so is one of changes of a session
/// whose snapshot is not there: the agent sends one when it is not answered.
pub(super) fn report(
    state: &State,
    node: ObjectId,
    incarnation: u64,
    report: &DeviceReport,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    check_incarnation(node, incarnation)?;
    check_not_fenced(node)?;
    check_report(&node.meta.name, report)?;
    let Some(slice) = state.resource_slice_of(node.meta.id) else {
        // A node without devices needs no list of them.
        if report.snapshot && !report.devices.is_empty() {
            create_slice(state, node, incarnation, report, emit);
        }
        return Ok(());
    };
    let is_new_session = slice.incarnation != incarnation;
    if if is_new_session { !report.snapshot } else { report.sequence <= slice.sequence } {
        return Ok(());
    }
    let change = difference(state, slice, report, emit.at_ms());
    let kept = slice.devices.len() - change.removed.len();
    let new = change.devices.iter().filter(|device| slice.device(&device.id).is_none()).count();
    if kept + new > 2 * DEVICES_MAX {
        let reason = format!("would have {} devices, those that are gone and held included", kept + new);
        return Err(Rejection::new(RejectionCode::Invalid, format!("Node {}", node.meta.name), reason)
            .with_remedy("end the pods that hold devices that are gone"));
    }
    let marks = marks(state, node, slice, &change);
    emit.push(EventKind::DevicesReported { id: slice.meta.id, incarnation, report: change });
    marks.into_iter().for_each(|(id, status)| emit.push(EventKind::PodStatusChanged { id, status }));
    faults::handle(state, slice, &report.faults, emit);
    Ok(())
}

/// Refuses what no honest agent says.
pub(crate) fn check_report(node: &Name, report: &DeviceReport) -> Result<(), Rejection> {
    let invalid =
        |reason: String| Err(Rejection::new(RejectionCode::Invalid, format!("Node {node}: devices"), reason));
    if report.devices.len() > DEVICES_MAX || report.removed.len() > DEVICES_MAX {
        return invalid(format!("at most {DEVICES_MAX} devices of a node are kept"));
    }
    if report.snapshot && !report.removed.is_empty() {
        return invalid("a report of all devices names none that are gone".to_owned());
    }
    if let Err(reason) = report.check_lists() {
        return invalid(reason);
    }
    let mut seen = BTreeSet::new();
    for device in &report.devices {
        if let Err(reason) = device.check() {
            return invalid(reason);
        }
        if let Some(Err(PciFlaw { field, reason })) = device.pci.get().map(PciFacts::check) {
            let field = format!("Node {node}: devices[{}].pci.{field}", device.id);
            return Err(Rejection::new(RejectionCode::Invalid, field, reason).with_remedy(
                "run the agent of the servers' version on that node, and no other program as it",
            ));
        }
        if !seen.insert(&device.id) {
            return invalid(format!("device {} is there twice", device.id));
        }
    }
    if let Some(id) = report.removed.iter().find(|id| seen.contains(id)) {
        return invalid(format!("device {id} is there and gone"));
    }
    Ok(())
}

fn create_slice(state: &State, node: &Node, incarnation: u64, report: &DeviceReport, emit: &mut Emit<'_>) {
    let mut devices = report.devices.clone();
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    share_pci_traits(&mut devices, &mut known_pci_traits(state));
    let mut slice = ResourceSlice {
        meta: ObjectMeta::new(None, node.meta.name.clone()),
        node: node.meta.id,
        incarnation,
        sequence: report.sequence,
        devices,
        cordoned: Vec::new(),
        state: Rare::NONE,
    };
    if state.feature_level() >= PARTITIONS_LEVEL {
        // Nobody has any of these devices yet: a fault can do no more than keep its card back.
        let mut known = DeviceState { gpu_mode: report.gpu_mode.clone(), ..DeviceState::default() };
        for fault in &report.faults {
            let action = faults::action(state, &slice, fault);
            note_fault(&mut known, &slice, &HandledFault { fault: fault.clone(), action }, emit.at_ms());
        }
        slice.state = Rare::some(known);
    }
    emit.create(Object::ResourceSlice(Arc::new(slice)));
}

/// What a report changes. A device that is gone is kept as lost while somebody has it, or while an operator keeps it back.
fn difference(state: &State, slice: &ResourceSlice, report: &DeviceReport, now_ms: u64) -> DeviceReport {
    let is_new = |device: &&Device| slice.device(&device.id) != Some(*device);
    let mut devices: Vec<Device> = report.devices.iter().filter(is_new).cloned().collect();
    let named: BTreeSet<&SmolStr> = match report.snapshot {
        true => report.devices.iter().map(|device| &device.id).collect(),
        false => report.removed.iter().collect(),
    };
    let is_gone = |device: &&Device| named.contains(&device.id) != report.snapshot;
    let ledger = state.node_devices(slice.node);
    let mut removed = Vec::new();
    for device in slice.devices.iter().filter(is_gone) {
        let is_held = ledger.and_then(|all| all.get(&device.id)).is_some_and(|one| !one.holders.is_empty());
        if !is_held && !slice.is_cordoned(&device.id) && slice.fence(&device.id).is_none() {
            removed.push(device.id.clone());
        } else if !device.is_lost() {
            devices.push(Device { health: DeviceHealth::Lost { since_ms: now_ms }, ..device.clone() });
        }
    }
    DeviceReport {
        sequence: report.sequence,
        snapshot: report.snapshot,
        devices,
        removed,
        gpu_mode: report.gpu_mode.clone(),
        faults: Vec::new(),
        resets: report.resets.clone(),
    }
}

/// What becomes of the pods whose devices are others than before: each is told, and nobody else is touched.
fn marks(
    state: &State,
    node: &Node,
    slice: &Arc<ResourceSlice>,
    change: &DeviceReport,
) -> Vec<(ObjectId, PodStatus)> {
    let Some(ledger) = state.node_devices(node.meta.id) else { return Vec::new() };
    let changed = |id: &SmolStr| ledger.get(id).into_iter().flat_map(|device| &device.holders);
    let holders: BTreeSet<ObjectId> =
        change.devices.iter().flat_map(|device| changed(&device.id)).map(|(pod, _)| *pod).collect();
    if holders.is_empty() {
        return Vec::new();
    }
    // The devices as they are after the change.
    let mut after = ResourceSlice::clone(slice);
    for device in &change.devices {
        if let Some(present) = after.devices.iter_mut().find(|one| one.id == device.id) {
            *present = device.clone();
        }
    }
    let mark = |id: ObjectId| {
        let pod = state.pods.get(id)?;
        let mut status = pod.status.clone();
        match trouble(&after, pod) {
            Some((reason, message)) => (status.reason, status.message) = (reason, message),
            None if [REASON_DEVICE_UNHEALTHY, REASON_DEVICE_LOST].contains(&status.reason.as_str()) => {
                (status.reason, status.message) = (SmolStr::default(), String::new());
            }
            None => {}
        }
        (status != pod.status).then_some((id, status))
    };
    holders.into_iter().filter_map(mark).collect()
}

/// Keeps a device from new pods, or gives it back. Whoever has it keeps it.
pub(super) fn set_cordoned(
    state: &State,
    node: &Name,
    device: &str,
    cordoned: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let id = state.find(Kind::Node, None, node).ok_or_else(|| not_found(format!("Node {node}")))?;
    let slice = state.resource_slice_of(id).ok_or_else(|| {
        not_allowed(format!("Node {node}"), "reports no devices")
            .with_remedy("look at `bulkhead get devices`")
    })?;
    let found = slice.find(device).ok_or_else(|| {
        not_found(format!("device {device} of node {node}"))
            .with_remedy("name it by its id, PCI address or index: see `bulkhead get devices`")
    })?;
    let is_fenced = slice.fence(&found.id).is_some();
    if slice.is_cordoned(&found.id) != cordoned || (!cordoned && is_fenced) {
        emit.push(EventKind::DeviceCordoned { id: slice.meta.id, device: found.id.clone(), cordoned });
    }
    Ok(())
}

/// A node gets the labels that its devices mean.
pub(super) fn sync_labels(state: &State, id: ObjectId, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let node = state.nodes.get(id).ok_or_else(|| not_found(format!("Node {id}")))?;
    let Some(SyncedLabels { labels, record }) = synced_labels(state, node) else {
        let field = format!("Node {}", node.meta.name);
        return Err(Rejection::new(RejectionCode::Conflict, field, "has the labels that its devices mean"));
    };
    emit.push(EventKind::DeviceLabelsSynced { id, labels, record });
    Ok(())
}

/// Refuses pods and templates that ask for devices in a way that no node could ever meet, by the DeviceClasses that there
/// are; and more DeviceClasses than are kept.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    if state.feature_level() < DEVICES_LEVEL {
        return Ok(());
    }
    if let Object::DeviceClass(class) = object {
        let is_new = state.find(Kind::DeviceClass, None, &class.meta.name).is_none();
        if is_new && state.device_classes.len() >= DEVICE_CLASSES_MAX {
            return Err(not_allowed(object.object_ref(), format!("there are {DEVICE_CLASSES_MAX} already"))
                .with_remedy("delete those that are not needed"));
        }
        return Ok(());
    }
    if let Object::Node(wanted) = object {
        let present = state.find(Kind::Node, None, &wanted.meta.name).and_then(|id| state.nodes.get(id));
        return match present.filter(|present| present.spec.gpu != wanted.spec.gpu) {
            Some(present) => gpu_mode::check(state, present, wanted.spec.gpu.get()),
            None => Ok(()),
        };
    }
    let found = pod_spec(object).filter(|(_, spec, ..)| spec.asks_for_devices());
    let Some((path, spec, labels, annotations)) = found else { return Ok(()) };
    let says = Says { cards: card_count(labels), annotations };
    let Err(bad) = Needs::of(spec, says, &state.devices.classes) else { return Ok(()) };
    // A class may come: until then the pods wait, and say for what.
    if bad.is_unknown {
        return Ok(());
    }
    let at = spec.containers.iter().position(|one| one.name == bad.container).unwrap_or(0);
    let field =
        format!("{}: {path}.containers[{at}].resources.limits[{}]", object.object_ref(), bad.resource);
    Err(Rejection::new(RejectionCode::Invalid, field, bad.reason).with_remedy(bad.remedy))
}

/// The pod that an object is or makes: where its spec stands, that, its labels and its annotations.
fn pod_spec(object: &Object) -> Option<(&'static str, &PodSpec, &StringMap, &StringMap)> {
    let (path, template) = match object {
        Object::Pod(pod) => return Some(("spec", &pod.spec, &pod.meta.labels, &pod.meta.annotations)),
        Object::ReplicaSet(one) => (TEMPLATE, &one.spec.template),
        Object::Deployment(one) => (TEMPLATE, &one.spec.template),
        Object::StatefulSet(one) => (TEMPLATE, &one.spec.template),
        Object::DaemonSet(one) => (TEMPLATE, &one.spec.template),
        Object::Job(one) => (TEMPLATE, &one.spec.template),
        Object::CronJob(one) => ("spec.jobTemplate.spec.template.spec", &one.spec.job_template.spec.template),
        _ => return None,
    };
    Some((path, &template.spec, &template.labels, &template.annotations))
}

/// Where the spec of a workload's pods stands.
const TEMPLATE: &str = "spec.template.spec";
