//! Rules for PersistentVolumeClaims and for who may use them.
//!
//! The guest of one pod has a volume at a time, unless all that have it only read: what asks for several pods that may write
//! to one claim would wait for ever, so it is refused where it is said.

use std::collections::BTreeSet;

use super::pod::cut;
use super::{AMOUNT_MAX, Path, Report, VOLUMES_MAX, annotations, labels};
use crate::{
    AccessMode, BuiltinClass, ClaimSourceKind, DeploymentSpec, Name, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, PodSpec, StatefulSetSpec, StorageClass,
    VolumeClaimTemplate, VolumeSnapshotSpec, VolumeSource, is_dns_label,
};

/// Checks a claim, with what its volume begins with.
pub(super) fn whole(one: &PersistentVolumeClaim, path: &Path<'_>, report: &mut Report) {
    claim(&one.spec, path, report);
    source(one, path, report);
    if let Some(name) = one.spec.volume_name.get() {
        report.check(&path.field("volumeName"), Name::new(name).map(drop));
        if one.source.get().is_some() {
            report.push(
                &path.field("dataSource"),
                "cannot be together with volumeName: that holds something already",
            );
        }
    } else if one.source.get().is_none() {
        check_filled(one.spec.access_mode, path, report);
    }
}

/// Checks a class.
pub(super) fn class(class: &StorageClass, path: &Path<'_>, report: &mut Report) {
    let name = class.meta.name.as_str();
    if BuiltinClass::ALL.iter().any(|one| one.as_str() == name) {
        let path = path.field("metadata");
        report.push(&path.field("name"), format!("{name:?} is always there, and always the same"));
    }
}

/// Checks what is said of a retained volume; the control plane compares the rest with what it knows.
pub(super) fn volume(spec: &PersistentVolumeSpec, path: &Path<'_>, report: &mut Report) {
    let path = path.field("claimRef");
    if spec.claim_namespace.is_empty() && spec.claim_name.is_empty() {
        return;
    }
    report.check(&path.field("namespace"), Name::new(&spec.claim_namespace).map(drop));
    report.check(&path.field("name"), Name::new(&spec.claim_name).map(drop));
}

/// Refuses what nobody could ever fill.
fn check_filled(mode: AccessMode, path: &Path<'_>, report: &mut Report) {
    if !mode.may_write() {
        let reason =
            "nobody could ever write to it: let it begin with something (dataSource), or add ReadWriteOnce";
        report.push(&path.field("accessModes"), reason);
    }
}

/// Checks what is wanted of a volume.
pub(super) fn claim(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, report: &mut Report) {
    if spec.storage_bytes == 0 || spec.storage_bytes > AMOUNT_MAX {
        let resources = path.field("resources");
        let reason = "must be more than nothing, and at most 2^53";
        report.push(&resources.field("requests").field("storage"), reason);
    }
    if let Some(class) = spec.class.get() {
        report.check(&path.field("storageClassName"), Name::new(class).map(drop));
    }
}

/// Checks what a claim's volume begins with.
fn source(claim: &PersistentVolumeClaim, path: &Path<'_>, report: &mut Report) {
    let Some(source) = claim.source.get() else { return };
    let path = path.field("dataSource");
    report.check(&path.field("name"), Name::new(&source.name).map(drop));
    if source.kind == ClaimSourceKind::PersistentVolumeClaim && source.name == claim.meta.name.as_str() {
        report.push(&path.field("name"), "is the claim itself");
    }
}

/// Checks of what a snapshot is.
pub(super) fn snapshot(spec: &VolumeSnapshotSpec, path: &Path<'_>, report: &mut Report) {
    let source = path.field("source");
    report.check(&source.field("persistentVolumeClaimName"), Name::new(&spec.claim_name).map(drop));
}

/// Checks the claims that a pod names, each of which it has once.
pub(super) fn of_pod(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes().iter().enumerate() {
        let VolumeSource::PersistentVolumeClaim { claim_name, .. } = &volume.source else { continue };
        let path = path.field("volumes");
        let path = path.index(index);
        let path = path.field("persistentVolumeClaim");
        report.check(&path.field("claimName"), Name::new(claim_name).map(drop));
        if !names.insert(claim_name) {
            let reason =
                format!("{:?} is used twice in the pod: mount the one volume twice", cut(claim_name));
            report.push(&path.field("claimName"), reason);
        }
    }
}

