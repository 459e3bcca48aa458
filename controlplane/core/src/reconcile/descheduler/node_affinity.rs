//! Pods on nodes that their node selector or required node affinity does not allow any more: labels changed.

use super::Run;
use crate::placement::is_selected;

pub(super) fn run(run: &mut Run<'_, '_>) {
    run.evict_where(|node, pod| {
        (!is_selected(&pod.spec, node))
            .then(|| format!("its node affinity or selector does not allow {} any more", node.meta.name))
    });
}
