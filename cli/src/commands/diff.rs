//! `diff`: what an apply would change, as the servers say.

use std::path::PathBuf;

use bulkhead_manifest::value_to_yaml;
use bulkhead_types::{Object, ObjectRef};
use clap::Args;
use serde_json::Value;
use similar::TextDiff;

use super::change::editable;
use super::{Context, apply, change};
use crate::client::decode;
use crate::failure::{Class, Failure};
use crate::output::emit;
use crate::target::slash_name;

/// Lines around a difference.
const CONTEXT_LINES: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A file, a directory (all *.yaml, *.yml and *.json below it), or - for standard input; may be repeated
    #[arg(long, short, required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Who would manage the fields
    #[arg(long, default_value = apply::MANAGER_DEFAULT, value_name = "NAME")]
    field_manager: String,
    /// As if fields that others manage were taken over
    #[arg(long)]
    force_conflicts: bool,
}

/// Exit codes as diff has them: 0 for none, 1 for some, above for a failure.
pub(crate) async fn run(args: DiffArgs, context: &Context) -> Result<(), Failure> {
    let differs = compare(&args, context).await.map_err(|failure| match failure.class {
        Class::Failed => Failure::new(Class::Usage, failure.message),
        _ => failure,
    })?;
    if differs { Err(Failure::silent(Class::Failed)) } else { Ok(()) }
}

async fn compare(args: &DiffArgs, context: &Context) -> Result<bool, Failure> {
    let request = apply::request(&args.filename, &args.field_manager, args.force_conflicts, true)?;
    let mut differs = false;
    for wanted in change::send(request, context).await?.objects {
        let object =
            wanted.object.clone().ok_or_else(|| Failure::failed("the server's answer names no object"))?;
        let object = ObjectRef::try_from(object)?;
        let present = match context.client.get(&object).await {
            Ok(present) => shown(&present),
            Err(failure) if failure.class == Class::NotFound => String::new(),
            Err(failure) => return Err(failure),
        };
        let wanted = shown(&decode(wanted.result)?);
        if present == wanted {
            continue;
        }
        differs = true;
        let name = slash_name(&object);
        let diff = TextDiff::from_lines(&present, &wanted);
        let text = diff
            .unified_diff()
            .context_radius(CONTEXT_LINES)
            .header(&format!("present {name}"), &format!("applied {name}"))
            .to_string();
        emit(&text)?;
    }
    Ok(differs)
}

/// An object as text: what users set of it. A Secret's values are told apart by nothing but that they differ.
fn shown(object: &Object) -> String {
    let mut value = editable(object);
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if let (Object::Secret(secret), Some(data)) =
        (object, value.get_mut("data").and_then(Value::as_object_mut))
    {
        for (key, shown) in data.iter_mut() {
            let digest = secret.data.get(key.as_str()).map(bulkhead_types::digest128).unwrap_or_default();
            *shown = Value::from(format!("*** ({:08x})", digest as u32));
        }
    }
    value_to_yaml(&value)
}
