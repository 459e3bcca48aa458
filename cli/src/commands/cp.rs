//! `cp`: files and folders into and out of a container. The guest itself packs and unpacks: the image needs no tar.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bulkhead_guest_archive::{Links, pack, unpack};
use bulkhead_proto::v1;
use bulkhead_proto::v1::exec_response::Message;
use clap::Args;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::Context;
use super::exec::{Session, next};
use crate::failure::Failure;
use crate::target;

/// Bytes of one message.
const PIECE_LENGTH: usize = 16 << 10;
/// Messages that wait to be unpacked.
const PIECES_MAX: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// What is copied: a file or folder here, or POD:PATH, also NAMESPACE/POD:PATH
    #[arg(value_name = "SOURCE", value_parser = parse_end)]
    source: End,
    /// Where it goes: into a folder that is there, else it becomes what is named
    #[arg(value_name = "TARGET", value_parser = parse_end)]
    target: End,
    /// The container; may be left out when the pod has one beside its init containers
    #[arg(long, short)]
    container: Option<String>,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    Pod { namespace: Option<String>, pod: String, path: String },
}

/// As kubectl reads it: what has a colon is in a pod, unless it begins as a path does.
fn parse_end(text: &str) -> Result<End, String> {
    let is_path = text.starts_with(['/', '.', '~']);
    match text.split_once(':') {
        Some((_, "")) if !is_path => Err(format!("{text:?}: which path in the pod?")),
        Some((pod, path)) if !is_path => {
            let (namespace, pod) = match pod.split_once('/') {
                Some((namespace, pod)) => (Some(namespace.to_owned()), pod.to_owned()),
                None => (None, pod.to_owned()),
            };
            if pod.is_empty() {
                return Err(format!("{text:?}: which pod?"));
            }
            Ok(End::Pod { namespace, pod, path: path.to_owned() })
        }
        _ if text.is_empty() => Err("a path is empty".to_owned()),
        _ => Ok(End::Here(text.into())),
    }
}

/// Copies.
pub(crate) async fn run(args: CpArgs, mut context: Context) -> Result<(), Failure> {
    for end in [&args.source, &args.target] {
        if let End::Pod { namespace: Some(namespace), .. } = end {
            context.namespace = target::name(namespace)?;
        }
    }
    let container = args.container.as_ref();
    match (args.source, args.target) {
        (End::Here(source), End::Pod { pod, path, .. }) => {
            if let Err(error) = std::fs::metadata(&source) {
                return Err(Failure::failed(format!("{}: {error}", source.display())));
            }
            let what = v1::exec_start::What::WritePath(path);
            upload(Session::open(&pod, container, what, &context).await?, source).await
        }
        (End::Pod { pod, path, .. }, End::Here(target)) => {
            let what = v1::exec_start::What::ReadPath(path);
            download(Session::open(&pod, container, what, &context).await?, target).await
        }
        (End::Here(_), End::Here(_)) => Err(Failure::usage("neither is in a pod: POD:PATH")),
        (End::Pod { .. }, End::Pod { .. }) => Err(Failure::usage("one of the two must be on this machine")),
    }
}

async fn upload(session: Session, source: PathBuf) -> Result<(), Failure> {
    let Session { requests, mut responses } = session;
    let packing = tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE_LENGTH, ToRequests(requests));
        pack(&source, out, &mut warn)
    });
    let outcome = finish(&mut responses).await;
    match packing.await {
        // The pod's end says more than that nobody reads any more.
        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(error.to_string()))
        }
        Ok(_) => outcome,
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

async fn download(mut session: Session, target: PathBuf) -> Result<(), Failure> {
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut input = FromResponses { pieces: waiting, piece: Bytes::new() };
        let unpacked = unpack(&mut input, &target, Links::LeaveOut, &mut warn);
        // What follows the end of the archive, a block of zeroes, is taken all the same.
        unpacked.and_then(|()| io::copy(&mut input, &mut io::sink()).map(drop))
    });
    let outcome = loop {
        match next(&mut session.responses).await {
            Ok(Message::Stdout(data)) => {
                if pieces.send(data).await.is_err() {
                    break Ok(());
                }
            }
            Ok(Message::Stderr(data)) => warn_of(&data),
            Ok(Message::Exit(exit)) => break ended(exit.code),
            Err(failure) => break Err(failure),
        }
    };
    drop(pieces);
    let unpacked = unpacking.await.map_err(|error| Failure::failed(error.to_string()))?;
    // That nothing came is no news where the pod's end says why.
    outcome?;
    unpacked.map_err(|error| Failure::failed(error.to_string()))
}

/// Waits for the end of something that prints nothing but notes.
async fn finish(responses: &mut Streaming<v1::ExecResponse>) -> Result<(), Failure> {
    loop {
        match next(responses).await? {
            Message::Stdout(_) => {}
            Message::Stderr(data) => warn_of(&data),
            Message::Exit(exit) => return ended(exit.code),
        }
    }
}

fn ended(code: i32) -> Result<(), Failure> {
    if code == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("the copy ended in the pod with code {code}")))
    }
}

/// Notes of the pod's end. Names of files are whatever somebody called them: a terminal must not obey them.
fn warn_of(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        warn(&line.chars().flat_map(escape).collect::<String>());
    }
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = (!character.is_control()).then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

fn warn(text: &str) {
    eprintln!("{text}");
}

/// Writes into requests; waits while the pod does not take them.
struct ToRequests(mpsc::Sender<v1::ExecRequest>);

impl Write for ToRequests {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let piece = &data[..data.len().min(PIECE_LENGTH)];
        let message = Some(v1::exec_request::Message::Stdin(piece.to_vec().into()));
        let sent = self.0.blocking_send(v1::ExecRequest { message });
        sent.map(|()| piece.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what comes.
struct FromResponses {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for FromResponses {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
#[path = "cp_tests.rs"]
mod tests;
