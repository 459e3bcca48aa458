//! DeschedulerPolicies: strategies and their arguments as kubernetes-sigs/descheduler names them.

use bulkhead_types::{
    COOL_DOWN_MS_DEFAULT, DESCHEDULER_INTERVAL_MS_DEFAULT, DeschedulerPolicySpec, DeschedulerStrategy, Name,
    Rare, UtilizationThresholds,
};

use super::decoder::{Decoder, Fields, Schema, suggestion};
use super::workload::selector_at;
use crate::tree::Node;

const SPEC: Schema = Schema {
    known: &[
        "intervalSeconds",
        "coolDownSeconds",
        "dryRun",
        "maxNoOfPodsToEvictPerNode",
        "maxNoOfPodsToEvictPerNamespace",
        "maxNoOfPodsToEvictTotal",
        "namespaces",
        "labelSelector",
        "thresholdPriority",
        "evictLocalStoragePods",
        "strategies",
    ],
    ..Schema::EMPTY
};
const NAMESPACES: Schema = Schema { known: &["include", "exclude"], ..Schema::EMPTY };
const STRATEGY: Schema = Schema { known: &["name", "args"], ..Schema::EMPTY };
const THRESHOLDS: Schema = Schema { known: &["cpu", "memory", "pods"], ..Schema::EMPTY };
const METRICS: Schema = Schema { known: &["metricsServer"], ..Schema::EMPTY };

/// The strategies that there are, with the names of their arguments.
const STRATEGIES: [(&str, Schema); 8] = [
    (
        "LowNodeUtilization",
        Schema {
            known: &["thresholds", "targetThresholds", "numberOfNodes", "metricsUtilization"],
            not_yet: &["useDeviationThresholds", "evictableNamespaces", "evictionLimits"],
            ..Schema::EMPTY
        },
    ),
    ("RemoveDuplicates", Schema { not_yet: &["excludeOwnerKinds", "namespaces"], ..Schema::EMPTY }),
    ("RemovePodsViolatingNodeAffinity", Schema { known: &["nodeAffinityType"], ..Schema::EMPTY }),
    (
        "RemovePodsViolatingNodeTaints",
        Schema {
            known: &["includePreferNoSchedule"],
            not_yet: &["excludedTaints", "includedTaints", "namespaces", "labelSelector"],
            ..Schema::EMPTY
        },
    ),
    (
        "RemovePodsViolatingTopologySpreadConstraint",
        Schema { not_yet: &["constraints", "topologyBalanceNodeFit", "namespaces"], ..Schema::EMPTY },
    ),
    (
        "RemovePodsViolatingInterPodAntiAffinity",
        Schema { not_yet: &["namespaces", "labelSelector"], ..Schema::EMPTY },
    ),
    (
        "RemovePodsHavingTooManyRestarts",
        Schema {
            known: &["podRestartThreshold", "includingInitContainers"],
            not_yet: &["states", "namespaces", "labelSelector"],
            ..Schema::EMPTY
        },
    ),
    (
        "PodLifeTime",
        Schema {
            known: &["maxPodLifeTimeSeconds"],
            not_yet: &["states", "namespaces", "labelSelector", "includingInitContainers"],
            ..Schema::EMPTY
        },
    ),
];

/// What is wanted of a policy.
pub(super) fn policy(d: &mut Decoder<'_>, node: &Node) -> Option<DeschedulerPolicySpec> {
    let fields = d.fields(node, "spec", &SPEC)?;
    let (include, exclude) = namespaces(d, &fields);
    let selector = fields.get("labelSelector");
    let threshold = d.number_between(&fields, "thresholdPriority", i32::MIN.into(), i32::MAX.into());
    if fields.get("strategies").is_none() {
        d.missing(&fields, "strategies");
    }
    Some(DeschedulerPolicySpec {
        interval_ms: d.seconds(&fields, "intervalSeconds").unwrap_or(DESCHEDULER_INTERVAL_MS_DEFAULT),
        cool_down_ms: d.seconds(&fields, "coolDownSeconds").unwrap_or(COOL_DOWN_MS_DEFAULT),
        dry_run: d.boolean(&fields, "dryRun").unwrap_or_default(),
        max_per_node: count(d, &fields, "maxNoOfPodsToEvictPerNode"),
        max_per_namespace: count(d, &fields, "maxNoOfPodsToEvictPerNamespace"),
        max_total: count(d, &fields, "maxNoOfPodsToEvictTotal"),
        include,
        exclude,
        label_selector: selector
            .and_then(|node| selector_at(d, node, &fields.path("labelSelector")))
            .map_or(Rare::NONE, Rare::some),
        priority_threshold: threshold.and_then(|number| i32::try_from(number).ok()),
        evict_local_storage_pods: d.boolean(&fields, "evictLocalStoragePods").unwrap_or_default(),
        strategies: d.each(&fields, "strategies", strategy),
    })
}

fn count(d: &mut Decoder<'_>, fields: &Fields<'_>, field: &str) -> Option<u32> {
    d.number(fields, field, u32::MAX.into()).and_then(|number| u32::try_from(number).ok())
}

