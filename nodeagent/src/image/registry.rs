//! Pulls manifests and blobs from a registry.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt as _;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::digest::ImageDigest;
use super::error::{ImageError, IoContext as _};
use super::keyring::{self, Candidate};
use super::layout::{Blob, BlobCheck, Document, METADATA_LENGTH_MAX, Manifest, check_digest, parse_document};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence while something is transferred.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the transfer of one blob goes on where it broke off.
const RESUMPTIONS_MAX: u32 = 5;
const ACCEPTED: &[&str] = &[
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// One image at its registry.
pub(super) struct RemoteImage {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    name: String,
    /// With which credentials, for people.
    with: String,
    /// What no text may hold: a registry may say again what it was told.
    secrets: Vec<String>,
}

impl RemoteImage {
    /// Talks plain HTTP only to loopback addresses and to the registries that the configuration names.
    pub(super) fn new(
        reference: Reference,
        with: Option<Candidate<'_>>,
        insecure_registries: &[String],
    ) -> Self {
        install_tls_provider();
        let registry = reference.resolve_registry();
        let plain = is_loopback(registry) || insecure_registries.iter().any(|name| name == registry);
        let protocol = if plain { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = Client::new(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: "bulkhead-nodeagent",
            ..Default::default()
        });
        let (auth, secrets) = presented(with);
        let with = with.map_or_else(|| "without credentials".to_owned(), |with| with.described());
        let name = reference.whole();
        Self { client, reference, auth, name, with, secrets }
    }

    /// The manifest for this platform.
    pub(super) async fn manifest(&self) -> Result<Manifest, ImageError> {
        let wanted = self.reference.digest().and_then(ImageDigest::parse);
        match self.document(&self.reference, wanted.as_ref()).await? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(entry) => {
                let reference = self.reference.clone_with_digest(entry.digest.to_string());
                match self.document(&reference, Some(&entry.digest)).await? {
                    Document::Manifest(manifest) => Ok(manifest),
                    Document::Index(_) => Err(ImageError::Malformed {
                        name: self.name.clone(),
                        what: "index",
                        reason: "an index inside an index".into(),
                    }),
                }
            }
        }
    }

    /// A small blob, checked.
    pub(super) async fn read_blob(&self, blob: &Blob) -> Result<Vec<u8>, ImageError> {
        if blob.size_bytes > METADATA_LENGTH_MAX {
            return Err(ImageError::TooLarge { what: "bytes of metadata", limit: METADATA_LENGTH_MAX });
        }
        let mut bytes = Vec::new();
        self.stream_blob(blob, &mut bytes, Path::new("memory")).await?;
        Ok(bytes)
    }

    /// Writes a blob to a file, checked. The file is of no use if this fails.
    pub(super) async fn download(&self, blob: &Blob, path: &Path) -> Result<(), ImageError> {
        let mut file = tokio::fs::File::create(path).await.at("make", path)?;
        self.stream_blob(blob, &mut file, path).await?;
        file.flush().await.at("write", path)
    }

    async fn stream_blob(
        &self,
        blob: &Blob,
        sink: &mut (impl AsyncWrite + Unpin + Send),
        sink_path: &Path,
    ) -> Result<(), ImageError> {
        let descriptor = OciDescriptor {
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let mut check = BlobCheck::new(blob);
        for attempt in 0.. {
            let from = check.received();
            let (mut stream, mut skip) = self.blob_from(&descriptor, from).await?;
            let broken = loop {
                match stream.stream.next().await {
                    Some(Ok(piece)) => {
                        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                        skip -= known as u64;
                        check.update(&piece[known..])?;
                        sink.write_all(&piece[known..]).await.at("write", sink_path)?;
                    }
                    // The client library checks as well and may see a wrong digest first.
                    Some(Err(_)) | None if check.is_complete() => return check.finish(),
                    Some(Err(error)) => break chain(&error),
                    None => break "the connection was closed".to_owned(),
                }
            };
            // One that ends again and again, or at once, is tried later and from the beginning.
            if attempt == RESUMPTIONS_MAX || check.received() == from {
                let (have, all) = (check.received(), blob.size_bytes);
                return Err(self.registry_error(format!("{broken}, after {have} of {all} bytes of a blob")));
            }
        }
        unreachable!("it ends with the last attempt")
    }

    /// A blob from some byte on, and how many bytes come before that: a registry need not know of ranges.
    async fn blob_from(&self, blob: &OciDescriptor, from: u64) -> Result<(SizedStream, u64), ImageError> {
        if from == 0 {
            let whole = self.client.pull_blob_stream(&self.reference, blob).await;
            return whole.map(|whole| (whole, 0)).map_err(|error| self.error(&error));
        }
        match self.client.pull_blob_stream_partial(&self.reference, blob, from, None).await {
            Ok(BlobResponse::Partial(rest)) => Ok((rest, 0)),
            Ok(BlobResponse::Full(whole)) => Ok((whole, from)),
            Err(error) => Err(self.error(&error)),
        }
    }

    async fn document(
        &self,
        reference: &Reference,
        wanted: Option<&ImageDigest>,
    ) -> Result<Document, ImageError> {
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|e| self.error(&e))?;
        if bytes.len() as u64 > METADATA_LENGTH_MAX {
            return Err(ImageError::TooLarge { what: "bytes of metadata", limit: METADATA_LENGTH_MAX });
        }
        if let Some(wanted) = wanted {
            check_digest(wanted, &ImageDigest::of(&bytes))?;
        }
        parse_document(&self.name, &bytes)
    }

    fn error(&self, error: &OciDistributionError) -> ImageError {
        let not_found = || ImageError::NotFound {
            name: self.name.clone(),
            place: format!("at registry {}", self.reference.resolve_registry()),
        };
        let unauthorized = |reason: &str| ImageError::Unauthorized {
            name: self.name.clone(),
            reason: format!("unauthorized {}{}", self.with, self.cleaned(reason)),
        };
        match error {
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => not_found(),
            OciDistributionError::AuthenticationFailure(reason) => unauthorized(&format!(": {reason}")),
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::ServerError { code: 401 | 403, .. } => unauthorized(""),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
                let missing =
                    [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound];
                if has(&missing) {
                    not_found()
                } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    unauthorized(&format!(": {envelope}"))
                } else {
                    self.registry_error(envelope.to_string())
                }
            }
            other => self.registry_error(chain(other)),
        }
    }

    fn registry_error(&self, reason: String) -> ImageError {
        ImageError::Registry { name: self.name.clone(), reason: self.cleaned(&reason) }
    }

    /// A text of the registry without what it was told in confidence.
    fn cleaned(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// How a credential is presented, and the forms in which it travels.
fn presented(with: Option<Candidate<'_>>) -> (RegistryAuth, Vec<String>) {
    let Some(Candidate { credential, .. }) = with else { return (RegistryAuth::Anonymous, Vec::new()) };
    let [username, password, token] =
        [&credential.username, &credential.password, &credential.token].map(keyring::text);
    let packed = BASE64.encode(format!("{username}:{password}"));
    // The longest first, so that no part of one is left.
    let mut secrets = vec![packed, password.clone(), token.clone()];
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let auth = match token.is_empty() {
        true => RegistryAuth::Basic(username, password),
        false => RegistryAuth::Bearer(token),
    };
    (auth, secrets)
}

/// An error with its causes: the client's own text often only says that sending failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The HTTP client is built without a TLS provider of its own; the process gets one, once.
fn install_tls_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Somebody else in this process may have chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_registries_are_plain_by_default() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "localhost.evil.org", "10.0.0.1:5000", "127.0.0.1.nip.io", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_a_registry_repeats_is_cleaned() {
        let [username, password] = ["me", "hunter2"].map(|text| text.as_bytes().to_vec().into());
        let credential = bulkhead_types::RegistryCredential { username, password, ..Default::default() };
        let with = Candidate { credential: &credential, is_nodes: false };
        let reference = "r.example/app".parse().expect("a reference");
        let remote = RemoteImage::new(reference, Some(with), &[]);
        let packed = BASE64.encode("me:hunter2");
        let error = remote.registry_error(format!("no hunter2, no Basic {packed}"));
        assert_eq!(error.to_string(), "Registry failed for r.example/app:latest: no ***, no Basic ***");
        assert!(!format!("{with:?}").contains("hunter2"));
    }
}
