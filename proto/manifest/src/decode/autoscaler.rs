//! HorizontalPodAutoscalers.

use bulkhead_types::{
    AUTOSCALER_CPU_PERCENT_DEFAULT, AUTOSCALER_MIN_REPLICAS_DEFAULT, AutoscalerMetric, AutoscalerSpec, Kind,
    MeasuredResource, MetricObject, MetricQuery, MetricSource, MetricTarget, Name, PolicySelect, PolicyUnit,
    Rare, ScaleTarget, ScalingPolicy, ScalingRules, parse_millis, parse_units,
};

use super::decoder::{Decoder, Fields, Schema};
use super::workload::{count, selector_at};
use crate::tree::{Node, Value};

const AUTOSCALER: Schema = Schema {
    known: &["scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"],
    ..Schema::EMPTY
};
const TARGET_REF: Schema = Schema { known: &["apiVersion", "kind", "name"], ..Schema::EMPTY };
const METRIC: Schema = Schema {
    known: &["type", "resource", "containerResource", "pods", "object", "external"],
    ..Schema::EMPTY
};
const RESOURCE: Schema = Schema { known: &["name", "target"], ..Schema::EMPTY };
const CONTAINER_RESOURCE: Schema = Schema { known: &["name", "container", "target"], ..Schema::EMPTY };
const QUERIED: Schema = Schema { known: &["metric", "target"], ..Schema::EMPTY };
const OBJECT: Schema = Schema { known: &["metric", "target", "describedObject"], ..Schema::EMPTY };
const IDENTIFIER: Schema = Schema { known: &["name", "selector"], ..Schema::EMPTY };
const DESCRIBED: Schema = Schema { known: &["apiVersion", "kind", "name"], ..Schema::EMPTY };
const TARGET: Schema =
    Schema { known: &["type", "averageUtilization", "averageValue", "value"], ..Schema::EMPTY };
const BEHAVIOR: Schema = Schema { known: &["scaleUp", "scaleDown"], ..Schema::EMPTY };
const RULES: Schema =
    Schema { known: &["stabilizationWindowSeconds", "selectPolicy", "policies"], ..Schema::EMPTY };
const POLICY: Schema = Schema { known: &["type", "value", "periodSeconds"], ..Schema::EMPTY };

const RESOURCES: [(&str, MeasuredResource); 2] =
    [("cpu", MeasuredResource::Cpu), ("memory", MeasuredResource::Memory)];
const SELECTS: [(&str, PolicySelect); 3] =
    [("Max", PolicySelect::Max), ("Min", PolicySelect::Min), ("Disabled", PolicySelect::Disabled)];
const UNITS: [(&str, PolicyUnit); 2] = [("Pods", PolicyUnit::Pods), ("Percent", PolicyUnit::Percent)];

/// What `type` of a metric says: the field with the rest of it, which others must not be there, and where numbers come
/// from.
#[derive(Clone, Copy)]
struct MetricType {
    field: &'static str,
    schema: &'static Schema,
    source: Option<MetricSource>,
}

const TYPES: [(&str, MetricType); 5] = [
    ("Resource", MetricType { field: "resource", schema: &RESOURCE, source: None }),
    (
        "ContainerResource",
        MetricType { field: "containerResource", schema: &CONTAINER_RESOURCE, source: None },
    ),
    ("Pods", MetricType { field: "pods", schema: &QUERIED, source: Some(MetricSource::Pods) }),
    ("Object", MetricType { field: "object", schema: &OBJECT, source: Some(MetricSource::Object) }),
    ("External", MetricType { field: "external", schema: &QUERIED, source: Some(MetricSource::External) }),
];

