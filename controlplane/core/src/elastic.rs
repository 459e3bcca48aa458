//! ElasticWorkloads: what must change so that a source and its units are as wanted.
//!
//! One function of the State says it, for who proposes a change and for who decides on it.

use std::sync::Arc;

use bulkhead_types::{
    ConditionStatus, Deployment, DeploymentSpec, DeploymentStatus, ElasticUnit, ElasticUnitStatus,
    ElasticWorkload, ElasticWorkloadStatus, Kind, LABEL_ELASTIC_UNIT, Name, Object, ObjectId, ObjectMeta,
    ObjectRef, OwnerRef, SHARED_VOLUMES_LEVEL, SYNCED, StringMap, validate_at,
};
use smol_str::SmolStr;

use crate::State;
use crate::conditions::set_condition;
use crate::quota::{Ledger, REASON_FAILED_CREATE};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The source gets another size.
    ResizeSource(u32),
    /// A unit comes to be.
    Create(Arc<Deployment>),
    /// A unit's spec changes.
    ChangeSpec(ObjectId, DeploymentSpec),
    /// A unit's labels change; the annotations stay.
    ChangeLabels(Arc<Deployment>, StringMap),
    /// A unit that is not wanted any more goes.
    Delete(ObjectId),
    /// What is known changes.
    SetStatus(ElasticWorkloadStatus),
}

/// Why a workload cannot be as wanted: one CamelCase word, and a text for people.
pub(crate) type Problem = (&'static str, String);

/// The Deployment that a workload is about.
pub(crate) fn source_of(workload: &ElasticWorkload) -> ObjectRef {
    let (namespace, name) = (workload.meta.namespace.clone(), workload.spec.source.name.clone());
    ObjectRef { kind: Kind::Deployment, namespace, name }
}

fn source(state: &State, workload: &ElasticWorkload) -> Option<Arc<Deployment>> {
    deployment(state, &source_of(workload))
}

fn deployment(state: &State, reference: &ObjectRef) -> Option<Arc<Deployment>> {
    match state.find_object(reference)? {
        Object::Deployment(deployment) => Some(deployment),
        _ => None,
    }
}

/// The size that a workload shall have: none while its source is stopped.
pub(crate) fn size(state: &State, workload: &ElasticWorkload) -> u32 {
    let is_stopped = source(state, workload).is_some_and(|source| source.spec.stopped);
    if is_stopped { 0 } else { workload.spec.replicas }
}

/// The source and the units of a workload, as far as they are there.
pub(crate) fn elastic_deployments(state: &State, id: ObjectId) -> Vec<ObjectId> {
    let workload = state.elastic_workloads.get(id);
    let source = workload.and_then(|workload| source(state, workload)).map(|source| source.meta.id);
    source.into_iter().chain(state.owned(id, Kind::Deployment)).collect()
}

/// The Deployments whose changes matter to a workload: its source, and all that have the names of its units.
pub(crate) fn names_of(workload: &ElasticWorkload) -> impl Iterator<Item = ObjectRef> + '_ {
    let units = workload.spec.units.iter().filter_map(|unit| unit_ref(workload, unit));
    std::iter::once(source_of(workload)).chain(units)
}

/// What must change now; nothing when all is as wanted, and known to be.
pub(crate) fn plan(state: &State, workload: &Arc<ElasticWorkload>, now_ms: u64) -> Vec<Step> {
    let ElasticWorkload { meta, spec, status } = &**workload;
    let source = source(state, workload);
    let sizes = spec.sizes();
    let mut steps = Vec::new();
    let mut problems = Vec::new();
    let mut units = vec![unit_status("", sizes[0], source.as_ref())];
    let mut ledger = Ledger::of(state, meta.namespace.as_ref());
    if let Some(size) = source.as_ref().and_then(|source| new_size(source, sizes[0])) {
        steps.push(Step::ResizeSource(size));
    }
    for (unit, size) in spec.units.iter().zip(&sizes[1..]) {
        let present = present_unit(state, workload, unit);
        units.push(unit_status(&unit.name, *size, present.as_ref()));
        let Some(source) = &source else { continue };
        match change_unit(state, workload, source, unit, *size) {
            Ok(changes) => match take_room(&mut ledger, &changes) {
                Ok(()) => steps.extend(changes),
                Err(reason) => problems.push((REASON_FAILED_CREATE, format!("unit {}: {reason}", unit.name))),
            },
            Err(problem) => problems.push(problem),
        }
    }
    if source.is_none() {
        problems.push(("SourceMissing", format!("{} does not exist", source_of(workload))));
    }
    steps.extend(superfluous(state, workload).map(Step::Delete));
    let mut known = ElasticWorkloadStatus {
        observed_generation: meta.generation,
        units,
        conditions: status.conditions.clone(),
    };
    let (holds, reason, message) = match problems.first() {
        Some((reason, message)) => (ConditionStatus::False, *reason, message.as_str()),
        None => (ConditionStatus::True, "UnitsFollow", ""),
    };
    set_condition(&mut known.conditions, now_ms, (SYNCED, holds), reason, message);
    if known != *status {
        steps.push(Step::SetStatus(known));
    }
    steps
}

