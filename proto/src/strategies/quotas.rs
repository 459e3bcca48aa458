//! Quotas and LimitRanges.

use super::*;

/// Any resource that quotas count, by one of its names.
pub fn quota_resource() -> impl Strategy<Value = QuotaResource> + Clone {
    let short = ["cpu", "memory", "configmaps"];
    let extended = ["requests.nvidia.com/gpu", "requests.a.b/c"].map(ToOwned::to_owned);
    let names =
        Measure::all().map(|measure| measure.name()).chain(short.map(ToOwned::to_owned)).chain(extended);
    select(names.collect::<Vec<_>>())
        .prop_map(|name| QuotaResource::parse(&name).expect("a name that is known"))
}

/// Any amounts.
pub fn quota_amounts() -> impl Strategy<Value = QuotaAmounts> + Clone {
    proptest::collection::btree_map(quota_resource(), any::<u64>(), 0..4).prop_map(QuotaAmounts::from_iter)
}

record!(/// Any status of a level.
quota_status: QuotaStatus { hard: quota_amounts(), used: quota_amounts() });
record!(/// Any wish for a namespace.
resource_quota_spec: ResourceQuotaSpec { hard: quota_amounts() });
record!(/// Any ResourceQuota.
resource_quota: ResourceQuota { meta: meta(), spec: resource_quota_spec(), status: quota_status() });
record!(/// Any wish for a project.
project_spec: ProjectSpec { department: of(name()), hard: quota_amounts() });
record!(/// Any Project.
project: Project { meta: meta(), spec: project_spec(), status: quota_status() });
record!(/// Any wish for a department.
department_spec: DepartmentSpec { hard: quota_amounts() });
record!(/// Any Department.
department: Department { meta: meta(), spec: department_spec(), status: quota_status() });

record!(/// Any bounds.
limit_amounts: LimitAmounts { compute: resource_requirements(), storage_bytes: of(any::<u64>()) });
record!(/// Any ratios.
limit_ratios: LimitRatios {
    cpu: of(any::<u64>()), memory: of(any::<u64>()), ephemeral_storage: of(any::<u64>()),
});
record!(/// Any bounds and defaults of a type.
limit_range_item: LimitRangeItem {
    limit_type: select(vec![LimitType::Container, LimitType::Pod, LimitType::PersistentVolumeClaim]),
    min: limit_amounts(), max: limit_amounts(), default: resource_requirements(),
    default_request: resource_requirements(), max_limit_request_ratio: limit_ratios(),
});
record!(/// Any bounds and defaults.
limit_range_spec: LimitRangeSpec { limits: vec(limit_range_item(), 0..3) });
record!(/// Any LimitRange.
limit_range: LimitRange { meta: meta(), spec: limit_range_spec() });
