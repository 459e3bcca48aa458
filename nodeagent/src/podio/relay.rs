//! Between a call and a stream of a guest, both ways at once.

use std::time::Duration;

use bulkhead_guest_protocol::guest::{StreamClosed, StreamEnd, StreamPart};
use bulkhead_guest_protocol::stream::{StreamKind, TerminalSize};
use bulkhead_guest_protocol::{OpenError, StreamEvent};
use bulkhead_proto::v1;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::logs::{FromNowOn, Record};
use crate::streams::{GuestStream, GuestStreams};

/// Pieces that wait for a client.
const PIECES_MAX: usize = 4;
/// How long a guest may take to begin a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the last output of a process may take after its end, and its end after that.
const LAST_OUTPUT_WAIT: Duration = Duration::from_secs(8);
/// Bytes read from a local connection at a time.
const READ_LENGTH: usize = 16 << 10;

/// What a client sends.
pub(super) enum Given {
    Data(prost::bytes::Bytes),
    Size(TerminalSize),
}

/// A size, as guests have it.
pub(super) fn size(size: v1::TerminalSize) -> TerminalSize {
    TerminalSize { rows: size.rows, columns: size.columns }
}

/// Begins a stream and waits until the guest has.
///
/// # Errors
/// As the service says.
pub(crate) async fn begin(streams: &GuestStreams, kind: StreamKind) -> Result<GuestStream, Status> {
    let what = match &kind {
        StreamKind::Exec(exec) => format!("container {}", exec.container),
        StreamKind::ReadFiles(files) | StreamKind::WriteFiles(files) => {
            format!("container {}", files.container)
        }
        StreamKind::Attach(attach) => format!("container {}", attach.container),
        StreamKind::ReadLogs(logs) => format!("container {}", logs.container),
        StreamKind::Connect(connect) => format!("port {} in the pod", connect.port),
    };
    let stream = streams.open(kind).map_err(|error| match error {
        OpenError::TooMany { .. } => Status::resource_exhausted(error.to_string()),
        OpenError::Invalid(_) => Status::invalid_argument(error.to_string()),
        OpenError::Over { .. } => Status::failed_precondition(error.to_string()),
    })?;
    match tokio::time::timeout(OPEN_TIMEOUT, stream.next()).await {
        Ok(StreamEvent::Opened) => Ok(stream),
        Ok(StreamEvent::Closed(closed)) => Err(match closed.end() {
            StreamEnd::NotRunning => Status::failed_precondition(format!("{what} does not run")),
            _ => broken(&format!("{what}: {}", closed.message)),
        }),
        Ok(_) => Err(Status::internal("the pod's guest broke the rules of the stream")),
        Err(_) => {
            // Not UNAVAILABLE, which is about the node.
            Err(Status::deadline_exceeded(format!("the pod's guest did not answer within {OPEN_TIMEOUT:?}")))
        }
    }
}

fn broken(message: &str) -> Status {
    Status::failed_precondition(message.to_owned())
}

/// What a client of a command or attachment gives.
fn exec_input(requests: Streaming<v1::ExecRequest>) -> impl Stream<Item = Result<Given, Status>> {
    use v1::exec_request::Message as Asked;
    requests.map(|request| match request?.message {
        Some(Asked::Stdin(data)) => Ok(Given::Data(data)),
        Some(Asked::Resize(new)) => Ok(Given::Size(size(new))),
        Some(Asked::Start(_)) | None => Err(Status::invalid_argument("the start came already")),
    })
}

/// The input of a container's own process, and its output from its log: what a client does not read holds up nobody. The
/// process's exit code comes last, after all output, or as much of it as comes within [`LAST_OUTPUT_WAIT`].
pub(super) fn attach(
    stream: GuestStream,
    requests: Streaming<v1::ExecRequest>,
    output: FromNowOn,
) -> impl Stream<Item = Result<v1::ExecResponse, Status>> {
    attach_with(stream, exec_input(requests), output)
}

