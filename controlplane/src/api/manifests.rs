//! `Manifests`: Kubernetes-shaped YAML, applied as a whole or not at all.

use bulkhead_controlplane_core::{State, decide};
use bulkhead_manifest::{ManifestError, Parsed, Source, parse};
use bulkhead_proto::v1::manifests_server::Manifests;
use bulkhead_proto::{parse_actor, parse_request_id, v1};
use bulkhead_types::{
    COMMANDS_MAX, Command, Event, EventKind, Kind, Name, Object, ObjectId, Precondition, Stamped,
};
use tonic::{Request, Response, Status};
use tracing::Instrument;
use uuid::Uuid;

use super::commands::{header_trace, traced};
use super::{Api, optional_name};
use crate::deadline::deadline;
use crate::error::{convert_status, invalid, rejection_status};
use crate::propose::Wanted;

/// Most files of one request.
const FILES_MAX: usize = 1024;

#[tonic::async_trait]
impl Manifests for Api {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let deadline = deadline(request.metadata());
        let trace_context = header_trace(request.metadata());
        let request = request.into_inner();
        if request.files.len() > FILES_MAX {
            return Err(invalid("files", format!("at most {FILES_MAX} files are allowed")));
        }
        let request_id = parse_request_id(&request.request_id).map_err(|e| convert_status(&e))?;
        let request_id = request_id.unwrap_or_else(Uuid::new_v4);
        let actor = parse_actor(&request.actor).map_err(|e| convert_status(&e))?;
        let namespace = optional_name("namespace", &request.namespace)?;
        let parsed = match read_files(request.files, namespace.as_ref()) {
            Ok(parsed) => parsed,
            Err(errors) => {
                let errors = errors.into_iter().map(wire_error).collect();
                let request_id = request_id.to_string();
                return Ok(Response::new(v1::ApplyResponse { errors, request_id, ..Default::default() }));
            }
        };
        let objects: Vec<Object> = parsed.iter().map(|parsed| parsed.object.clone()).collect();
        if objects.is_empty() || objects.len() > COMMANDS_MAX {
            return Err(invalid(
                "files",
                format!("hold {} objects; 1 to {COMMANDS_MAX} can be applied together", objects.len()),
            ));
        }
        let mut stamped = Stamped {
            request_id,
            actor,
            proposed_at_ms: 0,
            trace_context,
            preconditions: parsed.iter().filter_map(precondition).collect(),
            commands: objects.iter().cloned().map(Command::Apply).collect(),
        };
        let before = self.read(false, 0, deadline).await?;
        let (events, revision) = if request.dry_run {
            (decide(&before, &stamped).map_err(|r| rejection_status(&r))?, before.revision())
        } else {
            let span = traced(&mut stamped);
            let transaction =
                self.proposer.submit(stamped, Wanted::Transaction, deadline).instrument(span).await?;
            (transaction.events.clone(), transaction.outcome.as_ref().copied().unwrap_or_default())
        };
        let applied = objects.iter().map(|object| applied(&before, object, &events)).collect();
        let request_id = request_id.to_string();
        Ok(Response::new(v1::ApplyResponse { objects: applied, errors: Vec::new(), revision, request_id }))
    }
}

fn read_files(
    files: Vec<v1::ManifestFile>,
    namespace: Option<&Name>,
) -> Result<Vec<Parsed>, Vec<ManifestError>> {
    let sources: Vec<Source> =
        files.into_iter().map(|file| Source { name: file.name, text: file.text }).collect();
    let default = Name::new("default").expect("default is a name");
    parse(&sources, Some(namespace.unwrap_or(&default)))
}

/// `metadata.resourceVersion` in a manifest: the object must still be as whoever wrote it has read it.
fn precondition(parsed: &Parsed) -> Option<Precondition> {
    let revision = Some(parsed.resource_version?);
    Some(Precondition { object: parsed.object.object_ref(), revision })
}

fn wire_error(error: ManifestError) -> v1::ManifestError {
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
fn applied(before: &State, object: &Object, events: &[Event]) -> v1::AppliedObject {
    let reference = object.object_ref();
    let present = before.find_object(&reference).map(|found| found.meta().id);
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
    let unchanged = before.find_object(&reference).map_or(0, |found| found.meta().revision);
    let revision = last.map_or(unchanged, |event| event.revision);
    v1::AppliedObject { object: Some((&reference).into()), action: action.into(), revision }
}

/// The object that an apply's event changes.
fn subject(kind: &EventKind) -> Option<(Kind, ObjectId)> {
    match kind {
        EventKind::MetaChanged { kind, id, .. } => Some((*kind, *id)),
        EventKind::DeploymentSpecChanged { id, .. } => Some((Kind::Deployment, *id)),
        EventKind::ReplicaSetSpecChanged { id, .. } => Some((Kind::ReplicaSet, *id)),
        EventKind::NodeSpecChanged { id, .. } => Some((Kind::Node, *id)),
        _ => None,
    }
}
