//! `apply`: manifests to the servers, all of them as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bulkhead_proto::v1;
use bulkhead_types::{COMMANDS_MAX, Command, ObjectRef};
use clap::Args;

use super::{Context, change};
use crate::client::Filter;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::slash_name;

/// Who manages what is applied, when nobody is named.
pub(crate) const MANAGER_DEFAULT: &str = "bulkhead";
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
    /// Who manages the fields that the manifests say
    #[arg(long, default_value = MANAGER_DEFAULT, value_name = "NAME")]
    field_manager: String,
    /// Take over fields that others manage and have otherwise
    #[arg(long)]
    force_conflicts: bool,
    /// Delete what has the labels of -l, is of the kinds and in the namespaces that were applied, and is in no manifest
    #[arg(long, requires = "selector")]
    prune: bool,
    /// With --prune: only what has these labels
    #[arg(long, short = 'l', requires = "prune", value_name = "LABELS")]
    selector: Option<String>,
    /// Every apply is the server's; for scripts that say so
    #[arg(long, hide = true)]
    server_side: bool,
}

pub(crate) async fn run(args: ApplyArgs, context: &Context) -> Result<(), Failure> {
    let answer = change::send(
        request(&args.filename, &args.field_manager, args.force_conflicts, args.dry_run)?,
        context,
    )
    .await?;
    let dry_run = if args.dry_run { " (dry run)" } else { "" };
    let mut applied = Vec::new();
    for done in &answer.objects {
        let object =
            done.object.clone().ok_or_else(|| Failure::failed("the server's answer names no object"))?;
        let object = ObjectRef::try_from(object)?;
        let action = action_word(done.action());
        emit_line(&format!("{} {action}{dry_run}", slash_name(&object)))?;
        applied.push(object);
    }
    match args.selector.as_deref().filter(|_| args.prune) {
        Some(selector) => prune(&applied, selector, args.dry_run, context).await,
        None => Ok(()),
    }
}

/// What was done to an object.
pub(crate) fn action_word(action: v1::ApplyAction) -> &'static str {
    match action {
        v1::ApplyAction::Created => "created",
        v1::ApplyAction::Configured => "configured",
        v1::ApplyAction::Unchanged => "unchanged",
        v1::ApplyAction::Unspecified => "applied",
    }
}

/// The request that applies manifests.
pub(crate) fn request(
    paths: &[PathBuf],
    manager: &str,
    force: bool,
    dry_run: bool,
) -> Result<v1::ApplyRequest, Failure> {
    let files = read_files(paths)?;
    Ok(v1::ApplyRequest {
        files: files.into_iter().map(|f| v1::ManifestFile { name: f.name, text: f.text }).collect(),
        dry_run,
        field_manager: manager.to_owned(),
        force_conflicts: force,
        mode: v1::ApplyMode::Apply.into(),
        ..v1::ApplyRequest::default()
    })
}

/// Deletes what no manifest names any more, of the same kinds in the same namespaces. Namespaces and nodes stay: too
/// much goes with them. So does what has an owner: it follows that.
async fn prune(
    applied: &[ObjectRef],
    selector: &str,
    dry_run: bool,
    context: &Context,
) -> Result<(), Failure> {
    let places: BTreeSet<_> = applied
        .iter()
        .filter(|object| object.kind.is_namespaced())
        .map(|object| (object.kind, object.namespace.clone()))
        .collect();
    for (kind, namespace) in places {
        let filter = Filter { namespace, labels: selector.to_owned(), ..Filter::default() };
        for found in context.client.list(kind, &filter).await?.0 {
            let object = found.object_ref();
            if found.meta().owner.is_some() || found.meta().is_deleting() || applied.contains(&object) {
                continue;
            }
            let name = slash_name(&object);
            if dry_run {
                emit_line(&format!("{name} pruned (dry run)"))?;
                continue;
            }
            match context.submit(Command::Delete { object, grace_ms: None, force: false }).await {
                Ok(_) => emit_line(&format!("{name} pruned"))?,
                // Somebody else was faster.
                Err(failure) if failure.class == Class::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(())
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
