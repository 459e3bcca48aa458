//! `wait`: until objects have a condition, or are gone.

use std::str::FromStr;

use bulkhead_types::{Condition, ConditionStatus, Object, ObjectRef};
use clap::Args;

use super::{Context, wait};
use crate::client::{Change, Filter};
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// What to wait for: condition=TYPE, condition=TYPE=STATUS, or delete. A job that can no more have the condition
    /// ends the wait with exit code 1; --timeout ends it with 4
    #[arg(long = "for", value_name = "WHAT")]
    wanted: Wanted,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Delete,
    Condition { condition_type: String, status: ConditionStatus },
}

impl FromStr for Wanted {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "delete" {
            return Ok(Self::Delete);
        }
        let rest = text.strip_prefix("condition=").filter(|rest| !rest.is_empty());
        let rest = rest.ok_or("expected condition=TYPE, condition=TYPE=STATUS, or delete")?;
        let (condition_type, status) = rest.split_once('=').unwrap_or((rest, "true"));
        let status = match status.to_ascii_lowercase().as_str() {
            "true" => ConditionStatus::True,
            "false" => ConditionStatus::False,
            "unknown" => ConditionStatus::Unknown,
            _ => return Err("a condition is True, False or Unknown".to_owned()),
        };
        Ok(Self::Condition { condition_type: condition_type.to_owned(), status })
    }
}

pub(crate) async fn run(args: WaitArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    let Wanted::Condition { condition_type, status } = &args.wanted else {
        return until_gone(&objects, context).await;
    };
    let all = async {
        for object in &objects {
            until_condition(object, condition_type, *status, context).await?;
            emit_line(&format!("{} condition met", slash_name(object)))?;
        }
        Ok(())
    };
    match context.timeout {
        None => all.await,
        Some(limit) => tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Class::Unavailable,
                format!("not so after {limit:?}: condition {condition_type}"),
            ))
        }),
    }
}

async fn until_gone(objects: &[ObjectRef], context: &Context) -> Result<(), Failure> {
    let mut present = Vec::new();
    for object in objects {
        match context.client.get(object).await {
            Ok(found) => present.push((object.clone(), found.meta().id)),
            Err(failure) if failure.class == Class::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    let report = |object: &ObjectRef| emit_line(&format!("{} deleted", slash_name(object)));
    wait::gone(&context.client, &present, context.timeout, report).await
}

async fn until_condition(
    object: &ObjectRef,
    condition_type: &str,
    status: ConditionStatus,
    context: &Context,
) -> Result<(), Failure> {
    let filter = Filter {
        namespace: object.namespace.clone(),
        fields: format!("metadata.name={}", object.name),
        ..Filter::default()
    };
    let (listed, revision) = context.client.list(object.kind, &filter).await?;
    let found = listed.first().ok_or_else(|| super::get::not_found(&object.to_string()))?;
    if is_so(found, condition_type, status)? {
        return Ok(());
    }
    let id = found.meta().id;
    let mut watcher = context.client.watch(object.kind, &filter, &listed, revision);
    loop {
        let (change, changed, _) = watcher.next().await?;
        if changed.meta().id != id {
            continue;
        }
        if change == Change::Gone {
            return Err(super::get::not_found(&object.to_string()));
        }
        if is_so(&changed, condition_type, status)? {
            return Ok(());
        }
    }
}

/// Whether an object has a condition.
///
/// # Errors
/// When it is a Job that has ended otherwise, or of a kind without conditions.
fn is_so(object: &Object, condition_type: &str, status: ConditionStatus) -> Result<bool, Failure> {
    let conditions: &[Condition] = match object {
        Object::Deployment(o) => &o.status.conditions,
        Object::StatefulSet(o) => &o.status.conditions,
        Object::Job(o) => &o.status.conditions,
        Object::CronJob(o) => &o.status.conditions,
        Object::Pod(pod) if condition_type.eq_ignore_ascii_case("ready") => {
            return Ok(pod.status.ready == (status == ConditionStatus::True));
        }
        other => {
            let reference = other.object_ref();
            return Err(Failure::usage(format!("{reference} has no condition {condition_type}")));
        }
    };
    let found = conditions.iter().find(|c| c.condition_type.eq_ignore_ascii_case(condition_type));
    if found.is_some_and(|c| c.status == status) {
        return Ok(true);
    }
    if let Object::Job(job) = object
        && let Some(end) = job.end()
    {
        let message = format!("{} has ended: {}: {}", object.object_ref(), end.reason, end.message);
        return Err(Failure::failed(message));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_read_as_kubectl_reads_it() {
        let check = |text: &str, expected: Option<(&str, ConditionStatus)>| {
            let expected = expected.map(|(condition_type, status)| Wanted::Condition {
                condition_type: condition_type.to_owned(),
                status,
            });
            assert_eq!(text.parse::<Wanted>().ok(), expected, "{text}");
        };
        check("condition=complete", Some(("complete", ConditionStatus::True)));
        check("condition=Ready=false", Some(("Ready", ConditionStatus::False)));
        check("condition=", None);
        check("condition=Ready=maybe", None);
        check("complete", None);
        assert_eq!("delete".parse(), Ok(Wanted::Delete));
    }
}
