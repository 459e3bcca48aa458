//! `rollout history`: the revisions that can be gone back to.

use std::sync::Arc;

use bulkhead_types::{ANNOTATION_CHANGE_CAUSE, Kind, Object, ReplicaSet};
use clap::Args;
use serde_json::Value;

use super::{Which, read};
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

pub(crate) async fn run(args: &HistoryArgs, context: &Context) -> Result<(), Failure> {
    let object = args.which.deployment(context)?;
    let deployment = read(&object, context).await?;
    let filter = Filter { namespace: object.namespace.clone(), ..Filter::default() };
    let (sets, _) = context.client.list(Kind::ReplicaSet, &filter).await?;
    let mut sets: Vec<Arc<ReplicaSet>> = sets
        .into_iter()
        .filter_map(|o| match o {
            Object::ReplicaSet(set) if set.meta.owner.is_some_and(|owner| owner.id == deployment.meta.id) => {
                Some(set)
            }
            _ => None,
        })
        .collect();
    sets.sort_by_key(|set| set.spec.rollout_revision);
    emit_line(&slash_name(&object))?;
    if let Some(revision) = args.revision {
        let Some(set) = sets.iter().find(|set| set.spec.rollout_revision == revision) else {
            return Err(get::not_found(&format!("revision {revision} of {object}")));
        };
        let value = Directory::default().to_value(&Object::ReplicaSet(Arc::clone(set)));
        let template = value.pointer("/spec/template").cloned().unwrap_or(Value::Null);
        return emit(&format!("revision {revision}\n{}", bulkhead_manifest::value_to_yaml(&template)));
    }
    let rows: Vec<Vec<String>> = sets
        .iter()
        .map(|set| {
            let annotations = [&set.meta.annotations, &set.spec.template.annotations];
            let cause = annotations.into_iter().find_map(|a| a.get(ANNOTATION_CHANGE_CAUSE));
            vec![
                set.spec.rollout_revision.to_string(),
                age(set.meta.created_at_ms),
                set.meta.name.to_string(),
                set.spec
                    .template
                    .spec
                    .containers
                    .iter()
                    .map(|c| c.image.as_str())
                    .collect::<Vec<_>>()
                    .join(","),
                cause.map_or("<none>", |text| text.as_str()).to_owned(),
            ]
        })
        .collect();
    emit(&table::render(&["REVISION", "AGE", "REPLICASET", "IMAGES", "CHANGE-CAUSE"], &rows))
}
