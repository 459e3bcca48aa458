//! NodePools, NodeOperations and DeschedulerPolicies in full.

use bulkhead_types::{DeschedulerPolicy, Node, NodeGpu, NodeOperation, NodePool, Taint};

use super::Page;
use crate::time::{age, rfc3339, short};

/// Most nodes that a list shows.
const NODES_SHOWN_MAX: usize = 20;

fn taints(taints: &[Taint]) -> String {
    let lines: Vec<String> = taints.iter().map(|t| format!("{}={}:{:?}", t.key, t.value, t.effect)).collect();
    if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n") }
}

fn mode(page: &mut Page, gpu: Option<&NodeGpu>) {
    if let Some(gpu) = gpu {
        page.line("GPU mode", format!("{} ({})", gpu.mode, gpu.strategy.as_str()));
    }
}

pub(super) fn pool(page: &mut Page, pool: &NodePool) {
    let (spec, status) = (&pool.spec, &pool.status);
    page.map("Node labels", &spec.labels);
    page.line("Node taints", taints(&spec.taints));
    mode(page, spec.gpu.get());
    page.line("Sync existing", spec.sync_existing.to_string());
    page.line("Joins cordoned", spec.unschedulable_on_join.to_string());
    page.line("Nodes", format!("{}, {} ready", status.nodes, status.ready));
    if let Some(desired) = spec.desired_nodes {
        let difference = match (status.missing, status.surplus) {
            (0, 0) => "as many as there are".to_owned(),
            (missing, 0) => format!("{missing} missing: machines join by their own agents"),
            (_, surplus) => format!("{surplus} too many: drain and delete some"),
        };
        page.line("Desired", format!("{desired}, {difference}"));
    }
    if status.out_of_sync > 0 {
        page.line("Out of sync", format!("{} nodes, such as {}", status.out_of_sync, status.message));
    }
}

/// What a node has from its pool.
pub(super) fn of_node(page: &mut Page, node: &Node) {
    let Some(record) = node.status.pool.get() else { return };
    page.line("Pool", record.pool.as_str());
    let from = |page: &mut Page| {
        page.map("Labels", &record.labels);
        page.line("Taints", taints(&record.taints));
        mode(page, record.gpu.get());
    };
    page.section("From pool", from);
}

pub(super) fn operation(page: &mut Page, operation: &NodeOperation) {
    let (spec, status) = (&operation.spec, &operation.status);
    page.line("Action", spec.action.as_str());
    match &spec.pool {
        Some(pool) => page.line("Pool", pool.as_str()),
        None => page.line("Nodes", some(spec.nodes.iter().map(ToString::to_string))),
    }
    mode(page, spec.gpu.get());
    page.line("Time-out", format!("{} per node", short(spec.timeout_per_node_ms / 1000)));
    page.line("Phase", status.phase.as_str());
    page.optional("Reason", &status.message);
    if status.started_at_ms > 0 {
        page.line(
            "Started",
            format!("{} ({} ago)", rfc3339(status.started_at_ms), age(status.started_at_ms)),
        );
    }
    if status.finished_at_ms > 0 {
        page.line("Finished", rfc3339(status.finished_at_ms));
    }
    let figures = format!(
        "{} of {} done, {} failed, {} in work, {} waiting, {} gone",
        status.succeeded,
        status.total,
        status.failed.len(),
        status.in_work.len(),
        status.waiting.len(),
        status.gone
    );
    page.line("Progress", figures);
    page.line("Batch", format!("{}, at most {}", status.batch, operation.batch_max()));
    page.optional(
        "In work",
        some(status.in_work.iter().map(|one| format!("{} for {}", one.node, age(one.since_ms)))),
    );
    page.optional("Failed", some(status.failed.iter().map(|one| format!("{}: {}", one.node, one.reason))));
    page.optional("Waiting", some(status.waiting.iter().map(ToString::to_string)));
}

pub(super) fn descheduler(page: &mut Page, policy: &DeschedulerPolicy) {
    let (spec, status) = (&policy.spec, &policy.status);
    let strategies: Vec<&str> = spec.strategies.iter().map(|one| one.as_str()).collect();
    page.line("Strategies", strategies.join("\n"));
    page.line("Interval", short(spec.interval_ms / 1000));
    page.line("Cool-down", format!("{} for each owner", short(spec.cool_down_ms / 1000)));
    page.line("Dry run", spec.dry_run.to_string());
    if status.last_run_ms > 0 {
        page.line("Last run", format!("{} ({} ago)", rfc3339(status.last_run_ms), age(status.last_run_ms)));
    }
    let word = if status.last_was_dry_run { "Would evict" } else { "Evicted then" };
    let lines = status
        .last
        .iter()
        .map(|one| format!("{} on {}: {}: {}", one.name, one.node, one.strategy, one.reason));
    page.optional(word, some(lines));
    page.line("Evicted", format!("{} pods by all runs", status.evicted));
    page.line("Left alone", format!("{} owners", status.cooling.len()));
}

/// The first lines of a list.
fn some(lines: impl ExactSizeIterator<Item = String>) -> String {
    let left = lines.len().saturating_sub(NODES_SHOWN_MAX);
    let mut shown: Vec<String> = lines.take(NODES_SHOWN_MAX).collect();
    shown.extend((left > 0).then(|| format!("and {left} more")));
    shown.join("\n")
}
