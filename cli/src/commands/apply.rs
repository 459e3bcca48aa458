//! `apply`: manifests to the servers, all of them as a whole.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bulkhead_proto::v1;
use bulkhead_types::{COMMANDS_MAX, ObjectRef};
use clap::Args;
use uuid::Uuid;

use super::Context;
use crate::client::manifests;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::slash_name;

/// Most directories below one that is given.
const DEPTH_MAX: usize = 16;
/// Most files of one command.
const FILES_MAX: usize = 1024;

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A file, a directory (all *.yaml, *.yml and *.json below it), or - for standard input; may be repeated
    #[arg(long, short, required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: ApplyArgs, context: &Context) -> Result<(), Failure> {
    let files = read_files(&args.filename)?;
    let request = v1::ApplyRequest {
        files: files.into_iter().map(|f| v1::ManifestFile { name: f.name, text: f.text }).collect(),
        namespace: context.namespace.to_string(),
        dry_run: args.dry_run,
        request_id: Uuid::new_v4().to_string(),
        actor: context.client.actor().to_owned(),
    };
    let answer = context
        .client
        .call(|channel| {
            let request = context.client.request(request.clone());
            async move { manifests(channel).apply(request).await }
        })
        .await?;
    if !answer.errors.is_empty() {
        return Err(refused(&answer.errors));
    }
    for applied in &answer.objects {
        let object =
            applied.object.clone().ok_or_else(|| Failure::failed("the server's answer names no object"))?;
        let action = match applied.action() {
            v1::ApplyAction::Created => "created",
            v1::ApplyAction::Configured => "configured",
            v1::ApplyAction::Unchanged => "unchanged",
            v1::ApplyAction::Unspecified => "applied",
        };
        let dry_run = if args.dry_run { " (dry run)" } else { "" };
        emit_line(&format!("{} {action}{dry_run}", slash_name(&ObjectRef::try_from(object)?)))?;
    }
    context.note_change(answer.revision);
    Ok(())
}

fn refused(errors: &[v1::ManifestError]) -> Failure {
    let lines: Vec<String> = errors
        .iter()
        .map(|e| {
            let place =
                if e.line == 0 { e.file.clone() } else { format!("{}:{}:{}", e.file, e.line, e.column) };
            let path = if e.path.is_empty() { String::new() } else { format!(" {}", e.path) };
            format!("{place}{path}: {}", e.reason)
        })
        .collect();
    Failure::failed(format!("nothing was applied\n{}", lines.join("\n")))
}

/// Reads manifests: files, directories, standard input.
pub(crate) fn read_files(paths: &[PathBuf]) -> Result<Vec<bulkhead_manifest::Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?;
            sources.push(bulkhead_manifest::Source { name: "-".to_owned(), text });
        } else if path.is_dir() {
            let before = sources.len();
            read_directory(path, DEPTH_MAX, &mut sources)?;
            if sources.len() == before {
                return Err(Failure::failed(format!("no *.yaml, *.yml or *.json below {}", path.display())));
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    if sources.len() > FILES_MAX {
        return Err(Failure::failed(format!(
            "{} files: at most {FILES_MAX} are taken at once",
            sources.len()
        )));
    }
    Ok(sources)
}

fn read_file(path: &Path) -> anyhow::Result<bulkhead_manifest::Source> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bulkhead_manifest::Source { name: path.display().to_string(), text })
}

fn read_directory(
    path: &Path,
    depth: usize,
    sources: &mut Vec<bulkhead_manifest::Source>,
) -> anyhow::Result<()> {
    anyhow::ensure!(depth > 0, "{} lies more than {DEPTH_MAX} directories deep", path.display());
    let cannot = || format!("cannot read {}", path.display());
    let mut entries = std::fs::read_dir(path)
        .with_context(cannot)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(cannot)?;
    entries.sort();
    for entry in entries {
        let is_manifest = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if entry.is_dir() {
            read_directory(&entry, depth - 1, sources)?;
        } else if is_manifest {
            sources.push(read_file(&entry)?);
            anyhow::ensure!(
                sources.len() <= FILES_MAX,
                "more than {FILES_MAX} files below {}",
                path.display()
            );
        }
    }
    Ok(())
}

/// Reads manifests on this machine, for commands that only need to know which objects they name.
pub(crate) fn read_objects(
    paths: &[PathBuf],
    context: &Context,
) -> Result<Vec<bulkhead_manifest::Parsed>, Failure> {
    let sources = read_files(paths)?;
    let parsed = bulkhead_manifest::parse(&sources, Some(&context.namespace)).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::failed(lines.join("\n"))
    })?;
    if parsed.len() > COMMANDS_MAX {
        return Err(Failure::failed(format!("{} objects: at most {COMMANDS_MAX} at once", parsed.len())));
    }
    Ok(parsed)
}
