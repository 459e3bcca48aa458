//! Streams: commands, connections and archives inside a guest, with as many bytes on the way as their reader has room
//! for.
//!
//! ```text
//!  host                                   guest
//!  StreamOpen ───────────────────────────►
//!             ◄─────────────────────────── StreamOpened, or StreamClosed with the reason
//!  StreamData ──► input    output, errors ◄── StreamData
//!  StreamCredit · StreamResize ──►   ◄── StreamCredit
//!  StreamClose (the client is gone) ──►
//!             ◄─────────────────────────── StreamClosed (the last word)
//! ```
//! Each direction of each stream has a window: who sends pays for every message with its length and
//! [`STREAM_DATA_OVERHEAD`], and gets the price back by [`StreamCredit`] once the other end is rid of it. So a client
//! that stops reading holds up its own stream only, and neither end ever holds more than [`STREAM_WINDOW`] for one.

use std::collections::VecDeque;

use crate::message::{check_enum, check_length};
use crate::volume::is_plain;
use crate::{DecodeError, NAME_LENGTH_MAX, TEXT_LENGTH_MAX};

/// Longest `data` of one [`StreamData`], in bytes.
pub const STREAM_DATA_LENGTH_MAX: usize = 16 * 1024;
/// What a message costs beside its data, in bytes: many small ones must not outgrow the window.
pub const STREAM_DATA_OVERHEAD: usize = 64;
/// What may be on the way in one direction of one stream, in bytes, overheads included.
pub const STREAM_WINDOW: usize = 64 * 1024;
/// Most commands and archives of one guest at a time.
pub const COMMANDS_MAX: usize = 32;
/// Most connections of clients into one guest at a time.
pub const CONNECTIONS_MAX: usize = 64;
/// Most connections of its agent's own into one guest at a time: no client takes them away from its probes.
pub const PROBE_CONNECTIONS_MAX: usize = 128;
/// Longest command with its arguments, and longest path, in bytes.
const WORDS_LENGTH_MAX: usize = 128 * 1024;
/// Most words of a command.
const WORDS_MAX: usize = 4096;

/// Asks for a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamOpen {
    /// Its number; never used twice in a conversation.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// What it is.
    #[prost(oneof = "StreamKind", tags = "2, 3, 4, 5, 80, 85")]
    pub kind: Option<StreamKind>,
}

/// What a stream is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StreamKind {
    /// A command in a container.
    #[prost(message, tag = "2")]
    Exec(Exec),
    /// A file or folder of a container, as a tar stream from the guest.
    #[prost(message, tag = "3")]
    ReadFiles(Files),
    /// The same to the guest.
    #[prost(message, tag = "4")]
    WriteFiles(Files),
    /// A connection to a port of the guest.
    #[prost(message, tag = "5")]
    Connect(Connect),
    /// The input of a container's own process. What it prints is its log.
    #[prost(message, tag = "80")]
    Attach(Attach),
    /// Log files that a container writes itself, as text from the guest.
    #[prost(message, tag = "85")]
    ReadLogs(LogFiles),
}

/// A command in a container. What it executes is never printed: it may hold secrets.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Exec {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Its words; not empty.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// It reads what the host sends; otherwise nothing.
    #[prost(bool, tag = "3")]
    pub stdin: bool,
    /// It has a terminal.
    #[prost(bool, tag = "4")]
    pub tty: bool,
    /// The terminal's size at first.
    #[prost(message, optional, tag = "5")]
    pub size: Option<TerminalSize>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec").field("container", &self.container).finish_non_exhaustive()
    }
}

/// A container's own process. It is opened once the process is known to run, ends with it, and then carries its exit code.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// The host writes to the process's input.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    /// The terminal's size at first, where the process has one.
    #[prost(message, optional, tag = "3")]
    pub size: Option<TerminalSize>,
}

/// Log files of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogFiles {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Below one of its mounts; absolute. `*` and `?` stand for any text and any character of a name.
    #[prost(string, tag = "2")]
    pub pattern: String,
    /// Go on with what comes, until the container ends.
    #[prost(bool, tag = "3")]
    pub follow: bool,
    /// Only so many of the last lines of each file.
    #[prost(uint64, optional, tag = "4")]
    pub tail_lines: Option<u64>,
}

/// Files of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Files {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Which file or folder: absolute, or relative to the container's working directory.
    #[prost(string, tag = "2")]
    pub path: String,
}

