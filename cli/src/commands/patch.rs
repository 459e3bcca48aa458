//! `patch`: part of an object, by one of three kinds of patches.

use std::path::PathBuf;

use anyhow::Context as _;
use bulkhead_manifest::{Source, read_values, strategic_merge};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Context;
use super::change::{Manner, change};
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    /// KIND NAME or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// The patch, in YAML or JSON
    #[arg(long, short, value_name = "PATCH", required_unless_present = "patch_file")]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "PATH", conflicts_with = "patch")]
    patch_file: Option<PathBuf>,
    /// strategic knows which lists have keys; merge replaces lists (RFC 7396); json is a list of operations (RFC 6902)
    #[arg(long = "type", value_enum, default_value_t = PatchType::Strategic)]
    patch_type: PatchType,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who manages the changed fields from then on
    #[arg(long, default_value = "bulkhead-patch", value_name = "NAME")]
    field_manager: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PatchType {
    Json,
    Merge,
    Strategic,
}

pub(crate) async fn run(args: PatchArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    let patch = read(&args)?;
    let manner = Manner { manager: &args.field_manager, dry_run: args.dry_run };
    for object in objects {
        let changed = change(&object, manner, context, |found| apply(args.patch_type, found, &patch)).await?;
        let dry_run = if args.dry_run { " (dry run)" } else { "" };
        let not = if changed { "" } else { " (no change)" };
        emit_line(&format!("{} patched{not}{dry_run}", slash_name(&object)))?;
    }
    Ok(())
}

fn read(args: &PatchArgs) -> Result<Value, Failure> {
    let (name, text) = match (&args.patch, &args.patch_file) {
        (Some(text), _) => ("--patch".to_owned(), text.clone()),
        (None, Some(path)) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
            (name, text)
        }
        (None, None) => return Err(Failure::usage("--patch or --patch-file is needed")),
    };
    let mut values = read_values(&Source { name, text }).map_err(|errors| {
        Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    match (values.pop(), values.is_empty()) {
        (Some(patch), true) => Ok(patch),
        _ => Err(Failure::usage("a patch is one document")),
    }
}

fn apply(patch_type: PatchType, value: &mut Value, patch: &Value) -> Result<(), Failure> {
    let refused = |reason: String| Failure::failed(format!("the patch does not fit: {reason}"));
    match patch_type {
        PatchType::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| Failure::usage(format!("not a list of JSON patch operations: {e}")))?;
            json_patch::patch(value, &patch).map_err(|e| refused(e.to_string()))
        }
        PatchType::Merge | PatchType::Strategic if !patch.is_object() => {
            Err(Failure::usage("this type of patch is a map; a list of operations needs --type json"))
        }
        PatchType::Merge => {
            json_patch::merge(value, patch);
            Ok(())
        }
        PatchType::Strategic => strategic_merge(value, patch).map_err(refused),
    }
}
