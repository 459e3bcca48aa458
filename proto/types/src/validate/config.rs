//! Rules for ConfigMaps and Secrets.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{Path, Report};
use crate::{CONFIG_BYTES_MAX, ConfigMap, PLACEMENT_LEVEL, Secret, SecretType};

/// Longest key, in bytes (Kubernetes' limit).
const KEY_BYTES_MAX: usize = 253;

/// Checks a ConfigMap's keys and size.
pub(super) fn config_map(map: &ConfigMap, report: &mut Report) {
    let root = Path::Root;
    let (texts, bytes) = (root.field("data"), root.field("binaryData"));
    map.data.keys().for_each(|name| key(name, &texts, report));
    map.binary_data.keys().for_each(|name| key(name, &bytes, report));
    for name in map.binary_data.keys().filter(|name| map.data.contains_key(*name)) {
        report.push(&bytes.key(name), "stands in data as well: a key has one value");
    }
    let texts_bytes = map.data.iter().map(|(name, value)| name.len() + value.len());
    let bytes_bytes = map.binary_data.iter().map(|(name, value)| name.len() + value.len());
    size(texts_bytes.chain(bytes_bytes).sum(), &texts, report);
}

/// Checks a Secret's keys, size and form by the rules of a feature level. No message holds a value.
pub(super) fn secret(secret: &Secret, level: u32, report: &mut Report) {
    let root = Path::Root;
    let path = root.field("data");
    secret.data.keys().for_each(|name| key(name, &path, report));
    let of_type = format!("in a Secret of type {}", secret.secret_type.as_str());
    let has = |name: &str| secret.data.contains_key(name);
    let required: &[&str] = match secret.secret_type {
        SecretType::Opaque => &[],
        SecretType::Tls => &["tls.crt", "tls.key"],
        SecretType::DockerConfigJson => &[".dockerconfigjson"],
        SecretType::DockerCfg => &[".dockercfg"],
        // One of them is enough, as in Kubernetes; earlier levels asked for both.
        SecretType::BasicAuth if level < PLACEMENT_LEVEL => &["username", "password"],
        SecretType::BasicAuth => &[],
    };
    for name in required.iter().filter(|name| !has(name)) {
        report.push(&path.key(name), format!("is required {of_type}"));
    }
    if level >= PLACEMENT_LEVEL {
        if secret.secret_type == SecretType::BasicAuth && !has("username") && !has("password") {
            report.push(&path, format!("needs username, password, or both {of_type}"));
        }
        let registries =
            secret.secret_type.docker_config().and_then(|(key, _)| secret.data.get_key_value(key));
        if let Some((key, _)) = registries.filter(|(_, value)| !is_json_object(value.reveal())) {
            report.push(&path.key(key), "must be a JSON object, as `docker login` writes it");
        }
    }
    size(secret.data.iter().map(|(name, value)| name.len() + value.len()).sum(), &path, report);
}

fn is_json_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(bytes).is_ok()
}

fn size(bytes: usize, path: &Path<'_>, report: &mut Report) {
    if bytes > CONFIG_BYTES_MAX {
        report.push(path, format!("holds {bytes} bytes: at most {CONFIG_BYTES_MAX} are allowed"));
    }
}

fn key(name: &str, path: &Path<'_>, report: &mut Report) {
    check_key(name, &path.key(&name.chars().take(80).collect::<String>()), report);
}

/// A key is a file name: letters, digits, `-`, `_` and `.`, but not `.`, nor anything that begins with `..`.
pub(super) fn check_key(name: &str, path: &Path<'_>, report: &mut Report) {
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > KEY_BYTES_MAX || !good || name == "." || name.starts_with("..") {
        let reason = format!(
            "is no key: must be 1 to {KEY_BYTES_MAX} letters, digits, '-', '_' or '.', not '.' and not begin with '..'"
        );
        report.push(path, reason);
    }
}
