//! Credentials of registries.

use super::*;

fn sensitive() -> impl Strategy<Value = Sensitive> + Clone {
    vec(any::<u8>(), 0..6).prop_map(Sensitive::from)
}

record!(/// Any names of Secrets.
    image_pull_secrets: ImagePullSecrets { names: vec(small(), 0..3) });
record!(/// Any credential.
registry_credential: RegistryCredential {
    registry: text(), username: sensitive(), password: sensitive(), token: sensitive(), secret: small(),
});
record!(/// Any credentials of a pod.
pull_credentials: PullCredentials {
    credentials: vec(registry_credential(), 0..3), missing: vec(small(), 0..3), problems: vec(text(), 0..3),
});