pub(super) fn attach_with(
    stream: GuestStream,
    given: impl Stream<Item = Result<Given, Status>> + Send + 'static,
    output: FromNowOn,
) -> impl Stream<Item = Result<v1::ExecResponse, Status>> {
    use v1::exec_response::Message as Answer;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        let (records, mut record) = mpsc::channel(PIECES_MAX);
        let input = async {
            if feed(&stream, given).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let printing = async {
            let reading = output.send(records);
            let passing = async {
                while let Some(Record { stderr, data, .. }) = record.recv().await {
                    let data = data.into();
                    let message = Some(if stderr { Answer::Stderr(data) } else { Answer::Stdout(data) });
                    if sender.send(Ok(v1::ExecResponse { message })).await.is_err() {
                        return;
                    }
                }
            };
            let (read, ()) = tokio::join!(reading, passing);
            read
        };
        tokio::pin!(printing);
        let closed = async {
            loop {
                if let StreamEvent::Closed(closed) = stream.next().await {
                    return closed;
                }
            }
        };
        let work = async {
            tokio::pin!(closed);
            let (closed, printed) = tokio::select! {
                closed = &mut closed => (closed, tokio::time::timeout(LAST_OUTPUT_WAIT, &mut printing).await.ok()),
                // The log ends a moment after the process, and when nobody listens.
                printed = &mut printing => match tokio::time::timeout(LAST_OUTPUT_WAIT, &mut closed).await {
                    Ok(closed) => (closed, Some(printed)),
                    Err(_) => return Some(broken("the pod's guest does not say how the process ended")),
                },
            };
            let answer = match (closed.exit_code, printed) {
                (_, Some(Err(error))) => return Some(broken(&crate::error::chain(&error))),
                (Some(code), _) => Answer::Exit(v1::ExecExit { code }),
                (None, _) => return Some(broken(&closed.message)),
            };
            let _ = sender.send(Ok(v1::ExecResponse { message: Some(answer) })).await;
            None
        };
        let error = tokio::select! {
            () = input => None,
            error = work => error,
            () = sender.closed() => None,
        };
        if let Some(error) = error {
            let _ = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// A command's or archive's input and output.
pub(super) fn exec(
    stream: GuestStream,
    requests: Streaming<v1::ExecRequest>,
) -> impl Stream<Item = Result<v1::ExecResponse, Status>> {
    use v1::exec_response::Message as Answer;
    relay(stream, exec_input(requests), |event| {
        let answer = match event {
            StreamEvent::Opened | StreamEvent::End => return None,
            StreamEvent::Data(StreamPart::Output, data) => Answer::Stdout(data.into()),
            StreamEvent::Data(StreamPart::Errors, data) => Answer::Stderr(data.into()),
            StreamEvent::Closed(StreamClosed { exit_code: Some(code), .. }) => {
                Answer::Exit(v1::ExecExit { code })
            }
            StreamEvent::Closed(closed) => return Some(Err(broken(&closed.message))),
        };
        Some(Ok(v1::ExecResponse { message: Some(answer) }))
    })
}

/// Log files that a container writes itself. They end with it.
pub(super) fn log_files(stream: GuestStream) -> impl Stream<Item = Result<v1::LogChunk, Status>> {
    /// The container ended, and with it whoever read its files.
    const KILLED: i32 = 128 + 9;
    relay(stream, futures::stream::pending(), |event| {
        let (data, stream) = match event {
            StreamEvent::Opened | StreamEvent::End => return None,
            StreamEvent::Data(StreamPart::Output, data) => (data, v1::LogStream::Stdout),
            StreamEvent::Data(StreamPart::Errors, data) => (data, v1::LogStream::Stderr),
            StreamEvent::Closed(StreamClosed { exit_code: Some(0 | KILLED), .. }) => return None,
            StreamEvent::Closed(StreamClosed { exit_code: Some(_), .. }) => {
                return Some(Err(broken("the log files cannot be read")));
            }
            StreamEvent::Closed(closed) => return Some(Err(broken(&closed.message))),
        };
        Some(Ok(v1::LogChunk { data: data.into(), time_ms: 0, stream: stream.into() }))
    })
}

/// A connection's two directions.
pub(super) fn port_forward(
    stream: GuestStream,
    requests: Streaming<v1::PortForwardRequest>,
) -> impl Stream<Item = Result<v1::PortForwardResponse, Status>> {
    use v1::port_forward_request::Message as Asked;
    use v1::port_forward_response::Message as Answer;
    let given = requests.map(|request| match request?.message {
        Some(Asked::Data(data)) => Ok(Given::Data(data)),
        Some(Asked::Start(_)) | None => Err(Status::invalid_argument("the start came already")),
    });
    relay(stream, given, |event| {
        let answer = match event {
            StreamEvent::Opened => return None,
            StreamEvent::Data(_, data) => Answer::Data(data.into()),
            StreamEvent::End => Answer::End(true),
            StreamEvent::Closed(closed) if closed.end() == StreamEnd::Done => return None,
            StreamEvent::Closed(closed) => return Some(Err(broken(&closed.message))),
        };
        Some(Ok(v1::PortForwardResponse { message: Some(answer) }))
    })
}

/// Carries what the client gives into the stream, and events of the stream to the client, until the stream is closed or
/// the client is gone. Neither direction waits for the other.
fn relay<T: Send + 'static>(
    stream: GuestStream,
    given: impl Stream<Item = Result<Given, Status>> + Send + 'static,
    answer: fn(StreamEvent) -> Option<Result<T, Status>>,
) -> impl Stream<Item = Result<T, Status>> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        let input = async {
            if feed(&stream, given).await.is_ok() {
                // The output goes on.
                std::future::pending::<()>().await;
            }
        };
        let output = async {
            loop {
                let event = stream.next().await;
                let is_last = matches!(event, StreamEvent::Closed(_));
                let is_sent = match answer(event) {
                    Some(answer) => sender.send(answer).await.is_ok(),
                    None => true,
                };
                if is_last || !is_sent {
                    return;
                }
            }
        };
        tokio::select! {
            () = input => {}
            () = output => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

/// What a client gives, until it has no more.
///
/// # Errors
/// The client is gone.
async fn feed(stream: &GuestStream, given: impl Stream<Item = Result<Given, Status>>) -> Result<(), Status> {
    tokio::pin!(given);
    while let Some(one) = given.next().await {
        match one? {
            // What nobody reads any more is thrown away: the end of the command says more than a broken pipe.
            Given::Data(data) => drop(stream.write(&data).await),
            Given::Size(size) => stream.resize(size),
        }
    }
    stream.finish();
    Ok(())
}

/// Serves a local connection with one to a port in the guest: both directions, each of which ends by itself.
///
/// # Errors
/// Why there was no connection, or what broke it.
pub(crate) async fn forward(
    streams: &GuestStreams,
    port: u16,
    local: impl AsyncRead + AsyncWrite,
) -> Result<(), Status> {
    let kind = StreamKind::Connect(bulkhead_guest_protocol::stream::Connect {
        port: u32::from(port),
        own_address: false,
    });
    let stream = begin(streams, kind).await?;
    pass(&stream, local).await
}

/// Passes bytes both ways between a stream and a local connection.
///
/// # Errors
/// What broke it.
pub(crate) async fn pass(stream: &GuestStream, local: impl AsyncRead + AsyncWrite) -> Result<(), Status> {
    let (mut reader, mut writer) = tokio::io::split(local);
    let input = async {
        let mut buffer = vec![0; READ_LENGTH];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => {
                    stream.finish();
                    std::future::pending::<()>().await;
                }
                Ok(length) if stream.write(&buffer[..length]).await => {}
                // The stream is closed, which the other direction tells.
                Ok(_) => std::future::pending::<()>().await,
                // The local end is gone.
                Err(_) => return,
            }
        }
    };
    let output = async {
        loop {
            let done = match stream.next().await {
                StreamEvent::Opened => Ok(()),
                StreamEvent::Data(_, data) => writer.write_all(&data).await,
                StreamEvent::End => writer.shutdown().await,
                StreamEvent::Closed(closed) if closed.end() == StreamEnd::Done => return Ok(()),
                StreamEvent::Closed(closed) => return Err(broken(&closed.message)),
            };
            if done.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        () = input => Ok(()),
        result = output => result,
    }
}
