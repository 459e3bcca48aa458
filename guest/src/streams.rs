//! Streams: commands, archives and connections on behalf of the host's clients.
//!
//! ```text
//!  host ─ StreamData ─► Incoming ─► stdin, terminal, socket ─► process, server
//!       ◄─ StreamData ─ (only with credit, and while the channel has room) ◄─ stdout, stderr, terminal, socket
//! ```
//! Nothing is read from a process before it can be sent, so what a client does not take waits in the process's own
//! pipe. All descriptors are edge-triggered: what is ready is remembered until a call says that it is not.

mod attached;
mod connection;
mod process;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::guest::{GuestMessage, StreamClosed, StreamData, StreamEnd, StreamPart};
use bulkhead_guest_protocol::stream::{
    Incoming, Outgoing, StreamCredit, StreamKind, StreamOpen, StreamOpened, TerminalSize,
};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::container::END_OF_TRANSMISSION;
use crate::supervisor::bounded;
use crate::sys;
use crate::task::Target;
use attached::Attached;
use process::Command;

/// From SIGHUP to SIGKILL for a command whose client is gone.
const HANGUP_GRACE_MS: u64 = 5_000;
/// Descriptors of one stream.
const PARTS: u64 = 4;
/// The number of streams that no host knows: the next one counts from 1 again.
const NOBODYS: u64 = 0;

/// One end of a pipe, or one direction of a socket or terminal.
#[derive(Debug)]
struct Port {
    file: File,
    is_ready: bool,
}

/// What a stream is about.
#[derive(Debug)]
enum Subject {
    Command(Command),
    Connection {
        /// The connection is made.
        is_made: bool,
    },
    /// A container's own process.
    Attached(Attached),
}

/// One stream.
#[derive(Debug)]
struct Stream {
    /// As the host calls it; [`NOBODYS`] when its conversation is over.
    number: u64,
    subject: Subject,
    input: Option<Port>,
    output: Option<Port>,
    errors: Option<Port>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// How it ended, once it has.
    end: Option<StreamClosed>,
    /// The client is gone: SIGKILL then.
    kill_at_ms: Option<u64>,
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    /// Processes of containers to which a client has written that writes no more.
    ended_inputs: Vec<Pid>,
    /// The pod's own address, once it is known.
    pub(crate) own_address: Option<IpAddr>,
}

fn closed(stream: u64, end: StreamEnd, message: String) -> StreamClosed {
    StreamClosed { stream, end: end.into(), exit_code: None, message: bounded(message) }
}

impl Streams {
    /// Begins a stream; what to answer now. `target` is the container's, if it runs. Descriptors are watched under numbers
    /// from `token` on.
    pub(crate) fn open(
        &mut self,
        open: StreamOpen,
        target: Option<&Target<'_>>,
        epoll: &Epoll,
        token: u64,
    ) -> Option<GuestMessage> {
        let number = open.stream;
        let kind = open.kind.expect("validated");
        // Of a connection it is told later whether it could be made.
        let (answer, failure) = match kind {
            StreamKind::Connect(_) => (None, StreamEnd::Refused),
            StreamKind::Attach(_) => {
                (Some(GuestMessage::StreamOpened(StreamOpened { stream: number })), StreamEnd::Refused)
            }
            _ => (Some(GuestMessage::StreamOpened(StreamOpened { stream: number })), StreamEnd::Failed),
        };
        let made = match (&kind, target) {
            (StreamKind::Connect(connect), _) => {
                let own = self.own_address.filter(|_| connect.own_address);
                connection::begin(number, own.unwrap_or(Ipv4Addr::LOCALHOST.into()), connect.port)
            }
            (_, None) => {
                let message = "the container does not run".to_owned();
                return Some(GuestMessage::StreamClosed(closed(number, StreamEnd::NotRunning, message)));
            }
            (StreamKind::Attach(attach), Some(target)) => {
                attached::begin(number, attach, target.pid, target.config, target.stdio)
            }
            (kind, Some(target)) => process::begin(number, kind, target),
        };
        match made.and_then(|stream| stream.watch(epoll, token).map(|()| stream)) {
            Ok(stream) => self.streams.push(stream),
            Err(error) => {
                return Some(GuestMessage::StreamClosed(closed(number, failure, format!("{error:#}"))));
            }
        }
        answer
    }

