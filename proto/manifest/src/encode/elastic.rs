//! ElasticWorkloads as values.

use bulkhead_types::{ElasticBounds, ElasticUnit, ElasticWorkloadSpec, ElasticWorkloadStatus, Kind};
use serde_json::{Value, json};

use super::Fields;
use super::pod::toleration;
use super::workload::conditions;

/// What is wanted of an ElasticWorkload.
pub(super) fn workload_spec(spec: &ElasticWorkloadSpec) -> Value {
    let source = Fields::new()
        .text("apiVersion", Kind::Deployment.api_version())
        .text("kind", Kind::Deployment.as_str())
        .text("name", spec.source.name.as_str());
    Fields::new()
        .set("sourceTarget", bounds(source, spec.source.bounds).finish())
        .set("replicas", spec.replicas.into())
        .list("elasticUnit", spec.units.iter().map(unit))
        .finish()
}

fn bounds(fields: Fields, bounds: ElasticBounds) -> Fields {
    fields.set("min", bounds.min.into()).number("max", bounds.max.map(Into::into))
}

fn unit(unit: &ElasticUnit) -> Value {
    bounds(Fields::new().text("name", &unit.name), unit.bounds)
        .map("labels", &unit.labels)
        .map("annotations", &unit.annotations)
        .map("nodeSelector", &unit.node_selector)
        .list("tolerations", unit.tolerations.iter().map(toleration))
        .finish()
}

/// What is known of an ElasticWorkload.
pub(super) fn workload_status(status: &ElasticWorkloadStatus) -> Value {
    let units = status.units.iter().map(|unit| {
        json!({
            "name": unit.name.as_str(),
            "desiredReplicas": unit.desired_replicas,
            "readyReplicas": unit.ready_replicas,
        })
    });
    Fields::new()
        .number("observedGeneration", Some(status.observed_generation))
        .list("elasticUnitsStatus", units)
        .list("conditions", conditions(&status.conditions))
        .finish()
}
