//! What new pods and claims must say, and between which bounds.
//!
//! Source: "Resource Quotas" and "Limit Ranges" in the Kubernetes documentation, and its LimitRanger plugin.

use std::sync::Arc;

use bulkhead_types::{
    Container, Kind, LimitRange, LimitRangeItem, LimitRatios, LimitType, Measure, Name, Object, ObjectRef,
    PersistentVolumeClaim, Pod, QuotaAmounts, Rejection, RejectionCode, ResourceRequirements, Resources,
};

use crate::State;

/// The LimitRanges of a namespace, by name.
pub(crate) fn ranges_of<'a>(
    state: &'a State,
    namespace: Option<&Name>,
) -> impl Iterator<Item = &'a Arc<LimitRange>> + use<'a> {
    let ids = state.index.of_kind(Kind::LimitRange, namespace);
    ids.filter_map(|id| state.limit_ranges.get(id))
}

fn refuse(object: &str, path: &str, reason: String, remedy: &str) -> Result<(), Rejection> {
    let field = format!("{object}: {path}");
    Err(Rejection::new(RejectionCode::NotAllowed, field, reason).with_remedy(remedy))
}

fn containers(pod: &Pod) -> impl Iterator<Item = (&'static str, usize, &Container)> {
    let init = pod.spec.init_containers.iter().enumerate().map(|(index, one)| ("initContainers", index, one));
    init.chain(pod.spec.containers.iter().enumerate().map(|(index, one)| ("containers", index, one)))
}

/// Once processor time or memory is limited, each container must say how much of it (Kubernetes' rule).
pub(super) fn check_stated(pod: &Pod, quota: &ObjectRef, hard: &QuotaAmounts) -> Result<(), Rejection> {
    type Get = fn(&Container) -> Option<u64>;
    let must: [(Measure, &str, Get); 4] = [
        (Measure::RequestsCpu, "requests.cpu", |c| c.requests.or(c.limits).cpu_millis),
        (Measure::RequestsMemory, "requests.memory", |c| c.requests.or(c.limits).memory_bytes),
        (Measure::LimitsCpu, "limits.cpu", |c| c.limits.cpu_millis),
        (Measure::LimitsMemory, "limits.memory", |c| c.limits.memory_bytes),
    ];
    for (list, index, container) in containers(pod) {
        for (measure, path, get) in &must {
            if hard.of(measure).is_some() && get(container).is_none() {
                let reason = format!("is required of container {}: {quota} limits {path}", container.name);
                let path = format!("spec.{list}[{index}].resources.{path}");
                let remedy = "say it, or give the namespace a LimitRange with defaults";
                return refuse(&reference(pod), &path, reason, remedy);
            }
        }
    }
    Ok(())
}

fn reference(pod: &Pod) -> String {
    let meta = &pod.meta;
    ObjectRef { kind: Kind::Pod, namespace: meta.namespace.clone(), name: meta.name.clone() }.to_string()
}

/// Minima, maxima and ratios of the namespace's LimitRanges, in the order of their names.
pub(super) fn check_bounds(state: &State, pod: &Pod) -> Result<(), Rejection> {
    check_order(pod)?;
    for range in ranges_of(state, pod.meta.namespace.as_ref()) {
        for item in &range.spec.limits {
            match item.limit_type {
                LimitType::Container => {
                    for (list, index, container) in containers(pod) {
                        let asked = Asked {
                            requests: container.requests.or(container.limits),
                            limits: container.limits,
                            path: format!("spec.{list}[{index}].resources"),
                        };
                        asked.check(&reference(pod), range, item)?;
                    }
                }
                LimitType::Pod => whole(pod).check(&reference(pod), range, item)?,
                LimitType::PersistentVolumeClaim => {}
            }
        }
    }
    Ok(())
}

/// A limit that is given by default may be below what the container requests.
fn check_order(pod: &Pod) -> Result<(), Rejection> {
    let resources = [Measure::RequestsCpu, Measure::RequestsMemory, Measure::RequestsEphemeralStorage];
    for (list, index, container) in containers(pod) {
        for measure in &resources {
            let get = |amounts: ResourceRequirements| match measure {
                Measure::RequestsCpu => ("cpu", amounts.cpu_millis),
                Measure::RequestsMemory => ("memory", amounts.memory_bytes),
                _ => ("ephemeral-storage", amounts.ephemeral_storage_bytes),
            };
            let ((name, request), (_, limit)) = (get(container.requests), get(container.limits));
            if let (Some(request), Some(limit)) = (request, limit)
                && request > limit
            {
                let [request, limit] = [request, limit].map(|amount| measure.format_amount(amount));
                let reason = format!(
                    "is {request}, above the limit, which is {limit} by the defaults of the namespace's LimitRanges"
                );
                let path = format!("spec.{list}[{index}].resources.requests.{name}");
                return refuse(&reference(pod), &path, reason, "say the limit");
            }
        }
    }
    Ok(())
}

