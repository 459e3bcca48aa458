//! `replace`: whole objects in the place of what is there.

use std::path::PathBuf;

use bulkhead_proto::v1;
use bulkhead_types::ObjectRef;
use clap::Args;

use super::{Context, apply, change};
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::slash_name;

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// A file, a directory (all *.yaml, *.yml and *.json below it), or - for standard input; may be repeated
    #[arg(long, short, required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who manages the changed fields from then on
    #[arg(long, default_value = "bulkhead-replace", value_name = "NAME")]
    field_manager: String,
}

pub(crate) async fn run(args: ReplaceArgs, context: &Context) -> Result<(), Failure> {
    let request = v1::ApplyRequest {
        mode: v1::ApplyMode::Replace.into(),
        ..apply::request(&args.filename, &args.field_manager, false, args.dry_run)?
    };
    let dry_run = if args.dry_run { " (dry run)" } else { "" };
    for done in change::send(request, context).await?.objects {
        let object = done.object.ok_or_else(|| Failure::failed("the server's answer names no object"))?;
        emit_line(&format!("{} replaced{dry_run}", slash_name(&ObjectRef::try_from(object)?)))?;
    }
    Ok(())
}
