//! ReplicaSets and Deployments.

use bulkhead_types::{
    DeploymentSpec, IntOrPercent, LabelOperator, LabelRequirement, LabelSelector,
    PROGRESS_DEADLINE_MS_DEFAULT, PodTemplate, REPLICAS_MAX, REVISION_HISTORY_LIMIT_DEFAULT, ReplicaSetSpec,
    Shared,
};

use super::decoder::{Decoder, Fields, Schema};
use super::{delivery, meta, pod};
use crate::tree::{Node, Value};

const REPLICA_SET: Schema =
    Schema { known: &["replicas", "minReadySeconds", "selector", "template"], ..Schema::EMPTY };
const DEPLOYMENT: Schema = Schema {
    known: &[
        "replicas",
        "selector",
        "template",
        "strategy",
        "minReadySeconds",
        "progressDeadlineSeconds",
        "revisionHistoryLimit",
        "paused",
        "stopped",
    ],
    ..Schema::EMPTY
};
const SELECTOR: Schema = Schema { known: &["matchLabels", "matchExpressions"], ..Schema::EMPTY };
const REQUIREMENT: Schema = Schema { known: &["key", "operator", "values"], ..Schema::EMPTY };
const TEMPLATE: Schema = Schema { known: &["metadata", "spec"], ..Schema::EMPTY };
const OPERATORS: [(&str, LabelOperator); 4] = [
    ("In", LabelOperator::In),
    ("NotIn", LabelOperator::NotIn),
    ("Exists", LabelOperator::Exists),
    ("DoesNotExist", LabelOperator::DoesNotExist),
];
/// `replicas` when not given.
pub(super) const REPLICAS_DEFAULT: u32 = 1;

/// What is wanted of a ReplicaSet.
pub(super) fn replica_set(d: &mut Decoder<'_>, node: &Node) -> Option<ReplicaSetSpec> {
    let fields = d.fields(node, "spec", &REPLICA_SET)?;
    let selector = selector(d, &fields);
    let template = template(d, &fields);
    Some(ReplicaSetSpec {
        replicas: count(d, &fields, "replicas").unwrap_or(REPLICAS_DEFAULT),
        min_ready_ms: d.seconds(&fields, "minReadySeconds").unwrap_or_default(),
        selector: selector?,
        template: template?,
        rollout_revision: 0,
    })
}

/// What is wanted of a Deployment.
pub(super) fn deployment(d: &mut Decoder<'_>, node: &Node) -> Option<DeploymentSpec> {
    let fields = d.fields(node, "spec", &DEPLOYMENT)?;
    let replicas = count(d, &fields, "replicas").unwrap_or(REPLICAS_DEFAULT);
    let min_ready_ms = d.seconds(&fields, "minReadySeconds").unwrap_or_default();
    let progress_deadline_ms =
        d.seconds(&fields, "progressDeadlineSeconds").unwrap_or(PROGRESS_DEADLINE_MS_DEFAULT);
    let revision_history_limit =
        count(d, &fields, "revisionHistoryLimit").unwrap_or(REVISION_HISTORY_LIMIT_DEFAULT);
    let paused = d.boolean(&fields, "paused").unwrap_or_default();
    let stopped = d.boolean(&fields, "stopped").unwrap_or_default();
    let (strategy, delivery) = delivery::strategy(d, &fields);
    let selector = selector(d, &fields);
    let template = template(d, &fields);
    Some(DeploymentSpec {
        replicas,
        selector: selector?,
        template: template?,
        strategy,
        min_ready_ms,
        progress_deadline_ms,
        revision_history_limit,
        paused,
        stopped,
        delivery,
    })
}

pub(super) fn count(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<u32> {
    d.number(fields, name, u64::from(REPLICAS_MAX)).and_then(|n| u32::try_from(n).ok())
}

pub(super) fn selector(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Option<LabelSelector> {
    let Some(node) = spec.get("selector") else {
        d.missing(spec, "selector");
        return Some(LabelSelector::default());
    };
    selector_at(d, node, &spec.path("selector"))
}

pub(super) fn selector_at(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<LabelSelector> {
    let fields = d.fields(node, path, &SELECTOR)?;
    Some(LabelSelector {
        match_labels: d.string_map(&fields, "matchLabels"),
        match_expressions: d.each(&fields, "matchExpressions", requirement),
    })
}

fn requirement(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<LabelRequirement> {
    let fields = d.fields(node, path, &REQUIREMENT)?;
    let key = d.required_text(&fields, "key");
    let values = d.texts(&fields, "values").into_iter().map(Into::into).collect();
    if fields.get("operator").is_none() {
        d.missing(&fields, "operator");
    }
    let operator = d.choice(&fields, "operator", &OPERATORS)?;
    Some(LabelRequirement { key: key?.into(), operator, values })
}

pub(super) fn template(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Option<PodTemplate> {
    let Some(node) = spec.get("template") else {
        d.missing(spec, "template");
        return None;
    };
    let fields = d.fields(node, &spec.path("template"), &TEMPLATE)?;
    let (labels, annotations) = meta::template(d, &fields);
    let Some(node) = fields.get("spec") else {
        d.missing(&fields, "spec");
        return None;
    };
    let spec = pod::spec(d, node, &fields.path("spec"))?;
    Some(PodTemplate { labels, annotations, spec: Shared::new(spec) })
}

pub(super) fn int_or_percent(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<IntOrPercent> {
    let node = fields.get(name)?;
    if let Value::Number(_) = node.value {
        return count(d, fields, name).map(IntOrPercent::Int);
    }
    let percent = match &node.value {
        Value::Text(text) => text.strip_suffix('%').filter(|p| p.bytes().all(|b| b.is_ascii_digit())),
        _ => None,
    };
    let found = percent.and_then(|p| p.parse().ok()).map(IntOrPercent::Percent);
    if found.is_none() {
        let reason = format!("expected a whole number, or a share such as 25%, found {}", node.describe());
        d.fail(node.place, &fields.path(name), reason);
    }
    found
}
