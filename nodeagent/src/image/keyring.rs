//! The credentials that a pod's images may be had with: those of its Secrets, then those of the node.

use std::path::Path;

use bulkhead_nodeagent_core::matching_credentials;
use bulkhead_types::{DockerConfigForm, PullCredentials, RegistryCredential, Sensitive, parse_docker_config};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

/// Longest file of the node's credentials, in bytes.
const CONFIG_LENGTH_MAX: u64 = 1 << 20;

/// What a pull may present to a registry. Nothing that prints it shows a value.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// From the pod's Secrets: theirs alone.
    pod: PullCredentials,
    /// From the node's file: any pod's.
    node: Vec<RegistryCredential>,
    /// What is wrong with the node's file.
    node_problems: Vec<String>,
}

/// One credential that is for an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) credential: &'a RegistryCredential,
    /// It is the node's: what is had with it is for all of its pods.
    pub(super) is_nodes: bool,
}

/// What tells a credential from others without holding it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

impl Candidate<'_> {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let RegistryCredential { registry, username, password, token, secret: _ } = self.credential;
        let mut hash = Sha256::new();
        for part in [registry.as_bytes(), username.reveal(), password.reveal(), token.reveal()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }

    /// Whose it is, and for what, for people.
    pub(super) fn described(&self) -> String {
        let registry = self.credential.registry.rsplit('@').next().unwrap_or_default();
        match self.is_nodes {
            true => format!("with the node's credentials for {registry}"),
            false => format!("with the credentials for {registry} of Secret {}", self.credential.secret),
        }
    }
}

impl Keyring {
    /// Of credentials from Secrets alone.
    #[must_use]
    pub fn new(pod: PullCredentials) -> Self {
        Self { pod, ..Self::default() }
    }

    /// Of a pod, on a node that may have a file of credentials of its own: it is read now. What is wrong with that keeps nobody from
    /// pulling; it is said where a pull fails.
    pub async fn of_pod(pod: Option<&PullCredentials>, node: Option<&Path>) -> Self {
        let mut keyring = Self::new(pod.cloned().unwrap_or_default());
        if let Some(path) = node {
            match read_registry_config(path).await {
                Ok(credentials) => keyring.node = credentials,
                Err(problem) => {
                    tracing::warn!(%problem, "the node's credentials for registries are not used");
                    keyring.node_problems.push(problem);
                }
            }
        }
        keyring
    }

    /// What is for a repository, in the order in which it is tried.
    pub(super) fn candidates(&self, repository: &str) -> Vec<Candidate<'_>> {
        let of = |all, is_nodes| {
            let found = matching_credentials(all, repository).into_iter();
            found.map(move |credential| Candidate { credential, is_nodes })
        };
        of(&self.pod.credentials, false).chain(of(&self.node, true)).collect()
    }

    /// What a failed pull may be for, if anything is wrong with the credentials; the first part is the kubelet's event.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let missing = self.pod.missing.join(", ");
        let missing = (!missing.is_empty()).then(|| {
            format!(
                "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets ({missing}); attempting to pull the \
                 image may not succeed"
            )
        });
        let rest = self.pod.problems.iter().chain(&self.node_problems).cloned();
        let all: Vec<String> = missing.into_iter().chain(rest).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Reads the node's own file of credentials, docker's `config.json`.
///
/// # Errors
/// What is wrong with it, for people; never a value of it. A file that asks for credential helpers is refused as a whole.
pub async fn read_registry_config(path: &Path) -> Result<Vec<RegistryCredential>, String> {
    let of = |problem: &str| format!("{}: {problem}", path.display());
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(|error| of(&error.to_string()))?;
    let read = file.take(CONFIG_LENGTH_MAX + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| of(&error.to_string()))?;
    if bytes.len() as u64 > CONFIG_LENGTH_MAX {
        return Err(of(&format!("is longer than {CONFIG_LENGTH_MAX} bytes")));
    }
    let (credentials, problems) = parse_docker_config(&bytes, DockerConfigForm::Config, "");
    match problems.is_empty() {
        true => Ok(credentials),
        false => Err(of(&problems.join("; "))),
    }
}

/// The text of a secret value, for the header that it goes into.
pub(super) fn text(value: &Sensitive) -> String {
    String::from_utf8_lossy(value.reveal()).into_owned()
}
