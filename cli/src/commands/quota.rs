//! `quota`: used, hard and left, at a namespace, its project and its department; and what is used, guaranteed and borrowed at
//! every level of the elastic quota tree.

use std::sync::Arc;

use bulkhead_types::{
    ELASTIC_QUOTA_NAMESPACE, ElasticQuota, ElasticQuotaTree, Kind, LABEL_PROJECT, Name, Object, ObjectRef,
    QuotaAmounts, QuotaStatus,
};
use clap::Args;

use super::Context;
use crate::client::Filter;
use crate::failure::{Class, Failure};
use crate::output::describe::{ELASTIC_COLUMNS, LEVEL_COLUMNS, elastic_rows, level_rows};
use crate::output::{emit, emit_line, table};

#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    /// A project, what is above it, and its namespaces, instead of the one namespace
    #[arg(long, value_name = "NAME", conflicts_with = "department", value_parser = |text: &str| Name::new(text))]
    project: Option<Name>,
    /// A department and its projects, instead of the one namespace
    #[arg(long, value_name = "NAME", value_parser = |text: &str| Name::new(text))]
    department: Option<Name>,
    /// Every level of the elastic quota tree, instead of the one namespace
    #[arg(long, conflicts_with_all = ["project", "department"])]
    elastic: bool,
}

pub(crate) async fn run(args: QuotaArgs, context: &Context) -> Result<(), Failure> {
    if args.elastic {
        let tree = elastic_tree(context).await?;
        let tree = tree.ok_or_else(|| super::get::not_found("elasticquotatree"))?;
        return emit(&table::render(&ELASTIC_COLUMNS, &elastic_rows(&tree, |_| true)));
    }
    let (mut rows, mut elastic) = (Vec::new(), Vec::new());
    let what = match (args.project, args.department) {
        (Some(project), _) => {
            add_project(&project, true, context, &mut rows).await?;
            let labels = format!("{LABEL_PROJECT}={project}");
            let (found, _) =
                context.client.list(Kind::Namespace, &Filter { labels, ..Filter::default() }).await?;
            for namespace in &found {
                add_namespace(&namespace.meta().name, context, &mut rows).await?;
            }
            format!("project {project}, its department and its namespaces")
        }
        (None, Some(department)) => {
            add_department(&department, true, context, &mut rows).await?;
            let (projects, _) = context.client.list(Kind::Project, &Filter::default()).await?;
            for project in projects {
                let Object::Project(one) = &project else { continue };
                if one.spec.department.as_ref() == Some(&department) {
                    add(&project, &one.spec.hard, &one.status, &mut rows);
                }
            }
            format!("department {department} and its projects")
        }
        (None, None) => {
            let namespace = &context.namespace;
            let found = find(Kind::Namespace, namespace, context).await?;
            let found = found.ok_or_else(|| missing(Kind::Namespace, namespace))?;
            add_namespace(namespace, context, &mut rows).await?;
            let label = found.meta().labels.get(LABEL_PROJECT);
            if let Some(project) = label.and_then(|name| Name::new(name).ok()) {
                // Its label may be older than projects are.
                add_project(&project, false, context, &mut rows).await?;
            }
            // An older server knows of no tree.
            if let Ok(Some(tree)) = elastic_tree(context).await {
                elastic = elastic_rows(&tree, |level| is_above(level, namespace));
            }
            format!("namespace {namespace} or above it")
        }
    };
    if rows.is_empty() && elastic.is_empty() {
        return emit_line(&format!("No quota limits {what}"));
    }
    let mut tables = Vec::new();
    if !rows.is_empty() {
        let header: Vec<&str> = ["LEVEL"].into_iter().chain(LEVEL_COLUMNS).collect();
        tables.push(table::render(&header, &rows));
    }
    if !elastic.is_empty() {
        tables.push(table::render(&ELASTIC_COLUMNS, &elastic));
    }
    emit(&tables.join("\n"))
}

/// The elastic quota tree, if there is one.
async fn elastic_tree(context: &Context) -> Result<Option<Arc<ElasticQuotaTree>>, Failure> {
    let namespace = Name::new(ELASTIC_QUOTA_NAMESPACE).ok();
    let filter = Filter { namespace, ..Filter::default() };
    let (found, _) = context.client.list(Kind::ElasticQuotaTree, &filter).await?;
    Ok(found.into_iter().find_map(|object| match object {
        Object::ElasticQuotaTree(tree) => Some(tree),
        _ => None,
    }))
}

/// Whether a level is a namespace's leaf, or above that.
fn is_above(level: &ElasticQuota, namespace: &Name) -> bool {
    level.levels().any(|(_, below)| below.namespaces.contains(namespace))
}

fn add(object: &Object, hard: &QuotaAmounts, status: &QuotaStatus, rows: &mut Vec<Vec<String>>) {
    let level = object.object_ref().to_string();
    rows.extend(level_rows(hard, status).into_iter().map(|cells| [vec![level.clone()], cells].concat()));
}

async fn add_namespace(
    namespace: &Name,
    context: &Context,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    let filter = Filter { namespace: Some(namespace.clone()), ..Filter::default() };
    let (mut quotas, _) = context.client.list(Kind::ResourceQuota, &filter).await?;
    quotas.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    for quota in &quotas {
        if let Object::ResourceQuota(one) = quota {
            add(quota, &one.spec.hard, &one.status, rows);
        }
    }
    Ok(())
}

async fn add_project(
    name: &Name,
    must_exist: bool,
    context: &Context,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    match find(Kind::Project, name, context).await? {
        Some(Object::Project(project)) => {
            add(&Object::Project(project.clone()), &project.spec.hard, &project.status, rows);
            match &project.spec.department {
                Some(department) => add_department(department, false, context, rows).await,
                None => Ok(()),
            }
        }
        _ if must_exist => Err(missing(Kind::Project, name)),
        _ => Ok(()),
    }
}

async fn add_department(
    name: &Name,
    must_exist: bool,
    context: &Context,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    match find(Kind::Department, name, context).await? {
        Some(Object::Department(department)) => {
            add(&Object::Department(department.clone()), &department.spec.hard, &department.status, rows);
            Ok(())
        }
        _ if must_exist => Err(missing(Kind::Department, name)),
        _ => Ok(()),
    }
}

fn missing(kind: Kind, name: &Name) -> Failure {
    super::get::not_found(&format!("{}/{name}", kind.as_str().to_lowercase()))
}

/// An object of the whole cluster; `None` when there is none.
async fn find(kind: Kind, name: &Name, context: &Context) -> Result<Option<Object>, Failure> {
    let reference = ObjectRef { kind, namespace: None, name: name.clone() };
    match context.client.get(&reference).await {
        Ok(object) => Ok(Some(object)),
        Err(failure) if failure.class == Class::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