/// A connection to what listens in the guest.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Connect {
    /// The port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// To the pod's own address ([`crate::host::PodConfig::own_address`]), where it has one; otherwise to 127.0.0.1, as guests of earlier
    /// versions do always.
    #[prost(bool, tag = "88")]
    pub own_address: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TerminalSize {
    /// Lines.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Characters of a line.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// What bytes from the guest are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum StreamPart {
    /// Standard output, what a connection or an archive gives, and all that goes to the guest.
    Output = 0,
    /// Standard error.
    Errors = 1,
}

/// Bytes of a stream, in order.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct StreamData {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// What they are.
    #[prost(enumeration = "StreamPart", tag = "2")]
    pub part: i32,
    /// At most [`STREAM_DATA_LENGTH_MAX`] bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    /// Nothing more comes in this direction.
    #[prost(bool, tag = "4")]
    pub end: bool,
}

impl std::fmt::Debug for StreamData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = self.data.len();
        f.debug_struct("StreamData")
            .field("stream", &self.stream)
            .field("length", &length)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Room that there is again for what the other end sends.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StreamCredit {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// How much, in bytes, overheads included.
    #[prost(uint32, tag = "2")]
    pub bytes: u32,
}

/// A new size of a terminal.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StreamResize {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// The size.
    #[prost(message, optional, tag = "2")]
    pub size: Option<TerminalSize>,
}

/// Nobody listens any more: SIGHUP, and SIGKILL a while later, for a command; the end for all else.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StreamClose {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
}

/// A command runs, a connection is made, a path is looked at.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StreamOpened {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum StreamEnd {
    /// By itself: a command has an exit code.
    Done = 0,
    /// It could not begin: the container does not run.
    NotRunning = 1,
    /// It could not begin: nothing listens on the port.
    Refused = 2,
    /// Something else broke it.
    Failed = 3,
}

/// The last word about a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamClosed {
    /// Which stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// How it ended.
    #[prost(enumeration = "StreamEnd", tag = "2")]
    pub end: i32,
    /// Of a command that ended; 128 + signal for a signal.
    #[prost(int32, optional, tag = "3")]
    pub exit_code: Option<i32>,
    /// A sentence for people, may be empty.
    #[prost(string, tag = "4")]
    pub message: String,
}

impl StreamOpen {
    /// Checks what the guest relies on; useful before it is told as well.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] with the field.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let invalid = |field, reason: &str| Err(DecodeError::Invalid { field, reason: reason.into() });
        match &self.kind {
            None => invalid("StreamOpen.kind", "is missing"),
            Some(StreamKind::Exec(exec)) => {
                check_length("Exec.container", &exec.container, NAME_LENGTH_MAX)?;
                if exec.argv.first().is_none_or(String::is_empty) {
                    return invalid("Exec.argv", "holds no command");
                }
                if exec.argv.iter().any(|word| word.contains('\0')) {
                    return invalid("Exec.argv", "holds a NUL byte");
                }
                let length: usize = exec.argv.iter().map(String::len).sum();
                if exec.argv.len() > WORDS_MAX || length > WORDS_LENGTH_MAX {
                    return invalid("Exec.argv", "is too long");
                }
                Ok(())
            }
            Some(StreamKind::ReadFiles(files) | StreamKind::WriteFiles(files)) => {
                check_length("Files.container", &files.container, NAME_LENGTH_MAX)?;
                check_length("Files.path", &files.path, TEXT_LENGTH_MAX)?;
                if files.path.is_empty() || files.path.contains('\0') {
                    return invalid("Files.path", "is no path");
                }
                Ok(())
            }
            Some(StreamKind::Connect(connect)) if !(1..=65_535).contains(&connect.port) => {
                invalid("Connect.port", "is no port")
            }
            Some(StreamKind::Connect(_)) => Ok(()),
            Some(StreamKind::ReadLogs(logs)) => {
                check_length("LogFiles.container", &logs.container, NAME_LENGTH_MAX)?;
                check_length("LogFiles.pattern", &logs.pattern, TEXT_LENGTH_MAX)?;
                match logs.pattern.strip_prefix('/').is_some_and(is_plain) {
                    true => Ok(()),
                    false => {
                        invalid("LogFiles.pattern", "is no absolute path without empty parts, '.' and '..'")
                    }
                }
            }
            Some(StreamKind::Attach(attach)) => {
                check_length("Attach.container", &attach.container, NAME_LENGTH_MAX)
            }
        }
    }
}

