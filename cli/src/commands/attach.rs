//! `attach`: a container's own process: what it prints from now on, and with `-i` its input.

use bulkhead_proto::v1;
use bulkhead_types::{Container, Pod};
use clap::Args;

use super::Context;
use super::exec::{Session, complain, converse, stdin_is_terminal, terminal_size};
use super::logs::{ContainerArgs, container, find_pod, open};
use crate::failure::Failure;
use crate::output::emit_bytes;

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    of: ContainerArgs,
    /// Standard input goes to the process; its spec must say stdin: true
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Every key goes to the process as it is; its spec must say tty: true
    #[arg(long, short = 't')]
    tty: bool,
}

/// Prints until the container ends; with `-i` its exit code becomes this one's.
pub(crate) async fn run(args: AttachArgs, context: &Context) -> Result<(), Failure> {
    let pod = find_pod(&args.of.pod, context).await?;
    let name = container(&pod, args.of.container.as_ref());
    if !args.stdin {
        return watch(&pod, name, context).await;
    }
    let (stdin, tty) = spec_of(&pod, &name).map_or((true, false), says);
    if !stdin {
        return Err(Failure::usage(format!(
            "container {name} reads no standard input: its spec does not say stdin: true, which is settled when the pod is \
             made. Leave -i out to see its output, or start a process of your own with bulkhead exec -i"
        )));
    }
    let is_raw = args.tty && tty && stdin_is_terminal();
    match (args.tty, tty) {
        (true, false) => eprintln!("container {name} has no terminal: its spec does not say tty: true"),
        (true, true) if !is_raw => {
            eprintln!("standard input is no terminal: what is typed goes line by line")
        }
        (true, true) => eprintln!("if there is no prompt, press enter"),
        (false, _) => {}
    }
    let attach = v1::AttachStart { stdin: true, size: is_raw.then(terminal_size).flatten() };
    let what = v1::exec_start::What::Attach(attach);
    let session = Session::open(&args.of.pod, Some(&name), what, context).await?;
    converse(session, true, is_raw).await
}

/// Output only: other servers take over when one is lost, as with `logs`.
async fn watch(pod: &Pod, container: String, context: &Context) -> Result<(), Failure> {
    let request = v1::LogsRequest {
        namespace: context.namespace.to_string(),
        pod: pod.meta.name.to_string(),
        container,
        follow: true,
        tail_lines: Some(0),
        ..v1::LogsRequest::default()
    };
    let mut stream = open(request, context).await?;
    while let Some(chunk) = stream.message().await? {
        if chunk.stream() == v1::LogStream::Stderr {
            complain(&chunk.data);
        } else {
            emit_bytes(&chunk.data)?;
        }
    }
    Ok(())
}

/// The container of this name; the agent says what is wrong where there is none.
fn spec_of<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers).find(|one| one.name == name)
}

/// Whether it reads input, and has a terminal.
fn says(container: &Container) -> (bool, bool) {
    container.options.get().map_or((false, false), |options| (options.stdin, options.tty))
}
