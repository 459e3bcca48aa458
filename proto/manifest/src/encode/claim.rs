//! PersistentVolumeClaims as values, and those of StatefulSets.

use bulkhead_types::{
    BuiltinClass, ClaimPhase, Object, PROVISIONER, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, StorageClassSpec, VolumeClaimTemplate,
    VolumeClaims, VolumeProgress, VolumeSnapshot, format_bytes,
};
use serde_json::{Value, json};

use super::Fields;

/// Spec and status of what is kept on nodes.
pub(super) fn parts(object: &Object) -> (Option<Value>, Option<Value>) {
    match object {
        Object::PersistentVolumeClaim(o) => claim_parts(o),
        Object::VolumeSnapshot(o) => snapshot_parts(o),
        Object::PersistentVolume(o) => volume_parts(o),
        _ => (None, None),
    }
}

/// What is wanted of a volume.
pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec) -> Value {
    json!({
        "accessModes": spec.access_mode.modes(),
        "resources": {"requests": {"storage": format_bytes(spec.storage_bytes)}},
        "storageClassName": spec.class_name(),
        "volumeMode": "Filesystem",
    })
}

/// The fields of a StorageClass, which are beside its metadata.
pub(super) fn class_fields(spec: &StorageClassSpec, fields: Fields) -> Fields {
    let reclaim = match spec.reclaim {
        BuiltinClass::Local => "Delete",
        BuiltinClass::LocalRetain => "Retain",
    };
    fields
        .text("provisioner", PROVISIONER)
        .text("reclaimPolicy", reclaim)
        .text("volumeBindingMode", "WaitForFirstConsumer")
        .set("allowVolumeExpansion", json!(spec.allow_volume_expansion))
        .set("parameters", json!({"driver": "file"}))
}

/// What a retained volume is; `node` and `volume` are Bulkhead's own fields.
fn volume_parts(volume: &PersistentVolume) -> (Option<Value>, Option<Value>) {
    let spec = &volume.spec;
    let mut fields = Fields::new()
        .set("capacity", json!({"storage": format_bytes(spec.capacity_bytes)}))
        .text("persistentVolumeReclaimPolicy", "Retain")
        .text("storageClassName", spec.class_name())
        .text("node", &spec.node_name)
        .text("volume", &spec.volume.to_string());
    if spec.is_claimed() {
        let (namespace, name) = (spec.claim_namespace.as_str(), spec.claim_name.as_str());
        let claim = json!({"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name});
        fields = fields.set("claimRef", claim);
    }
    (Some(fields.finish()), Some(json!({"phase": volume.phase()})))
}

/// The same of a claim, with what its volume begins with.
fn claim_parts(claim: &PersistentVolumeClaim) -> (Option<Value>, Option<Value>) {
    let mut spec = claim_spec(&claim.spec);
    if let (Some(source), Value::Object(fields)) = (claim.source.get(), &mut spec) {
        let kind = source.kind.kind();
        let mut data_source = Fields::new().text("kind", kind.as_str()).text("name", &source.name);
        if let Some((group, _)) = kind.api_version().split_once('/') {
            data_source = data_source.text("apiGroup", group);
        }
        fields.insert("dataSource".to_owned(), data_source.finish());
    }
    if let (Some(name), Value::Object(fields)) = (claim.spec.volume_name.get(), &mut spec) {
        fields.insert("volumeName".to_owned(), name.as_str().into());
    }
    (Some(spec), Some(claim_status(claim)))
}

/// Of what a snapshot is, and what is known of it; `node` and `volume` are Bulkhead's own fields.
fn snapshot_parts(snapshot: &VolumeSnapshot) -> (Option<Value>, Option<Value>) {
    let spec = json!({"source": {"persistentVolumeClaimName": snapshot.spec.claim_name.as_str()}});
    let status = &snapshot.status;
    let mut fields = Fields::new().set("readyToUse", json!(status.ready)).nonempty("node", &status.node_name);
    if status.taken_at_ms > 0 {
        fields = fields
            .time("creationTime", status.taken_at_ms)
            .set("restoreSize", json!(format_bytes(status.restore_bytes)))
            .text("volume", &status.volume.to_string());
    }
    if !status.message.is_empty() {
        fields = fields.set("error", json!({"message": status.message.as_str()}));
    }
    (Some(spec), Some(fields.finish()))
}

/// Kubernetes' conditions of a claim that grows, and the one of a claim that is made of something: they follow from what is
/// known.
fn conditions(claim: &PersistentVolumeClaim) -> Vec<Value> {
    let progress = claim.status.progress.get().cloned().unwrap_or_default();
    let VolumeProgress { file_bytes, message, .. } = &progress;
    let condition = |kind: &str| {
        Fields::new().text("type", kind).text("status", "True").nonempty("message", message).finish()
    };
    let mut conditions = Vec::new();
    if claim.bound_node().is_some() && claim.awaits_source() {
        conditions.push(condition("Populating"));
    } else if let Some(wanted) = claim.grows_to() {
        let is_grown = *file_bytes >= wanted;
        conditions.push(condition(if is_grown { "FileSystemResizePending" } else { "Resizing" }));
    }
    conditions
}

/// What is known of a volume; `node`, `volume` and the condition `Populating` are Bulkhead's own.
pub(super) fn claim_status(claim: &PersistentVolumeClaim) -> Value {
    let PersistentVolumeClaimStatus {
        phase,
        node: _,
        node_name,
        capacity_bytes,
        volume,
        first_used_at_ms,
        progress: _,
    } = &claim.status;
    let fields = Fields::new().text("phase", phase.as_str()).nonempty("node", node_name);
    let first_used_ms = first_used_at_ms.get().copied().unwrap_or_default();
    match phase {
        ClaimPhase::Pending => fields,
        ClaimPhase::Bound | ClaimPhase::Lost => fields
            .set("accessModes", json!(claim.spec.access_mode.modes()))
            .set("capacity", json!({"storage": format_bytes(*capacity_bytes)}))
            .text("volume", &volume.to_string())
            .time("firstUsedTime", first_used_ms)
            .list("conditions", conditions(claim).into_iter()),
    }
    .finish()
}

/// The claims of a StatefulSet, added to its spec.
pub(super) fn of_stateful_set(claims: &VolumeClaims, fields: Fields) -> Fields {
    fields.list("volumeClaimTemplates", claims.templates.iter().map(template)).set(
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": claims.when_deleted.as_str(), "whenScaled": claims.when_scaled.as_str()}),
    )
}

fn template(template: &VolumeClaimTemplate) -> Value {
    let metadata = Fields::new()
        .text("name", &template.name)
        .map("labels", &template.labels)
        .map("annotations", &template.annotations);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata.finish(),
        "spec": claim_spec(&template.spec),
    })
}
