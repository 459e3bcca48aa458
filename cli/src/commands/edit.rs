//! `edit`: an object in the user's editor.

use std::io::Write as _;
use std::process::Command;

use anyhow::Context as _;
use bulkhead_manifest::{Source, read_values, value_to_yaml};
use clap::Args;

use super::Context;
use super::change::{Manner, check_identity, editable, put};
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target::{self, slash_name};

/// How often a refused text is opened again.
const ROUNDS_MAX: usize = 16;
const HEAD: &str = "# Lines that begin with # are left out. An unchanged or empty file changes nothing.\n";

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// KIND NAME or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// The editor, with its arguments
    #[arg(long, env = "EDITOR", default_value = "vi", value_name = "COMMAND")]
    editor: String,
    /// Who manages the changed fields from then on
    #[arg(long, default_value = "bulkhead-edit", value_name = "NAME")]
    field_manager: String,
}

pub(crate) async fn run(args: EditArgs, context: &Context) -> Result<(), Failure> {
    let mut objects = target::parse_named(&args.what, &context.namespace)?;
    if objects.len() != 1 {
        return Err(Failure::usage("one object at a time"));
    }
    let object = objects.remove(0);
    let name = slash_name(&object);
    let present = editable(&context.client.get(&object).await?);
    let original = value_to_yaml(&present);
    let (mut text, mut complaint) = (original.clone(), None::<String>);
    for _ in 0..ROUNDS_MAX {
        let edited = open(&args.editor, &with_comments(&text, complaint.as_deref()))?;
        if edited.trim().is_empty() || edited == original {
            return emit_line(&format!("{name} not changed"));
        }
        if let Some(complaint) = complaint.as_ref().filter(|_| edited == text) {
            return Err(Failure::failed(format!("{complaint}\n{}", keep(&edited)?)));
        }
        text = edited;
        let source = Source { name: name.clone(), text: text.clone() };
        let read = match read_values(&source).as_deref() {
            Ok([value]) => check_identity(&present, value),
            Ok(_) => Err(Failure::failed("the file must hold one document")),
            Err(errors) => {
                Err(Failure::failed(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
            }
        };
        let manner = Manner { manager: &args.field_manager, dry_run: false };
        let done = match read {
            Ok(()) => put(name.clone(), text.clone(), manner, context).await.map(drop),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(()) => return emit_line(&format!("{name} edited")),
            Err(failure) if failure.class == Class::Failed => complaint = Some(failure.message),
            // Somebody else changed the object, or no server answers: the work is kept.
            Err(failure) => {
                let message = format!("{}\n{}", failure.message, keep(&text)?);
                return Err(Failure::new(failure.class, message));
            }
        }
    }
    Err(Failure::failed(format!("refused {ROUNDS_MAX} times\n{}", keep(&text)?)))
}

fn with_comments(text: &str, complaint: Option<&str>) -> String {
    let complaint = complaint.map_or_else(String::new, |complaint| {
        complaint.lines().map(|line| format!("# {line}\n")).collect::<String>() + "#\n"
    });
    format!("{HEAD}#\n{complaint}{text}")
}

/// Lets the user edit a text; what comes back has no comments at its beginning.
fn open(editor: &str, text: &str) -> Result<String, Failure> {
    let mut words = editor.split_whitespace();
    let program = words.next().ok_or_else(|| Failure::usage("--editor, or EDITOR, is empty"))?;
    let mut file = tempfile::Builder::new()
        .prefix("bulkhead-edit-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a file")?;
    file.write_all(text.as_bytes()).context("cannot write the file")?;
    let status = Command::new(program).args(words).arg(file.path()).status();
    let status = status.with_context(|| format!("cannot run the editor {program:?}"))?;
    if !status.success() {
        return Err(Failure::failed(format!("the editor {program:?} ended with {status}")));
    }
    let edited = std::fs::read_to_string(file.path()).context("cannot read the file")?;
    Ok(edited.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
}

/// Keeps what the user wrote, and says where.
fn keep(text: &str) -> Result<String, Failure> {
    let builder =
        tempfile::Builder::new().prefix("bulkhead-edit-").suffix(".yaml").disable_cleanup(true).tempfile();
    let mut file = builder.context("cannot keep the text")?;
    file.write_all(text.as_bytes()).context("cannot keep the text")?;
    Ok(format!("what you wrote is kept in {}", file.path().display()))
}