    /// Bytes for a stream.
    pub(crate) fn data(&mut self, data: StreamData) {
        let Some(stream) = self.find(data.stream) else { return };
        if let Err(error) = stream.incoming.push(StreamPart::Output, data.data, data.end) {
            // The host is trusted: this is its mistake.
            eprintln!("bulkhead-guest: stream {}: {error}", data.stream);
        }
    }

    /// The host has room again.
    pub(crate) fn credit(&mut self, credit: StreamCredit) {
        if let Some(stream) = self.find(credit.stream) {
            stream.outgoing.grant(credit.bytes);
        }
    }

    /// A terminal has another size.
    pub(crate) fn resize(&mut self, number: u64, size: TerminalSize) {
        let Some(stream) = self.find(number) else { return };
        let terminal = match &stream.subject {
            Subject::Attached(attached) => attached.terminal.as_ref(),
            _ => stream.output.as_ref().map(|port| &port.file),
        };
        if let Some(terminal) = terminal {
            sys::resize_terminal(terminal, size);
        }
    }

    /// The client is gone.
    pub(crate) fn close(&mut self, number: u64, now_ms: u64) {
        if let Some(stream) = self.find(number) {
            stream.hang_up(now_ms);
            let left = stream.take_left();
            self.ended_inputs.extend(left);
        }
    }

    /// A container's own process has ended.
    pub(crate) fn end_attached(&mut self, pid: Pid, exit_code: i32) {
        for stream in &mut self.streams {
            let is_of_it = matches!(&stream.subject, Subject::Attached(attached) if attached.pid == pid);
            // Whose client has left needs no exit code.
            if is_of_it && stream.end.is_none() {
                stream.end_with(StreamEnd::Done, String::new());
                stream.end.as_mut().expect("just ended").exit_code = Some(exit_code);
            }
        }
    }

    /// Nobody writes to this process any more.
    pub(crate) fn close_inputs(&mut self, pid: Pid) {
        for stream in &mut self.streams {
            if let Subject::Attached(attached) = &mut stream.subject
                && attached.pid == pid
            {
                (stream.input, attached.writes) = (None, false);
            }
        }
    }

    /// The processes to which a client has written that writes no more, since this was asked last.
    pub(crate) fn take_ended_inputs(&mut self) -> Vec<Pid> {
        std::mem::take(&mut self.ended_inputs)
    }

    /// The host begins a new conversation: it knows of none of them.
    pub(crate) fn close_all(&mut self, now_ms: u64) {
        for stream in &mut self.streams {
            stream.hang_up(now_ms);
            stream.number = NOBODYS;
            self.ended_inputs.extend(stream.take_left());
        }
    }

    /// A descriptor is ready for something.
    pub(crate) fn on_event(&mut self, offset: u64, flags: EpollFlags) {
        let Some(stream) = self.find(offset / PARTS) else { return };
        let may_read = flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let may_write = flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let set = |port: &mut Option<Port>| port.iter_mut().for_each(|port| port.is_ready = true);
        match offset % PARTS {
            0 if may_write => set(&mut stream.input),
            1 if may_read => set(&mut stream.output),
            2 if may_read => set(&mut stream.errors),
            _ => {}
        }
    }

    /// A process ended; false if it is of no stream.
    pub(crate) fn reap(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let found = self
            .streams
            .iter_mut()
            .find(|stream| matches!(&stream.subject, Subject::Command(command) if command.pid == pid));
        let Some(stream) = found else { return false };
        let code = match status {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            other => unreachable!("only ends are waited for: {other:?}"),
        };
        let exit_code = Some(code);
        stream.end =
            Some(StreamClosed { exit_code, ..closed(stream.number, StreamEnd::Done, String::new()) });
        stream.input = None;
        true
    }

