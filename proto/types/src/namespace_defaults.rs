//! What a namespace says about where its pods go, in annotations, as Kubernetes' plugins PodNodeSelector and
//! PodTolerationRestriction read them.
//!
//! With a taint that nothing else tolerates, these make nodes a namespace's own: see "Exclusive nodes" in docs/semantics.md.
//! Source: "Using Admission Controllers" in the Kubernetes documentation.

use serde::Deserialize;
use smol_str::SmolStr;

use crate::{ObjectMeta, StringMap, TaintEffect, Toleration, TolerationOperator};

/// Labels that nodes of its pods must have, `key=value,key=value`: added to each pod's own node selector.
pub const ANNOTATION_NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Tolerations that each of its pods has beside its own: a JSON list.
pub const ANNOTATION_DEFAULT_TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
/// Tolerations that its pods may have, a JSON list; all when it is not there.
pub const ANNOTATION_TOLERATIONS_WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
/// Labels or tolerations that an annotation names, at most.
pub const NAMESPACE_DEFAULTS_MAX: usize = 32;
/// Taints of the control plane itself: its tolerations are on no whitelist.
const SYSTEM_TAINTS: &str = "node.kubernetes.io/";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceDefaults {
    /// Labels that nodes must have.
    pub node_selector: StringMap,
    /// What every pod tolerates.
    pub tolerations: Vec<Toleration>,
    /// All that pods may tolerate.
    pub whitelist: Option<Vec<Toleration>>,
}

/// Which annotation is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceDefaultsError {
    /// Its key.
    pub annotation: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A toleration in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: SmolStr,
    #[serde(default)]
    operator: Option<SmolStr>,
    #[serde(default)]
    value: SmolStr,
    #[serde(default)]
    effect: Option<SmolStr>,
    #[serde(default)]
    toleration_seconds: Option<u32>,
}

impl NamespaceDefaults {
    /// Whether a namespace says any of it: a cheap look.
    #[must_use]
    pub fn are_in(meta: &ObjectMeta) -> bool {
        let says = |key: &str| meta.annotations.contains_key(key);
        !meta.annotations.is_empty()
            && (says(ANNOTATION_NODE_SELECTOR)
                || says(ANNOTATION_DEFAULT_TOLERATIONS)
                || says(ANNOTATION_TOLERATIONS_WHITELIST))
    }

    /// What the annotations say.
    ///
    /// # Errors
    /// The first that is malformed.
    pub fn of(meta: &ObjectMeta) -> Result<Self, NamespaceDefaultsError> {
        let mut found = Self::default();
        if let Some(text) = meta.annotations.get(ANNOTATION_NODE_SELECTOR) {
            found.node_selector = selector(text).map_err(|reason| bad(ANNOTATION_NODE_SELECTOR, reason))?;
        }
        if let Some(text) = meta.annotations.get(ANNOTATION_DEFAULT_TOLERATIONS) {
            found.tolerations =
                tolerations(text).map_err(|reason| bad(ANNOTATION_DEFAULT_TOLERATIONS, reason))?;
        }
        if let Some(text) = meta.annotations.get(ANNOTATION_TOLERATIONS_WHITELIST) {
            let list = tolerations(text).map_err(|reason| bad(ANNOTATION_TOLERATIONS_WHITELIST, reason))?;
            found.whitelist = Some(list);
        }
        Ok(found)
    }

    /// The first of a pod's own tolerations that its namespace does not allow.
    #[must_use]
    pub fn refused<'a>(&self, own: &'a [Toleration]) -> Option<&'a Toleration> {
        let whitelist = self.whitelist.as_ref()?;
        let is_allowed = |one: &&Toleration| {
            one.key.starts_with(SYSTEM_TAINTS)
                || whitelist.iter().chain(&self.tolerations).any(|allowed| covers(allowed, one))
        };
        own.iter().find(|one| !is_allowed(one))
    }
}

/// Whether one toleration bears every taint that another one does.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    let effect = wide.effect.is_none() || wide.effect == narrow.effect;
    let seconds = wide.toleration_ms.is_none()
        || narrow.toleration_ms.is_some_and(|narrow| wide.toleration_ms.is_some_and(|wide| narrow <= wide));
    let taint = match wide.operator {
        TolerationOperator::Exists => wide.key.is_empty() || wide.key == narrow.key,
        TolerationOperator::Equal => {
            narrow.operator == TolerationOperator::Equal
                && (&wide.key, &wide.value) == (&narrow.key, &narrow.value)
        }
    };
    effect && seconds && taint
}

fn bad(annotation: &'static str, reason: String) -> NamespaceDefaultsError {
    NamespaceDefaultsError { annotation, reason }
}

fn selector(text: &str) -> Result<StringMap, String> {
    let mut found = StringMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!("says {part:?}: it must be key=value, by commas"));
        };
        found.insert(SmolStr::new(key.trim()), SmolStr::new(value.trim()));
    }
    if found.len() > NAMESPACE_DEFAULTS_MAX {
        return Err(format!("names more than {NAMESPACE_DEFAULTS_MAX} labels"));
    }
    Ok(found)
}

fn tolerations(text: &str) -> Result<Vec<Toleration>, String> {
    let written: Vec<Written> =
        serde_json::from_str(text).map_err(|e| format!("is no JSON list of tolerations: {e}"))?;
    if written.len() > NAMESPACE_DEFAULTS_MAX {
        return Err(format!("names more than {NAMESPACE_DEFAULTS_MAX} tolerations"));
    }
    written.into_iter().map(toleration).collect()
}