/// Refuses a claim of a size that the namespace's LimitRanges do not allow.
pub(super) fn check_claim(state: &State, claim: &PersistentVolumeClaim) -> Result<(), Rejection> {
    let object = Object::PersistentVolumeClaim(Arc::new(claim.clone())).object_ref().to_string();
    for range in ranges_of(state, claim.meta.namespace.as_ref()) {
        let items = range.spec.limits.iter().filter(|i| i.limit_type == LimitType::PersistentVolumeClaim);
        for item in items {
            let asked = claim.spec.storage_bytes;
            let bytes = |amount| Measure::RequestsStorage.format_amount(amount);
            let bound = match (item.min.storage_bytes, item.max.storage_bytes) {
                (Some(min), _) if asked < min => Some(("minimum", min)),
                (_, Some(max)) if asked > max => Some(("maximum", max)),
                _ => None,
            };
            if let Some((which, bound)) = bound {
                let range = &range.meta.name;
                let reason = format!(
                    "is {}: the {which} of a PersistentVolumeClaim is {} by LimitRange {range}",
                    bytes(asked),
                    bytes(bound)
                );
                return refuse(&object, "spec.resources.requests.storage", reason, "ask for another size");
            }
        }
    }
    Ok(())
}

/// All containers together; what none of them says is not said.
fn whole(pod: &Pod) -> Asked {
    let said = |amounts: Resources, get: fn(&Container) -> ResourceRequirements| {
        let any = |one: fn(ResourceRequirements) -> Option<u64>| {
            containers(pod).any(|(_, _, c)| one(get(c)).is_some())
        };
        ResourceRequirements {
            cpu_millis: any(|r| r.cpu_millis).then_some(amounts.cpu_millis),
            memory_bytes: any(|r| r.memory_bytes).then_some(amounts.memory_bytes),
            ephemeral_storage_bytes: any(|r| r.ephemeral_storage_bytes)
                .then_some(amounts.ephemeral_storage_bytes),
        }
    };
    Asked {
        requests: said(pod.spec.requests(), |c| c.requests.or(c.limits)),
        limits: said(pod.spec.limits(), |c| c.limits),
        path: "spec.containers[*].resources".to_owned(),
    }
}

/// Thousandths in words: `1.5`.
fn decimal(millis: u64) -> String {
    let (whole, rest) = (millis / 1000, millis % 1000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}").trim_end_matches('0').to_owned() }
}

/// What a container or pod asks for, and where it says so.
struct Asked {
    requests: ResourceRequirements,
    limits: ResourceRequirements,
    path: String,
}

/// One resource of each: name, measure, request, limit, minimum, maximum, ratio.
struct Row {
    name: &'static str,
    measure: Measure,
    request: Option<u64>,
    limit: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
    ratio: Option<u64>,
}

impl Asked {
    fn rows(&self, item: &LimitRangeItem) -> [Row; 3] {
        let (min, max) = (item.min.compute, item.max.compute);
        let LimitRatios { cpu, memory, ephemeral_storage } = item.max_limit_request_ratio;
        let row = |name, measure, get: fn(ResourceRequirements) -> Option<u64>, ratio| Row {
            name,
            measure,
            request: get(self.requests),
            limit: get(self.limits),
            min: get(min),
            max: get(max),
            ratio,
        };
        [
            row("cpu", Measure::RequestsCpu, |r| r.cpu_millis, cpu),
            row("memory", Measure::RequestsMemory, |r| r.memory_bytes, memory),
            row(
                "ephemeral-storage",
                Measure::RequestsEphemeralStorage,
                |r| r.ephemeral_storage_bytes,
                ephemeral_storage,
            ),
        ]
    }

    fn check(&self, object: &str, range: &LimitRange, item: &LimitRangeItem) -> Result<(), Rejection> {
        let (kind, range) = (item.limit_type.as_str(), &range.meta.name);
        for row in self.rows(item) {
            let Some((part, reason)) = row.problem(kind) else { continue };
            let path = format!("{}.{part}.{}", self.path, row.name);
            let remedy = "change it, or the LimitRange";
            return refuse(object, &path, format!("{reason} by LimitRange {range}"), remedy);
        }
        Ok(())
    }
}

impl Row {
    /// Which of requests and limits is wrong, and why.
    fn problem(&self, kind: &str) -> Option<(&'static str, String)> {
        let Self { request, limit, .. } = *self;
        let show = |amount| self.measure.format_amount(amount);
        if let Some(min) = self.min {
            let least = |part, amount: Option<u64>| {
                let reason = format!("is {}: the minimum of a {kind} is {}", show(amount?), show(min));
                (amount? < min).then_some((part, reason))
            };
            if request.is_none() {
                return Some(("requests", format!("is not given: the minimum of a {kind} is {}", show(min))));
            }
            if let Some(problem) = least("requests", request).or_else(|| least("limits", limit)) {
                return Some(problem);
            }
        }
        if let Some(max) = self.max {
            let most = |part, amount: Option<u64>| {
                let reason = format!("is {}: the maximum of a {kind} is {}", show(amount?), show(max));
                (amount? > max).then_some((part, reason))
            };
            if limit.is_none() {
                return Some(("limits", format!("is not given: the maximum of a {kind} is {}", show(max))));
            }
            if let Some(problem) = most("limits", limit).or_else(|| most("requests", request)) {
                return Some(problem);
            }
        }
        let ratio = self.ratio?;
        let times = decimal(ratio);
        let (Some(request @ 1..), Some(limit @ 1..)) = (request, limit) else {
            let reason =
                format!("needs a request and a limit above 0: a {kind} may have {times} times the request");
            return Some(("limits", reason));
        };
        // limit / request > ratio / 1000, without rounding.
        let is_above = u128::from(limit) * 1000 > u128::from(request) * u128::from(ratio);
        is_above.then(|| {
            let reason = format!(
                "is {}: a {kind} may have {times} times the request, which is {}",
                show(limit),
                show(request)
            );
            ("limits", reason)
        })
    }
}
