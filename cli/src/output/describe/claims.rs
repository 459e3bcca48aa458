//! PersistentVolumeClaims in full.

use bulkhead_types::{
    BuiltinClass, Object, PROVISIONER, PersistentVolume, PersistentVolumeClaim, StatefulSetSpec,
    StorageClass, VolumeSnapshot, format_bytes,
};

use uuid::Uuid;

use super::Page;
use crate::time::age;

pub(super) fn claim(page: &mut Page, claim: &PersistentVolumeClaim, related: &[Object]) {
    let (spec, status) = (&claim.spec, &claim.status);
    page.line("Status", if claim.meta.is_deleting() { "Terminating" } else { status.phase.as_str() });
    page.line("Access mode", spec.access_mode.modes().join(", "));
    page.line("Storage class", format!("{} ({})", spec.class_name(), fate(spec.storage_class)));
    page.line("Requested", format_bytes(spec.storage_bytes));
    if let Some(source) = claim.source.get() {
        let state = if claim.awaits_source() { " (still to be copied)" } else { "" };
        page.line("Made of", format!("{source}{state}"));
    }
    let progress = status.progress.get().cloned().unwrap_or_default();
    if let Some(wanted) = claim.grows_to() {
        let how = if progress.file_bytes >= wanted { "its file system follows" } else { "its file grows" };
        page.line("Expansion", format!("to {}: {how}", format_bytes(wanted)));
    }
    if !progress.message.is_empty() {
        page.line("Last failure", progress.message.as_str());
    }
    if let Some(_bound) = status.node {
        page.line("Capacity", format_bytes(status.capacity_bytes));
        page.line("Node", status.node_name.as_str());
        page.line("Volume", place(status.volume));
        let first_used_ms = status.first_used_at_ms.get();
        page.line(
            "First used",
            first_used_ms.map_or("<not yet>".to_owned(), |at_ms| format!("{} ago", age(*at_ms))),
        );
    }
    let users: Vec<_> = related.iter().map(|pod| pod.meta().name.to_string()).collect();
    page.line("Used by", if users.is_empty() { "<none>".to_owned() } else { users.join(", ") });
}

/// What becomes of the data.
fn fate(reclaim: BuiltinClass) -> &'static str {
    match reclaim {
        BuiltinClass::Local => "its data is deleted with it",
        BuiltinClass::LocalRetain => "its file stays on its node",
    }
}

/// Kubernetes' word for what becomes of the data.
fn reclaim_policy(reclaim: BuiltinClass) -> &'static str {
    match reclaim {
        BuiltinClass::Local => "Delete",
        BuiltinClass::LocalRetain => "Retain",
    }
}

/// A StorageClass's cells after its name.
pub(crate) fn class_cells(class: &StorageClass) -> Vec<String> {
    let spec = &class.spec;
    let (policy, grows) = (reclaim_policy(spec.reclaim), spec.allow_volume_expansion.to_string());
    let words = [PROVISIONER, policy, "WaitForFirstConsumer", &grows].map(str::to_owned);
    [words.to_vec(), vec![age(class.meta.created_at_ms)]].concat()
}

pub(super) fn class(page: &mut Page, class: &StorageClass) {
    let spec = &class.spec;
    page.line("Default", if class.is_default() { "yes" } else { "no" });
    page.line("Provisioner", PROVISIONER);
    page.line("Reclaim policy", reclaim_policy(spec.reclaim));
    page.line("Volume binding", "WaitForFirstConsumer");
    page.line("Expansion", if spec.allow_volume_expansion { "allowed" } else { "not allowed" });
}

fn phase(volume: &PersistentVolume) -> &'static str {
    if volume.meta.is_deleting() { "Terminating" } else { volume.phase() }
}

fn former_claim(volume: &PersistentVolume) -> String {
    let spec = &volume.spec;
    if spec.is_claimed() { format!("{}/{}", spec.claim_namespace, spec.claim_name) } else { String::new() }
}

/// A retained volume's cells after its name.
pub(crate) fn volume_cells(volume: &PersistentVolume) -> Vec<String> {
    let spec = &volume.spec;
    let claim = former_claim(volume);
    let phase = phase(volume);
    let words = [spec.node_name.as_str(), phase, &claim, spec.class_name()].map(str::to_owned);
    let age = age(volume.meta.created_at_ms);
    [vec![format_bytes(spec.capacity_bytes)], words.to_vec(), vec![age]].concat()
}

pub(super) fn volume(page: &mut Page, volume: &PersistentVolume) {
    let spec = &volume.spec;
    page.line("Status", phase(volume));
    page.line("Claim", former_claim(volume));
    page.line("Capacity", format_bytes(spec.capacity_bytes));
    page.line("Storage class", spec.class_name());
    page.line("Node", spec.node_name.as_str());
    page.line("Volume", place(spec.volume));
    let whose = match spec.is_claimed() {
        true => format!("of namespace {}", spec.claim_namespace),
        false => "of any namespace".to_owned(),
    };
    page.line("Take over", format!("a claim {whose} with volumeName: {}", volume.meta.name));
}

/// Where a volume is on its node: which of both, its agent's options said when it was made.
fn place(volume: Uuid) -> String {
    format!("volumes/{volume}.img in its agent's data directory, or bulkhead-volume-{volume} in LVM")
}

/// A snapshot's cells after its name.
pub(crate) fn snapshot_cells(snapshot: &VolumeSnapshot) -> Vec<String> {
    let status = &snapshot.status;
    let size = if status.taken_at_ms == 0 { String::new() } else { format_bytes(status.restore_bytes) };
    let (claim, node) = (snapshot.spec.claim_name.to_string(), status.node_name.to_string());
    vec![status.ready.to_string(), claim, size, node, age(snapshot.meta.created_at_ms)]
}

pub(super) fn snapshot(page: &mut Page, snapshot: &VolumeSnapshot) {
    let status = &snapshot.status;
    if snapshot.meta.is_deleting() {
        page.line("Status", "Terminating");
    }
    page.line("Source", format!("PersistentVolumeClaim {}", snapshot.spec.claim_name));
    page.line("Ready to use", status.ready.to_string());
    if status.taken_at_ms > 0 {
        page.line("Taken", format!("{} ago", age(status.taken_at_ms)));
        page.line("Restore size", format_bytes(status.restore_bytes));
        page.line("Node", status.node_name.as_str());
        let volume = status.volume;
        let file = format!(
            "volumes/{volume}.snap in its agent's data directory, or bulkhead-snapshot-{volume} in LVM"
        );
        page.line("File", file);
    }
    if !status.message.is_empty() {
        page.line("Error", status.message.as_str());
    }
}

/// The claims of a StatefulSet's pods.
pub(super) fn templates(page: &mut Page, spec: &StatefulSetSpec) {
    let Some(claims) = spec.claims.get() else { return };
    for one in &claims.templates {
        let (size, class) = (format_bytes(one.spec.storage_bytes), one.spec.class_name());
        let mode = one.spec.access_mode.modes().join(", ");
        page.line("Volume claims", format!("{}: {size}, {mode}, {class}", one.name));
    }
    let policy = (claims.when_deleted.as_str(), claims.when_scaled.as_str());
    page.line("Claims afterwards", format!("{} when deleted, {} when scaled", policy.0, policy.1));
}
