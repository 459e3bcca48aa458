//! From a pod's `imagePullSecrets` to the credentials in them.
//!
//! A Secret that is not there, or of no use, keeps no pod from starting: the agent goes on without it, and says so when the pull
//! fails (the kubelet's `FailedToRetrieveImagePullSecret`). No text that is made here holds a value.

use std::collections::BTreeMap;

use bulkhead_types::{
    Kind, Name, Object, ObjectId, PULL_CREDENTIALS_BYTES_MAX, Pod, PodSpec, PullCredentials,
    REGISTRY_CREDENTIALS_MAX, RegistryCredential, parse_docker_config,
};

use crate::State;

/// What the Secrets of one intent hold: pods of a node often name the same ones.
pub(super) type Parsed = BTreeMap<ObjectId, (Vec<RegistryCredential>, Vec<String>)>;

/// What a pod's images may be had with; `None` when it names no Secrets. What does not fit into `room`, bytes that are left in the
/// message, is left out.
pub(super) fn credentials(
    state: &State,
    pod: &Pod,
    spec: &PodSpec,
    parsed: &mut Parsed,
    room: &mut usize,
) -> Option<PullCredentials> {
    let names = spec.image_pull_secrets();
    let mut found = PullCredentials::default();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            continue;
        }
        let Some((credentials, problems)) = secret(state, pod, name, parsed) else {
            found.missing.push(name.clone());
            continue;
        };
        found.problems.extend(problems.iter().map(|problem| format!("Secret {name}: {problem}")));
        for one in credentials {
            let fits = found.credentials.len() < REGISTRY_CREDENTIALS_MAX
                && found.bytes() + one.bytes() <= PULL_CREDENTIALS_BYTES_MAX.min(*room);
            if !fits {
                found.problems.insert(0, format!("Secret {name}: there is no room for all credentials"));
                break;
            }
            found.credentials.push(one.clone());
        }
    }
    found.problems.truncate(REGISTRY_CREDENTIALS_MAX);
    *room = room.saturating_sub(found.bytes());
    (!names.is_empty()).then_some(found)
}

/// What a Secret holds; `None` when it is not there.
fn secret<'a>(
    state: &State,
    pod: &Pod,
    name: &str,
    parsed: &'a mut Parsed,
) -> Option<&'a (Vec<RegistryCredential>, Vec<String>)> {
    let id = state.find(Kind::Secret, pod.meta.namespace.as_ref(), &Name::new(name).ok()?)?;
    let Object::Secret(secret) = state.object(Kind::Secret, id)? else { return None };
    Some(parsed.entry(id).or_insert_with(|| {
        let kind = secret.secret_type;
        let Some((key, form)) = kind.docker_config() else {
            let problem = format!("is of type {}, which holds no credentials of registries", kind.as_str());
            return (Vec::new(), vec![problem]);
        };
        match secret.data.get(key) {
            Some(value) => parse_docker_config(value.reveal(), form, name),
            None => (Vec::new(), vec![format!("has no key {key}")]),
        }
    }))
}
