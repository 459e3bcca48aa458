//! Credentials of registries: which Secrets of a pod hold them, and what stands in those.
//!
//! ```text
//!  spec.imagePullSecrets ──► Secrets ──parse_docker_config──► RegistryCredential ... ──► the node that has the pod
//! ```
//!
//! Source: "Pull an Image from a Private Registry" and "Images" in the Kubernetes documentation; `DockerConfigEntry` of the
//! kubelet's credential provider for the form of the entries. No text that is made here holds a value.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

use crate::{PodSpec, SecretType, Sensitive};

/// Most Secrets of `imagePullSecrets`; Kubernetes has no bound.
pub const IMAGE_PULL_SECRETS_MAX: usize = 16;
/// Most credentials that one pod brings, of all its Secrets together.
pub const REGISTRY_CREDENTIALS_MAX: usize = 256;
/// Most bytes of the credentials of one pod.
pub const PULL_CREDENTIALS_BYTES_MAX: usize = 256 << 10;
/// Longest part of a registry's name that a message shows, in characters.
const SHOWN_MAX: usize = 80;
/// The kubelet takes `auth` with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a pod's images may be had with: Secrets of its namespace, in the order in which they are tried. Needs
/// [`crate::PULL_SECRETS_LEVEL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImagePullSecrets {
    /// Their names; at most [`IMAGE_PULL_SECRETS_MAX`].
    pub names: Vec<SmolStr>,
}

/// What a pod's `imagePullSecrets` came to, for the node that has the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PullCredentials {
    /// In the order of the Secrets; at most [`REGISTRY_CREDENTIALS_MAX`].
    pub credentials: Vec<RegistryCredential>,
    /// Secrets that are not there; at most [`IMAGE_PULL_SECRETS_MAX`].
    pub missing: Vec<SmolStr>,
    /// What of the Secrets is of no use, for people; at most [`REGISTRY_CREDENTIALS_MAX`].
    pub problems: Vec<String>,
}

/// What one entry of a `config.json` of docker says of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegistryCredential {
    /// For which registry or part of one, as the entry says it: `registry.example.com`, `https://index.docker.io/v1/`,
    /// `*.example.com/team`.
    pub registry: String,
    /// User name.
    pub username: Sensitive,
    /// Password, or what the registry takes in place of one.
    pub password: Sensitive,
    /// A bearer token (`registrytoken`); with it there are no name and password.
    pub token: Sensitive,
    /// The Secret that it is from; empty: the node's own.
    pub secret: SmolStr,
}

impl RegistryCredential {
    /// Bytes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.registry.len() + self.username.len() + self.password.len() + self.token.len() + self.secret.len()
    }
}

impl PullCredentials {
    /// Bytes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = self.missing.iter().map(SmolStr::len).chain(self.problems.iter().map(String::len));
        self.credentials.iter().map(RegistryCredential::bytes).chain(texts).sum()
    }
}

impl PodSpec {
    /// The Secrets that its images may be had with.
    #[must_use]
    pub fn image_pull_secrets(&self) -> &[SmolStr] {
        let options = self.options.get().and_then(|options| options.image_pull_secrets.get());
        options.map_or(&[], |secrets| &secrets.names)
    }
}

/// The two forms of docker's file of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerConfigForm {
    /// `{"auths": {REGISTRY: ENTRY, ...}}`, as `docker login` writes `config.json`.
    Config,
    /// `{REGISTRY: ENTRY, ...}`, as it wrote `.dockercfg` long ago.
    Legacy,
}

impl SecretType {
    /// The key and the form of the credentials of registries in a Secret of this type; `None` when it holds none.
    #[must_use]
    pub fn docker_config(self) -> Option<(&'static str, DockerConfigForm)> {
        match self {
            Self::DockerConfigJson => Some((".dockerconfigjson", DockerConfigForm::Config)),
            Self::DockerCfg => Some((".dockercfg", DockerConfigForm::Legacy)),
            Self::Opaque | Self::Tls | Self::BasicAuth => None,
        }
    }
}

