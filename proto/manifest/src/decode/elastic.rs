//! ElasticWorkloads.

use bulkhead_types::{ElasticBounds, ElasticSource, ElasticUnit, ElasticWorkloadSpec, Kind};

use super::autoscaler::target_ref_of;
use super::decoder::{Decoder, Fields, Schema};
use super::pod::toleration;
use super::workload::count;
use crate::tree::Node;

const SPEC: Schema = Schema { known: &["sourceTarget", "replicas", "elasticUnit"], ..Schema::EMPTY };
const SOURCE: Schema = Schema { known: &["apiVersion", "kind", "name", "min", "max"], ..Schema::EMPTY };
const UNIT: Schema = Schema {
    known: &["name", "labels", "annotations", "nodeSelector", "tolerations", "min", "max"],
    not_yet: &["affinity"],
    ..Schema::EMPTY
};

/// What is wanted of an ElasticWorkload.
pub(super) fn workload(d: &mut Decoder<'_>, node: &Node) -> Option<ElasticWorkloadSpec> {
    let fields = d.fields(node, "spec", &SPEC)?;
    let source = match fields.get("sourceTarget") {
        Some(node) => source(d, node, &fields.path("sourceTarget")),
        None => {
            d.missing(&fields, "sourceTarget");
            None
        }
    };
    let replicas = count(d, &fields, "replicas").unwrap_or(1);
    let units = d.each(&fields, "elasticUnit", unit);
    Some(ElasticWorkloadSpec { source: source?, replicas, units })
}

fn source(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ElasticSource> {
    let fields = d.fields(node, path, &SOURCE)?;
    let target = target_ref_of(d, &fields)?;
    if target.kind != Kind::Deployment {
        let reason = format!("must be Deployment, not {}", target.kind);
        d.fail(fields.place("kind"), &fields.path("kind"), reason);
    }
    Some(ElasticSource { name: target.name, bounds: bounds(d, &fields) })
}

fn bounds(d: &mut Decoder<'_>, fields: &Fields<'_>) -> ElasticBounds {
    ElasticBounds { min: count(d, fields, "min").unwrap_or_default(), max: count(d, fields, "max") }
}

fn unit(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ElasticUnit> {
    let fields = d.fields(node, path, &UNIT)?;
    let name = d.required_text(&fields, "name");
    Some(ElasticUnit {
        bounds: bounds(d, &fields),
        labels: d.string_map(&fields, "labels"),
        annotations: d.string_map(&fields, "annotations"),
        node_selector: d.string_map(&fields, "nodeSelector"),
        tolerations: d.each(&fields, "tolerations", toleration),
        name: name?.into(),
    })
}
