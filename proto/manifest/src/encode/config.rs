//! ConfigMaps and Secrets as values: their content stands at the root.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_types::{ConfigMap, Secret};
use serde_json::{Map, Value};

use super::Fields;

/// A ConfigMap's fields beside its metadata.
pub(super) fn config_map(map: &ConfigMap, fields: Fields) -> Fields {
    let texts = map.data.iter().map(|(key, value)| (key.to_string(), value.as_str().into()));
    let bytes = map.binary_data.iter().map(|(key, value)| (key.to_string(), base64(value.as_slice())));
    immutable(map.immutable, fields.entries("data", texts.collect()).entries("binaryData", bytes.collect()))
}

/// A Secret's fields beside its metadata, values in base64: for its owner's eyes, as in Kubernetes.
pub(super) fn secret(secret: &Secret, fields: Fields) -> Fields {
    let data = secret.data.iter().map(|(key, value)| (key.to_string(), base64(value.reveal())));
    let fields = fields.text("type", secret.secret_type.as_str()).entries("data", data.collect());
    immutable(secret.immutable, fields)
}

fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

fn immutable(immutable: bool, fields: Fields) -> Fields {
    if immutable { fields.set("immutable", true.into()) } else { fields }
}

impl Fields {
    fn entries(self, name: &str, entries: Map<String, Value>) -> Self {
        if entries.is_empty() { self } else { self.set(name, Value::Object(entries)) }
    }
}
