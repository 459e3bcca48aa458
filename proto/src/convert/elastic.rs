//! ElasticWorkloads.

use bulkhead_types::{
    EFFECT_ENTRIES_MAX, ELASTIC_UNITS_MAX, ElasticBounds, ElasticSource, ElasticUnit, ElasticUnitStatus,
    ElasticWorkload, ElasticWorkloadSpec, ElasticWorkloadStatus,
};

use super::{wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_struct!(ElasticWorkload => v1::ElasticWorkload { meta, spec, status });
wire_struct!(ElasticWorkloadSpec => v1::ElasticWorkloadSpec { source, replicas, units (ELASTIC_UNITS_MAX) });
wire_struct!(ElasticSource => v1::ElasticSource { name, bounds });
wire_struct!(ElasticBounds => v1::ElasticBounds { min, max });
wire_struct!(ElasticUnit => v1::ElasticUnit {
    name, bounds, labels, annotations, node_selector, tolerations (EFFECT_ENTRIES_MAX),
});
wire_struct!(ElasticWorkloadStatus => v1::ElasticWorkloadStatus {
    observed_generation, units (ELASTIC_UNITS_MAX + 1), conditions,
});
wire_struct!(ElasticUnitStatus => v1::ElasticUnitStatus { name, desired_replicas, ready_replicas });

wire_field! {
    ElasticWorkload => v1::ElasticWorkload,
    ElasticWorkloadSpec => v1::ElasticWorkloadSpec,
    ElasticSource => v1::ElasticSource,
    ElasticUnit => v1::ElasticUnit,
    ElasticUnitStatus => v1::ElasticUnitStatus,
}
wire_field_or_default! {
    ElasticBounds => v1::ElasticBounds,
    ElasticWorkloadStatus => v1::ElasticWorkloadStatus,
}
