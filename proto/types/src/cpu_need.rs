//! What a pod says of the CPUs that it wants, in its labels and annotations: read in one place, by those who check manifests
//! and by those who place pods.
//!
//! ```text
//!  label koordinator.sh/qosClass ─────────────────┐
//!  annotation volcano.sh/numa-topology-policy ────┼─► CpuNeeds: how many whole CPUs, how held, on which NUMA nodes
//!  annotation scheduling.koordinator.sh/resource-spec ┤     │
//!  annotation cpuset-scheduler ───────────────────┘         └ None: the shared pool, or the batch pool
//! ```
//!
//! Sources: Koordinator's QoS classes and `resource-spec`, Volcano's NUMA topology policy, ACK's `cpuset-scheduler`.

use serde::{Deserialize, Serialize};

use crate::{Container, CpuHold, HugePages, NumaPolicy, PodSpec, Resources, StringMap};

/// The label of a pod with its QoS class: LSE, LSR, LS or BE (Koordinator's name).
pub const LABEL_QOS_CLASS: &str = "koordinator.sh/qosClass";
/// The annotation of a pod with its NUMA policy (Volcano's name).
pub const ANNOTATION_NUMA_POLICY: &str = "volcano.sh/numa-topology-policy";
/// The annotation of a pod with how its CPUs are chosen, as JSON (Koordinator's name).
pub const ANNOTATION_RESOURCE_SPEC: &str = "scheduling.koordinator.sh/resource-spec";
/// The annotation of a pod that is bound to CPUs of its own whatever its class, `true` (ACK's name).
pub const ANNOTATION_CPUSET_SCHEDULER: &str = "cpuset-scheduler";

/// Whose CPUs a pod may be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QosClass {
    /// Latency sensitive, exclusive: CPUs that nobody else is on.
    Lse,
    /// Latency sensitive, reserved: CPUs of its own, on which only BE pods may be as well.
    Lsr,
    /// Latency sensitive: the shared pool. So are pods without a class.
    Ls,
    /// Best effort: all CPUs but those of LSE pods.
    Be,
}

impl QosClass {
    const NAMES: [(&'static str, Self); 4] =
        [("LSE", Self::Lse), ("LSR", Self::Lsr), ("LS", Self::Ls), ("BE", Self::Be)];

    /// The class that labels name; `None` without one, and for a word that is none.
    #[must_use]
    pub fn of(labels: &StringMap) -> Option<Self> {
        let text = labels.get(LABEL_QOS_CLASS)?;
        Self::NAMES.iter().find(|(name, _)| name == text).map(|(_, class)| *class)
    }
}

/// Which threads of which cores are taken first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CpuBindPolicy {
    /// All threads of a core, then those of the next.
    #[default]
    FullPCPUs,
    /// One thread of each core, then the next of each.
    SpreadByPCPUs,
}

/// The annotation's content.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourceSpec {
    #[serde(rename = "preferredCPUBindPolicy")]
    preferred: Option<BindPolicy>,
    #[serde(rename = "requiredCPUBindPolicy")]
    required: Option<BindPolicy>,
}

#[derive(Clone, Copy, Deserialize)]
enum BindPolicy {
    Default,
    FullPCPUs,
    SpreadByPCPUs,
}

/// The CPUs that a pod wants for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuNeeds {
    /// How it has them.
    pub hold: CpuHold,
    /// How many.
    pub cpus: u32,
    /// What it reserves of memory, overhead included, in bytes.
    pub memory_bytes: u64,
    /// The huge pages that it reserves.
    pub huge_pages: HugePages,
    /// How strictly they are to be on one NUMA node; other than `None` only nodes of that policy will do.
    pub policy: NumaPolicy,
    /// Which are taken first.
    pub bind: CpuBindPolicy,
    /// Whole cores or none.
    pub full_cores: bool,
}

/// What is wrong with what a pod says of its CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{field}: {reason}; {remedy}")]
pub struct CpuProblem {
    /// Where, from the pod or the template on: `metadata.labels[…]`, `spec.containers[0].resources.limits.cpu`.
    pub field: String,
    /// Why.
    pub reason: String,
    /// What would help.
    pub remedy: String,
}

impl CpuProblem {
    fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }

    fn annotation(key: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(format!("metadata.annotations[{key}]"), reason, remedy)
    }
}

