//! Manifests: planned as servers do, and kept.

use bulkhead_manifest::{Edit, EditMode, PlanError, Source, plan};
use bulkhead_proto::v1;
use bulkhead_types::{Name, Object, ObjectRef};
use tonic::{Request, Response, Status};

use super::Fake;
use super::objects::key_of_ref;

/// What users set of an object.
fn bare(object: &Object) -> serde_json::Value {
    let names = bulkhead_manifest::Names { cluster_id: None, name_of: &|_, _| None };
    let mut value = bulkhead_manifest::to_value(object, names);
    value["status"].take();
    let metadata = value["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|name, _| name == "labels" || name == "annotations");
    value
}

#[tonic::async_trait]
impl v1::manifests_server::Manifests for Fake {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let request = request.into_inner();
        let (mode, dry_run) = (request.mode(), request.dry_run);
        let mut answer = v1::ApplyResponse { request_id: request.request_id, ..v1::ApplyResponse::default() };
        let files: Vec<Source> =
            request.files.into_iter().map(|f| Source { name: f.name, text: f.text }).collect();
        if self.state().conflict {
            return Err(Status::aborted("somebody else changed it"));
        }
        let present = |reference: &ObjectRef| {
            let key = key_of_ref(&reference.into());
            self.state().objects.get(&key).cloned().map(|o| Object::try_from(o).expect("an object"))
        };
        let mode = match mode {
            v1::ApplyMode::Replace => EditMode::Replace,
            _ => EditMode::Apply { force: request.force_conflicts },
        };
        let edit = Edit { manager: &request.field_manager, mode };
        match plan(&files, Name::new(&request.namespace).ok().as_ref(), edit, &present) {
            Err(PlanError::Mistakes(errors)) => {
                answer.errors = errors
                    .into_iter()
                    .map(|e| v1::ManifestError {
                        file: e.file,
                        line: e.line as u32,
                        column: e.column as u32,
                        path: e.path,
                        reason: e.reason,
                    })
                    .collect();
            }
            Err(PlanError::Conflicts(conflicts)) => {
                let lines = conflicts.iter().map(|c| format!("{} is managed by {:?}", c.field, c.manager));
                return Err(Status::aborted(lines.collect::<Vec<_>>().join("\n")));
            }
            Ok(planned) => {
                for one in planned.into_iter().map(|one| one.parsed) {
                    let object = one.object.object_ref();
                    let was = present(&object);
                    let revision = was.as_ref().map(|was| was.meta().revision);
                    if one.resource_version.is_some_and(|wanted| Some(wanted) != revision) {
                        return Err(Status::aborted(format!("{object} changed meanwhile")));
                    }
                    if was.is_none() && mode == EditMode::Replace {
                        return Err(Status::not_found(format!("{object} does not exist")));
                    }
                    let wanted = v1::Object::from(&one.object);
                    let is_same = was.as_ref().is_some_and(|was| bare(was) == bare(&one.object));
                    let action = match dry_run {
                        true if was.is_some() => v1::ApplyAction::Configured,
                        true => v1::ApplyAction::Created,
                        false => self.put(wanted.object.clone().expect("an object")),
                    };
                    // Who manages fields is no change that is told.
                    let action = if is_same { v1::ApplyAction::Unchanged } else { action };
                    answer.objects.push(v1::AppliedObject {
                        object: Some((&object).into()),
                        action: action.into(),
                        revision: 0,
                        result: dry_run.then_some(wanted),
                    });
                }
            }
        }
        Ok(Response::new(answer))
    }
}
