//! `label` and `annotate`: set and remove labels and annotations.

use std::collections::BTreeMap;

use bulkhead_types::{Kind, ObjectRef, check_label_key, check_label_value};
use clap::Args;
use serde_json::{Map, Value};

use super::Context;
use super::change::{Manner, change};
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// KIND NAME... or KIND/NAME..., then KEY=VALUE to set and KEY- to remove
    #[arg(required = true, num_args = 2.., value_name = "KIND NAME KEY=VALUE|KEY-")]
    words: Vec<String>,
    /// Change those that have another value
    #[arg(long)]
    overwrite: bool,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Which of an object's two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notes {
    Labels,
    Annotations,
}

impl Notes {
    fn field(self) -> &'static str {
        if self == Self::Labels { "labels" } else { "annotations" }
    }

    fn one(self) -> &'static str {
        if self == Self::Labels { "label" } else { "annotation" }
    }

    fn done(self) -> &'static str {
        if self == Self::Labels { "labeled" } else { "annotated" }
    }

    fn manager(self) -> &'static str {
        if self == Self::Labels { "bulkhead-label" } else { "bulkhead-annotate" }
    }
}

enum Edit {
    Set(String, String),
    Remove(String),
}

pub(crate) async fn run(args: LabelArgs, notes: Notes, context: &Context) -> Result<(), Failure> {
    let is_edit = |word: &String| word.contains('=') || word.ends_with('-');
    let (edits, objects): (Vec<String>, Vec<String>) = args.words.iter().cloned().partition(is_edit);
    let edits = edits.iter().map(|word| edit(word, notes)).collect::<Result<Vec<_>, _>>()?;
    if edits.is_empty() {
        let one = notes.one();
        return Err(Failure::usage(format!("no {one} is given: KEY=VALUE to set one, KEY- to remove one")));
    }
    let manner = Manner { manager: notes.manager(), dry_run: args.dry_run };
    for object in target::parse_named(&objects, &context.namespace)? {
        if object.kind == Kind::Pod {
            let field = notes.field();
            return Err(Failure::usage(format!(
                "{field} of pods come from their manifest or template: change that"
            )));
        }
        let changed =
            change(&object, manner, context, |found| apply(found, &object, &edits, notes, args.overwrite))
                .await?;
        let not = if changed { "" } else { "not " };
        let dry_run = if args.dry_run { " (dry run)" } else { "" };
        emit_line(&format!("{} {not}{}{dry_run}", slash_name(&object), notes.done()))?;
    }
    Ok(())
}

/// Sets one label of an object, whatever it had before; says whether that changed anything.
pub(crate) async fn set(
    object: &ObjectRef,
    key: &str,
    value: &str,
    manager: &str,
    context: &Context,
) -> Result<bool, Failure> {
    let edits = [Edit::Set(key.to_owned(), value.to_owned())];
    let manner = Manner { manager, dry_run: false };
    change(object, manner, context, |found| apply(found, object, &edits, Notes::Labels, true)).await
}

fn apply(
    found: &mut Value,
    object: &ObjectRef,
    edits: &[Edit],
    notes: Notes,
    overwrite: bool,
) -> Result<(), Failure> {
    let mut map = match found["metadata"][notes.field()].take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for edit in edits {
        match edit {
            Edit::Remove(key) => drop(map.remove(key)),
            Edit::Set(key, value) => {
                let old = map.insert(key.clone(), Value::from(value.as_str()));
                if !overwrite && old.is_some_and(|old| old != *value) {
                    let reason =
                        format!("{object} has {} {key} already: --overwrite changes it", notes.one());
                    return Err(Failure::new(Class::Conflict, reason));
                }
            }
        }
    }
    let metadata =
        found["metadata"].as_object_mut().ok_or_else(|| Failure::failed("an object without metadata"))?;
    metadata.remove(notes.field());
    if !map.is_empty() {
        metadata.insert(notes.field().to_owned(), Value::Object(map));
    }
    Ok(())
}

/// Labels to set, each as `KEY=VALUE`.
pub(crate) fn parse(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |word: &String| match edit(word, Notes::Labels)? {
        Edit::Set(key, value) => Ok((key, value)),
        Edit::Remove(_) => Err(Failure::usage(format!("{word:?} is no label: KEY=VALUE is"))),
    };
    words.iter().map(pair).collect()
}

fn edit(word: &str, notes: Notes) -> Result<Edit, Failure> {
    let usage = |error: bulkhead_types::NameError| Failure::usage(error.to_string());
    if let Some((key, value)) = word.split_once('=') {
        check_label_key(key).map_err(usage)?;
        if notes == Notes::Labels {
            check_label_value(value).map_err(usage)?;
        }
        return Ok(Edit::Set(key.to_owned(), value.to_owned()));
    }
    let key = word.strip_suffix('-').unwrap_or(word);
    check_label_key(key).map_err(usage)?;
    Ok(Edit::Remove(key.to_owned()))
}
