//! `Manifests`: Kubernetes-shaped YAML, applied as a whole or not at all: decided on what is there, and submitted with
//! what was seen, so that `decide` can tell whether that still holds.

use std::sync::Arc;

use bulkhead_controlplane_core::{State, decide};
use bulkhead_manifest::{
    Edit, EditMode, FieldConflict, ManifestError, Parsed, PlanError, Planned, Source, plan,
};
use bulkhead_proto::v1::manifests_server::Manifests;
use bulkhead_proto::{parse_actor, parse_request_id, v1};
use bulkhead_types::{
    COMMANDS_MAX, Command, Event, EventKind, Kind, Name, Object, ObjectId, Precondition, Stamped,
    WORKLOADS_LEVEL,
};
use smol_str::SmolStr;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Instrument;
use uuid::Uuid;

use super::commands::{header_trace, traced};
use super::{Api, default_class, optional_name};
use crate::deadline::deadline;
use crate::error::{convert_status, invalid, rejection_status};
use crate::propose::Wanted;

/// Most files of one request.
const FILES_MAX: usize = 1024;
/// How often an edit is decided anew because an object changed while it was decided.
const ATTEMPTS_MAX: u32 = 8;
/// Who manages fields when a request does not say.
const MANAGER_DEFAULT: &str = "bulkhead";

/// A request, checked.
pub(super) struct Wish {
    files: Vec<Source>,
    namespace: Name,
    manager: String,
    mode: EditMode,
    dry_run: bool,
    request_id: Uuid,
    actor: SmolStr,
    trace_context: Option<SmolStr>,
}

#[tonic::async_trait]
impl Manifests for Api {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let deadline = deadline(request.metadata());
        let trace_context = header_trace(request.metadata());
        let wish = Wish::read(request.into_inner(), trace_context)?;
        let mut attempt = 0;
        loop {
            let before = self.read(false, 0, deadline).await?;
            let planned = match wish.plan(&before) {
                Ok(planned) => planned,
                Err(PlanError::Conflicts(conflicts)) => return Err(conflict_status(&conflicts)),
                Err(PlanError::Mistakes(errors)) => {
                    let errors = errors.into_iter().map(wire_error).collect();
                    let request_id = wish.request_id.to_string();
                    return Ok(Response::new(v1::ApplyResponse { errors, request_id, ..Default::default() }));
                }
            };
            let mut stamped = wish.stamped(&before, &planned, attempt)?;
            let result = if wish.dry_run {
                decide(&before, &stamped)
                    .map(|events| (events, before.revision()))
                    .map_err(|r| rejection_status(&r))
            } else {
                let span = traced(&mut stamped);
                let done =
                    self.proposer.submit(stamped, Wanted::Transaction, deadline).instrument(span).await;
                done.map(|t| (t.events.clone(), t.outcome.as_ref().copied().unwrap_or_default()))
            };
            let (events, revision) = match result {
                Ok(done) => done,
                // Nothing was applied: somebody was faster. A revision that the user named stays wrong.
                Err(status)
                    if status.code() == Code::Aborted
                        && attempt < ATTEMPTS_MAX
                        && planned.iter().all(|one| one.parsed.resource_version.is_none()) =>
                {
                    attempt += 1;
                    continue;
                }
                Err(status) => return Err(status),
            };
            let objects = planned
                .iter()
                .map(|one| applied(&before, &one.parsed.object, &events, wish.dry_run))
                .collect();
            let request_id = wish.request_id.to_string();
            return Ok(Response::new(v1::ApplyResponse {
                objects,
                errors: Vec::new(),
                revision,
                request_id,
            }));
        }
    }
}