fn toleration(written: Written) -> Result<Toleration, String> {
    let Written { key, operator, value, effect, toleration_seconds } = written;
    let operator = match operator.as_deref() {
        None | Some("Equal") => TolerationOperator::Equal,
        Some("Exists") => TolerationOperator::Exists,
        Some(other) => return Err(format!("has operator {other:?}: it must be Equal or Exists")),
    };
    if operator == TolerationOperator::Exists && !value.is_empty() {
        return Err(format!("has value {value:?} with operator Exists, which compares none"));
    }
    if operator == TolerationOperator::Equal && key.is_empty() {
        return Err("has no key with operator Equal: only Exists may be without".to_owned());
    }
    let effect = match effect.as_deref() {
        None | Some("") => None,
        Some("NoSchedule") => Some(TaintEffect::NoSchedule),
        Some("PreferNoSchedule") => Some(TaintEffect::PreferNoSchedule),
        Some("NoExecute") => Some(TaintEffect::NoExecute),
        Some(other) => {
            return Err(format!(
                "has effect {other:?}: it must be NoSchedule, PreferNoSchedule or NoExecute"
            ));
        }
    };
    let toleration_ms = toleration_seconds.map(|seconds| u64::from(seconds) * 1000);
    if toleration_ms.is_some() && effect != Some(TaintEffect::NoExecute) {
        return Err("has tolerationSeconds without effect NoExecute".to_owned());
    }
    Ok(Toleration { key, operator, value, effect, toleration_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    const EXCLUSIVE: &str = r#"[{"operator":"Exists","effect":"NoSchedule","key":"ExclusiveNamespace"}]"#;

    fn meta(annotations: &[(&'static str, &str)]) -> ObjectMeta {
        let mut meta = ObjectMeta::new(None, Name::new("n").expect("a name"));
        meta.annotations =
            annotations.iter().map(|(key, value)| (SmolStr::new(key), SmolStr::new(value))).collect();
        meta
    }

    fn exclusive(operator: TolerationOperator, value: &str) -> Toleration {
        let effect = Some(TaintEffect::NoSchedule);
        Toleration {
            key: "ExclusiveNamespace".into(),
            operator,
            value: value.into(),
            effect,
            toleration_ms: None,
        }
    }

    #[test]
    fn annotations_are_read_as_written() {
        let both = meta(&[
            (ANNOTATION_NODE_SELECTOR, "env=prod, zone=a"),
            (ANNOTATION_DEFAULT_TOLERATIONS, EXCLUSIVE),
            (ANNOTATION_TOLERATIONS_WHITELIST, "[]"),
        ]);
        let found = NamespaceDefaults::of(&both).expect("well formed");
        let labels: Vec<_> = found.node_selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["env=prod", "zone=a"]);
        assert_eq!(found.tolerations, [exclusive(TolerationOperator::Exists, "")]);
        assert_eq!(found.whitelist, Some(vec![]));
        assert!(NamespaceDefaults::are_in(&both) && !NamespaceDefaults::are_in(&meta(&[("a", "b")])));
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |annotation: &'static str, text: &str, reason: &str| {
            let found = NamespaceDefaults::of(&meta(&[(annotation, text)])).expect_err("malformed");
            assert_eq!(found.annotation, annotation);
            assert!(found.reason.starts_with(reason), "{text}: {}", found.reason);
        };
        check(ANNOTATION_NODE_SELECTOR, "prod", "says \"prod\": it must be key=value");
        check(ANNOTATION_DEFAULT_TOLERATIONS, "[{", "is no JSON list");
        check(ANNOTATION_DEFAULT_TOLERATIONS, r#"[{"kez":"a"}]"#, "is no JSON list");
        check(ANNOTATION_TOLERATIONS_WHITELIST, r#"[{"value":"a"}]"#, "has no key");
        check(ANNOTATION_TOLERATIONS_WHITELIST, r#"[{"key":"a","operator":"In"}]"#, "has operator \"In\"");
        check(ANNOTATION_DEFAULT_TOLERATIONS, r#"[{"key":"a","effect":"No"}]"#, "has effect \"No\"");
        check(
            ANNOTATION_DEFAULT_TOLERATIONS,
            r#"[{"key":"a","tolerationSeconds":3}]"#,
            "has tolerationSeconds",
        );
    }

    #[test]
    fn only_what_a_whitelist_covers_is_allowed() {
        let check = |whitelist: &str, own: Toleration, is_allowed: bool| {
            let found = NamespaceDefaults::of(&meta(&[(ANNOTATION_TOLERATIONS_WHITELIST, whitelist)]));
            assert_eq!(found.expect("well formed").refused(&[own]).is_none(), is_allowed, "{whitelist}");
        };
        let team = || exclusive(TolerationOperator::Equal, "team-a");
        check(EXCLUSIVE, team(), true);
        check("[]", team(), false);
        let only = r#"[{"key":"ExclusiveNamespace","value":"team-a","effect":"NoSchedule"}]"#;
        check(only, team(), true);
        check(only, exclusive(TolerationOperator::Equal, "team-b"), false);
        check(only, exclusive(TolerationOperator::Exists, ""), false);
        check(only, Toleration { effect: None, ..team() }, false);
        check("[]", Toleration { key: "node.kubernetes.io/not-ready".into(), ..team() }, true);
        check(
            r#"[{"operator":"Exists"}]"#,
            Toleration { key: "".into(), ..exclusive(TolerationOperator::Exists, "") },
            true,
        );
    }
}
