//! Rules for ElasticWorkloads.

use std::collections::BTreeSet;

use super::{Path, Report, annotations, labels, map_bytes, pod};
use crate::{
    EFFECT_ENTRIES_MAX, ELASTIC_UNITS_MAX, ElasticBounds, ElasticUnit, ElasticWorkloadSpec,
    LABEL_ELASTIC_UNIT, Name, REPLICAS_MAX, StringMap,
};

/// Checks what is wanted of an ElasticWorkload.
pub(super) fn workload(spec: &ElasticWorkloadSpec, path: &Path<'_>, report: &mut Report) {
    bounds(spec.source.bounds, &path.field("sourceTarget"), report);
    let replicas = path.field("replicas");
    if spec.replicas > REPLICAS_MAX {
        report.push(&replicas, format!("must be at most {REPLICAS_MAX}"));
    }
    if let Some(capacity) = spec.capacity().filter(|capacity| spec.replicas > *capacity) {
        let reason = format!("must be at most {capacity}: the source and the units together hold no more");
        report.push(&replicas, reason);
    }
    let path = path.field("elasticUnit");
    if spec.units.is_empty() {
        report.push(&path, "is required: at least one unit");
    }
    report.at_most(&path, "units", spec.units.len(), ELASTIC_UNITS_MAX);
    let mut names = BTreeSet::new();
    for (index, unit) in spec.units.iter().enumerate().take(ELASTIC_UNITS_MAX) {
        let path = path.index(index);
        let own = Name::new(&unit.name).and_then(|_| unit.deployment_name(&spec.source.name));
        report.check(&path.field("name"), own.map(drop));
        if !names.insert(&unit.name) {
            report.push(&path.field("name"), format!("repeats {:?}", unit.name));
        }
        check_unit(unit, &path, report);
    }
}

fn bounds(bounds: ElasticBounds, path: &Path<'_>, report: &mut Report) {
    if bounds.max.unwrap_or(bounds.min) > REPLICAS_MAX {
        report.push(&path.field("max"), format!("must be at most {REPLICAS_MAX}"));
    }
    if bounds.max.is_some_and(|max| max < bounds.min) {
        report.push(&path.field("max"), format!("must be at least min ({})", bounds.min));
    }
}

fn check_unit(unit: &ElasticUnit, path: &Path<'_>, report: &mut Report) {
    bounds(unit.bounds, path, report);
    labels(&unit.labels, &path.field("labels"), report);
    annotations(&unit.annotations, &path.field("annotations"), report);
    labels(&unit.node_selector, &path.field("nodeSelector"), report);
    let maps =
        [("labels", &unit.labels), ("annotations", &unit.annotations), ("nodeSelector", &unit.node_selector)];
    for (field, map) in maps {
        report.at_most(&path.field(field), "entries", map.len(), EFFECT_ENTRIES_MAX);
    }
    if unit.labels.contains_key(LABEL_ELASTIC_UNIT) {
        report.push(&path.field("labels").key(LABEL_ELASTIC_UNIT), "is set to the unit's name");
    }
    pod::tolerations(&unit.tolerations, EFFECT_ENTRIES_MAX, &path.field("tolerations"), report);
}

/// Bytes of an ElasticWorkload's texts.
pub(super) fn bytes(spec: &ElasticWorkloadSpec) -> usize {
    let of = |unit: &ElasticUnit| {
        let maps: [&StringMap; 3] = [&unit.labels, &unit.annotations, &unit.node_selector];
        let tolerations: usize = unit.tolerations.iter().map(|t| t.key.len() + t.value.len()).sum();
        maps.into_iter().map(map_bytes).sum::<usize>() + tolerations
    };
    spec.units.iter().map(of).sum()
}