/// What is wanted of an autoscaler.
pub(super) fn autoscaler(d: &mut Decoder<'_>, node: &Node) -> Option<AutoscalerSpec> {
    let fields = d.fields(node, "spec", &AUTOSCALER)?;
    let target = target_ref(d, &fields, "scaleTargetRef");
    let min_replicas = count(d, &fields, "minReplicas").unwrap_or(AUTOSCALER_MIN_REPLICAS_DEFAULT);
    if fields.get("maxReplicas").is_none() {
        d.missing(&fields, "maxReplicas");
    }
    let max_replicas = count(d, &fields, "maxReplicas");
    let is_given = fields.get("metrics").is_some();
    let mut metrics = d.each(&fields, "metrics", metric);
    if !is_given {
        let target = MetricTarget::Utilization(AUTOSCALER_CPU_PERCENT_DEFAULT);
        metrics.push(AutoscalerMetric::resource(MeasuredResource::Cpu, target));
    }
    let path = fields.path("behavior");
    let behavior = fields.get("behavior").and_then(|node| d.fields(node, &path, &BEHAVIOR));
    let scale_up = rules(d, behavior.as_ref(), "scaleUp", ScalingRules::scale_up_default());
    let scale_down = rules(d, behavior.as_ref(), "scaleDown", ScalingRules::scale_down_default());
    Some(AutoscalerSpec {
        target: target?,
        min_replicas,
        max_replicas: max_replicas?,
        metrics,
        scale_up,
        scale_down,
    })
}

/// A reference to what is scaled: kind and name, and the version of the kind when it is given.
pub(super) fn target_ref(d: &mut Decoder<'_>, spec: &Fields<'_>, name: &str) -> Option<ScaleTarget> {
    let Some(node) = spec.get(name) else {
        d.missing(spec, name);
        return None;
    };
    let fields = d.fields(node, &spec.path(name), &TARGET_REF)?;
    target_ref_of(d, &fields)
}