/// The CPUs that a pod of such labels, annotations and spec wants for itself; `None` of one that runs in a pool, as nearly all
/// do, which costs a look at both maps.
///
/// # Errors
/// The first thing that is wrong.
pub fn cpu_needs(
    labels: &StringMap,
    annotations: &StringMap,
    spec: &PodSpec,
) -> Result<Option<CpuNeeds>, CpuProblem> {
    let says = |key| annotations.contains_key(key);
    if !labels.contains_key(LABEL_QOS_CLASS)
        && !says(ANNOTATION_NUMA_POLICY)
        && !says(ANNOTATION_CPUSET_SCHEDULER)
        && !says(ANNOTATION_RESOURCE_SPEC)
    {
        return Ok(None);
    }
    let class = QosClass::of(labels);
    if let Some(text) = labels.get(LABEL_QOS_CLASS).filter(|_| class.is_none()) {
        let field = format!("metadata.labels[{LABEL_QOS_CLASS}]");
        return Err(CpuProblem::new(field, format!("{text:?} is no QoS class"), "use LSE, LSR, LS or BE"));
    }
    let policy = numa_policy(annotations)?;
    let (bind, full_cores) = bind_policy(annotations)?;
    let is_bound = is_bound(annotations)?;
    let is_pinned = matches!(class, Some(QosClass::Lse | QosClass::Lsr));
    if !is_pinned && !is_bound && policy == NumaPolicy::None {
        return Ok(None);
    }
    if matches!(class, Some(QosClass::Ls | QosClass::Be)) {
        let (key, what) = match is_bound {
            true => (ANNOTATION_CPUSET_SCHEDULER, "binds CPUs"),
            false => (ANNOTATION_NUMA_POLICY, "pins CPUs to NUMA nodes"),
        };
        let reason = format!("{what}, which a pod of QoS class LS or BE has none of");
        return Err(CpuProblem::annotation(key, reason, "take it away, or use QoS class LSR or LSE"));
    }
    // Only what nothing else pins may have less reserved than it is bound to.
    let may_burst = !is_pinned && policy == NumaPolicy::None;
    let hold = match (class, may_burst && !is_guaranteed(spec)) {
        (Some(QosClass::Lse), _) => CpuHold::Exclusive,
        (_, false) => CpuHold::Reserved,
        (_, true) => CpuHold::Bound,
    };
    check_containers(spec, may_burst)?;
    let millis = spec.guest_size().cpu_millis;
    if millis == 0 || !millis.is_multiple_of(1000) {
        let reason = format!("is {millis}m for the pod, which is no whole number of CPUs");
        let remedy = "set requests and limits so that the pod has 1, 2, … CPUs";
        return Err(CpuProblem::new("spec.containers[0].resources.limits.cpu", reason, remedy));
    }
    let cpus = u32::try_from(millis / 1000).unwrap_or(u32::MAX);
    let Resources { memory_bytes, huge_pages, .. } = spec.scheduling_request();
    Ok(Some(CpuNeeds { hold, cpus, memory_bytes, huge_pages, policy, bind, full_cores }))
}

fn numa_policy(annotations: &StringMap) -> Result<NumaPolicy, CpuProblem> {
    let Some(text) = annotations.get(ANNOTATION_NUMA_POLICY) else { return Ok(NumaPolicy::None) };
    NumaPolicy::parse(text).ok_or_else(|| {
        let names: Vec<_> = NumaPolicy::NAMES.iter().map(|(name, _)| *name).collect();
        let remedy = format!("use one of {}", names.join(", "));
        CpuProblem::annotation(ANNOTATION_NUMA_POLICY, format!("{text:?} is no NUMA policy"), remedy)
    })
}

fn bind_policy(annotations: &StringMap) -> Result<(CpuBindPolicy, bool), CpuProblem> {
    let Some(text) = annotations.get(ANNOTATION_RESOURCE_SPEC) else { return Ok(Default::default()) };
    let spec: ResourceSpec = serde_json::from_str(text).map_err(|error| {
        let remedy = "write {\"preferredCPUBindPolicy\": \"FullPCPUs\"}, or SpreadByPCPUs";
        CpuProblem::annotation(ANNOTATION_RESOURCE_SPEC, format!("is no such JSON: {error}"), remedy)
    })?;
    let bind = match spec.required.or(spec.preferred) {
        Some(BindPolicy::SpreadByPCPUs) => CpuBindPolicy::SpreadByPCPUs,
        Some(BindPolicy::FullPCPUs | BindPolicy::Default) | None => CpuBindPolicy::FullPCPUs,
    };
    Ok((bind, matches!(spec.required, Some(BindPolicy::FullPCPUs))))
}

