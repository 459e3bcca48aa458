//! `exec`: a command in a container, with its input, output, terminal and exit code.

mod terminal;

use bulkhead_proto::v1;
use bulkhead_proto::v1::exec_response::Message;
use clap::Args;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Context;
use super::logs::{ContainerArgs, container, find_pod};
use crate::client::pod_io;
use crate::failure::Failure;
use crate::output::emit_bytes;
use terminal::Terminal;
pub(super) use terminal::{is_one as stdin_is_terminal, size as terminal_size};

/// Bytes of standard input in one message.
const INPUT_LENGTH: usize = 16 << 10;
/// Messages that wait to be sent: what the command does not read stays where it is.
const REQUESTS_MAX: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    of: ContainerArgs,
    /// The command reads standard input
    #[arg(long, short = 'i')]
    stdin: bool,
    /// The command has a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// The command and its arguments, behind --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; its exit code becomes this one's.
pub(crate) async fn run(args: ExecArgs, context: &Context) -> Result<(), Failure> {
    // As kubectl does: what is no terminal cannot be one for the command.
    let has_terminal = args.tty && args.stdin && terminal::is_one();
    if args.tty && args.stdin && !has_terminal {
        eprintln!("standard input is no terminal: the command has none either");
    }
    let tty = args.tty && (has_terminal || !args.stdin);
    let command = v1::ExecCommand {
        argv: args.command,
        stdin: args.stdin,
        tty,
        size: tty.then(terminal::size).flatten(),
    };
    let what = v1::exec_start::What::Command(command);
    let session = Session::open(&args.of.pod, args.of.container.as_ref(), what, context).await?;
    converse(session, args.stdin, has_terminal).await
}

/// Carries input and output until the command's end; its exit code becomes this one's. With `has_terminal` every key goes to
/// it as it is.
pub(super) async fn converse(session: Session, reads: bool, has_terminal: bool) -> Result<(), Failure> {
    let Session { requests, responses } = session;
    let raw = if has_terminal { Some(Terminal::make_raw()?) } else { None };
    if has_terminal {
        tokio::spawn(terminal::tell_sizes(requests.downgrade()));
    }
    // The command's input ends when nobody holds the requests any more.
    if reads {
        tokio::spawn(send_input(tokio::io::stdin(), requests));
    } else {
        drop(requests);
    }
    let code = print(responses).await;
    drop(raw);
    match code? {
        0 => Ok(()),
        code => Err(Failure::exited(code)),
    }
}

/// A command, or an archive, that has begun.
pub(super) struct Session {
    /// What is sent to it; its input ends when nobody holds one any more.
    pub(super) requests: mpsc::Sender<v1::ExecRequest>,
    pub(super) responses: Streaming<v1::ExecResponse>,
}

impl Session {
    /// Begins it, once: a second attempt could run a command twice.
    pub(super) async fn open(
        pod: &str,
        named: Option<&String>,
        what: v1::exec_start::What,
        context: &Context,
    ) -> Result<Self, Failure> {
        let pod = find_pod(pod, context).await?;
        let start = v1::ExecStart {
            namespace: context.namespace.to_string(),
            pod: pod.meta.name.to_string(),
            container: container(&pod, named),
            what: Some(what),
        };
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let message = Some(v1::exec_request::Message::Start(start));
        requests.try_send(v1::ExecRequest { message }).expect("there is room in a new queue");
        let request = context.client.request(ReceiverStream::new(receiver));
        let responses =
            context.client.call_once(|channel| async move { pod_io(channel).exec(request).await }).await?;
        Ok(Self { requests, responses })
    }
}

/// The next message.
pub(super) async fn next(responses: &mut Streaming<v1::ExecResponse>) -> Result<Message, Failure> {
    loop {
        match responses.message().await? {
            Some(v1::ExecResponse { message: Some(message) }) => return Ok(message),
            Some(v1::ExecResponse { message: None }) => {}
            None => return Err(Failure::failed("the connection ended before the command did")),
        }
    }
}

/// Prints all output; the exit code.
async fn print(mut responses: Streaming<v1::ExecResponse>) -> Result<i32, Failure> {
    loop {
        match next(&mut responses).await? {
            Message::Stdout(data) => emit_bytes(&data)?,
            Message::Stderr(data) => complain(&data),
            Message::Exit(exit) => return Ok(exit.code),
        }
    }
}

/// Writes to standard error, where nobody has to listen.
pub(super) fn complain(data: &[u8]) {
    use std::io::Write as _;
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(data).and_then(|()| out.flush());
}

/// Sends all that there is to read.
async fn send_input(mut input: impl tokio::io::AsyncRead + Unpin, requests: mpsc::Sender<v1::ExecRequest>) {
    let mut buffer = vec![0; INPUT_LENGTH];
    // What cannot be read has ended.
    while let Ok(length @ 1..) = input.read(&mut buffer).await {
        let message = Some(v1::exec_request::Message::Stdin(buffer[..length].to_vec().into()));
        if requests.send(v1::ExecRequest { message }).await.is_err() {
            return;
        }
    }
}