/// The same, of its fields, among which there may be others.
pub(super) fn target_ref_of(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<ScaleTarget> {
    let kind = d.required_text(fields, "kind");
    let name = d.required_text(fields, "name");
    let kind = kind.and_then(|text| {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if found.is_none() {
            let reason = format!("kind {text:?} is unknown, or has no number of replicas");
            d.fail(fields.place("kind"), &fields.path("kind"), reason);
        }
        found
    });
    if let (Some(version), Some(kind)) = (d.text(fields, "apiVersion"), kind)
        && version != kind.api_version()
    {
        let reason = format!("{kind} is in {}, found {version:?}", kind.api_version());
        d.fail(fields.place("apiVersion"), &fields.path("apiVersion"), reason);
    }
    let name = Name::new(name?).map_err(|error| {
        d.fail(fields.place("name"), &fields.path("name"), error.to_string());
    });
    Some(ScaleTarget { kind: kind?, name: name.ok()? })
}

fn metric(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<AutoscalerMetric> {
    let fields = d.fields(node, path, &METRIC)?;
    if fields.get("type").is_none() {
        d.missing(&fields, "type");
        return None;
    }
    let MetricType { field, schema, source } = d.choice(&fields, "type", &TYPES)?;
    for (_, other) in TYPES.iter().filter(|(_, other)| other.field != field) {
        if let Some(node) = fields.get(other.field) {
            let reason = format!("must not be set: the type wants {field}");
            d.fail(node.place, &fields.path(other.field), reason);
        }
    }
    let Some(node) = fields.get(field) else {
        d.missing(&fields, field);
        return None;
    };
    let content = d.fields(node, &fields.path(field), schema)?;
    match source {
        Some(source) => queried(d, &content, source),
        None => measured(d, &content, field == "containerResource"),
    }
}

/// What agents measure.
fn measured(d: &mut Decoder<'_>, source: &Fields<'_>, of_container: bool) -> Option<AutoscalerMetric> {
    if source.get("name").is_none() {
        d.missing(source, "name");
    }
    let resource = d.choice(source, "name", &RESOURCES);
    let container = if of_container { d.required_text(source, "container") } else { None };
    let target = target(d, source, resource?)?;
    if of_container && container.is_none() {
        return None;
    }
    let container = container.map(Into::into);
    Some(AutoscalerMetric { resource: resource?, container, target, query: Rare::NONE })
}

/// What the metrics endpoint says.
fn queried(d: &mut Decoder<'_>, content: &Fields<'_>, source: MetricSource) -> Option<AutoscalerMetric> {
    let Some(node) = content.get("metric") else {
        d.missing(content, "metric");
        return None;
    };
    let metric = d.fields(node, &content.path("metric"), &IDENTIFIER)?;
    let name = d.required_text(&metric, "name");
    let selector = metric
        .get("selector")
        .and_then(|node| selector_at(d, node, &metric.path("selector")))
        .unwrap_or_default();
    let object = match source {
        MetricSource::Object => Some(described(d, content)?),
        _ => None,
    };
    let target = target(d, content, MeasuredResource::Queried)?;
    let query = MetricQuery { source, object, name: name?.into(), selector };
    let (resource, container, query) = (MeasuredResource::Queried, None, Rare::some(query));
    Some(AutoscalerMetric { resource, container, target, query })
}

fn described(d: &mut Decoder<'_>, content: &Fields<'_>) -> Option<MetricObject> {
    let Some(node) = content.get("describedObject") else {
        d.missing(content, "describedObject");
        return None;
    };
    let fields = d.fields(node, &content.path("describedObject"), &DESCRIBED)?;
    let (kind, name) = (d.required_text(&fields, "kind"), d.required_text(&fields, "name"));
    let api_version = d.text(&fields, "apiVersion").unwrap_or_default().into();
    Some(MetricObject { api_version, kind: kind?.into(), name: name?.into() })
}

fn target(d: &mut Decoder<'_>, source: &Fields<'_>, resource: MeasuredResource) -> Option<MetricTarget> {
    let Some(node) = source.get("target") else {
        d.missing(source, "target");
        return None;
    };
    let fields = d.fields(node, &source.path("target"), &TARGET)?;
    if fields.get("type").is_none() {
        d.missing(&fields, "type");
        return None;
    }
    let kinds = [("Utilization", "averageUtilization"), ("AverageValue", "averageValue"), ("Value", "value")];
    let name = d.choice(&fields, "type", &kinds)?;
    for (_, other) in kinds.into_iter().filter(|(_, other)| *other != name) {
        if let Some(node) = fields.get(other) {
            d.fail(node.place, &fields.path(other), format!("must not be set: the type wants {name}"));
        }
    }
    let Some(node) = fields.get(name) else {
        d.missing(&fields, name);
        return None;
    };
    if name == "averageUtilization" {
        let percent = d.number(&fields, name, i32::MAX as u64)?;
        return u32::try_from(percent).ok().map(MetricTarget::Utilization);
    }
    let text = match &node.value {
        Value::Text(text) | Value::Number(text) => text.as_str(),
        _ => "",
    };
    let amount = match resource {
        MeasuredResource::Cpu | MeasuredResource::Queried => parse_millis(text),
        MeasuredResource::Memory => parse_units(text),
    };
    match amount {
        Ok(amount) if name == "value" => Some(MetricTarget::Value(amount)),
        Ok(amount) => Some(MetricTarget::AverageValue(amount)),
        Err(error) => {
            d.fail(node.place, &fields.path(name), error.to_string());
            None
        }
    }
}

fn rules(
    d: &mut Decoder<'_>,
    behavior: Option<&Fields<'_>>,
    name: &str,
    defaults: ScalingRules,
) -> ScalingRules {
    let Some(behavior) = behavior else { return defaults };
    let path = behavior.path(name);
    let Some(fields) = behavior.get(name).and_then(|node| d.fields(node, &path, &RULES)) else {
        return defaults;
    };
    let is_given = fields.get("policies").is_some();
    let policies = d.each(&fields, "policies", policy);
    ScalingRules {
        stabilization_window_ms: d
            .seconds(&fields, "stabilizationWindowSeconds")
            .unwrap_or(defaults.stabilization_window_ms),
        select_policy: d.choice(&fields, "selectPolicy", &SELECTS).unwrap_or_default(),
        policies: if is_given { policies } else { defaults.policies },
    }
}

fn policy(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ScalingPolicy> {
    let fields = d.fields(node, path, &POLICY)?;
    for name in ["type", "value", "periodSeconds"] {
        if fields.get(name).is_none() {
            d.missing(&fields, name);
        }
    }
    let unit = d.choice(&fields, "type", &UNITS);
    let value = d.number(&fields, "value", i32::MAX as u64).and_then(|n| u32::try_from(n).ok());
    let period_ms = d.seconds(&fields, "periodSeconds");
    Some(ScalingPolicy { unit: unit?, value: value?, period_ms: period_ms? })
}
