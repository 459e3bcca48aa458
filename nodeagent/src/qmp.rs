//! A client of the QEMU Machine Protocol: greeting, capabilities, commands, events.
//!
//! Source: "QEMU Machine Protocol Specification". One JSON object a line in each direction.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How long QEMU may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line that is read, in bytes; a guest can influence some of what QEMU says.
const LINE_LENGTH_MAX: u64 = 1 << 20;
/// Most events kept while an answer is awaited.
const EVENTS_MAX: usize = 64;

/// Why QEMU cannot be controlled.
#[derive(Debug, Error)]
pub(crate) enum QmpError {
    /// The socket failed.
    #[error("QMP socket failed")]
    Io(#[from] io::Error),
    /// QEMU closed the connection.
    #[error("QEMU closed the QMP connection")]
    Closed,
    /// QEMU did not answer.
    #[error("QEMU did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// What came is no QMP.
    #[error("QEMU sent something that is no QMP: {0}")]
    Malformed(String),
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// Something that happened to the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QmpEvent {
    /// Its name, such as `SHUTDOWN`, `RESET`, `GUEST_PANICKED`.
    pub(crate) event: String,
    /// Its details.
    pub(crate) data: Value,
}

/// One connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    events: VecDeque<QmpEvent>,
    next_id: u64,
    /// What has come of the next line.
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Failure>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

impl Qmp {
    /// Negotiates over a connection to QEMU's socket.
    ///
    /// # Errors
    /// [`QmpError`] when who listens speaks no QMP within five seconds.
    pub(crate) async fn negotiate(stream: UnixStream) -> Result<Self, QmpError> {
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(reader);
        let mut qmp = Self { reader, writer, events: VecDeque::new(), next_id: 1, line: Vec::new() };
        let greeting = limited(qmp.read_line()).await?;
        if greeting.greeting.is_none() {
            return Err(QmpError::Malformed("no greeting".to_owned()));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with QEMU's reason; the others when the connection is of no use any more.
    pub(crate) async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None).await
    }

    /// Gives QEMU an open file. The answer is the path by which it opens it: QEMU looks for one of the same access mode. What is said
    /// of it QEMU only repeats (`query-fdsets`).
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub(crate) async fn add_file(&mut self, file: &File, opaque: &str) -> Result<String, QmpError> {
        let set = self.execute_with("add-fd", json!({ "opaque": opaque }), Some(file)).await?;
        let number = set.get("fdset-id").and_then(Value::as_u64);
        let number = number.ok_or_else(|| QmpError::Malformed(set.to_string()))?;
        Ok(format!("/dev/fdset/{number}"))
    }

    /// Gives QEMU an open file under a name, for what takes descriptors and no paths.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub(crate) async fn name_file(&mut self, name: &str, file: &File) -> Result<(), QmpError> {
        self.execute_with("getfd", json!({ "fdname": name }), Some(file)).await.map(drop)
    }

    async fn execute_with(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<&File>,
    ) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        limited(async {
            match file {
                Some(file) => send_with(self.writer.as_ref(), line.as_bytes(), file).await?,
                None => self.writer.write_all(line.as_bytes()).await?,
            }
            loop {
                let line = self.read_line().await?;
                if let Some(event) = line.event {
                    self.keep(QmpEvent { event, data: line.data });
                } else if line.id == Some(id) {
                    return match (line.returned, line.error) {
                        (Some(value), _) => Ok(value),
                        (None, Some(failure)) => {
                            Err(QmpError::Refused { command: command.to_owned(), reason: failure.desc })
                        }
                        (None, None) => Err(QmpError::Malformed("neither return nor error".to_owned())),
                    };
                }
            }
        })
        .await
    }

    /// `query-status`: `running`, `paused`, `shutdown`, `guest-panicked`, …
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub(crate) async fn query_status(&mut self) -> Result<String, QmpError> {
        let value = self.execute("query-status", json!({})).await?;
        let status = value.get("status").and_then(Value::as_str).map(str::to_owned);
        status.ok_or_else(|| QmpError::Malformed(value.to_string()))
    }

    /// Waits for the next event. Who gives up waiting loses nothing.
    ///
    /// # Errors
    /// [`QmpError::Closed`] when QEMU is gone.
    pub(crate) async fn next_event(&mut self) -> Result<QmpEvent, QmpError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let line = self.read_line().await?;
            if let Some(event) = line.event {
                self.keep(QmpEvent { event, data: line.data });
            }
        }
    }

    fn keep(&mut self, event: QmpEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    async fn read_line(&mut self) -> Result<Line, QmpError> {
        let room = LINE_LENGTH_MAX.saturating_sub(self.line.len() as u64);
        let length = (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await?;
        if length == 0 && room > 0 {
            return Err(QmpError::Closed);
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line).map_err(|error| QmpError::Malformed(error.to_string()))
    }
}

/// Sends a short line together with an open file (unix(7), SCM_RIGHTS).
async fn send_with(stream: &UnixStream, line: &[u8], file: &File) -> io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
    };
    match stream.async_io(Interest::WRITABLE, send).await? {
        length if length == line.len() => Ok(()),
        _ => Err(io::Error::other("a line did not fit into the socket")),
    }
}

async fn limited<T>(work: impl Future<Output = Result<T, QmpError>>) -> Result<T, QmpError> {
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or(Err(QmpError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that says these lines, each after the client's next line.
    async fn fake(lines: &'static [&'static str]) -> Result<Qmp, QmpError> {
        let (ours, theirs) = UnixStream::pair()?;
        tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut reader = BufReader::new(reader).lines();
            for (index, line) in lines.iter().enumerate() {
                writer.write_all(line.as_bytes()).await.expect("the client reads");
                writer.write_all(b"\n").await.expect("the client reads");
                if !line.contains("\"event\"") && index + 1 < lines.len() {
                    reader.next_line().await.expect("the client writes");
                }
            }
        });
        Qmp::negotiate(ours).await
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

    #[tokio::test]
    async fn answers_are_found_between_events() {
        let mut qmp = fake(&[
            GREETING,
            r#"{"return": {}, "id": 1}"#,
            r#"{"event": "SHUTDOWN", "data": {"guest": true}, "timestamp": {}}"#,
            r#"{"return": {"status": "running", "running": true}, "id": 2}"#,
            r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 3}"#,
        ])
        .await
        .expect("negotiated");
        assert_eq!(qmp.query_status().await.expect("answered"), "running");
        assert!(
            matches!(qmp.execute("quit", json!({})).await, Err(QmpError::Refused { reason, .. }) if reason == "no")
        );
        assert_eq!(qmp.next_event().await.expect("kept").event, "SHUTDOWN");
        assert!(matches!(qmp.next_event().await, Err(QmpError::Closed)));
    }

    #[tokio::test]
    async fn what_is_no_qmp_is_refused() {
        assert!(matches!(fake(&["hello"]).await, Err(QmpError::Malformed(_))));
        assert!(matches!(fake(&[r#"{"return": {}}"#]).await, Err(QmpError::Malformed(_))));
        assert!(matches!(fake(&[]).await, Err(QmpError::Closed)));
    }
}
