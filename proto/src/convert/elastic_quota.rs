//! ElasticQuotaTrees.

use bulkhead_types::{
    ELASTIC_QUOTA_LEVELS_MAX, ELASTIC_QUOTA_NAMESPACES_MAX, ElasticQuota, ElasticQuotaTree,
    ElasticQuotaTreeSpec, ElasticQuotaTreeStatus, ElasticQuotaUse, QUOTA_RESOURCES_MAX,
};

use super::{wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_struct!(ElasticQuotaTree => v1::ElasticQuotaTree { meta, spec, status });
wire_struct!(ElasticQuotaTreeSpec => v1::ElasticQuotaTreeSpec { root });
wire_struct!(ElasticQuota => v1::ElasticQuota {
    name, max (QUOTA_RESOURCES_MAX), min (QUOTA_RESOURCES_MAX), children (ELASTIC_QUOTA_LEVELS_MAX),
    namespaces (ELASTIC_QUOTA_NAMESPACES_MAX),
});
wire_struct!(ElasticQuotaTreeStatus => v1::ElasticQuotaTreeStatus {
    observed_generation, levels (ELASTIC_QUOTA_LEVELS_MAX),
});
wire_struct!(ElasticQuotaUse => v1::ElasticQuotaUse { name, used (QUOTA_RESOURCES_MAX) });

wire_field! {
    ElasticQuotaTree => v1::ElasticQuotaTree,
    ElasticQuotaTreeSpec => v1::ElasticQuotaTreeSpec,
    ElasticQuota => v1::ElasticQuota,
    ElasticQuotaUse => v1::ElasticQuotaUse,
}
wire_field_or_default! {
    ElasticQuotaTreeStatus => v1::ElasticQuotaTreeStatus,
}
