//! CPUs: the NUMA nodes of a node, and what a pod has of them for itself.

use bulkhead_controlplane_core::cpus::{NumaUse, ledger_of};
use bulkhead_types::{CpuHold, CpuSet, Node, Object, Pod, QosClass, format_bytes};

use super::Page;

/// What a node has of CPUs and memory on each NUMA node, and what pods have of that.
pub(super) fn node(page: &mut Page, node: &Node, pods: &[Object]) {
    let pods = pods.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    let Some(ledger) = ledger_of(node, pods) else { return };
    let topology = ledger.topology();
    page.line("Topology manager policy", topology.policy.name());
    page.optional("Reserved CPUs", topology.reserved.to_string());
    page.line("Shared CPUs", shown(&ledger.shared()));
    page.line("Batch CPUs", shown(&ledger.batch()));
    let row = |one: NumaUse| {
        vec![
            one.id.to_string(),
            shown(&one.cpus),
            shown(&one.held),
            shown(&one.free),
            format_bytes(one.memory_bytes),
            format_bytes(one.held_memory_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = ledger.uses().into_iter().map(row).collect();
    let header = ["NUMA", "CPUS", "PINNED", "FREE", "MEMORY", "PINNED MEMORY"];
    page.section("NUMA nodes", |page| page.table(&header, &rows));
}

fn shown(cpus: &CpuSet) -> String {
    match cpus.len() {
        0 => "-".to_owned(),
        count => format!("{cpus} ({count})"),
    }
}

/// The CPUs that a pod has for itself, or the pool that it says it is in; nothing for others.
pub(super) fn given(pod: &Pod) -> String {
    let Some(given) = pod.cpus() else {
        return match QosClass::of(&pod.meta.labels) {
            Some(QosClass::Be) => "batch pool".to_owned(),
            Some(QosClass::Ls) => "shared pool".to_owned(),
            _ => String::new(),
        };
    };
    let how = match given.hold {
        CpuHold::Exclusive => "exclusive",
        CpuHold::Reserved => "reserved",
        CpuHold::Bound => "bound",
    };
    let nodes: Vec<String> = given.numa_nodes.iter().map(ToString::to_string).collect();
    format!("{} on NUMA node {}, {how}", given.cpus, nodes.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_types::{
        CpuCore, CpuTopology, LABEL_QOS_CLASS, Name, NodeFacts, NodePhase, NodeSpec, NodeStatus, NumaNode,
        NumaPolicy, ObjectId, ObjectMeta, PodCpus, PodSpec, PodStatus, Rare, Shared,
    };

    use super::*;

    fn meta(id: u64) -> ObjectMeta {
        ObjectMeta { id: ObjectId(id), ..ObjectMeta::new(None, Name::new("a").expect("a name")) }
    }

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    fn pod(cpus: Option<&str>, hold: CpuHold) -> Pod {
        let given = |cpus| PodCpus {
            cpus: set(cpus),
            numa_nodes: vec![0, 1],
            memory_bytes: 0,
            huge_pages: bulkhead_types::HugePages::NONE,
            hold,
        };
        let status = PodStatus { cpus: Rare::from(cpus.map(given)), ..PodStatus::default() };
        Pod { meta: meta(2), spec: Shared::new(PodSpec::default()), node: Some(ObjectId(1)), status }
    }

    #[test]
    fn what_is_pinned_and_free_is_shown_by_numa_node() {
        let numa_node = |id, cpus| {
            let cores = vec![CpuCore { package: id, core: 0, cpus: set(cpus) }];
            NumaNode { id, memory_bytes: 1 << 30, huge_pages: bulkhead_types::HugePages::NONE, cores }
        };
        let numa_nodes = vec![numa_node(0, "0-3"), numa_node(1, "4-7")];
        let topology = CpuTopology { numa_nodes, reserved: set("0"), policy: NumaPolicy::BestEffort };
        let facts = NodeFacts { cpus: Rare::some(topology), ..NodeFacts::default() };
        let status = NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts,
            pool: Rare::NONE,
            images: Rare::NONE,
            device_labels: Rare::NONE,
        };
        let of = Node { meta: meta(1), spec: NodeSpec::default(), status };
        let mut page = Page { text: String::new(), indent: 0 };
        node(&mut page, &of, &[Object::Pod(Arc::new(pod(Some("3-4"), CpuHold::Exclusive)))]);
        let words: Vec<&str> = page.text.split_whitespace().collect();
        let text = words.join(" ");
        assert!(
            text.starts_with(
                "Topology manager policy: best-effort Reserved CPUs: 0 Shared CPUs: 0-2,5-7 (6)"
            ),
            "{text}"
        );
        assert!(text.contains("0 0-3 (4) 3 (1) 1-2 (2) 1Gi 0"), "{text}");
        assert!(text.contains("1 4-7 (4) 4 (1) 5-7 (3) 1Gi 0"), "{text}");
    }

    #[test]
    fn a_pods_cpus_or_its_pool_are_said() {
        assert_eq!(given(&pod(Some("0-1,8"), CpuHold::Bound)), "0-1,8 on NUMA node 0, 1, bound");
        assert_eq!(given(&pod(None, CpuHold::Bound)), "");
        let mut batch = pod(None, CpuHold::Bound);
        batch.meta.labels.insert(LABEL_QOS_CLASS.into(), "BE".into());
        assert_eq!(given(&batch), "batch pool");
    }
}
