//! `rollout history`: the revisions that can be gone back to.

use bulkhead_types::{ANNOTATION_CHANGE_CAUSE, Kind, Object, ObjectMeta, PodTemplate};
use clap::Args;
use serde_json::Value;

use super::Which;
use crate::client::Filter;
use crate::commands::{Context, get};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::target::slash_name;
use crate::time::age;

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    which: Which,
    /// Show this revision's template in full
    #[arg(long)]
    revision: Option<u64>,
}

/// The number, metadata and template of what stands for one revision.
fn parts(object: &Object) -> Option<(u64, &ObjectMeta, &PodTemplate)> {
    match object {
        Object::ReplicaSet(set) => Some((set.spec.rollout_revision, &set.meta, &set.spec.template)),
        Object::ControllerRevision(row) => Some((row.revision, &row.meta, &row.template)),
        _ => None,
    }
}

pub(crate) async fn run(args: &HistoryArgs, context: &Context) -> Result<(), Failure> {
    let object = args.which.rolled(context)?;
    let owner = context.client.get(&object).await?.meta().id;
    let (kind, title) = match object.kind {
        Kind::Deployment => (Kind::ReplicaSet, "REPLICASET"),
        _ => (Kind::ControllerRevision, "CONTROLLERREVISION"),
    };
    let filter = Filter { namespace: object.namespace.clone(), ..Filter::default() };
    let (mut owned, _) = context.client.list(kind, &filter).await?;
    owned.retain(|object| object.meta().owner.is_some_and(|of| of.id == owner));
    owned.sort_by_key(|object| parts(object).map(|(revision, ..)| revision));
    emit_line(&slash_name(&object))?;
    if let Some(revision) = args.revision {
        let found = owned.iter().find(|object| parts(object).is_some_and(|(number, ..)| number == revision));
        let Some(found) = found else {
            return Err(get::not_found(&format!("revision {revision} of {object}")));
        };
        let value = Directory::default().to_value(found, false);
        let template = ["/spec/template", "/data/spec/template"].into_iter().find_map(|at| value.pointer(at));
        let template = template.cloned().unwrap_or(Value::Null);
        return emit(&format!("revision {revision}\n{}", bulkhead_manifest::value_to_yaml(&template)));
    }
    let rows: Vec<Vec<String>> = owned
        .iter()
        .filter_map(parts)
        .map(|(revision, meta, template)| {
            let annotations = [&meta.annotations, &template.annotations];
            let cause = annotations.into_iter().find_map(|a| a.get(ANNOTATION_CHANGE_CAUSE));
            let images: Vec<_> = template.spec.containers.iter().map(|c| c.image.as_str()).collect();
            vec![
                revision.to_string(),
                age(meta.created_at_ms),
                meta.name.to_string(),
                images.join(","),
                cause.map_or("<none>", |text| text.as_str()).to_owned(),
            ]
        })
        .collect();
    emit(&table::render(&["REVISION", "AGE", title, "IMAGES", "CHANGE-CAUSE"], &rows))
}
