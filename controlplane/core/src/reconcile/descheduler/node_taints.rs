//! Pods on nodes with taints that they do not tolerate: taints came later. `NoExecute` is the node lifecycle's.

use bulkhead_types::TaintEffect;

use super::Run;

pub(super) fn run(run: &mut Run<'_, '_>, include_prefer_no_schedule: bool) {
    run.evict_where(|node, pod| {
        let counts = |effect| match effect {
            TaintEffect::NoSchedule => true,
            TaintEffect::PreferNoSchedule => include_prefer_no_schedule,
            TaintEffect::NoExecute => false,
        };
        let mut taints = node.spec.taints.iter().filter(|taint| counts(taint.effect));
        let taint = taints.find(|taint| !pod.spec.tolerations.iter().any(|one| one.tolerates(taint)))?;
        Some(format!(
            "it does not tolerate {}={}:{:?} of {}",
            taint.key, taint.value, taint.effect, node.meta.name
        ))
    });
}
