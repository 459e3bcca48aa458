//! ConfigMaps and Secrets. What goes wrong in a Secret is told without its values.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_types::{Bytes, ConfigMap, ObjectMeta, Secret, SecretType, Sensitive};
use smol_str::SmolStr;

use super::decoder::{Decoder, Fields};
use crate::tree::Value;

/// A ConfigMap's content.
pub(super) fn config_map(d: &mut Decoder<'_>, fields: &Fields<'_>, meta: ObjectMeta) -> ConfigMap {
    let texts = d.string_map(fields, "data");
    let binary_data = base64_map(d, fields, "binaryData");
    ConfigMap {
        meta,
        immutable: d.boolean(fields, "immutable").unwrap_or_default(),
        data: texts.into_iter().map(|(key, value)| (key, value.to_string())).collect(),
        binary_data: binary_data.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect(),
    }
}

/// A Secret's content: `data` in base64, `stringData` as it is; the latter wins (Kubernetes' rule).
pub(super) fn secret(d: &mut Decoder<'_>, fields: &Fields<'_>, meta: ObjectMeta) -> Secret {
    let mut data = base64_map(d, fields, "data");
    data.extend(plain_map(d, fields, "stringData"));
    let types = SecretType::ALL.map(|one| (one.as_str(), one));
    Secret {
        meta,
        secret_type: d.choice(fields, "type", &types).unwrap_or_default(),
        immutable: d.boolean(fields, "immutable").unwrap_or_default(),
        data: data.into_iter().map(|(key, value)| (key, Sensitive::from(value))).collect(),
    }
}

fn base64_map(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> BTreeMap<SmolStr, Vec<u8>> {
    texts(d, fields, name, |text| {
        // Long values are folded over lines.
        let joined: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(joined).map_err(|_| "is no base64")
    })
}

fn plain_map(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> BTreeMap<SmolStr, Vec<u8>> {
    texts(d, fields, name, |text| Ok(text.as_bytes().to_vec()))
}

fn texts(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    name: &str,
    read: impl Fn(&str) -> Result<Vec<u8>, &'static str>,
) -> BTreeMap<SmolStr, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Some(node) = fields.get(name) else { return found };
    let Value::Map(entries) = &node.value else {
        d.fail(node.place, &fields.path(name), "expected a map of strings");
        return found;
    };
    for (key, value) in entries {
        let result = match &value.value {
            Value::Text(text) => read(text),
            Value::Null => Ok(Vec::new()),
            _ => Err("expected a string: put it in quotes"),
        };
        match result {
            Ok(bytes) => _ = found.insert(key.text.as_str().into(), bytes),
            Err(reason) => d.fail(value.place, &format!("{}[{}]", fields.path(name), key.text), reason),
        }
    }
    found
}
