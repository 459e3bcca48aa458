//! HorizontalPodAutoscalers.

use bulkhead_types::{
    AUTOSCALER_CPU_PERCENT_DEFAULT, AUTOSCALER_MIN_REPLICAS_DEFAULT, AutoscalerMetric, AutoscalerSpec, Kind,
    MeasuredResource, MetricTarget, Name, PolicySelect, PolicyUnit, ScaleTarget, ScalingPolicy, ScalingRules,
    parse_millis, parse_units,
};

use super::decoder::{Decoder, Fields, Schema};
use super::workload::count;
use crate::tree::{Node, Value};

const AUTOSCALER: Schema = Schema {
    known: &["scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"],
    ..Schema::EMPTY
};
const TARGET_REF: Schema = Schema { known: &["apiVersion", "kind", "name"], ..Schema::EMPTY };
const METRIC: Schema = Schema { known: &["type", "resource", "containerResource"], ..Schema::EMPTY };
const RESOURCE: Schema = Schema { known: &["name", "target"], ..Schema::EMPTY };
const CONTAINER_RESOURCE: Schema = Schema { known: &["name", "container", "target"], ..Schema::EMPTY };
const TARGET: Schema = Schema { known: &["type", "averageUtilization", "averageValue"], ..Schema::EMPTY };
const BEHAVIOR: Schema = Schema { known: &["scaleUp", "scaleDown"], ..Schema::EMPTY };
const RULES: Schema =
    Schema { known: &["stabilizationWindowSeconds", "selectPolicy", "policies"], ..Schema::EMPTY };
const POLICY: Schema = Schema { known: &["type", "value", "periodSeconds"], ..Schema::EMPTY };

const RESOURCES: [(&str, MeasuredResource); 2] =
    [("cpu", MeasuredResource::Cpu), ("memory", MeasuredResource::Memory)];
const SELECTS: [(&str, PolicySelect); 3] =
    [("Max", PolicySelect::Max), ("Min", PolicySelect::Min), ("Disabled", PolicySelect::Disabled)];
const UNITS: [(&str, PolicyUnit); 2] = [("Pods", PolicyUnit::Pods), ("Percent", PolicyUnit::Percent)];
/// Metrics of Kubernetes that come from elsewhere than agents.
const FOREIGN: [&str; 3] = ["Pods", "Object", "External"];

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
        metrics.push(AutoscalerMetric { resource: MeasuredResource::Cpu, container: None, target });
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
    let kind = d.required_text(&fields, "kind");
    let name = d.required_text(&fields, "name");
    let kind = kind.and_then(|text| {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if found.is_none() {
            let reason = format!("kind {text:?} is unknown, or has no number of replicas");
            d.fail(fields.place("kind"), &fields.path("kind"), reason);
        }
        found
    });
    if let (Some(version), Some(kind)) = (d.text(&fields, "apiVersion"), kind)
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
    if let Some(Node { value: Value::Text(text), place }) = node.get("type")
        && FOREIGN.contains(&text.as_str())
    {
        let reason = format!(
            "{text} metrics are not supported: nothing is set up that they could be read from; there are Resource and \
             ContainerResource, which agents measure"
        );
        d.fail(*place, &format!("{path}.type"), reason);
        return None;
    }
    let fields = d.fields(node, path, &METRIC)?;
    if fields.get("type").is_none() {
        d.missing(&fields, "type");
        return None;
    }
    let of_container = d.choice(&fields, "type", &[("Resource", false), ("ContainerResource", true)])?;
    let (name, other, schema) = match of_container {
        true => ("containerResource", "resource", &CONTAINER_RESOURCE),
        false => ("resource", "containerResource", &RESOURCE),
    };
    if let Some(node) = fields.get(other) {
        d.fail(node.place, &fields.path(other), format!("must not be set: the type wants {name}"));
    }
    let Some(node) = fields.get(name) else {
        d.missing(&fields, name);
        return None;
    };
    let source = d.fields(node, &fields.path(name), schema)?;
    if source.get("name").is_none() {
        d.missing(&source, "name");
    }
    let resource = d.choice(&source, "name", &RESOURCES);
    let container = if of_container { d.required_text(&source, "container") } else { None };
    let target = target(d, &source, resource?)?;
    if of_container && container.is_none() {
        return None;
    }
    Some(AutoscalerMetric { resource: resource?, container: container.map(Into::into), target })
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
    let is_share = d.choice(&fields, "type", &[("Utilization", true), ("AverageValue", false)])?;
    let (name, other) = match is_share {
        true => ("averageUtilization", "averageValue"),
        false => ("averageValue", "averageUtilization"),
    };
    if let Some(node) = fields.get(other) {
        d.fail(node.place, &fields.path(other), format!("must not be set: the type wants {name}"));
    }
    let Some(node) = fields.get(name) else {
        d.missing(&fields, name);
        return None;
    };
    if is_share {
        let percent = d.number(&fields, name, i32::MAX as u64)?;
        return u32::try_from(percent).ok().map(MetricTarget::Utilization);
    }
    let text = match &node.value {
        Value::Text(text) | Value::Number(text) => text.as_str(),
        _ => "",
    };
    let amount = match resource {
        MeasuredResource::Cpu => parse_millis(text),
        MeasuredResource::Memory => parse_units(text),
    };
    match amount {
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
