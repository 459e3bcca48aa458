//! Quotas and LimitRanges.

use bulkhead_types::{
    Department, DepartmentSpec, LIMIT_RANGE_ITEMS_MAX, LimitAmounts, LimitRange, LimitRangeItem,
    LimitRangeSpec, LimitRatios, LimitType, Project, ProjectSpec, QUOTA_RESOURCES_MAX, QuotaAmounts,
    QuotaResource, QuotaStatus, ResourceQuota, ResourceQuotaSpec,
};

use super::{ConvertError, Field, wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum!(LimitType { Container, Pod, PersistentVolumeClaim });

wire_struct!(ResourceQuota => v1::ResourceQuota { meta, spec, status });
wire_struct!(ResourceQuotaSpec => v1::ResourceQuotaSpec { hard (QUOTA_RESOURCES_MAX) });
wire_struct!(Project => v1::Project { meta, spec, status });
wire_struct!(ProjectSpec => v1::ProjectSpec { department, hard (QUOTA_RESOURCES_MAX) });
wire_struct!(Department => v1::Department { meta, spec, status });
wire_struct!(DepartmentSpec => v1::DepartmentSpec { hard (QUOTA_RESOURCES_MAX) });
wire_struct!(QuotaStatus => v1::QuotaStatus { hard (QUOTA_RESOURCES_MAX), used (QUOTA_RESOURCES_MAX) });
wire_struct!(LimitRange => v1::LimitRange { meta, spec });
wire_struct!(LimitRangeSpec => v1::LimitRangeSpec { limits (LIMIT_RANGE_ITEMS_MAX) });
wire_struct!(LimitRangeItem => v1::LimitRangeItem {
    limit_type, min, max, default, default_request, max_limit_request_ratio,
});
wire_struct!(LimitAmounts => v1::LimitAmounts { compute, storage_bytes });
wire_struct!(LimitRatios => v1::LimitRatios { cpu, memory, ephemeral_storage });

wire_field! {
    ResourceQuota => v1::ResourceQuota,
    Project => v1::Project,
    Department => v1::Department,
    LimitRange => v1::LimitRange,
    LimitRangeSpec => v1::LimitRangeSpec,
    LimitRangeItem => v1::LimitRangeItem,
}
wire_field_or_default! {
    ResourceQuotaSpec => v1::ResourceQuotaSpec,
    ProjectSpec => v1::ProjectSpec,
    DepartmentSpec => v1::DepartmentSpec,
    QuotaStatus => v1::QuotaStatus,
    LimitAmounts => v1::LimitAmounts,
    LimitRatios => v1::LimitRatios,
}

/// Names are resources that are counted, each once.
impl Field<Vec<v1::QuotaAmount>> for QuotaAmounts {
    fn to_wire(&self) -> Vec<v1::QuotaAmount> {
        self.iter().map(|(resource, amount)| v1::QuotaAmount { resource: resource.name(), amount }).collect()
    }
    fn from_wire(wire: Vec<v1::QuotaAmount>) -> Result<Self, ConvertError> {
        let mut amounts = Self::default();
        for (index, v1::QuotaAmount { resource, amount }) in wire.into_iter().enumerate() {
            let named = QuotaResource::parse(&resource)
                .map_err(|error| ConvertError::new(error.to_string()).within("resource").at(index))?;
            if amounts.insert(named, amount).is_some() {
                return Err(ConvertError::new(format!("repeats {resource}")).within("resource").at(index));
            }
        }
        Ok(amounts)
    }
}