    /// Kills what did not end in time.
    pub(crate) fn on_time(&mut self, now_ms: u64) {
        for stream in &mut self.streams {
            if stream.kill_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
                stream.kill_at_ms = None;
                stream.signal(Signal::SIGKILL);
            }
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.streams.iter().filter_map(|stream| stream.kill_at_ms).min()
    }

    /// Moves bytes: a bounded amount of each stream, one message at most. `send` says whether more may be sent that can
    /// wait. False when nothing could be moved.
    pub(crate) fn pump(&mut self, send: &mut impl FnMut(GuestMessage) -> bool) -> bool {
        // Another one is the first next time.
        if !self.streams.is_empty() {
            self.streams.rotate_left(1);
        }
        let (mut moved, mut has_room) = (false, true);
        self.streams.retain_mut(|stream| {
            moved |= stream.pump(&mut has_room, send);
            self.ended_inputs.extend(stream.take_left());
            let is_over = stream.is_over();
            if is_over {
                let message = stream.end.take().expect("it has ended");
                if stream.number != NOBODYS {
                    has_room &= send(GuestMessage::StreamClosed(message));
                }
            }
            !is_over
        });
        moved
    }

    fn find(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.number == number)
    }
}

impl Stream {
    fn new(number: u64, subject: Subject) -> Self {
        Self {
            number,
            subject,
            input: None,
            output: None,
            errors: None,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            end: None,
            kill_at_ms: None,
        }
    }

    fn watch(&self, epoll: &Epoll, token: u64) -> Result<()> {
        let ports = [
            (&self.input, EpollFlags::EPOLLOUT),
            (&self.output, EpollFlags::EPOLLIN),
            (&self.errors, EpollFlags::EPOLLIN),
        ];
        for (part, (port, flags)) in ports.into_iter().enumerate() {
            if let Some(port) = port {
                let event =
                    EpollEvent::new(flags | EpollFlags::EPOLLET, token + PARTS * self.number + part as u64);
                watch(epoll, &port.file, event).context("watch a descriptor")?;
            }
        }
        Ok(())
    }

    fn hang_up(&mut self, now_ms: u64) {
        (self.input, self.output, self.errors) = (None, None, None);
        match &self.subject {
            Subject::Connection { .. } | Subject::Attached(_) => {
                self.end_with(StreamEnd::Done, String::new())
            }
            Subject::Command(_) if self.end.is_none() && self.kill_at_ms.is_none() => {
                self.kill_at_ms = Some(now_ms + HANGUP_GRACE_MS);
                self.signal(Signal::SIGHUP);
            }
            Subject::Command(_) => {}
        }
    }

    /// Whose input it wrote to, once it does so no more; told once.
    fn take_left(&mut self) -> Option<Pid> {
        let Subject::Attached(attached) = &mut self.subject else { return None };
        (self.input.is_none() && std::mem::take(&mut attached.writes)).then_some(attached.pid)
    }

    fn signal(&self, signal: Signal) {
        if let Subject::Command(command) = &self.subject
            && self.end.is_none()
        {
            command.signal(signal);
        }
    }

    fn end_with(&mut self, end: StreamEnd, message: String) {
        (self.input, self.output, self.errors) = (None, None, None);
        self.end.get_or_insert(closed(self.number, end, message));
    }

    /// It has ended, and everything that it printed was sent.
    fn is_over(&self) -> bool {
        self.end.is_some() && self.output.is_none() && self.errors.is_none()
    }