/// Charges the unit that comes to be, if one does.
fn take_room(ledger: &mut Ledger<'_>, changes: &[Step]) -> Result<(), String> {
    changes.iter().try_for_each(|step| match step {
        Step::Create(unit) => {
            ledger.take(&Object::Deployment(Arc::clone(unit))).map_err(|rejection| rejection.reason)
        }
        _ => Ok(()),
    })
}

/// The source's next size. One that is stopped keeps its number.
fn new_size(source: &Deployment, size: u32) -> Option<u32> {
    (!source.spec.stopped && source.spec.replicas != size).then_some(size)
}

fn unit_status(name: &str, desired_replicas: u32, present: Option<&Arc<Deployment>>) -> ElasticUnitStatus {
    let ready_replicas = present.map_or(0, |deployment| deployment.status.ready_replicas);
    ElasticUnitStatus { name: name.into(), desired_replicas, ready_replicas }
}

fn unit_ref(workload: &ElasticWorkload, unit: &ElasticUnit) -> Option<ObjectRef> {
    let name: Name = unit.deployment_name(&workload.spec.source.name).ok()?;
    Some(ObjectRef { kind: Kind::Deployment, namespace: workload.meta.namespace.clone(), name })
}

fn owner_of(workload: &ElasticWorkload) -> OwnerRef {
    OwnerRef { kind: Kind::ElasticWorkload, id: workload.meta.id }
}

/// A unit's Deployment, if it is there and its own.
fn present_unit(state: &State, workload: &ElasticWorkload, unit: &ElasticUnit) -> Option<Arc<Deployment>> {
    let found = deployment(state, &unit_ref(workload, unit)?)?;
    (found.meta.owner == Some(owner_of(workload))).then_some(found)
}

/// What must change of one unit, or why it cannot be.
fn change_unit(
    state: &State,
    workload: &ElasticWorkload,
    source: &Deployment,
    unit: &ElasticUnit,
    size: u32,
) -> Result<Vec<Step>, Problem> {
    let Some(reference) = unit_ref(workload, unit) else {
        return Err(("InvalidUnit", format!("unit {}: its name is too long", unit.name)));
    };
    let pods = &source.spec.template.spec;
    let may_read = state.feature_level() >= SHARED_VOLUMES_LEVEL;
    let shared = if may_read { pods.written_claims().next() } else { pods.claims().next() };
    if let Some(claim) = shared {
        let shared = "would be used by pods of all units, and one guest at a time can have it";
        return Err(("InvalidUnit", format!("unit {}: PersistentVolumeClaim {claim} {shared}", unit.name)));
    }
    let wanted = unit_of(workload, source, unit, reference.name.clone(), size);
    let Some(present) = deployment(state, &reference) else {
        check_unit(state, unit, &wanted)?;
        return Ok(vec![Step::Create(Arc::new(wanted))]);
    };
    if present.meta.owner != wanted.meta.owner {
        return Err((
            "NameTaken",
            format!("{reference} is not its own: rename or delete it, or rename the unit"),
        ));
    }
    let mut steps = Vec::new();
    if present.meta.labels != wanted.meta.labels {
        steps.push(Step::ChangeLabels(Arc::clone(&present), wanted.meta.labels.clone()));
    }
    if present.spec != wanted.spec {
        check_unit(state, unit, &wanted)?;
        steps.push(Step::ChangeSpec(present.meta.id, wanted.spec));
    }
    Ok(steps)
}

/// A unit's Deployment as it shall be.
fn unit_of(
    workload: &ElasticWorkload,
    source: &Deployment,
    unit: &ElasticUnit,
    name: Name,
    size: u32,
) -> Deployment {
    let mut meta = ObjectMeta::new(workload.meta.namespace.clone(), name);
    meta.owner = Some(owner_of(workload));
    meta.labels = source.meta.labels.clone();
    meta.labels.insert(SmolStr::new_static(LABEL_ELASTIC_UNIT), unit.name.clone());
    Deployment { meta, spec: unit.spec(&source.spec, size), status: DeploymentStatus::default() }
}

/// Below this level units were judged by its rules, whatever the cluster's level: servers knew no later ones.
const UNITS_RULES_LEVEL: u32 = 13;

fn check_unit(state: &State, unit: &ElasticUnit, wanted: &Deployment) -> Result<(), Problem> {
    let level = state.feature_level().max(UNITS_RULES_LEVEL);
    let errors = validate_at(&Object::Deployment(Arc::new(wanted.clone())), level);
    match errors.first() {
        None => Ok(()),
        Some(error) => Err(("InvalidUnit", format!("unit {}: {}: {}", unit.name, error.path, error.reason))),
    }
}

/// Why the first of a workload's units could not be made from the source as it is now; `None` as well while there is no source.
pub(crate) fn first_problem(state: &State, workload: &ElasticWorkload) -> Option<Problem> {
    let source = source(state, workload)?;
    let change = |unit| change_unit(state, workload, &source, unit, 0).err();
    workload.spec.units.iter().find_map(change)
}

/// Deployments of units that the workload does not have any more.
fn superfluous<'a>(state: &'a State, workload: &'a ElasticWorkload) -> impl Iterator<Item = ObjectId> + 'a {
    let wanted: Vec<Name> =
        workload.spec.units.iter().filter_map(|unit| Some(unit_ref(workload, unit)?.name)).collect();
    state.owned(workload.meta.id, Kind::Deployment).filter(move |id| {
        state.deployments.get(*id).is_some_and(|deployment| !wanted.contains(&deployment.meta.name))
    })
}
