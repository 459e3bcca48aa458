//! What a command is about, as people type it: `pods`, `pod web-1`, `deploy/web`, `pods,rs`.

use bulkhead_types::{Kind, Name, ObjectRef};

use crate::failure::Failure;

/// A kind, and a name unless all of the kind are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) name: Option<Name>,
}

/// Reads the words after a verb.
pub(crate) fn parse(words: &[String]) -> Result<Vec<Target>, Failure> {
    let Some(first) = words.first() else {
        return Err(Failure::usage("which kind? One of namespaces, nodes, pods, replicasets, deployments"));
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| slashed(word)).collect();
    }
    let kinds = first.split(',').map(kind).collect::<Result<Vec<_>, _>>()?;
    if words.len() == 1 {
        return Ok(kinds.into_iter().map(|kind| Target { kind, name: None }).collect());
    }
    let mut targets = Vec::new();
    for kind in kinds {
        for word in &words[1..] {
            targets.push(Target { kind, name: Some(name(word)?) });
        }
    }
    Ok(targets)
}

/// Reads words that must name objects.
pub(crate) fn parse_named(words: &[String], namespace: &Name) -> Result<Vec<ObjectRef>, Failure> {
    parse(words)?
        .into_iter()
        .map(|target| match target.name {
            Some(name) => Ok(object_ref(target.kind, namespace, name)),
            None => Err(Failure::usage(format!("which {}? Give a name", target.kind))),
        })
        .collect()
}

/// Reads words that must name one object of a kind that the command is for; `web` alone is of kind `default`.
pub(crate) fn parse_one(words: &[String], namespace: &Name, default: Kind) -> Result<ObjectRef, Failure> {
    match words {
        [word] if !word.contains('/') => Ok(object_ref(default, namespace, name(word)?)),
        _ => {
            let mut named = parse_named(words, namespace)?;
            if named.len() == 1 { Ok(named.remove(0)) } else { Err(Failure::usage("expected one object")) }
        }
    }
}

/// An object in `namespace`, or in none where its kind has none.
pub(crate) fn object_ref(kind: Kind, namespace: &Name, name: Name) -> ObjectRef {
    ObjectRef { kind, namespace: kind.is_namespaced().then(|| namespace.clone()), name }
}

/// As kubectl writes it: `deployment.apps/web`, `pod/web-1`.
pub(crate) fn slash_name(object: &ObjectRef) -> String {
    let group =
        object.kind.api_version().split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", object.kind.as_str().to_ascii_lowercase(), object.name)
}

fn slashed(word: &str) -> Result<Target, Failure> {
    let Some((kind_text, name_text)) = word.split_once('/') else {
        return Err(Failure::usage(format!("{word:?}: either KIND NAME..., or KIND/NAME for each")));
    };
    Ok(Target { kind: kind(kind_text)?, name: Some(name(name_text)?) })
}

fn kind(text: &str) -> Result<Kind, Failure> {
    let groups = [".apps", ".batch", ".autoscaling", ".policy"];
    let plain = groups.iter().find_map(|group| text.strip_suffix(group)).unwrap_or(text);
    Kind::parse(plain).ok_or_else(|| {
        Failure::usage(format!(
            "kind {text:?} is unknown: there are namespaces (ns), nodes (no), pods (po), replicasets (rs), deployments (deploy)"
        ))
    })
}

/// Reads a name.
pub(crate) fn name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|e| Failure::usage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Option<&[(Kind, Option<&str>)]>) {
        let words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
        let found = parse(&words).ok().map(|targets| {
            targets.into_iter().map(|t| (t.kind, t.name.map(|n| n.to_string()))).collect::<Vec<_>>()
        });
        let expected =
            expected.map(|e| e.iter().map(|(k, n)| (*k, n.map(str::to_owned))).collect::<Vec<_>>());
        assert_eq!(found, expected, "{words:?}");
    }

    #[test]
    fn targets_are_read_as_kubectl_reads_them() {
        check(&["pods"], Some(&[(Kind::Pod, None)]));
        check(&["po,rs"], Some(&[(Kind::Pod, None), (Kind::ReplicaSet, None)]));
        check(&["deploy", "a", "b"], Some(&[(Kind::Deployment, Some("a")), (Kind::Deployment, Some("b"))]));
        check(
            &["deployment.apps/a", "node/n", "job.batch/j"],
            Some(&[(Kind::Deployment, Some("a")), (Kind::Node, Some("n")), (Kind::Job, Some("j"))]),
        );
        check(&[], None);
        check(&["services"], None);
        check(&["pod", "Bad_Name"], None);
        check(&["pod/a", "b"], None);
    }
}
