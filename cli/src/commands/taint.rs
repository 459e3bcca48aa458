//! `taint`: marks on nodes that repel pods.

use bulkhead_types::{Kind, ObjectRef, Taint, TaintEffect};
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::change::{Manner, change};
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Args)]
pub(crate) struct TaintArgs {
    /// node NAME or node/NAME, then KEY=VALUE:EFFECT or KEY:EFFECT to set, KEY:EFFECT- or KEY- to remove
    #[arg(required = true, num_args = 2.., value_name = "node NAME TAINT")]
    words: Vec<String>,
}

enum Edit {
    Set(Taint),
    /// By key, and by effect when given.
    Remove(String, Option<TaintEffect>),
}

pub(crate) async fn run(args: TaintArgs, context: &Context) -> Result<(), Failure> {
    let is_edit = |word: &String| word.contains(':') || word.ends_with('-');
    let (edits, objects): (Vec<String>, Vec<String>) = args.words.iter().cloned().partition(is_edit);
    let edits = edits.iter().map(|word| edit(word)).collect::<Result<Vec<_>, _>>()?;
    if edits.is_empty() {
        return Err(Failure::usage("no taint is given: KEY=VALUE:EFFECT to set one, KEY- to remove one"));
    }
    for object in target::parse_named(&objects, &context.namespace)? {
        taint(&object, &edits, context).await?;
    }
    Ok(())
}

async fn taint(object: &ObjectRef, edits: &[Edit], context: &Context) -> Result<(), Failure> {
    if object.kind != Kind::Node {
        return Err(Failure::usage(format!("{object} has no taints: only nodes have")));
    }
    let manner = Manner { manager: "bulkhead-taint", dry_run: false };
    let changed = change(object, manner, context, |found| {
        let mut taints = match found["spec"]["taints"].take() {
            Value::Array(taints) => taints,
            _ => Vec::new(),
        };
        for edit in edits {
            match edit {
                Edit::Set(taint) => {
                    taints.retain(|t| t["key"] != *taint.key || t["effect"] != word(taint.effect));
                    let mut fresh = json!({"key": taint.key.as_str(), "effect": word(taint.effect)});
                    if !taint.value.is_empty() {
                        fresh["value"] = taint.value.as_str().into();
                    }
                    taints.push(fresh);
                }
                Edit::Remove(key, effect) => {
                    taints.retain(|t| {
                        t["key"] != *key || effect.is_some_and(|effect| t["effect"] != word(effect))
                    });
                }
            }
        }
        taints.sort_by_key(|taint| (taint["key"].to_string(), taint["effect"].to_string()));
        let spec = found["spec"].as_object_mut().ok_or_else(|| Failure::failed("a node without a spec"))?;
        spec.remove("taints");
        if !taints.is_empty() {
            spec.insert("taints".to_owned(), Value::Array(taints));
        }
        Ok(())
    })
    .await?;
    emit_line(&format!("node/{} {}", object.name, if changed { "tainted" } else { "not changed" }))
}

/// A taint to set, as `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
pub(crate) fn parse(text: &str) -> Result<Taint, Failure> {
    match edit(text)? {
        Edit::Set(taint) => Ok(taint),
        Edit::Remove(..) => Err(Failure::usage(format!("{text:?} removes a taint: there is none yet"))),
    }
}

fn word(effect: TaintEffect) -> &'static str {
    match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    }
}

fn edit(word: &str) -> Result<Edit, Failure> {
    if let Some(removed) = word.strip_suffix('-') {
        let (key, effect_text) = match removed.split_once(':') {
            Some((key, text)) => (key, Some(effect(text)?)),
            None => (removed, None),
        };
        return Ok(Edit::Remove(key.to_owned(), effect_text));
    }
    let (pair, effect_text) =
        word.rsplit_once(':').ok_or_else(|| Failure::usage("expected KEY=VALUE:EFFECT"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(Edit::Set(Taint { key: key.into(), value: value.into(), effect: effect(effect_text)? }))
}

fn effect(text: &str) -> Result<TaintEffect, Failure> {
    match text {
        "NoSchedule" => Ok(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Ok(TaintEffect::PreferNoSchedule),
        "NoExecute" => Ok(TaintEffect::NoExecute),
        _ => Err(Failure::usage(format!(
            "effect {text:?} is not one of NoSchedule, PreferNoSchedule, NoExecute"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_kubectl_reads_them() {
        let taint = |key: &str, value: &str, effect| Taint { key: key.into(), value: value.into(), effect };
        let check = |word: &str, expected: Taint| match edit(word) {
            Ok(Edit::Set(found)) => assert_eq!(found, expected, "{word}"),
            _ => panic!("{word} was not read as a taint to set"),
        };
        check("a=b:NoSchedule", taint("a", "b", TaintEffect::NoSchedule));
        check("x.io/a:NoExecute", taint("x.io/a", "", TaintEffect::NoExecute));
        assert!(matches!(edit("a-"), Ok(Edit::Remove(key, None)) if key == "a"));
        assert!(matches!(edit("a:NoExecute-"), Ok(Edit::Remove(_, Some(TaintEffect::NoExecute)))));
        assert!(edit("a=b:Sometimes").is_err());
    }
}
