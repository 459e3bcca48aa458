//! HorizontalPodAutoscalers as values.

use bulkhead_types::{
    AutoscalerMetric, AutoscalerSpec, AutoscalerStatus, MeasuredResource, MetricQuery, MetricReading,
    MetricSource, MetricTarget, PolicySelect, PolicyUnit, ScaleTarget, ScalingRules, format_bytes,
    format_millis,
};
use serde_json::{Value, json};

use super::Fields;
use super::workload::{conditions, selector};

/// What is wanted of an autoscaler.
pub(super) fn autoscaler_spec(spec: &AutoscalerSpec) -> Value {
    Fields::new()
        .set("scaleTargetRef", target_ref(&spec.target))
        .set("minReplicas", spec.min_replicas.into())
        .set("maxReplicas", spec.max_replicas.into())
        .list("metrics", spec.metrics.iter().map(metric))
        .set("behavior", json!({"scaleUp": rules(&spec.scale_up), "scaleDown": rules(&spec.scale_down)}))
        .finish()
}

/// A reference to what is scaled.
pub(super) fn target_ref(target: &ScaleTarget) -> Value {
    json!({
        "apiVersion": target.kind.api_version(),
        "kind": target.kind.as_str(),
        "name": target.name.as_str(),
    })
}

/// An amount as Kubernetes writes it.
pub(super) fn amount(resource: MeasuredResource, amount: u64) -> String {
    match resource {
        MeasuredResource::Cpu | MeasuredResource::Queried => format_millis(amount),
        MeasuredResource::Memory => format_bytes(amount),
    }
}

fn metric(metric: &AutoscalerMetric) -> Value {
    let target = match metric.target {
        MetricTarget::Utilization(percent) => json!({"type": "Utilization", "averageUtilization": percent}),
        MetricTarget::AverageValue(value) => {
            json!({"type": "AverageValue", "averageValue": amount(metric.resource, value)})
        }
        MetricTarget::Value(value) => json!({"type": "Value", "value": amount(metric.resource, value)}),
    };
    of_metric(metric, "target", target)
}

/// A metric with what is wanted of it, or what it is.
fn of_metric(metric: &AutoscalerMetric, name: &str, content: Value) -> Value {
    if let Some(query) = metric.query.get() {
        return of_query(query, name, content);
    }
    let resource = Fields::new()
        .text("name", metric.resource.as_str())
        .optional("container", metric.container.as_deref())
        .set(name, content)
        .finish();
    let (kind, field) = match metric.container {
        None => ("Resource", "resource"),
        Some(_) => ("ContainerResource", "containerResource"),
    };
    Fields::new().text("type", kind).set(field, resource).finish()
}

fn of_query(query: &MetricQuery, name: &str, content: Value) -> Value {
    let selected = Some(&query.selector).filter(|selector| !selector.is_empty()).map(selector);
    let metric = Fields::new().text("name", &query.name).maybe("selector", selected).finish();
    let described = query.object.as_ref().map(|object| {
        Fields::new()
            .nonempty("apiVersion", &object.api_version)
            .text("kind", &object.kind)
            .text("name", &object.name)
            .finish()
    });
    let source = Fields::new().set("metric", metric).maybe("describedObject", described).set(name, content);
    let field = match query.source {
        MetricSource::Pods => "pods",
        MetricSource::Object => "object",
        MetricSource::External => "external",
    };
    Fields::new().text("type", query.source.as_str()).set(field, source.finish()).finish()
}

fn rules(rules: &ScalingRules) -> Value {
    let select = match rules.select_policy {
        PolicySelect::Max => "Max",
        PolicySelect::Min => "Min",
        PolicySelect::Disabled => "Disabled",
    };
    let policies = rules.policies.iter().map(|policy| {
        let unit = match policy.unit {
            PolicyUnit::Pods => "Pods",
            PolicyUnit::Percent => "Percent",
        };
        json!({"type": unit, "value": policy.value, "periodSeconds": policy.period_ms / 1000})
    });
    Fields::new()
        .set("stabilizationWindowSeconds", (rules.stabilization_window_ms / 1000).into())
        .text("selectPolicy", select)
        .list("policies", policies)
        .finish()
}

/// What is known of an autoscaler.
pub(super) fn autoscaler_status(spec: &AutoscalerSpec, status: &AutoscalerStatus) -> Value {
    let current = spec
        .metrics
        .iter()
        .zip(&status.metrics)
        .map(|(metric, reading)| of_metric(metric, "current", current(metric.resource, reading)));
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .time("lastScaleTime", status.last_scale_ms)
        .set("currentReplicas", status.current_replicas.into())
        .set("desiredReplicas", status.desired_replicas.into())
        .list("currentMetrics", current)
        .list("conditions", conditions(&status.conditions))
        .finish()
}

fn current(resource: MeasuredResource, reading: &MetricReading) -> Value {
    let value = reading.average_value.map(|value| amount(resource, value));
    let total = reading.total.get().map(|total| amount(resource, *total));
    Fields::new()
        .number("averageUtilization", reading.average_utilization.map(u64::from))
        .optional("averageValue", value.as_deref())
        .optional("value", total.as_deref())
        .finish()
}
