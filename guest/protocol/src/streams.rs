//! The host's end of all streams of one guest: what clients write and read, as messages. It does no IO.
//!
//! ```text
//!  client: open · write · finish · resize · read · abandon        channel: next_message ─► guest
//!                                  └────────── HostStreams ──────────┘     hear ◄───────── guest
//! ```
//! The guest is hostile: what it says of streams that are not there is not heard, and one that sends more than its
//! window is closed.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use crate::stream::{
    COMMANDS_MAX, CONNECTIONS_MAX, Connect, Incoming, Outgoing, PROBE_CONNECTIONS_MAX, StreamClose,
    StreamClosed, StreamCredit, StreamData, StreamEnd, StreamKind, StreamOpen, StreamPart, StreamResize,
    TerminalSize,
};
use crate::{DecodeError, GuestMessage, HostMessage};

/// Why there is no new stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The pod has as many as it may.
    #[error("the pod has {limit} {what} open already, which is the most it may; end one of them first")]
    TooMany {
        /// `commands` or `connections`.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// It makes no sense.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// The guest is not there any more, or knows no streams.
    #[error("{why}")]
    Over {
        /// A sentence.
        why: String,
    },
}

/// What a client reads.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// The command runs, the connection is made.
    Opened,
    /// Bytes, in order.
    Data(StreamPart, Vec<u8>),
    /// No more bytes come; they may still be sent.
    End,
    /// All is over. There is nothing to read after it.
    Closed(StreamClosed),
}

/// How far something is that is said once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Once {
    #[default]
    No,
    Wanted,
    Done,
}

impl Once {
    fn want(&mut self) {
        if *self == Self::No {
            *self = Self::Wanted;
        }
    }

    fn take(&mut self) -> bool {
        let wanted = *self == Self::Wanted;
        if wanted {
            *self = Self::Done;
        }
        wanted
    }
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    /// Of clients: commands, archives, log files.
    #[default]
    Command,
    /// Of clients.
    Connection,
    /// Of the agent itself.
    Probe,
}

impl Class {
    fn limit(self) -> (&'static str, usize) {
        match self {
            Self::Command => ("commands", COMMANDS_MAX),
            Self::Connection => ("connections", CONNECTIONS_MAX),
            Self::Probe => ("connections of probes", PROBE_CONNECTIONS_MAX),
        }
    }
}

#[derive(Debug, Default)]
struct HostStream {
    class: Class,
    /// Not told yet.
    open: Option<StreamKind>,
    opened: Once,
    incoming: Incoming,
    /// Nothing more can be read.
    end: Once,
    outgoing: Outgoing,
    waiting: VecDeque<Vec<u8>>,
    finish: Once,
    size: Option<TerminalSize>,
    /// The client is gone.
    is_abandoned: bool,
    /// The guest is to end it, which it confirms.
    close: Once,
    closed: Option<StreamClosed>,
}

impl HostStream {
    /// What is to be said next.
    fn message(&mut self, stream: u64) -> Option<HostMessage> {
        if let Some(kind) = self.open.take() {
            return Some(HostMessage::StreamOpen(StreamOpen { stream, kind: Some(kind) }));
        }
        if self.close.take() {
            return Some(HostMessage::StreamClose(StreamClose { stream }));
        }
        if self.closed.is_some() || self.close == Once::Done {
            return None;
        }
        if let Some(bytes) = self.incoming.grant() {
            return Some(HostMessage::StreamCredit(StreamCredit { stream, bytes }));
        }
        if let Some(size) = self.size.take() {
            return Some(HostMessage::StreamResize(StreamResize { stream, size: Some(size) }));
        }
        let part = StreamPart::Output.into();
        if let Some(data) = self.waiting.pop_front() {
            return Some(HostMessage::StreamData(StreamData { stream, part, data, end: false }));
        }
        self.finish
            .take()
            .then(|| HostMessage::StreamData(StreamData { stream, part, data: Vec::new(), end: true }))
    }

    fn hear(&mut self, data: StreamData) {
        if self.closed.is_some() || self.is_abandoned {
            return;
        }
        let part = data.part();
        match self.incoming.push(part, data.data, data.end) {
            Ok(()) if data.end => self.end.want(),
            Ok(()) => {}
            Err(error) => {
                // The guest is told as if the client were gone, and nothing of it is heard any more.
                self.close.want();
                self.close(StreamEnd::Failed, &format!("the guest broke the rules of the stream: {error}"));
            }
        }
    }

    fn close(&mut self, end: StreamEnd, message: &str) {
        self.waiting.clear();
        let (end, message) = (end.into(), message.to_owned());
        self.closed.get_or_insert(StreamClosed { stream: 0, end, exit_code: None, message });
    }

    fn read(&mut self) -> Option<StreamEvent> {
        if self.opened.take() {
            return Some(StreamEvent::Opened);
        }
        if let Some((part, data)) = self.incoming.pop() {
            return Some(StreamEvent::Data(part, data));
        }
        if self.end.take() {
            return Some(StreamEvent::End);
        }
        self.closed.clone().map(StreamEvent::Closed)
    }
}

/// All streams of one guest.
#[derive(Debug, Default)]
pub struct HostStreams {
    streams: BTreeMap<u64, HostStream>,
    last: u64,
    /// Who spoke last: the others have their turn first.
    turn: u64,
    /// Why there is no conversation any more.
    over: Option<String>,
    /// The guest has said that it knows how to attach, and to read log files.
    can_attach: bool,
}

