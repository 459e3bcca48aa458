//! `wait`: until objects have a condition, or are gone.

use std::str::FromStr;

use bulkhead_manifest::Names;
use bulkhead_types::{Condition, ConditionStatus, Object, ObjectRef};
use clap::Args;
use serde_json::Value;
use serde_json_path::JsonPath;

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
    /// What to wait for: condition=TYPE, condition=TYPE=STATUS, delete, jsonpath={.status.phase}=VALUE, or
    /// jsonpath={.status.phase} for any value. A job that can no more have the condition
    /// ends the wait with exit code 1; --timeout ends it with 4
    #[arg(long = "for", value_name = "WHAT")]
    wanted: Wanted,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Delete,
    Condition {
        condition_type: String,
        status: ConditionStatus,
    },
    /// Any value at the path when none is given.
    Path {
        path: JsonPath,
        value: Option<String>,
    },
}

impl FromStr for Wanted {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "delete" {
            return Ok(Self::Delete);
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            return Self::path(rest);
        }
        let rest = text.strip_prefix("condition=").filter(|rest| !rest.is_empty());
        let rest = rest.ok_or(
            "expected condition=TYPE, condition=TYPE=STATUS, jsonpath=PATH, jsonpath=PATH=VALUE, or delete",
        )?;
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

impl Wanted {
    /// kubectl's `{.a.b}=VALUE`; inside of the braces is RFC 9535, without its `$`.
    fn path(text: &str) -> Result<Self, String> {
        let (path, value) = match text.strip_prefix('{') {
            Some(rest) => {
                let (path, rest) = rest.rsplit_once('}').ok_or("a path that begins with { ends with }")?;
                match rest.strip_prefix('=') {
                    None if rest.is_empty() => (path, None),
                    None => return Err(format!("expected =VALUE after the path, found {rest:?}")),
                    Some(value) => (path, Some(value)),
                }
            }
            None => text.rsplit_once('=').map_or((text, None), |(path, value)| (path, Some(value))),
        };
        let path = if path.starts_with('$') { path.to_owned() } else { format!("${path}") };
        let path = JsonPath::parse(&path).map_err(|error| format!("{path}: {error}"))?;
        let value = value.map(|value| value.trim_matches(['"', '\'']).to_owned());
        Ok(Self::Path { path, value })
    }

    /// In words, for what did not come.
    fn describe(&self) -> String {
        match self {
            Self::Delete => "deleted".to_owned(),
            Self::Condition { condition_type, .. } => format!("condition {condition_type}"),
            Self::Path { path, value: Some(value) } => format!("{path} is {value}"),
            Self::Path { path, value: None } => format!("{path} is there"),
        }
    }

    /// Whether an object is as wanted.
    ///
    /// # Errors
    /// When it can no more become so, or is of a kind that never can.
    fn is_met(&self, object: &Object) -> Result<bool, Failure> {
        match self {
            Self::Delete => Ok(false),
            Self::Condition { condition_type, status } => is_so(object, condition_type, *status),
            Self::Path { path, value } => {
                let shown = bulkhead_manifest::to_value(object, NO_NAMES);
                let found = path.query(&shown).all();
                Ok(match value {
                    None => !found.is_empty(),
                    Some(value) => found.iter().any(|found| match found {
                        Value::String(text) => text == value,
                        other => other.to_string() == *value,
                    }),
                })
            }
        }
    }
}

/// Waiting needs no names of other objects.
const NO_NAMES: Names<'_> = Names { cluster_id: None, name_of: &|_, _| None };

pub(crate) async fn run(args: WaitArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    if args.wanted == Wanted::Delete {
        return until_gone(&objects, context).await;
    }
    let all = async {
        for object in &objects {
            until_met(object, &args.wanted, context).await?;
            emit_line(&format!("{} condition met", slash_name(object)))?;
        }
        Ok(())
    };
    match context.timeout {
        None => all.await,
        Some(limit) => tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
            let wanted = args.wanted.describe();
            Err(Failure::new(Class::Unavailable, format!("not so after {limit:?}: {wanted}")))
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

async fn until_met(object: &ObjectRef, wanted: &Wanted, context: &Context) -> Result<(), Failure> {
    let filter = Filter {
        namespace: object.namespace.clone(),
        fields: format!("metadata.name={}", object.name),
        ..Filter::default()
    };
    let (listed, revision) = context.client.list(object.kind, &filter).await?;
    let found = listed.first().ok_or_else(|| super::get::not_found(&object.to_string()))?;
    if wanted.is_met(found)? {
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
        if wanted.is_met(&changed)? {
            return Ok(());
        }
    }
}

fn no_condition(object: &Object, condition_type: &str) -> Failure {
    Failure::usage(format!("{} has no condition {condition_type}", object.object_ref()))
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
        Object::Pod(pod) => {
            let known = pod.conditions();
            let found = known.iter().find(|c| c.condition_type.eq_ignore_ascii_case(condition_type));
            let found = found.ok_or_else(|| no_condition(object, condition_type))?;
            return Ok(found.holds == (status == ConditionStatus::True));
        }
        other => return Err(no_condition(other, condition_type)),
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
        let path = |text: &str| match text.parse::<Wanted>() {
            Ok(Wanted::Path { path, value }) => Some((path.to_string(), value.unwrap_or_default())),
            _ => None,
        };
        let check = |text: &str, expected: Option<(&str, &str)>| {
            assert_eq!(path(text), expected.map(|(p, v)| (p.to_owned(), v.to_owned())), "{text}");
        };
        check("jsonpath={.status.phase}=Running", Some(("$.status.phase", "Running")));
        check("jsonpath='{.status.phase}'", None);
        check("jsonpath={.spec.replicas}", Some(("$.spec.replicas", "")));
        check("jsonpath=.spec.replicas=3", Some(("$.spec.replicas", "3")));
        check(
            "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
            Some(("$.status.conditions[?(@['type']=='Ready')].status", "True")),
        );
        check("jsonpath={.a", None);
        check("jsonpath={.a}x", None);
    }
}