/// An entry, as far as it is known here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Reads docker's file of credentials; `secret` is the name of the Secret that it is from. What is of no use is left out and
/// said in the second part, at most [`REGISTRY_CREDENTIALS_MAX`] times; the rest counts all the same.
#[must_use]
pub fn parse_docker_config(
    bytes: &[u8],
    form: DockerConfigForm,
    secret: &str,
) -> (Vec<RegistryCredential>, Vec<String>) {
    let (mut credentials, mut problems) = (Vec::new(), Vec::new());
    // What the parser says may hold a value; where it stopped does not.
    let mut top: BTreeMap<String, Value> = match serde_json::from_slice(bytes) {
        Ok(top) => top,
        Err(error) => {
            let place = format!("line {} column {}", error.line(), error.column());
            return (credentials, vec![format!("is no JSON object ({place})")]);
        }
    };
    let entries = match form {
        DockerConfigForm::Legacy => top,
        DockerConfigForm::Config => {
            problems.extend(helpers(&top));
            match top.remove("auths") {
                None | Some(Value::Null) => BTreeMap::new(),
                Some(Value::Object(auths)) => auths.into_iter().collect(),
                Some(_) => {
                    problems.push("auths is no JSON object".to_owned());
                    BTreeMap::new()
                }
            }
        }
    };
    for (registry, value) in entries {
        match entry(value) {
            Ok((username, password, token)) => {
                let [username, password, token] =
                    [username, password, token].map(|text| Sensitive::from(text.into_bytes()));
                credentials.push(RegistryCredential {
                    registry,
                    username,
                    password,
                    token,
                    secret: secret.into(),
                });
            }
            Err(problem) => problems.push(format!("{}: {problem}", shown(&registry))),
        }
    }
    if credentials.len() > REGISTRY_CREDENTIALS_MAX {
        problems.insert(0, format!("only the first {REGISTRY_CREDENTIALS_MAX} registries count"));
        credentials.truncate(REGISTRY_CREDENTIALS_MAX);
    }
    problems.truncate(REGISTRY_CREDENTIALS_MAX);
    (credentials, problems)
}

/// Programs that docker asks for credentials: whoever runs them here would run them as this program.
fn helpers(top: &BTreeMap<String, Value>) -> Option<String> {
    let says = |key: &str| match top.get(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Null) | None => false,
        Some(_) => true,
    };
    let named: Vec<&str> = ["credsStore", "credHelpers"].into_iter().filter(|key| says(key)).collect();
    (!named.is_empty()).then(|| {
        let named = named.join(", ");
        format!("{named}: credential helpers are not supported; write the credentials into auths")
    })
}

/// The name of a registry for a message, without what may stand before an `@`.
fn shown(registry: &str) -> String {
    registry.rsplit('@').next().unwrap_or_default().chars().take(SHOWN_MAX).collect()
}

/// User name, password and token of an entry.
fn entry(value: Value) -> Result<(String, String, String), &'static str> {
    let entry: Entry = serde_json::from_value(value).map_err(|_| "is no entry of texts")?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let [auth, username, password] = [entry.auth, entry.username, entry.password].map(given);
    // What they say goes into a header.
    let is_plain = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
    if let Some(token) = given(entry.registrytoken) {
        let is_token = token.bytes().all(|byte| byte.is_ascii_graphic());
        return if is_token {
            Ok((String::new(), String::new(), token))
        } else {
            Err("registrytoken is no token: it must be of printable ASCII")
        };
    }
    let (username, password) = match (auth, username, password) {
        // It wins, as in the kubelet.
        (Some(auth), ..) => decode(&auth)?,
        (None, None, None) if given(entry.identitytoken).is_some() => {
            return Err(
                "identitytoken is not supported: use a user name with a password, or a registrytoken",
            );
        }
        (None, None, None) => return Err("has neither auth nor username and password"),
        (None, username, password) => (username.unwrap_or_default(), password.unwrap_or_default()),
    };
    if !is_plain(&username) || !is_plain(&password) {
        return Err("user name and password must not have control characters");
    }
    Ok((username, password, String::new()))
}

