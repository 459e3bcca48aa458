//! Changes of objects that are there: read, edited, and put back unless somebody else was faster.

use bulkhead_manifest::Names;
use bulkhead_proto::v1;
use bulkhead_types::{Object, ObjectRef};
use serde_json::Value;
use uuid::Uuid;

use super::Context;
use crate::client::manifests;
use crate::failure::{Class, Failure};

/// How often a change by somebody else in between is looked at again.
const ATTEMPTS_MAX: usize = 10;

/// Who changes, and whether in earnest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    /// Who manages the changed fields from then on.
    pub(crate) manager: &'a str,
    /// Check everything, change nothing.
    pub(crate) dry_run: bool,
}

/// An object as people edit it: without its status, and without what only the control plane says of it.
pub(crate) fn editable(object: &Object) -> Value {
    let mut value = bulkhead_manifest::to_value(object, Names { cluster_id: None, name_of: &|_, _| None });
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        let known = ["name", "namespace", "labels", "annotations", "resourceVersion"];
        metadata.retain(|name, _| known.contains(&name.as_str()));
    }
    value
}

/// Reads an object, edits it, and puts it back unless somebody else changed it in between; then it is tried again.
/// Says whether there was anything to change.
pub(crate) async fn change(
    object: &ObjectRef,
    manner: Manner<'_>,
    context: &Context,
    edit: impl Fn(&mut Value) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut conflict = None;
    for _ in 0..ATTEMPTS_MAX {
        let found = editable(&context.client.get(object).await?);
        let mut edited = found.clone();
        edit(&mut edited)?;
        if edited == found {
            return Ok(false);
        }
        check_identity(&found, &edited)?;
        match put(object.to_string(), edited.to_string(), manner, context).await {
            Ok(answer) => {
                let done = answer.objects.first().map(v1::AppliedObject::action);
                return Ok(done != Some(v1::ApplyAction::Unchanged));
            }
            Err(failure) if failure.class == Class::Conflict => conflict = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    Err(conflict.unwrap_or_else(|| Failure::failed("nothing was tried")))
}

/// Refuses an edit that would be about another object.
pub(crate) fn check_identity(before: &Value, after: &Value) -> Result<(), Failure> {
    for path in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        if before.pointer(path) != after.pointer(path) {
            let field = path.trim_start_matches('/').replace('/', ".");
            return Err(Failure::failed(format!("{field} cannot change: it says which object this is")));
        }
    }
    Ok(())
}

/// Puts a whole object in the place of what is there.
pub(crate) async fn put(
    name: String,
    text: String,
    manner: Manner<'_>,
    context: &Context,
) -> Result<v1::ApplyResponse, Failure> {
    let request = v1::ApplyRequest {
        files: vec![v1::ManifestFile { name, text }],
        mode: v1::ApplyMode::Replace.into(),
        field_manager: manner.manager.to_owned(),
        dry_run: manner.dry_run,
        ..v1::ApplyRequest::default()
    };
    send(request, context).await
}

/// Sends documents; mistakes in them are a failure.
pub(crate) async fn send(request: v1::ApplyRequest, context: &Context) -> Result<v1::ApplyResponse, Failure> {
    let request = v1::ApplyRequest {
        namespace: context.namespace.to_string(),
        request_id: Uuid::new_v4().to_string(),
        actor: context.client.actor().to_owned(),
        ..request
    };
    let answer = context
        .client
        .call(|channel| {
            let request = context.client.request(request.clone());
            async move { manifests(channel).apply(request).await }
        })
        .await?;
    if !answer.errors.is_empty() {
        return Err(refused(&answer.errors));
    }
    if !request.dry_run {
        context.note_change(answer.revision);
    }
    Ok(answer)
}

pub(crate) fn refused(errors: &[v1::ManifestError]) -> Failure {
    let lines: Vec<String> = errors
        .iter()
        .map(|e| {
            let place =
                if e.line == 0 { e.file.clone() } else { format!("{}:{}:{}", e.file, e.line, e.column) };
            let path = if e.path.is_empty() { String::new() } else { format!(" {}", e.path) };
            format!("{place}{path}: {}", e.reason)
        })
        .collect();
    Failure::failed(format!("nothing was applied\n{}", lines.join("\n")))
}