impl Wish {
    pub(super) fn read(request: v1::ApplyRequest, trace_context: Option<SmolStr>) -> Result<Self, Status> {
        if request.files.len() > FILES_MAX {
            return Err(invalid("files", format!("at most {FILES_MAX} files are allowed")));
        }
        let mode = match v1::ApplyMode::try_from(request.mode) {
            Ok(v1::ApplyMode::Unspecified | v1::ApplyMode::Apply) => {
                EditMode::Apply { force: request.force_conflicts }
            }
            Ok(v1::ApplyMode::Replace) => EditMode::Replace,
            Err(_) => return Err(invalid("mode", "is a mode that this server does not know".to_owned())),
        };
        let request_id = parse_request_id(&request.request_id).map_err(|e| convert_status(&e))?;
        let default = Name::new("default").expect("default is a name");
        let manager = request.field_manager;
        Ok(Self {
            files: request.files.into_iter().map(|f| Source { name: f.name, text: f.text }).collect(),
            namespace: optional_name("namespace", &request.namespace)?.unwrap_or(default),
            manager: if manager.is_empty() { MANAGER_DEFAULT.to_owned() } else { manager },
            mode,
            dry_run: request.dry_run,
            request_id: request_id.unwrap_or_else(Uuid::new_v4),
            actor: parse_actor(&request.actor).map_err(|e| convert_status(&e))?,
            trace_context,
        })
    }

    pub(super) fn plan(&self, before: &State) -> Result<Vec<Planned>, PlanError> {
        let edit = Edit { manager: &self.manager, mode: self.mode };
        // Below that level nobody manages fields: a document is the whole object.
        let is_tracked = before.feature_level() >= WORKLOADS_LEVEL;
        let mut planned = plan(&self.files, Some(&self.namespace), edit, &|reference| {
            before.find_object(reference).filter(|_| is_tracked)
        })?;
        planned.iter_mut().for_each(|one| keep_present_size(before, &mut one.parsed));
        default_class::choose(before, &mut planned);
        Ok(planned)
    }

    /// What is submitted; each attempt is a submission of its own, that is told apart when the request is repeated.
    pub(super) fn stamped(
        &self,
        before: &State,
        planned: &[Planned],
        attempt: u32,
    ) -> Result<Stamped, Status> {
        if planned.is_empty() || planned.len() > COMMANDS_MAX {
            let reason =
                format!("hold {} objects; 1 to {COMMANDS_MAX} can be applied together", planned.len());
            return Err(invalid("files", reason));
        }
        let must_exist = self.mode == EditMode::Replace;
        let missing = |one: &&Planned| before.find_object(&one.parsed.object.object_ref()).is_none();
        if let Some(missing) = planned.iter().find(|one| must_exist && missing(one)) {
            return Err(Status::not_found(format!("{} does not exist", missing.parsed.object.object_ref())));
        }
        let commands = planned.iter().map(|one| {
            let object = one.parsed.object.clone();
            if before.feature_level() >= WORKLOADS_LEVEL {
                Command::Update { object, seen: one.seen }
            } else {
                Command::Apply(without_managers(object))
            }
        });
        Ok(Stamped {
            request_id: Uuid::from_u128(self.request_id.as_u128().wrapping_add(u128::from(attempt))),
            actor: self.actor.clone(),
            proposed_at_ms: 0,
            trace_context: self.trace_context.clone(),
            preconditions: planned.iter().filter_map(precondition).collect(),
            commands: commands.collect(),
        })
    }
}

/// What leaves out its size, and has an autoscaler, keeps the size that it has. When that is another one by the time it is
/// applied, nothing is, and it is planned anew.
fn keep_present_size(state: &State, parsed: &mut Parsed) {
    let reference = parsed.object.object_ref();
    let is_scaled =
        state.autoscaler_of(&reference).is_some() || state.elastic_workload_of(&reference).is_some();
    if parsed.states_replicas || !is_scaled {
        return;
    }
    match (&mut parsed.object, state.find_object(&reference)) {
        (Object::Deployment(wanted), Some(Object::Deployment(present))) => {
            Arc::make_mut(wanted).spec.replicas = present.spec.replicas;
        }
        (Object::StatefulSet(wanted), Some(Object::StatefulSet(present))) => {
            Arc::make_mut(wanted).spec.replicas = present.spec.replicas;
        }
        (Object::ElasticWorkload(wanted), Some(Object::ElasticWorkload(present))) => {
            Arc::make_mut(wanted).spec.replicas = present.spec.replicas;
        }
        _ => {}
    }
}