impl HostStreams {
    /// Begins a stream; its number.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&mut self, kind: StreamKind) -> Result<u64, OpenError> {
        let is_connection = matches!(kind, StreamKind::Connect(_));
        self.open_as(if is_connection { Class::Connection } else { Class::Command }, kind)
    }

    /// Begins a connection for a probe, to the pod's own address or to the loopback, which counts apart from those of clients; its number.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open_for_probe(&mut self, port: u16, own_address: bool) -> Result<u64, OpenError> {
        self.open_as(Class::Probe, StreamKind::Connect(Connect { port: port.into(), own_address }))
    }

    fn open_as(&mut self, class: Class, kind: StreamKind) -> Result<u64, OpenError> {
        if let Some(why) = &self.over {
            return Err(OpenError::Over { why: why.clone() });
        }
        if matches!(kind, StreamKind::Attach(_) | StreamKind::ReadLogs(_)) && !self.can_attach {
            let why = "the pod's guest does not know how to attach or to read log files: an earlier version of the agent \
                       started it, or it has not come up yet";
            return Err(OpenError::Over { why: why.to_owned() });
        }
        let (what, limit) = class.limit();
        if self.streams.values().filter(|one| one.class == class).count() >= limit {
            return Err(OpenError::TooMany { what, limit });
        }
        let stream = self.last + 1;
        let open = StreamOpen { stream, kind: Some(kind) };
        open.validate()?;
        self.last = stream;
        self.streams.insert(stream, HostStream { class, open: open.kind, ..HostStream::default() });
        Ok(stream)
    }

    /// The guest knows how to attach and to read log files, or does not.
    pub fn set_can_attach(&mut self, can_attach: bool) {
        self.can_attach = can_attach;
    }

    /// Takes as many of these bytes as there is room for now; `None` when nobody takes any more.
    pub fn write(&mut self, stream: u64, data: &[u8]) -> Option<usize> {
        let one = self.streams.get_mut(&stream)?;
        if one.closed.is_some() || one.finish != Once::No || one.is_abandoned {
            return None;
        }
        let length = one.outgoing.room().min(data.len());
        if length > 0 {
            one.outgoing.spend(length);
            one.waiting.push_back(data[..length].to_vec());
        }
        Some(length)
    }

    /// Nothing more is written.
    pub fn finish(&mut self, stream: u64) {
        if let Some(one) = self.streams.get_mut(&stream) {
            one.finish.want();
        }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, stream: u64, size: TerminalSize) {
        if let Some(one) = self.streams.get_mut(&stream) {
            one.size = Some(size);
        }
    }

    /// What there is to read now.
    pub fn read(&mut self, stream: u64) -> Option<StreamEvent> {
        self.streams.get_mut(&stream)?.read()
    }

    /// The client is gone. The stream counts until the guest has confirmed its end.
    pub fn abandon(&mut self, stream: u64) {
        let Some(one) = self.streams.get_mut(&stream) else { return };
        let is_confirmed = one.closed.is_some() && one.close == Once::No;
        if is_confirmed || one.open.is_some() {
            self.streams.remove(&stream);
            return;
        }
        one.is_abandoned = true;
        one.close.want();
        one.incoming.clear();
        one.waiting.clear();
    }

    /// The next message to the guest; streams take turns.
    pub fn next_message(&mut self) -> Option<HostMessage> {
        let turn = self.turn;
        let mut numbers = self.streams.range(turn + 1..).chain(self.streams.range(..=turn)).map(|(n, _)| *n);
        let numbers: Vec<u64> = numbers.by_ref().collect();
        for number in numbers {
            let message = self.streams.get_mut(&number).and_then(|one| one.message(number));
            if message.is_some() {
                self.turn = number;
                return message;
            }
        }
        None
    }

    /// What the guest said; the stream that it is about, if there is something new for its client.
    pub fn hear(&mut self, message: GuestMessage) -> Option<u64> {
        let number = match &message {
            GuestMessage::StreamOpened(opened) => opened.stream,
            GuestMessage::StreamData(data) => data.stream,
            GuestMessage::StreamCredit(credit) => credit.stream,
            GuestMessage::StreamClosed(closed) => closed.stream,
            _ => return None,
        };
        let one = self.streams.get_mut(&number)?;
        if one.open.is_some() {
            // It cannot know of it.
            return None;
        }
        match message {
            GuestMessage::StreamOpened(_) => one.opened.want(),
            GuestMessage::StreamData(data) => one.hear(data),
            GuestMessage::StreamCredit(credit) => one.outgoing.grant(credit.bytes),
            GuestMessage::StreamClosed(_) if one.is_abandoned => drop(self.streams.remove(&number)),
            GuestMessage::StreamClosed(closed) => {
                one.close = Once::No;
                one.waiting.clear();
                one.closed.get_or_insert(closed);
            }
            _ => {}
        }
        Some(number)
    }

    /// The conversation is over, and with it all of its streams.
    pub fn fail_all(&mut self, why: &str) {
        self.streams.retain(|_, one| !one.is_abandoned);
        for one in self.streams.values_mut() {
            one.open = None;
            one.close = Once::No;
            one.close(StreamEnd::Failed, why);
        }
    }

    /// There will be no streams any more.
    pub fn end(&mut self, why: &str) {
        self.over = Some(why.to_owned());
        self.fail_all(why);
    }

    /// What waits for clients and for the guest, in bytes.
    pub fn held(&self) -> usize {
        let waiting = |one: &HostStream| one.waiting.iter().map(Vec::len).sum::<usize>();
        self.streams.values().map(|one| one.incoming.held() + waiting(one)).sum()
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