/// Checks the claims that each pod of a StatefulSet has of its own.
pub(super) fn templates(name: &Name, spec: &StatefulSetSpec, path: &Path<'_>, report: &mut Report) {
    let last = spec.ordinals_start.saturating_add(spec.replicas).saturating_sub(1);
    let path = path.field("volumeClaimTemplates");
    report.at_most(&path, "templates", spec.claim_templates().len(), VOLUMES_MAX);
    let mut names = BTreeSet::new();
    for (index, one) in spec.claim_templates().iter().enumerate() {
        let path = path.index(index);
        let VolumeClaimTemplate { name: volume, labels: own, annotations: notes, spec } = one;
        let metadata = path.field("metadata");
        if !is_dns_label(volume) {
            report.push(&metadata.field("name"), format!("{:?} must be a DNS label", cut(volume)));
        } else if !names.insert(volume) {
            report.push(&metadata.field("name"), format!("{volume:?} is used twice"));
        } else if one.claim_name(name, last).is_none() {
            let reason = format!("{volume}-{name}-{last} would be too long for a claim's name");
            report.push(&metadata.field("name"), reason);
        }
        labels(own, &metadata.field("labels"), report);
        annotations(notes, &metadata.field("annotations"), report);
        let path = path.field("spec");
        claim(spec, &path, report);
        check_filled(spec.access_mode, &path, report);
        if spec.volume_name.get().is_some() {
            report
                .push(&path.field("volumeName"), "cannot be in a template: only one claim can have a volume");
        }
    }
}

/// The first claim that a pod names, and to which it may write.
fn first(spec: &PodSpec) -> Option<&str> {
    spec.written_claims().next().map(|name| name.as_str())
}

/// Refuses a size above one of what shares a claim among its pods, to which they may write.
pub(super) fn alone(pods: u32, spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    if pods > 1
        && let Some(claim) = first(spec)
    {
        report.push(path, shared_reason(claim));
    }
}

/// The same of a StatefulSet, whose pods share what is not from its templates.
pub(super) fn set_alone(spec: &StatefulSetSpec, path: &Path<'_>, report: &mut Report) {
    let mut written = spec.shared_claims().filter(|(_, read_only)| !read_only);
    if spec.replicas > 1
        && let Some((claim, _)) = written.next()
    {
        report.push(&path.field("replicas"), shared_reason(claim));
    }
}

/// Why pods of one template that names a claim can be one at most, with what to do.
#[must_use]
pub fn shared_reason(claim: &str) -> String {
    format!(
        "must be at most 1: all pods would use PersistentVolumeClaim {}, which one guest at a time can have; a \
         StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together",
        cut(claim)
    )
}

/// Refuses a Deployment whose new pod would wait for the volume that the old one has.
pub(super) fn surge(spec: &DeploymentSpec, path: &Path<'_>, report: &mut Report) {
    let Some(claim) = first(&spec.template.spec) else { return };
    let (surge, _) = spec.strategy.bounds(1);
    let path = path.field("strategy");
    if spec.delivery.get().is_some() {
        let reason = format!(
            "a delivery by steps runs old and new pods side by side, but PersistentVolumeClaim {} is one guest's at a \
             time: use Recreate",
            cut(claim)
        );
        report.push(&path, reason);
    } else if surge > 0 {
        let reason = format!(
            "must be 0: a new pod cannot have PersistentVolumeClaim {} while the old one runs, so the rollout would \
             never move; set it to 0, or the type to Recreate",
            cut(claim)
        );
        let path = path.field("rollingUpdate");
        report.push(&path.field("maxSurge"), reason);
    }
}

/// Refuses a claim in the pods of a DaemonSet.
pub(super) fn daemon(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    for (index, volume) in spec.volumes().iter().enumerate() {
        if matches!(volume.source, VolumeSource::PersistentVolumeClaim { .. }) {
            let path = path.field("volumes");
            let path = path.index(index);
            let reason = "is not possible in a DaemonSet: a claim is on one node, the pods are on many; use emptyDir, \
                          or a StatefulSet with volumeClaimTemplates";
            report.push(&path.field("persistentVolumeClaim"), reason);
        }
    }
}

/// Bytes of a StatefulSet's claims, roughly.
pub(super) fn bytes(spec: &StatefulSetSpec) -> usize {
    let of = |one: &VolumeClaimTemplate| {
        one.name.len() + super::map_bytes(&one.labels) + super::map_bytes(&one.annotations)
    };
    spec.claim_templates().iter().map(of).sum()
}
