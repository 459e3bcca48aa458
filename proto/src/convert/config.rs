//! ConfigMaps and Secrets.

use bulkhead_types::{ConfigMap, Secret, SecretType};

use super::{wire_enum, wire_field, wire_struct};
use crate::v1;

wire_enum!(SecretType { Opaque, Tls, DockerConfigJson, BasicAuth, DockerCfg });

wire_struct!(ConfigMap => v1::ConfigMap { meta, immutable, data, binary_data });
wire_struct!(Secret => v1::Secret { meta, secret_type, immutable, data });

wire_field! {
    ConfigMap => v1::ConfigMap,
    Secret => v1::Secret,
}

/// Never its values: messages are printed where things go wrong.
impl std::fmt::Debug for v1::Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("meta", &self.meta)
            .field("keys", &self.data.len())
            .finish_non_exhaustive()
    }
}
