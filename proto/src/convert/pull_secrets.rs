//! Credentials of registries. Their values are never printed.

use bulkhead_types::{
    IMAGE_PULL_SECRETS_MAX, ImagePullSecrets, PullCredentials, REGISTRY_CREDENTIALS_MAX, RegistryCredential,
};

use super::{wire_field, wire_struct};
use crate::v1;

wire_struct!(ImagePullSecrets => v1::ImagePullSecrets { names });
wire_struct!(PullCredentials => v1::PullCredentials {
    credentials (REGISTRY_CREDENTIALS_MAX), missing (IMAGE_PULL_SECRETS_MAX), problems (REGISTRY_CREDENTIALS_MAX),
});
wire_struct!(RegistryCredential => v1::RegistryCredential { registry, username, password, token, secret });

wire_field! {
    ImagePullSecrets => v1::ImagePullSecrets,
    PullCredentials => v1::PullCredentials,
    RegistryCredential => v1::RegistryCredential,
}

impl std::fmt::Debug for v1::RegistryCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredential")
            .field("registry", &self.registry)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}
