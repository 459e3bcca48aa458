//! `label`: sets and removes labels.

use bulkhead_types::{
    Command, Kind, Name, Object, ObjectMeta, ObjectRef, Precondition, check_label_key, check_label_value,
};
use clap::Args;

use super::Context;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::{self, slash_name};

/// How often a change by somebody else in between is looked at again.
const ATTEMPTS_MAX: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// KIND NAME... or KIND/NAME..., then KEY=VALUE to set and KEY- to remove
    #[arg(required = true, num_args = 2.., value_name = "KIND NAME KEY=VALUE|KEY-")]
    words: Vec<String>,
    /// Change labels that have another value
    #[arg(long)]
    overwrite: bool,
}

enum Edit {
    Set(String, String),
    Remove(String),
}

pub(crate) async fn run(args: LabelArgs, context: &Context) -> Result<(), Failure> {
    let is_edit = |word: &String| word.contains('=') || word.ends_with('-');
    let (edits, objects): (Vec<String>, Vec<String>) = args.words.iter().cloned().partition(is_edit);
    let edits = edits.iter().map(|word| edit(word)).collect::<Result<Vec<_>, _>>()?;
    if edits.is_empty() {
        return Err(Failure::usage("no label is given: KEY=VALUE to set one, KEY- to remove one"));
    }
    for object in target::parse_named(&objects, &context.namespace)? {
        if object.kind == Kind::Pod {
            return Err(Failure::usage("labels of pods come from their manifest or template: change that"));
        }
        let changed = change(&object, context, |found| {
            let mut labels = found.meta().labels.clone();
            for edit in &edits {
                match edit {
                    Edit::Remove(key) => drop(labels.remove(key.as_str())),
                    Edit::Set(key, value) => {
                        let old = labels.insert(key.as_str().into(), value.as_str().into());
                        if !args.overwrite && old.as_ref().is_some_and(|old| old != value) {
                            let reason = format!("{object} has label {key} already: --overwrite changes it");
                            return Err(Failure::new(Class::Conflict, reason));
                        }
                    }
                }
            }
            found.meta_mut().labels = labels;
            Ok(())
        })
        .await?;
        let done = if changed { "labeled" } else { "not labeled" };
        emit_line(&format!("{} {done}", slash_name(&object)))?;
    }
    Ok(())
}

fn edit(word: &str) -> Result<Edit, Failure> {
    let usage = |error: bulkhead_types::NameError| Failure::usage(error.to_string());
    if let Some((key, value)) = word.split_once('=') {
        check_label_key(key).map_err(usage)?;
        check_label_value(value).map_err(usage)?;
        return Ok(Edit::Set(key.to_owned(), value.to_owned()));
    }
    let key = word.strip_suffix('-').unwrap_or(word);
    check_label_key(key).map_err(usage)?;
    Ok(Edit::Remove(key.to_owned()))
}

/// Reads an object, edits it, and puts it back unless somebody else changed it in between; then it is tried
/// again. Says whether there was anything to change.
pub(crate) async fn change(
    object: &ObjectRef,
    context: &Context,
    edit: impl Fn(&mut Object) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut conflict = None;
    for _ in 0..ATTEMPTS_MAX {
        let found = context.client.get(object).await?;
        let mut edited = found.clone();
        edit(&mut edited)?;
        if edited == found {
            return Ok(false);
        }
        let precondition = Precondition { object: object.clone(), revision: Some(found.meta().revision) };
        match context.client.submit(vec![Command::Apply(submittable(edited))], vec![precondition]).await {
            Ok(revision) => {
                context.note_change(revision);
                return Ok(true);
            }
            Err(failure) if failure.class == Class::Conflict => conflict = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    Err(conflict.unwrap_or_else(|| Failure::failed("nothing was tried")))
}

/// The object without what only the control plane sets.
fn submittable(mut object: Object) -> Object {
    let meta = object.meta_mut();
    let (name, namespace): (Name, Option<Name>) = (meta.name.clone(), meta.namespace.clone());
    let (labels, annotations) = (std::mem::take(&mut meta.labels), std::mem::take(&mut meta.annotations));
    *meta = ObjectMeta { labels, annotations, ..ObjectMeta::new(namespace, name) };
    object
}