impl StreamData {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("StreamData.data", &self.data, STREAM_DATA_LENGTH_MAX)?;
        check_enum::<StreamPart>("StreamData.part", self.part)
    }
}

impl StreamClosed {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("StreamClosed.message", &self.message, TEXT_LENGTH_MAX)?;
        check_enum::<StreamEnd>("StreamClosed.end", self.end)
    }
}

/// What a message with so many bytes costs.
const fn cost(length: usize) -> usize {
    length + STREAM_DATA_OVERHEAD
}

/// The other end sent more than it had room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more was sent than there was room for")]
pub struct WindowExceeded;

/// What one end may send in one stream.
#[derive(Clone, Debug)]
pub struct Outgoing {
    credit: usize,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { credit: STREAM_WINDOW }
    }
}

impl Outgoing {
    /// How many bytes the next message may hold; 0: none may be sent.
    pub fn room(&self) -> usize {
        self.credit.saturating_sub(STREAM_DATA_OVERHEAD).min(STREAM_DATA_LENGTH_MAX)
    }

    /// Pays for a message with so many bytes.
    ///
    /// # Panics
    /// When that is more than there is room for.
    pub fn spend(&mut self, length: usize) {
        self.credit = self.credit.checked_sub(cost(length)).expect("the caller has asked for room");
    }

    /// The other end has room again. More than a window is never believed.
    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes as usize).min(STREAM_WINDOW);
    }
}

#[derive(Clone, Debug)]
struct Chunk {
    part: StreamPart,
    data: Vec<u8>,
    /// So much of it is consumed.
    at: usize,
}

/// What came in one stream and was not consumed yet: never more than [`STREAM_WINDOW`].
#[derive(Clone, Debug)]
pub struct Incoming {
    chunks: VecDeque<Chunk>,
    /// What the other end may still send.
    window: usize,
    /// What was consumed and not given back.
    freed: usize,
    ended: bool,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), window: STREAM_WINDOW, freed: 0, ended: false }
    }
}

impl Incoming {
    /// Takes a message in. What comes after the end is thrown away.
    ///
    /// # Errors
    /// [`WindowExceeded`] when the other end does not keep to the window.
    pub fn push(&mut self, part: StreamPart, data: Vec<u8>, end: bool) -> Result<(), WindowExceeded> {
        let price = cost(data.len());
        self.window = self.window.checked_sub(price).ok_or(WindowExceeded)?;
        if data.is_empty() || self.ended {
            self.freed += price;
        } else {
            self.chunks.push_back(Chunk { part, data, at: 0 });
        }
        self.ended |= end;
        Ok(())
    }

    /// The oldest bytes.
    pub fn front(&self) -> Option<&[u8]> {
        self.chunks.front().map(|chunk| &chunk.data[chunk.at..])
    }

    /// The first so many of [`Self::front`] are consumed.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn consume(&mut self, length: usize) {
        let chunk = self.chunks.front_mut().expect("the caller has seen it");
        chunk.at += length;
        assert!(chunk.at <= chunk.data.len(), "consumed more than there was");
        if chunk.at == chunk.data.len() {
            self.freed += cost(chunk.data.len());
            self.chunks.pop_front();
        }
    }

    /// Takes the oldest message out.
    pub fn pop(&mut self) -> Option<(StreamPart, Vec<u8>)> {
        let mut chunk = self.chunks.pop_front()?;
        self.freed += cost(chunk.data.len());
        chunk.data.drain(..chunk.at);
        Some((chunk.part, chunk.data))
    }

    /// What is to be given back to the other end, once it is worth a message.
    pub fn grant(&mut self) -> Option<u32> {
        if self.freed < STREAM_WINDOW / 4 {
            return None;
        }
        let freed = std::mem::take(&mut self.freed);
        self.window += freed;
        Some(u32::try_from(freed).expect("a window fits"))
    }

    /// All was consumed and nothing more comes.
    pub fn is_over(&self) -> bool {
        self.ended && self.chunks.is_empty()
    }

    /// Throws away what was not consumed.
    pub fn clear(&mut self) {
        self.freed += self.chunks.drain(..).map(|chunk| cost(chunk.data.len())).sum::<usize>();
    }

    /// What it holds, in bytes, overheads included.
    pub fn held(&self) -> usize {
        self.chunks.iter().map(|chunk| cost(chunk.data.len())).sum()
    }
}