    fn pump(&mut self, has_room: &mut bool, send: &mut impl FnMut(GuestMessage) -> bool) -> bool {
        if self.number == NOBODYS || !self.make_connection(send) {
            return false;
        }
        let mut moved = self.write();
        if let Some(bytes) = self.incoming.grant() {
            *has_room &= send(GuestMessage::StreamCredit(StreamCredit { stream: self.number, bytes }));
        }
        for part in [StreamPart::Output, StreamPart::Errors] {
            if *has_room && let Some(message) = self.read(part) {
                moved = true;
                message.into_iter().for_each(|message| *has_room &= send(message));
            }
        }
        if matches!(self.subject, Subject::Connection { .. }) && self.input.is_none() && self.output.is_none()
        {
            self.end_with(StreamEnd::Done, String::new());
        }
        moved
    }

    /// False while a connection is still being made, or was refused.
    fn make_connection(&mut self, send: &mut impl FnMut(GuestMessage) -> bool) -> bool {
        let Subject::Connection { is_made: is_made @ false } = &mut self.subject else { return true };
        let Some(port) = self.input.as_ref().filter(|port| port.is_ready) else { return false };
        match connection::outcome(&port.file) {
            Ok(()) => {
                *is_made = true;
                send(GuestMessage::StreamOpened(StreamOpened { stream: self.number }));
                true
            }
            Err(error) => {
                self.end_with(StreamEnd::Refused, error.to_string());
                false
            }
        }
    }

    /// Gives the process or the server what came for it.
    fn write(&mut self) -> bool {
        let mut moved = false;
        while let Some(port) = self.input.as_mut().filter(|port| port.is_ready) {
            let Some(bytes) = self.incoming.front() else { break };
            match port.file.write(bytes) {
                Ok(length) => {
                    self.incoming.consume(length);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => port.is_ready = false,
                // Nobody reads it any more.
                Err(_) => self.input = None,
            }
        }
        if self.input.is_none() {
            self.incoming.clear();
        }
        if self.incoming.is_over() {
            self.end_input();
        }
        moved
    }

    fn end_input(&mut self) {
        let Some(mut port) = self.input.take() else { return };
        match &self.subject {
            Subject::Connection { .. } => connection::shut_down(&port.file),
            Subject::Command(command) if command.has_terminal => {
                // The descriptor stays open beside the reading one; there is nobody to tell of a failure.
                let _ = port.file.write(END_OF_TRANSMISSION);
            }
            Subject::Command(_) | Subject::Attached(_) => {}
        }
    }

    /// One message of what there is to read. `None`: nothing, for now; `Some(None)`: something changed all the same.
    fn read(&mut self, part: StreamPart) -> Option<Option<GuestMessage>> {
        let is_connection = matches!(self.subject, Subject::Connection { .. });
        let slot = if part == StreamPart::Output { &mut self.output } else { &mut self.errors };
        let port = slot.as_mut()?;
        let room = self.outgoing.room();
        // Once the process is gone, what is not there now will never be.
        if room == 0 || !port.is_ready && self.end.is_none() {
            return None;
        }
        let mut data = vec![0; room];
        let length = match port.file.read(&mut data) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Some(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.end.is_none() => {
                port.is_ready = false;
                return None;
            }
            Err(error) if is_connection => {
                self.end_with(StreamEnd::Failed, error.to_string());
                return Some(None);
            }
            // A terminal whose last user is gone answers EIO.
            Err(_) => 0,
        };
        if length == 0 {
            *slot = None;
            if !is_connection {
                return Some(None);
            }
        }
        data.truncate(length);
        self.outgoing.spend(length);
        let (stream, part) = (self.number, part.into());
        Some(Some(GuestMessage::StreamData(StreamData { stream, part, data, end: length == 0 })))
    }
}

/// Watches a descriptor. Where an earlier copy of the same file had its number, and other copies are still open, the kernel
/// still has that one in its list: it becomes this one.
fn watch(epoll: &Epoll, file: &File, mut event: EpollEvent) -> nix::Result<()> {
    match epoll.add(file, event) {
        Err(Errno::EEXIST) => epoll.modify(file, &mut event),
        result => result,
    }
}

/// A descriptor that does not block.
fn port(fd: OwnedFd) -> Result<Port> {
    crate::container::set_nonblocking(&fd)?;
    Ok(Port { file: File::from(fd), is_ready: false })
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