fn without_managers(mut object: Object) -> Object {
    object.meta_mut().set_managers(Default::default());
    object
}

/// Fields that others manage: each with who does.
pub(super) fn conflict_status(conflicts: &[FieldConflict]) -> Status {
    let mut details = ErrorDetails::new();
    let lines: Vec<String> = conflicts
        .iter()
        .map(|c| {
            let subject = format!("{}: {}", c.object, c.field);
            let reason = format!("is managed by {:?}", c.manager);
            details.add_precondition_failure_violation("FIELD_MANAGER", &subject, &reason);
            format!("\n  {subject} {reason}")
        })
        .collect();
    let remedy = "leave these fields out of the manifest, say the same value, or use --force-conflicts to take them over";
    details.set_error_info("FIELD_CONFLICT", "bulkhead", [("remedy".to_owned(), remedy.to_owned())]);
    let count = conflicts.len();
    let fields = if count == 1 { "field" } else { "fields" };
    let message = format!("others manage {count} {fields}, with other values:{}", lines.concat());
    Status::with_error_details(Code::Aborted, message, details)
}

/// `metadata.resourceVersion` in a manifest: the object must still be as whoever wrote it has read it.
fn precondition(one: &Planned) -> Option<Precondition> {
    let revision = Some(one.parsed.resource_version?);
    Some(Precondition { object: one.parsed.object.object_ref(), revision })
}

pub(super) fn wire_error(error: ManifestError) -> v1::ManifestError {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    v1::ManifestError {
        file: error.file,
        line: number(error.line),
        column: number(error.column),
        path: error.path,
        reason: error.reason,
    }
}

/// What became of one object of the files.
fn applied(before: &State, object: &Object, events: &[Event], dry_run: bool) -> v1::AppliedObject {
    let reference = object.object_ref();
    let found = before.find_object(&reference);
    let present = found.as_ref().map(|found| found.meta().id);
    let touched = |event: &&Event| match (&event.kind, present) {
        (EventKind::ObjectCreated(created), _) => created.object_ref() == reference,
        (kind, Some(id)) => subject(kind) == Some((reference.kind, id)),
        _ => false,
    };
    let last = events.iter().rfind(touched);
    let action = match (last.map(|event| &event.kind), present) {
        (None, _) => v1::ApplyAction::Unchanged,
        (Some(EventKind::ObjectCreated(_)), _) => v1::ApplyAction::Created,
        (Some(_), _) => v1::ApplyAction::Configured,
    };
    let unchanged = found.as_ref().map_or(0, |found| found.meta().revision);
    let revision = last.map_or(unchanged, |event| event.revision);
    let result = dry_run.then(|| v1::Object::from(&with_identity(object, found.as_ref())));
    v1::AppliedObject { object: Some((&reference).into()), action: action.into(), revision, result }
}

/// What an object would be, with what only the control plane says of it.
fn with_identity(object: &Object, present: Option<&Object>) -> Object {
    let mut object = object.clone();
    let Some(present) = present else { return object };
    let was = present.meta().clone();
    let meta = object.meta_mut();
    let (labels, annotations) = (std::mem::take(&mut meta.labels), std::mem::take(&mut meta.annotations));
    let managers = std::mem::take(&mut meta.managers);
    *meta = bulkhead_types::ObjectMeta { labels, annotations, managers, ..was };
    object
}

/// The object that an apply's event changes.
fn subject(kind: &EventKind) -> Option<(Kind, ObjectId)> {
    match kind {
        EventKind::MetaChanged { kind, id, .. } => Some((*kind, *id)),
        EventKind::DeploymentSpecChanged { id, .. } => Some((Kind::Deployment, *id)),
        EventKind::ReplicaSetSpecChanged { id, .. } => Some((Kind::ReplicaSet, *id)),
        EventKind::NodeSpecChanged { id, .. } => Some((Kind::Node, *id)),
        EventKind::SpecChanged(object) => Some((object.kind(), object.meta().id)),
        _ => None,
    }
}
