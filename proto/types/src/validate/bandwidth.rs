//! How fast pods may send and receive.

use super::{Path, Report};
use crate::{ANNOTATION_EGRESS_BANDWIDTH, ANNOTATION_INGRESS_BANDWIDTH, Object, StringMap, bandwidth};

/// Checks what Profiles say of it, which give it to pods.
pub(super) fn profile(object: &Object, report: &mut Report) {
    let Object::Profile(profile) = object else { return };
    let root = Path::Root;
    let spec = root.field("spec");
    let rules = spec.field("rules");
    for (index, rule) in profile.spec.rules.iter().enumerate() {
        limits(&rule.effect.annotations, &rules.index(index).field("effect"), report);
    }
}

/// Checks what the annotations of a pod, or of the pods of a template, say of it; `path` is what holds the annotations.
pub(super) fn limits(annotations: &StringMap, path: &Path<'_>, report: &mut Report) {
    let path = path.field("annotations");
    for key in [ANNOTATION_INGRESS_BANDWIDTH, ANNOTATION_EGRESS_BANDWIDTH] {
        report.check(&path.key(key), bandwidth(annotations, key).map(drop));
    }
}