fn decode(auth: &str) -> Result<(String, String), &'static str> {
    const WRONG: &str = "auth is not the base64 of USER:PASSWORD";
    let packed: String = auth.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes = BASE64.decode(packed).map_err(|_| WRONG)?;
    let text = String::from_utf8(bytes).map_err(|_| WRONG)?;
    let (username, password) = text.split_once(':').ok_or(WRONG)?;
    Ok((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(credential: &RegistryCredential) -> String {
        let text = |value: &Sensitive| String::from_utf8_lossy(value.reveal()).into_owned();
        let [username, password, token] =
            [&credential.username, &credential.password, &credential.token].map(text);
        format!("{} {username}:{password}{token}", credential.registry)
    }

    fn check_form(text: &str, form: DockerConfigForm, expected: &[&str], problems: &[&str]) {
        let (credentials, found) = parse_docker_config(text.as_bytes(), form, "keys");
        assert_eq!(credentials.iter().map(show).collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(found, problems, "{text}");
        let printed = format!("{credentials:?} {found:?}");
        assert!(!printed.contains("pw") && !printed.contains("cHc"), "{printed}");
        assert!(credentials.iter().all(|one| one.secret == "keys"));
    }

    fn check(text: &str, expected: &[&str], problems: &[&str]) {
        check_form(text, DockerConfigForm::Config, expected, problems);
    }

    #[test]
    fn entries_are_read_as_the_kubelet_does() {
        // "me:pw" and "me:pw:x", with and without padding.
        check(r#"{"auths": {"a.example": {"auth": "bWU6cHc="}}}"#, &["a.example me:pw"], &[]);
        check(r#"{"auths": {"a.example": {"auth": "bWU6cHc"}}}"#, &["a.example me:pw"], &[]);
        check(r#"{"auths": {"a.example": {"auth": "bWU6cHc6eA=="}}}"#, &["a.example me:pw:x"], &[]);
        check(r#"{"auths": {"a": {"username": "me", "password": "pw"}}}"#, &["a me:pw"], &[]);
        let both =
            r#"{"auths": {"a": {"username": "you", "password": "no", "auth": "bWU6cHc=", "email": "e"}}}"#;
        check(both, &["a me:pw"], &[]);
        check(
            r#"{"auths": {"b": {"registrytoken": "pw-t"}, "a": {"auth": "bWU6cHc="}}}"#,
            &["a me:pw", "b :pw-t"],
            &[],
        );
        check(r#"{"HttpHeaders": {"User-Agent": "x"}}"#, &[], &[]);
        check(r#"{"auths": null, "credsStore": ""}"#, &[], &[]);
        let legacy = r#"{"https://index.docker.io/v1/": {"auth": "bWU6cHc=", "email": "e"}}"#;
        check_form(legacy, DockerConfigForm::Legacy, &["https://index.docker.io/v1/ me:pw"], &[]);
    }

    #[test]
    fn what_is_of_no_use_is_said_without_its_value() {
        check("pw", &[], &["is no JSON object (line 1 column 1)"]);
        check(r#"{"auths": "pw"}"#, &[], &["auths is no JSON object"]);
        let wrong = "auth is not the base64 of USER:PASSWORD";
        check(
            r#"{"auths": {"a": {"auth": "pw!"}, "b": {"auth": "cHc="}, "c": {"auth": "bWU6cHc="}}}"#,
            &["c me:pw"],
            &[&format!("a: {wrong}"), &format!("b: {wrong}")],
        );
        check(r#"{"auths": {"pw@a": {"auth": 5}}}"#, &[], &["a: is no entry of texts"]);
        check(r#"{"auths": {"a": {}}}"#, &[], &["a: has neither auth nor username and password"]);
        check(
            r#"{"auths": {"a": {"identitytoken": "pw"}}}"#,
            &[],
            &["a: identitytoken is not supported: use a user name with a password, or a registrytoken"],
        );
        check(
            r#"{"auths": {"a": {"registrytoken": "pw\n"}}}"#,
            &[],
            &["a: registrytoken is no token: it must be of printable ASCII"],
        );
        check(
            r#"{"auths": {"a": {"username": "me", "password": "pw\r\nX: y"}}}"#,
            &[],
            &["a: user name and password must not have control characters"],
        );
        check(
            r#"{"credsStore": "desktop", "credHelpers": {"a": "ecr-login"}}"#,
            &[],
            &[
                "credsStore, credHelpers: credential helpers are not supported; write the credentials into auths",
            ],
        );
    }

    #[test]
    fn there_is_a_most() {
        let auths: Vec<String> =
            (0..REGISTRY_CREDENTIALS_MAX + 2).map(|n| format!(r#""r{n}": {{"auth": "bWU6cHc="}}"#)).collect();
        let text = format!("{{\"auths\": {{{}}}}}", auths.join(","));
        let (credentials, problems) = parse_docker_config(text.as_bytes(), DockerConfigForm::Config, "keys");
        assert_eq!((credentials.len(), problems.len()), (REGISTRY_CREDENTIALS_MAX, 1));
        assert_eq!(problems[0], "only the first 256 registries count");
    }
}
