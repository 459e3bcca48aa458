//! PersistentVolumeClaims as values, and those of StatefulSets.

use bulkhead_types::{
    ClaimPhase, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    VolumeClaimTemplate, VolumeClaims, format_bytes,
};
use serde_json::{Value, json};

use super::Fields;

/// What is wanted of a volume.
pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec) -> Value {
    json!({
        "accessModes": [spec.access_mode.as_str()],
        "resources": {"requests": {"storage": format_bytes(spec.storage_bytes)}},
        "storageClassName": spec.storage_class.as_str(),
        "volumeMode": "Filesystem",
    })
}

/// What is known of a volume; `node` and `volume` are Bulkhead's own fields.
pub(super) fn claim_status(claim: &PersistentVolumeClaim) -> Value {
    let PersistentVolumeClaimStatus { phase, node: _, node_name, capacity_bytes, volume, first_used_at_ms } =
        &claim.status;
    let fields = Fields::new().text("phase", phase.as_str()).nonempty("node", node_name);
    let first_used_ms = first_used_at_ms.get().copied().unwrap_or_default();
    match phase {
        ClaimPhase::Pending => fields,
        ClaimPhase::Bound | ClaimPhase::Lost => fields
            .set("accessModes", json!([claim.spec.access_mode.as_str()]))
            .set("capacity", json!({"storage": format_bytes(*capacity_bytes)}))
            .text("volume", &volume.to_string())
            .time("firstUsedTime", first_used_ms),
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
