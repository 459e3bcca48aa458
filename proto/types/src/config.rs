//! ConfigMaps and Secrets: configuration of pods.
//!
//! Source: "ConfigMaps" and "Secrets" in the Kubernetes documentation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Bytes, ObjectMeta, Sensitive};

/// Most bytes of the data of one ConfigMap or Secret (Kubernetes' limit).
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Configuration of pods. A key stands in `data` or in `binary_data`, never in both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigMap {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// Whether neither data nor this flag may change any more.
    pub immutable: bool,
    /// Texts by key.
    pub data: BTreeMap<SmolStr, String>,
    /// Bytes by key.
    pub binary_data: BTreeMap<SmolStr, Bytes>,
}

/// What a Secret holds, and so which keys it must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecretType {
    /// Anything.
    #[default]
    Opaque = 1,
    /// A certificate and its key: `tls.crt`, `tls.key`.
    Tls = 2,
    /// Credentials of registries: `.dockerconfigjson`.
    DockerConfigJson = 3,
    /// `username`, `password`, or both.
    BasicAuth = 4,
    /// Credentials of registries in their older form: `.dockercfg`. Needs [`crate::PULL_SECRETS_LEVEL`].
    DockerCfg = 5,
}

impl SecretType {
    /// Every type.
    pub const ALL: [Self; 5] =
        [Self::Opaque, Self::Tls, Self::DockerConfigJson, Self::BasicAuth, Self::DockerCfg];

    /// The name as in `type:` of a manifest (Kubernetes' names).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opaque => "Opaque",
            Self::Tls => "kubernetes.io/tls",
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::BasicAuth => "kubernetes.io/basic-auth",
            Self::DockerCfg => "kubernetes.io/dockercfg",
        }
    }
}

/// Configuration of pods that only they may see: its values never appear in events, logs or error texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Secret {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What it holds; cannot change after creation.
    pub secret_type: SecretType,
    /// Whether neither data nor this flag may change any more.
    pub immutable: bool,
    /// Bytes by key.
    pub data: BTreeMap<SmolStr, Sensitive>,
}