fn is_bound(annotations: &StringMap) -> Result<bool, CpuProblem> {
    match annotations.get(ANNOTATION_CPUSET_SCHEDULER).map(|text| text.as_str()) {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(text) => Err(CpuProblem::annotation(
            ANNOTATION_CPUSET_SCHEDULER,
            format!("{text:?} is neither \"true\" nor \"false\""),
            "write one of them, in quotes",
        )),
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let named = |list: &'static str| move |(at, one)| (format!("spec.{list}[{at}].resources"), one);
    let init = spec.init_containers.iter().enumerate().map(named("initContainers"));
    init.chain(spec.containers.iter().enumerate().map(named("containers")))
}

/// What a container requests of CPU; a missing request equals the limit.
fn request(one: &Container) -> Option<u64> {
    one.requests.cpu_millis.or(one.limits.cpu_millis)
}

fn is_guaranteed(spec: &PodSpec) -> bool {
    containers(spec).all(|(_, one)| request(one) == one.limits.cpu_millis)
}

/// Every container has a limit, and requests as much; or, where it may burst, has a limit of whole CPUs.
fn check_containers(spec: &PodSpec, may_burst: bool) -> Result<(), CpuProblem> {
    for (path, one) in containers(spec) {
        let Some(limit) = one.limits.cpu_millis else {
            let remedy = "set it: who has CPUs of its own says how many";
            return Err(CpuProblem::new(format!("{path}.limits.cpu"), "is missing", remedy));
        };
        if may_burst && !limit.is_multiple_of(1000) {
            let reason = format!("is {limit}m, which is no whole number of CPUs");
            return Err(CpuProblem::new(format!("{path}.limits.cpu"), reason, "use 1, 2, …"));
        }
        if let Some(request) = request(one).filter(|request| !may_burst && *request != limit) {
            let reason =
                format!("is {request}m and the limit {limit}m: who has CPUs of its own requests all of them");
            return Err(CpuProblem::new(format!("{path}.requests.cpu"), reason, "make both equal"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResourceRequirements;

    /// Containers by request and limit, in thousandths of a CPU; negative is not given.
    fn check(
        says: &[(&str, &str)],
        containers: &[(i64, i64)],
        expected: Result<Option<(CpuHold, u32, NumaPolicy)>, &str>,
    ) {
        let amount = |millis: i64| u64::try_from(millis).ok();
        let container = |(request, limit): &(i64, i64)| Container {
            requests: ResourceRequirements { cpu_millis: amount(*request), ..Default::default() },
            limits: ResourceRequirements { cpu_millis: amount(*limit), ..Default::default() },
            ..Container::default()
        };
        let spec = PodSpec { containers: containers.iter().map(container).collect(), ..PodSpec::default() };
        let (labels, annotations): (Vec<_>, Vec<_>) =
            says.iter().partition(|(key, _)| *key == LABEL_QOS_CLASS);
        let map = |list: Vec<&(&str, &str)>| -> StringMap {
            list.into_iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        let found = cpu_needs(&map(labels), &map(annotations), &spec);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found.map(|one| (one.hold, one.cpus, one.policy)), expected, "{says:?}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{says:?}: {error}"),
            (found, _) => panic!("{says:?} is {found:?}"),
        }
    }

    const QOS: &str = LABEL_QOS_CLASS;
    const NUMA: &str = ANNOTATION_NUMA_POLICY;
    const SPEC: &str = ANNOTATION_RESOURCE_SPEC;
    const BOUND: &str = ANNOTATION_CPUSET_SCHEDULER;

    #[test]
    fn classes_and_policies_say_who_has_cpus_of_its_own() {
        use CpuHold::{Bound, Exclusive, Reserved};
        use NumaPolicy::{None as Any, SingleNumaNode};
        check(&[], &[(-1, -1)], Ok(None));
        check(&[(QOS, "LS")], &[(500, 900)], Ok(None));
        check(&[(QOS, "BE")], &[(-1, -1)], Ok(None));
        check(&[(NUMA, "none"), (BOUND, "false")], &[(-1, -1)], Ok(None));
        check(&[(QOS, "LSE")], &[(2000, 2000)], Ok(Some((Exclusive, 2, Any))));
        check(&[(QOS, "LSR")], &[(-1, 2000)], Ok(Some((Reserved, 2, Any))));
        check(&[(QOS, "LSR")], &[(500, 500), (1500, 1500)], Ok(Some((Reserved, 2, Any))));
        check(&[(NUMA, "single-numa-node")], &[(4000, 4000)], Ok(Some((Reserved, 4, SingleNumaNode))));
        check(
            &[(NUMA, "single-numa-node"), (QOS, "LSE")],
            &[(1000, 1000)],
            Ok(Some((Exclusive, 1, SingleNumaNode))),
        );
        check(&[(BOUND, "true")], &[(1000, 4000)], Ok(Some((Bound, 4, Any))));
        check(&[(BOUND, "true")], &[(-1, 4000)], Ok(Some((Reserved, 4, Any))));
    }

    #[test]
    fn what_cannot_be_pinned_is_refused_with_its_place() {
        check(
            &[(QOS, "lse")],
            &[(1000, 1000)],
            Err("metadata.labels[koordinator.sh/qosClass]: \"lse\" is no QoS class"),
        );
        check(
            &[(NUMA, "strict")],
            &[(1000, 1000)],
            Err("use one of none, best-effort, restricted, single-numa-node"),
        );
        check(&[(BOUND, "yes")], &[(1000, 1000)], Err("neither"));
        check(&[(QOS, "LSR")], &[(1500, 1500)], Err("1500m for the pod, which is no whole number"));
        check(
            &[(QOS, "LSR")],
            &[(1000, 2000)],
            Err("spec.containers[0].resources.requests.cpu: is 1000m and the limit 2000m"),
        );
        check(
            &[(QOS, "LSE")],
            &[(1000, 1000), (-1, -1)],
            Err("spec.containers[1].resources.limits.cpu: is missing"),
        );
        check(&[(NUMA, "restricted")], &[(1000, 2000)], Err("make both equal"));
        check(&[(BOUND, "true")], &[(1000, 1500)], Err("is 1500m, which is no whole number"));
        check(&[(QOS, "LS"), (BOUND, "true")], &[(1000, 1000)], Err("class LS or BE has none of"));
        check(&[(QOS, "BE"), (NUMA, "best-effort")], &[(1000, 1000)], Err("class LS or BE has none of"));
    }

    /// The document's own manifest of an LS pod has a stray bracket (TV-23).
    #[test]
    fn how_cpus_are_chosen_is_json_or_refused() {
        let text = r#"{"preferredCPUBindPolicy": "SpreadByPCPUs"}"#;
        check(
            &[(QOS, "LSE"), (SPEC, text)],
            &[(1000, 1000)],
            Ok(Some((CpuHold::Exclusive, 1, NumaPolicy::None))),
        );
        let stray = r#"[{"preferredCPUBindPolicy": "SpreadByPCPUs"}"#;
        check(
            &[(QOS, "LS"), (SPEC, stray)],
            &[(-1, -1)],
            Err("metadata.annotations[scheduling.koordinator.sh/resource-spec]: is no such JSON"),
        );
        check(&[(SPEC, r#"{"preferredCPUBindPolicy": "All"}"#)], &[(-1, -1)], Err("unknown variant"));
        check(&[(SPEC, r#"{"preferredCpuBindPolicy": "FullPCPUs"}"#)], &[(-1, -1)], Err("unknown field"));
        let of = |text: &str| {
            let annotations = StringMap::from([(SPEC.into(), text.into())]);
            bind_policy(&annotations).expect("readable")
        };
        assert_eq!(of(text), (CpuBindPolicy::SpreadByPCPUs, false));
        assert_eq!(of(r#"{"requiredCPUBindPolicy": "FullPCPUs"}"#), (CpuBindPolicy::FullPCPUs, true));
        assert_eq!(of("{}"), (CpuBindPolicy::FullPCPUs, false));
    }
}
