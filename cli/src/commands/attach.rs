//! `attach`: what a container prints from now on.

use bulkhead_proto::v1;
use clap::Args;

use super::Context;
use super::exec::complain;
use super::logs::{ContainerArgs, container, find_pod, open};
use crate::failure::Failure;
use crate::output::emit_bytes;

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    of: ContainerArgs,
    /// Not possible: a container's own process has no standard input. Use exec -i
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Not possible: a container's own process has no terminal. Use exec -it
    #[arg(long, short = 't')]
    tty: bool,
}

/// Prints until the container ends.
pub(crate) async fn run(args: AttachArgs, context: &Context) -> Result<(), Failure> {
    if args.stdin || args.tty {
        return Err(Failure::usage(
            "a container's own process has neither standard input nor a terminal (manifests with stdin, stdinOnce or \
             tty are refused): leave -i and -t out, or start a process with bulkhead exec -it",
        ));
    }
    let pod = find_pod(&args.of.pod, context).await?;
    let request = v1::LogsRequest {
        namespace: context.namespace.to_string(),
        pod: pod.meta.name.to_string(),
        container: container(&pod, args.of.container.as_ref()),
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
