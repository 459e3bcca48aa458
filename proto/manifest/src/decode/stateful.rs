//! StatefulSets and DaemonSets.

use bulkhead_types::{
    DaemonSetSpec, DaemonSetUpdateStrategy, IntOrPercent, ORDINAL_MAX, PodManagementPolicy,
    REVISION_HISTORY_LIMIT_DEFAULT, StatefulSetSpec, StatefulSetUpdateStrategy,
};

use super::claim;
use super::decoder::{Decoder, Fields, Schema};
use super::workload::{REPLICAS_DEFAULT, count, int_or_percent, selector, template};
use crate::tree::Node;

const STATEFUL_SET: Schema = Schema {
    known: &[
        "replicas",
        "selector",
        "template",
        "serviceName",
        "podManagementPolicy",
        "updateStrategy",
        "minReadySeconds",
        "revisionHistoryLimit",
        "ordinals",
        "stopped",
        "volumeClaimTemplates",
        "persistentVolumeClaimRetentionPolicy",
    ],
    ..Schema::EMPTY
};
const ORDINALS: Schema = Schema { known: &["start"], ..Schema::EMPTY };
const DAEMON_SET: Schema = Schema {
    known: &["selector", "template", "updateStrategy", "minReadySeconds", "revisionHistoryLimit"],
    ..Schema::EMPTY
};
const STRATEGY: Schema = Schema { known: &["type", "rollingUpdate"], ..Schema::EMPTY };
const ROLLING_STATEFUL_SET: Schema = Schema { known: &["partition", "maxUnavailable"], ..Schema::EMPTY };
const ROLLING_DAEMON_SET: Schema = Schema { known: &["maxSurge", "maxUnavailable"], ..Schema::EMPTY };
const POLICIES: [(&str, PodManagementPolicy); 2] =
    [("OrderedReady", PodManagementPolicy::OrderedReady), ("Parallel", PodManagementPolicy::Parallel)];

/// What is wanted of a StatefulSet.
pub(super) fn stateful_set(d: &mut Decoder<'_>, node: &Node) -> Option<StatefulSetSpec> {
    let fields = d.fields(node, "spec", &STATEFUL_SET)?;
    let ordinals =
        fields.get("ordinals").and_then(|node| d.fields(node, &fields.path("ordinals"), &ORDINALS));
    let start = ordinals.and_then(|ordinals| d.number(&ordinals, "start", u64::from(ORDINAL_MAX)));
    let replicas = count(d, &fields, "replicas").unwrap_or(REPLICAS_DEFAULT);
    let policy = d.choice(&fields, "podManagementPolicy", &POLICIES).unwrap_or_default();
    let update_strategy = strategy(d, &fields, stateful_set_rolling, StatefulSetUpdateStrategy::OnDelete);
    let selector = selector(d, &fields);
    let template = template(d, &fields);
    let stopped = d.boolean(&fields, "stopped").unwrap_or_default();
    let claims = claim::of_stateful_set(d, &fields);
    Some(StatefulSetSpec {
        replicas,
        ordinals_start: start.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        selector: selector?,
        template: template?,
        service_name: d.text(&fields, "serviceName").unwrap_or_default().into(),
        pod_management_policy: policy,
        update_strategy,
        min_ready_ms: d.seconds(&fields, "minReadySeconds").unwrap_or_default(),
        revision_history_limit: history_limit(d, &fields),
        stopped,
        claims,
    })
}

/// What is wanted of a DaemonSet.
pub(super) fn daemon_set(d: &mut Decoder<'_>, node: &Node) -> Option<DaemonSetSpec> {
    let fields = d.fields(node, "spec", &DAEMON_SET)?;
    let update_strategy = strategy(d, &fields, daemon_set_rolling, DaemonSetUpdateStrategy::OnDelete);
    let selector = selector(d, &fields);
    let template = template(d, &fields);
    Some(DaemonSetSpec {
        selector: selector?,
        template: template?,
        update_strategy,
        min_ready_ms: d.seconds(&fields, "minReadySeconds").unwrap_or_default(),
        revision_history_limit: history_limit(d, &fields),
    })
}

fn history_limit(d: &mut Decoder<'_>, fields: &Fields<'_>) -> u32 {
    count(d, fields, "revisionHistoryLimit").unwrap_or(REVISION_HISTORY_LIMIT_DEFAULT)
}

/// `updateStrategy`: a rolling update, with its bounds, or on deletion.
fn strategy<T: Default>(
    d: &mut Decoder<'_>,
    spec: &Fields<'_>,
    rolling: impl Fn(&mut Decoder<'_>, &Node, &str) -> Option<T>,
    on_delete: T,
) -> T {
    let path = spec.path("updateStrategy");
    let Some(fields) = spec.get("updateStrategy").and_then(|node| d.fields(node, &path, &STRATEGY)) else {
        return T::default();
    };
    let is_on_delete = d.choice(&fields, "type", &[("RollingUpdate", false), ("OnDelete", true)]);
    let (bounds, path) = (fields.get("rollingUpdate"), fields.path("rollingUpdate"));
    if is_on_delete == Some(true) {
        if let Some(node) = bounds {
            d.fail(node.place, &path, "must not be set when type is OnDelete");
        }
        return on_delete;
    }
    bounds.and_then(|node| rolling(d, node, &path)).unwrap_or_default()
}

fn stateful_set_rolling(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<StatefulSetUpdateStrategy> {
    let fields = d.fields(node, path, &ROLLING_STATEFUL_SET)?;
    let partition = d.number(&fields, "partition", u64::from(ORDINAL_MAX));
    Some(StatefulSetUpdateStrategy::RollingUpdate {
        partition: partition.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        max_unavailable: int_or_percent(d, &fields, "maxUnavailable").unwrap_or(IntOrPercent::Int(1)),
    })
}

fn daemon_set_rolling(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DaemonSetUpdateStrategy> {
    let fields = d.fields(node, path, &ROLLING_DAEMON_SET)?;
    let max_surge = int_or_percent(d, &fields, "maxSurge");
    // With a surge nodes need not be without a pod.
    let default = IntOrPercent::Int(u32::from(max_surge.is_none()));
    Some(DaemonSetUpdateStrategy::RollingUpdate {
        max_unavailable: int_or_percent(d, &fields, "maxUnavailable").unwrap_or(default),
        max_surge: max_surge.unwrap_or(IntOrPercent::Int(0)),
    })
}
