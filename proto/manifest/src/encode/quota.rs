//! ResourceQuotas, Projects, Departments and LimitRanges as values.

use bulkhead_types::{
    DepartmentSpec, LimitAmounts, LimitRangeItem, LimitRangeSpec, LimitRatios, ProjectSpec, QuotaAmounts,
    QuotaStatus, ResourceQuotaSpec, ResourceRequirements, format_bytes, format_millis,
};
use serde_json::{Map, Value};

use super::Fields;

/// What is wanted of a quota.
pub(super) fn quota_spec(spec: &ResourceQuotaSpec) -> Value {
    Fields::new().set("hard", amounts(&spec.hard)).finish()
}

/// What is wanted of a project.
pub(super) fn project_spec(spec: &ProjectSpec) -> Value {
    Fields::new()
        .optional("department", spec.department.as_ref().map(|name| name.as_str()))
        .set("hard", amounts(&spec.hard))
        .finish()
}

/// What is wanted of a department.
pub(super) fn department_spec(spec: &DepartmentSpec) -> Value {
    Fields::new().set("hard", amounts(&spec.hard)).finish()
}

/// What is known at a level.
pub(super) fn status(status: &QuotaStatus) -> Value {
    Fields::new().set("hard", amounts(&status.hard)).set("used", amounts(&status.used)).finish()
}

fn amounts(amounts: &QuotaAmounts) -> Value {
    let entries = amounts
        .iter()
        .map(|(resource, amount)| (resource.name(), Value::from(resource.measure().format_amount(amount))));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// What is wanted of a LimitRange.
pub(super) fn limit_range_spec(spec: &LimitRangeSpec) -> Value {
    Fields::new().list("limits", spec.limits.iter().map(item)).finish()
}

fn item(item: &LimitRangeItem) -> Value {
    let any = |amounts: ResourceRequirements| {
        (amounts != ResourceRequirements::default()).then(|| compute(amounts).finish())
    };
    let LimitRatios { cpu, memory, ephemeral_storage } = item.max_limit_request_ratio;
    let ratios = Fields::new()
        .optional("cpu", cpu.map(format_millis).as_deref())
        .optional("memory", memory.map(format_millis).as_deref())
        .optional("ephemeral-storage", ephemeral_storage.map(format_millis).as_deref())
        .finish();
    let has_ratio = item.max_limit_request_ratio != LimitRatios::default();
    Fields::new()
        .text("type", item.limit_type.as_str())
        .maybe("min", bounds(item.min))
        .maybe("max", bounds(item.max))
        .maybe("default", any(item.default))
        .maybe("defaultRequest", any(item.default_request))
        .maybe("maxLimitRequestRatio", has_ratio.then_some(ratios))
        .finish()
}

fn bounds(amounts: LimitAmounts) -> Option<Value> {
    let fields =
        compute(amounts.compute).optional("storage", amounts.storage_bytes.map(format_bytes).as_deref());
    (amounts != LimitAmounts::default()).then(|| fields.finish())
}

fn compute(amounts: ResourceRequirements) -> Fields {
    Fields::new()
        .optional("cpu", amounts.cpu_millis.map(format_millis).as_deref())
        .optional("memory", amounts.memory_bytes.map(format_bytes).as_deref())
        .optional("ephemeral-storage", amounts.ephemeral_storage_bytes.map(format_bytes).as_deref())
}
