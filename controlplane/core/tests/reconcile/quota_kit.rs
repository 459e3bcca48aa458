//! Quotas, levels and LimitRanges for tests.

use std::sync::Arc;

use bulkhead_controlplane_core::QuotaLevel;
use bulkhead_types::{
    Container, Department, DepartmentSpec, Kind, LABEL_PROJECT, LimitRange, LimitRangeItem, LimitRangeSpec,
    LimitType, Measure, Namespace, Object, ObjectMeta, ObjectRef, PodSpec, Project, ProjectSpec,
    QuotaAmounts, QuotaResource, ResourceQuota, ResourceQuotaSpec, ResourceRequirements,
};

use crate::kit::{Cluster, map, name};

pub fn amounts(named: &[(&str, u64)]) -> QuotaAmounts {
    named.iter().map(|(name, amount)| (QuotaResource::parse(name).unwrap(), *amount)).collect()
}

pub fn quota(namespace: &str, named: &str, hard: &[(&str, u64)]) -> Object {
    let meta = ObjectMeta::new(Some(name(namespace)), name(named));
    let spec = ResourceQuotaSpec { hard: amounts(hard) };
    Object::ResourceQuota(Arc::new(ResourceQuota { meta, spec, status: Default::default() }))
}

pub fn project(named: &str, department: Option<&str>, hard: &[(&str, u64)]) -> Object {
    let spec = ProjectSpec { department: department.map(name), hard: amounts(hard) };
    let meta = ObjectMeta::new(None, name(named));
    Object::Project(Arc::new(Project { meta, spec, status: Default::default() }))
}

pub fn department(named: &str, hard: &[(&str, u64)]) -> Object {
    let spec = DepartmentSpec { hard: amounts(hard) };
    let meta = ObjectMeta::new(None, name(named));
    Object::Department(Arc::new(Department { meta, spec, status: Default::default() }))
}

pub fn namespace(named: &str, project: Option<&str>) -> Object {
    let mut meta = ObjectMeta::new(None, name(named));
    if let Some(project) = project {
        meta.labels = map(&[(LABEL_PROJECT, project)]);
    }
    Object::Namespace(Arc::new(Namespace { meta }))
}

pub fn item(limit_type: LimitType) -> LimitRangeItem {
    LimitRangeItem {
        limit_type,
        min: Default::default(),
        max: Default::default(),
        default: Default::default(),
        default_request: Default::default(),
        max_limit_request_ratio: Default::default(),
    }
}

pub fn range(named: &str, limits: Vec<LimitRangeItem>) -> Object {
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    Object::LimitRange(Arc::new(LimitRange { meta, spec: LimitRangeSpec { limits } }))
}

pub fn cpu(millis: u64) -> ResourceRequirements {
    ResourceRequirements { cpu_millis: Some(millis), ..ResourceRequirements::default() }
}

/// A pod of one container that says nothing, or so much.
pub fn bare(requests: ResourceRequirements, limits: ResourceRequirements) -> PodSpec {
    let container =
        Container { name: "main".into(), image: "web:1".into(), requests, limits, ..Container::default() };
    PodSpec { containers: vec![container], termination_grace_ms: 30_000, ..PodSpec::default() }
}

/// An object in another namespace.
pub fn within(namespace: &str, mut object: Object) -> Object {
    object.meta_mut().namespace = Some(name(namespace));
    object
}

/// An object of a namespace by name.
pub fn named(kind: Kind, namespace: Option<&str>, text: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.map(name), name: name(text) }
}

/// What a namespace has of a measure.
pub fn used(cluster: &Cluster, namespace: &str, measure: Measure) -> u128 {
    cluster.state().quota_use(&QuotaLevel::Namespace(name(namespace))).of(&measure)
}
