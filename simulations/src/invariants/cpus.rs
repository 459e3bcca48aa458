//! No CPU has two holders: not in the log at any binding, and not among the guests that really live on a node.
//!
//! Judged from pods, nodes and guests alone, without the ledger of the control plane.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference;
use bulkhead_types::{Binding, CpuHold, CpuSet, EventKind, ObjectId, PodCpus, Transaction};

use super::{Verdict, Violation, ensure};

/// Checks what living guests of one node have for themselves.
///
/// # Errors
/// With two of them that share a CPU.
pub fn held(held: &[(ObjectId, CpuSet)]) -> Verdict {
    for (at, (pod, cpus)) in held.iter().enumerate() {
        let other = held[..at].iter().find(|(_, other)| !other.is_disjoint(cpus));
        ensure(other.is_none(), "cpus", || format!("pods {pod} and {other:?} have the same of {cpus}"))?;
    }
    Ok(())
}

/// Checks the bindings of a transaction against the State before it, one after the other, and then who has what on their nodes.
///
/// # Errors
/// With the first that must not be.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    let mut earlier: Vec<Binding> = Vec::new();
    for event in &transaction.events {
        let EventKind::PodBound(binding) = &event.kind else { continue };
        reference::cpus::check(before, binding, &earlier).map_err(|reason| {
            Violation::new("cpus", format!("pod {} is bound to node {}: {reason}", binding.pod, binding.node))
        })?;
        earlier.push(binding.clone());
    }
    for binding in earlier.iter().filter(|one| one.cpus.get().is_some()) {
        let living = after.pods_on(binding.node).filter(|pod| !pod.status.phase.is_terminal());
        let all: Vec<(ObjectId, &PodCpus)> =
            living.filter_map(|pod| Some((pod.meta.id, pod.cpus()?))).collect();
        held(&all.iter().map(|(pod, given)| (*pod, given.cpus.clone())).collect::<Vec<_>>())?;
        if let Some(ledger) = after.node_cpus(binding.node) {
            pools(&all, &ledger.shared(), &ledger.batch())?;
        }
    }
    Ok(())
}

/// Checks the pools beside what pods have for themselves.
///
/// # Errors
/// With a pod whose CPUs are in a pool in which they must not be.
fn pools(all: &[(ObjectId, &PodCpus)], shared: &CpuSet, batch: &CpuSet) -> Verdict {
    ensure(!shared.is_empty() && shared.is_subset(batch), "cpus", || {
        format!("the shared pool is {shared}, the batch pool {batch}")
    })?;
    for (pod, given) in all {
        let is_bad = match given.hold {
            CpuHold::Exclusive => !given.cpus.is_disjoint(batch),
            CpuHold::Reserved => !given.cpus.is_disjoint(shared),
            CpuHold::Bound => false,
        };
        ensure(!is_bad, "cpus", || {
            format!("pod {pod} has {given:?}, which is in a pool: {shared}, {batch}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    #[test]
    fn cpus_with_two_holders_are_noticed() {
        let check = |all: &[(u64, &str)], is_good: bool| {
            let all: Vec<_> = all.iter().map(|(pod, cpus)| (ObjectId(*pod), set(cpus))).collect();
            assert_eq!(held(&all).is_ok(), is_good, "{all:?}");
        };
        check(&[], true);
        check(&[(1, "0-1"), (2, "2-3"), (3, "8")], true);
        check(&[(1, "0-2"), (2, "2-3")], false);
        check(&[(1, "0-1"), (2, "4"), (3, "0")], false);
    }

    #[test]
    fn pools_that_hold_what_is_a_pods_own_are_noticed() {
        let check = |hold, shared: &str, batch: &str, is_good: bool| {
            let given = PodCpus {
                cpus: set("0-1"),
                numa_nodes: vec![0],
                memory_bytes: 0,
                huge_pages: bulkhead_types::HugePages::NONE,
                hold,
            };
            let found = pools(&[(ObjectId(1), &given)], &set(shared), &set(batch));
            assert_eq!(found.is_ok(), is_good, "{hold:?} {shared} {batch}");
        };
        check(CpuHold::Exclusive, "2-3", "2-3", true);
        check(CpuHold::Exclusive, "2-3", "0-3", false);
        check(CpuHold::Reserved, "2-3", "0-3", true);
        check(CpuHold::Reserved, "1-3", "0-3", false);
        check(CpuHold::Bound, "0-3", "0-3", true);
        check(CpuHold::Reserved, "", "0-3", false);
        check(CpuHold::Reserved, "2-4", "0-3", false);
    }
}
