//! Rules for ElasticQuotaTrees.

use std::collections::BTreeSet;

use super::{Path, Report};
use crate::{
    ELASTIC_QUOTA_DEPTH_MAX, ELASTIC_QUOTA_LEVELS_MAX, ELASTIC_QUOTA_NAMESPACE, ELASTIC_QUOTA_NAMESPACES_MAX,
    ElasticQuota, ElasticQuotaTree, Name, QUOTA_RESOURCES_MAX, QuotaAmounts, check_label_value,
    is_counted_by_queues,
};

/// What was seen of a tree so far.
#[derive(Default)]
struct Seen<'a> {
    names: BTreeSet<&'a str>,
    namespaces: BTreeSet<&'a Name>,
    levels: usize,
}

/// Checks a tree as a whole.
pub(super) fn tree(tree: &ElasticQuotaTree, report: &mut Report) {
    let root = &tree.spec.root;
    let of_meta = Path::Root.field("metadata");
    if tree.meta.namespace.as_ref().is_none_or(|name| name.as_str() != ELASTIC_QUOTA_NAMESPACE) {
        let reason = format!("must be {ELASTIC_QUOTA_NAMESPACE}: an ElasticQuotaTree counts nowhere else");
        report.push(&of_meta.field("namespace"), reason);
    }
    let spec = Path::Root.field("spec");
    let path = spec.field("root");
    if root.max.is_empty() {
        report.push(&path.field("max"), "is required: it names the resources that are counted");
    }
    let differs = |measure| root.min.of(measure) != root.max.of(measure);
    if root.max.measures().chain(root.min.measures()).any(differs) {
        report.push(&path.field("min"), "of the root must be its max");
    }
    let mut seen = Seen::default();
    level((root, root), 1, &path, &mut seen, report);
    let namespaces = seen.namespaces.len();
    report.at_most(&path, "namespaces", namespaces, ELASTIC_QUOTA_NAMESPACES_MAX);
}

fn level<'a>(
    (quota, root): (&'a ElasticQuota, &ElasticQuota),
    depth: usize,
    path: &Path<'_>,
    seen: &mut Seen<'a>,
    report: &mut Report,
) {
    seen.levels += 1;
    if seen.levels > ELASTIC_QUOTA_LEVELS_MAX {
        if seen.levels == ELASTIC_QUOTA_LEVELS_MAX + 1 {
            let reason = format!("is one too many: a tree has at most {ELASTIC_QUOTA_LEVELS_MAX} levels");
            report.push(path, reason);
        }
        return;
    }
    if depth > ELASTIC_QUOTA_DEPTH_MAX {
        let reason = format!("is too deep: at most {ELASTIC_QUOTA_DEPTH_MAX} levels are one below another");
        report.push(path, reason);
        return;
    }
    if quota.name.is_empty() {
        report.push(&path.field("name"), "is required");
    } else if !seen.names.insert(&quota.name) {
        report.push(&path.field("name"), "is the name of another level of the tree already");
    }
    report.check(&path.field("name"), check_label_value(&quota.name));
    amounts((&quota.min, root), &path.field("min"), report);
    amounts((&quota.max, root), &path.field("max"), report);
    for measure in quota.min.measures() {
        let (min, max) = (quota.min.of(measure), quota.max.of(measure));
        if max.is_some_and(|max| min > Some(max)) {
            report.push(&path.field("min").key(&measure.name()), "must not be above the max");
        }
    }
    minimums(quota, root, path, report);
    if !quota.children.is_empty() && !quota.namespaces.is_empty() {
        report
            .push(&path.field("namespaces"), "must not be set: only a level without children has namespaces");
    }
    for (index, namespace) in quota.namespaces.iter().enumerate() {
        if !seen.namespaces.insert(namespace) {
            let reason = "is of a level of the tree already";
            report.push(&path.field("namespaces").index(index), reason);
        }
    }
    for (index, child) in quota.children.iter().enumerate().take(ELASTIC_QUOTA_LEVELS_MAX + 1) {
        level((child, root), depth + 1, &path.field("children").index(index), seen, report);
    }
}

/// The minimums of the levels below are together at most the level's own.
fn minimums(quota: &ElasticQuota, root: &ElasticQuota, path: &Path<'_>, report: &mut Report) {
    for measure in root.max.measures() {
        let below = quota.children.iter().map(|child| u128::from(child.min.of(measure).unwrap_or(0)));
        let (below, own) = (below.sum::<u128>(), quota.min.of(measure).unwrap_or(0));
        if below > u128::from(own) {
            let show = |amount: u128| measure.format_amount(u64::try_from(amount).unwrap_or(u64::MAX));
            let reason = format!(
                "of the levels below are {} of {} together, which is above this level's min of {}",
                show(below),
                measure.name(),
                show(own.into())
            );
            report.push(&path.field("min"), reason);
        }
    }
}

fn amounts((amounts, root): (&QuotaAmounts, &ElasticQuota), path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "resources", amounts.len(), QUOTA_RESOURCES_MAX);
    for (resource, amount) in amounts.iter() {
        let name = resource.name();
        let path = path.key(&name);
        if !is_counted_by_queues(resource.measure()) {
            let reason = "is not counted here: use cpu, memory, ephemeral-storage, pods, or the name of a device resource";
            report.push(&path, reason);
        } else if root.max.of(resource.measure()).is_none() {
            report.push(&path, "is not counted: the max of the root does not name it");
        }
        if amount > i64::MAX as u64 {
            report.push(&path, "must be below 2^63");
        }
    }
}