fn namespaces(d: &mut Decoder<'_>, spec: &Fields<'_>) -> (Vec<Name>, Vec<Name>) {
    let Some(node) = spec.get("namespaces") else { return Default::default() };
    let Some(fields) = d.fields(node, &spec.path("namespaces"), &NAMESPACES) else {
        return Default::default();
    };
    let mut names = |field: &str| {
        let mut found = Vec::new();
        for text in d.texts(&fields, field) {
            match Name::new(text) {
                Ok(name) => found.push(name),
                Err(error) => d.fail(fields.place(field), &fields.path(field), error.to_string()),
            }
        }
        found
    };
    (names("include"), names("exclude"))
}

fn strategy(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DeschedulerStrategy> {
    let fields = d.fields(node, path, &STRATEGY)?;
    let name = d.required_text(&fields, "name")?;
    let Some((_, schema)) = STRATEGIES.iter().find(|(known, _)| *known == name) else {
        let names = STRATEGIES.map(|(known, _)| known);
        let hint = suggestion(&name, names);
        let reason = format!("{name:?} is no strategy{hint}; there are {}", names.join(", "));
        d.fail(fields.place("name"), &fields.path("name"), reason);
        return None;
    };
    let args = match fields.get("args") {
        Some(node) => Some(d.fields(node, &fields.path("args"), schema)?),
        None => None,
    };
    let args = args.as_ref();
    Some(match name.as_str() {
        "LowNodeUtilization" => return utilization(d, &fields, args),
        "RemoveDuplicates" => DeschedulerStrategy::RemoveDuplicates,
        "RemovePodsViolatingNodeAffinity" => {
            args.into_iter().for_each(|args| affinity_type(d, args));
            DeschedulerStrategy::RemovePodsViolatingNodeAffinity
        }
        "RemovePodsViolatingNodeTaints" => DeschedulerStrategy::RemovePodsViolatingNodeTaints {
            include_prefer_no_schedule: flag(d, args, "includePreferNoSchedule"),
        },
        "RemovePodsViolatingTopologySpreadConstraint" => {
            DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint
        }
        "RemovePodsViolatingInterPodAntiAffinity" => {
            DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity
        }
        "RemovePodsHavingTooManyRestarts" => {
            let args = some(d, &fields, args)?;
            let threshold = required(d, args, "podRestartThreshold")?;
            DeschedulerStrategy::RemovePodsHavingTooManyRestarts {
                pod_restart_threshold: threshold,
                including_init_containers: flag(d, Some(args), "includingInitContainers"),
            }
        }
        _ => {
            let args = some(d, &fields, args)?;
            let seconds = required(d, args, "maxPodLifeTimeSeconds")?;
            DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms: u64::from(seconds) * 1000 }
        }
    })
}

/// The arguments of a strategy that needs some.
fn some<'f, 'n>(
    d: &mut Decoder<'_>,
    strategy: &Fields<'_>,
    args: Option<&'f Fields<'n>>,
) -> Option<&'f Fields<'n>> {
    if args.is_none() {
        d.missing(strategy, "args");
    }
    args
}

fn required(d: &mut Decoder<'_>, args: &Fields<'_>, field: &str) -> Option<u32> {
    if args.get(field).is_none() {
        d.missing(args, field);
    }
    count(d, args, field)
}

fn flag(d: &mut Decoder<'_>, args: Option<&Fields<'_>>, field: &str) -> bool {
    args.and_then(|args| d.boolean(args, field)).unwrap_or_default()
}

/// There is one kind of affinity that pods can violate.
fn affinity_type(d: &mut Decoder<'_>, args: &Fields<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    for text in d.texts(args, "nodeAffinityType") {
        if text != REQUIRED {
            let reason = format!("{text:?} is not supported yet: only {REQUIRED} is");
            d.fail(args.place("nodeAffinityType"), &args.path("nodeAffinityType"), reason);
        }
    }
}

fn utilization(
    d: &mut Decoder<'_>,
    strategy: &Fields<'_>,
    args: Option<&Fields<'_>>,
) -> Option<DeschedulerStrategy> {
    let args = some(d, strategy, args)?;
    let thresholds = thresholds(d, args, "thresholds");
    let target_thresholds = self::thresholds(d, args, "targetThresholds");
    let metrics = args.get("metricsUtilization");
    let metrics = metrics.and_then(|node| d.fields(node, &args.path("metricsUtilization"), &METRICS));
    let number = count(d, args, "numberOfNodes");
    Some(DeschedulerStrategy::LowNodeUtilization {
        thresholds: thresholds?,
        target_thresholds: target_thresholds?,
        measured: flag(d, metrics.as_ref(), "metricsServer"),
        number_of_nodes: number.unwrap_or_default(),
    })
}

fn thresholds(d: &mut Decoder<'_>, args: &Fields<'_>, field: &str) -> Option<UtilizationThresholds> {
    let Some(node) = args.get(field) else {
        d.missing(args, field);
        return None;
    };
    let fields = d.fields(node, &args.path(field), &THRESHOLDS)?;
    let mut percent = |name: &str| d.number(&fields, name, 100).and_then(|number| u32::try_from(number).ok());
    Some(UtilizationThresholds { cpu: percent("cpu"), memory: percent("memory"), pods: percent("pods") })
}
