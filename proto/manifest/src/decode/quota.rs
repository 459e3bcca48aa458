//! ResourceQuotas, Projects, Departments and LimitRanges.

use bulkhead_types::{
    DepartmentSpec, LimitAmounts, LimitRangeItem, LimitRangeSpec, LimitRatios, LimitType, Name, ProjectSpec,
    QuotaAmounts, QuotaResource, ResourceQuotaSpec, ResourceRequirements, parse_millis, parse_units,
};

use super::decoder::{Decoder, Fields, Schema};
use super::volume::quantity;
use crate::tree::{Node, Value};

const QUOTA: Schema = Schema { known: &["hard", "scopes", "scopeSelector"], ..Schema::EMPTY };
const PROJECT: Schema = Schema { known: &["department", "hard"], ..Schema::EMPTY };
const DEPARTMENT: Schema = Schema { known: &["hard"], ..Schema::EMPTY };
const LIMIT_RANGE: Schema = Schema { known: &["limits"], ..Schema::EMPTY };
const ITEM: Schema = Schema {
    known: &["type", "min", "max", "default", "defaultRequest", "maxLimitRequestRatio"],
    ..Schema::EMPTY
};
const AMOUNTS: Schema = Schema { known: &["cpu", "memory", "ephemeral-storage", "storage"], ..Schema::EMPTY };
const COMPUTE: Schema = Schema { known: &["cpu", "memory", "ephemeral-storage"], ..Schema::EMPTY };
const TYPES: [(&str, LimitType); 3] = [
    ("Container", LimitType::Container),
    ("Pod", LimitType::Pod),
    ("PersistentVolumeClaim", LimitType::PersistentVolumeClaim),
];

/// What is wanted of a quota.
pub(super) fn resource_quota(d: &mut Decoder<'_>, node: &Node) -> Option<ResourceQuotaSpec> {
    let fields = d.fields(node, "spec", &QUOTA)?;
    for name in ["scopes", "scopeSelector"] {
        if fields.get(name).is_some() {
            let reason = "is not offered: a quota counts all objects of its namespace; use another namespace for others";
            d.fail(fields.place(name), &fields.path(name), reason);
        }
    }
    Some(ResourceQuotaSpec { hard: hard(d, &fields) })
}

/// What is wanted of a project.
pub(super) fn project(d: &mut Decoder<'_>, node: &Node) -> Option<ProjectSpec> {
    let fields = d.fields(node, "spec", &PROJECT)?;
    let mut department = None;
    if let Some(text) = d.text(&fields, "department").filter(|text| !text.is_empty()) {
        match Name::new(text) {
            Ok(name) => department = Some(name),
            Err(error) => {
                d.fail(fields.place("department"), &fields.path("department"), error.to_string());
            }
        }
    }
    Some(ProjectSpec { department, hard: hard(d, &fields) })
}

/// What is wanted of a department.
pub(super) fn department(d: &mut Decoder<'_>, node: &Node) -> Option<DepartmentSpec> {
    let fields = d.fields(node, "spec", &DEPARTMENT)?;
    Some(DepartmentSpec { hard: hard(d, &fields) })
}

fn hard(d: &mut Decoder<'_>, fields: &Fields<'_>) -> QuotaAmounts {
    by_resource(d, fields, "hard", |text| QuotaResource::parse(text).map_err(|error| error.to_string()))
}

/// Amounts by resource, whose names `read` reads.
pub(super) fn by_resource(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    field: &str,
    read: impl Fn(&str) -> Result<QuotaResource, String>,
) -> QuotaAmounts {
    let mut amounts = QuotaAmounts::default();
    let Some(node) = fields.get(field) else { return amounts };
    let path = fields.path(field);
    let Value::Map(entries) = &node.value else {
        d.fail(node.place, &path, format!("expected a map of quantities, found {}", node.describe()));
        return amounts;
    };
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        let path = format!("{path}[{}]", key.text);
        let resource = match read(&key.text) {
            Ok(resource) => resource,
            Err(reason) => {
                d.fail(key.place, &path, reason);
                continue;
            }
        };
        let (Value::Text(text) | Value::Number(text)) = &value.value else {
            d.fail(value.place, &path, format!("expected a quantity, found {}", value.describe()));
            continue;
        };
        match resource.measure().parse_amount(text) {
            Ok(amount) => _ = amounts.insert(resource, amount),
            Err(error) => d.fail(value.place, &path, error.to_string()),
        }
    }
    amounts
}

/// What is wanted of a LimitRange.
pub(super) fn limit_range(d: &mut Decoder<'_>, node: &Node) -> Option<LimitRangeSpec> {
    let fields = d.fields(node, "spec", &LIMIT_RANGE)?;
    Some(LimitRangeSpec { limits: d.each(&fields, "limits", item) })
}

fn item(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<LimitRangeItem> {
    let fields = d.fields(node, path, &ITEM)?;
    if fields.get("type").is_none() {
        d.missing(&fields, "type");
    }
    let limit_type = d.choice(&fields, "type", &TYPES);
    let (min, max) = (amounts(d, &fields, "min"), amounts(d, &fields, "max"));
    let default = compute(d, &fields, "default");
    let default_request = compute(d, &fields, "defaultRequest");
    let max_limit_request_ratio = ratios(d, &fields);
    Some(LimitRangeItem {
        limit_type: limit_type?,
        min,
        max,
        default,
        default_request,
        max_limit_request_ratio,
    })
}

fn amounts(d: &mut Decoder<'_>, item: &Fields<'_>, name: &str) -> LimitAmounts {
    let fields = item.get(name).and_then(|node| d.fields(node, &item.path(name), &AMOUNTS));
    let Some(fields) = fields else { return LimitAmounts::default() };
    let storage_bytes = quantity(d, &fields, "storage", parse_units);
    LimitAmounts { compute: compute_of(d, &fields), storage_bytes }
}

fn compute(d: &mut Decoder<'_>, item: &Fields<'_>, name: &str) -> ResourceRequirements {
    let fields = item.get(name).and_then(|node| d.fields(node, &item.path(name), &COMPUTE));
    fields.map(|fields| compute_of(d, &fields)).unwrap_or_default()
}

fn compute_of(d: &mut Decoder<'_>, fields: &Fields<'_>) -> ResourceRequirements {
    ResourceRequirements {
        cpu_millis: quantity(d, fields, "cpu", parse_millis),
        memory_bytes: quantity(d, fields, "memory", parse_units),
        ephemeral_storage_bytes: quantity(d, fields, "ephemeral-storage", parse_units),
    }
}

fn ratios(d: &mut Decoder<'_>, item: &Fields<'_>) -> LimitRatios {
    let name = "maxLimitRequestRatio";
    let fields = item.get(name).and_then(|node| d.fields(node, &item.path(name), &COMPUTE));
    let Some(fields) = fields else { return LimitRatios::default() };
    let mut ratio = |name| quantity(d, &fields, name, parse_millis);
    LimitRatios { cpu: ratio("cpu"), memory: ratio("memory"), ephemeral_storage: ratio("ephemeral-storage") }
}
