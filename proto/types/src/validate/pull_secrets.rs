//! Rules for the Secrets that images are had with.

use super::{Path, Report};
use crate::{IMAGE_PULL_SECRETS_MAX, Name, PodSpec};

/// Checks the names of a pod's `imagePullSecrets`. Whether the Secrets are there is no rule: they may come later.
pub(super) fn pod(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let path = path.field("imagePullSecrets");
    let names = spec.image_pull_secrets();
    report.at_most(&path, "Secrets", names.len(), IMAGE_PULL_SECRETS_MAX);
    for (index, name) in names.iter().enumerate() {
        report.check(&path.index(index).field("name"), Name::new(name).map(drop));
    }
}

/// Bytes of them, roughly.
pub(super) fn bytes(spec: &PodSpec) -> usize {
    spec.image_pull_secrets().iter().map(|name| name.len() + 16).sum()
}
