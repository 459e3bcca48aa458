//! The connection to the host: a virtio-serial port, frames in both directions, bounded buffers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use bulkhead_guest_protocol::{FrameReader, GuestMessage, HostMessage, PORT_NAME, decode, encode};
use nix::libc;

/// Logs are only added while less than this waits to be written, so that states overtake them soon.
const LOG_BACKLOG_MAX: usize = 64 * 1024;
/// States and answers beyond this are dropped; the next Hello tells all of them again.
const BACKLOG_MAX: usize = 4 << 20;
/// virtio_console copies at most 32 KiB a write.
const READ_LENGTH: usize = 32 * 1024;

/// Finds the device node of the port, if the driver has already learnt its name.
pub(crate) fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT_NAME).then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Channel<P = File> {
    port: P,
    reader: FrameReader,
    /// Bytes to write, whole frames except for the head.
    backlog: Vec<u8>,
    /// The host has said Hello since it opened its end.
    connected: bool,
}

impl Channel {
    pub(crate) fn open(path: &PathBuf) -> io::Result<Self> {
        let port = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self::new(port))
    }

    pub(crate) fn fd(&self) -> impl AsFd + '_ {
        &self.port
    }
}

impl<P> Channel<P>
where
    for<'a> &'a P: io::Read + io::Write,
{
    fn new(port: P) -> Self {
        Self { port, reader: FrameReader::new(), backlog: Vec::new(), connected: false }
    }

    /// The host is there and has said Hello.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The host said Hello: what was written before belongs to an earlier conversation.
    pub(crate) fn on_hello(&mut self) {
        self.backlog.clear();
        self.connected = true;
    }

    /// The host closed its end.
    pub(crate) fn on_hangup(&mut self) {
        self.backlog.clear();
        self.connected = false;
        self.reader = FrameReader::new();
    }

    /// Part of a frame is here and its rest is not.
    pub(crate) fn is_partial(&self) -> bool {
        self.reader.is_partial()
    }

    /// The rest of a frame did not come: its writer is gone.
    pub(crate) fn abandon_partial(&mut self) -> Vec<HostMessage> {
        self.reader.abandon_partial();
        self.take_messages()
    }

    /// Reads until the port has nothing more and returns the whole messages.
    pub(crate) fn read(&mut self) -> Vec<HostMessage> {
        let mut messages = Vec::new();
        let mut buffer = vec![0; READ_LENGTH];
        loop {
            match (&self.port).read(&mut buffer) {
                // 0: the host's end is closed; a hang-up event tells it.
                Ok(0) => break,
                Ok(length) => {
                    self.reader.push(&buffer[..length]);
                    messages.append(&mut self.take_messages());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    eprintln!("bulkhead-guest: reading from the host: {error}");
                    break;
                }
            }
        }
        messages
    }

    /// Queues a message if somebody listens.
    pub(crate) fn send(&mut self, message: &GuestMessage) {
        if !self.connected || self.backlog.len() > BACKLOG_MAX {
            return;
        }
        encode(message, &mut self.backlog).expect("messages of the guest fit in a frame");
    }

    /// True if log data may be queued.
    pub(crate) fn wants_logs(&self) -> bool {
        self.connected && self.backlog.len() < LOG_BACKLOG_MAX
    }

    /// True if everything is written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Writes what the port takes.
    pub(crate) fn flush(&mut self) {
        let mut written = 0;
        while written < self.backlog.len() {
            match (&self.port).write(&self.backlog[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    eprintln!("bulkhead-guest: writing to the host: {error}");
                    break;
                }
            }
        }
        self.backlog.drain(..written);
    }

    fn take_messages(&mut self) -> Vec<HostMessage> {
        let mut messages = Vec::new();
        while let Some(frame) = self.reader.next_frame() {
            match frame.map(|payload| decode_host(&payload)) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => {}
                Err(error) => eprintln!("bulkhead-guest: from the host: {error}"),
            }
        }
        messages
    }
}

fn decode_host(payload: &[u8]) -> Option<HostMessage> {
    match decode::<HostMessage>(payload) {
        Ok(message) => Some(message),
        Err(error) => {
            eprintln!("bulkhead-guest: from the host: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_guest_protocol::{FRAME_HEADER_LENGTH, Wire as _, guest, host};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel<UnixStream>, UnixStream) {
        let (guest, host) = UnixStream::pair().expect("a socket pair");
        guest.set_nonblocking(true).expect("settable");
        host.set_nonblocking(true).expect("settable");
        (Channel::new(guest), host)
    }

    fn pong(number: u64) -> GuestMessage {
        GuestMessage::Pong(guest::Pong { number })
    }

    fn ping(number: u64) -> HostMessage {
        HostMessage::Ping(host::Ping { number })
    }

    fn bytes_of(messages: &[HostMessage]) -> Vec<u8> {
        let mut out = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut out).expect("fits"));
        out
    }

    fn received(mut host: &UnixStream) -> Vec<u8> {
        let mut out = Vec::new();
        match host.read_to_end(&mut out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => out,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_queued_before_hello_and_nothing_survives_a_hang_up() {
        let (mut channel, host) = pair();
        channel.send(&pong(1));
        assert!(channel.is_flushed());
        channel.on_hello();
        channel.send(&pong(2));
        channel.on_hangup();
        channel.flush();
        assert_eq!(received(&host), [0_u8; 0]);
        channel.on_hello();
        channel.send(&pong(3));
        channel.flush();
        assert_eq!(received(&host).len(), FRAME_HEADER_LENGTH + pong(3).to_payload().len());
    }

    #[test]
    fn a_message_cut_by_a_crash_of_its_writer_does_not_hide_the_next() {
        let (mut channel, mut host) = pair();
        let all = bytes_of(&[ping(1), ping(2)]);
        host.write_all(&bytes_of(&[ping(7)])[..17]).expect("buffered");
        assert_eq!(channel.read(), []);
        assert!(channel.is_partial());
        // The next bytes complete the cut frame, whose checksum then gives it away.
        host.write_all(&all).expect("buffered");
        assert_eq!(channel.read(), [ping(1), ping(2)]);
        // The same with a cut frame that asks for more than what follows: only giving up on it helps.
        let hello = HostMessage::ResumeLogs(host::ResumeLogs { container: "a".repeat(60), from_offset: 1 });
        host.write_all(&bytes_of(&[hello])[..20]).expect("buffered");
        host.write_all(&bytes_of(&[ping(3)])).expect("buffered");
        assert_eq!(channel.read(), []);
        assert_eq!(channel.abandon_partial(), [ping(3)]);
    }

    #[test]
    fn a_full_port_keeps_the_rest() {
        let (mut channel, host) = pair();
        channel.on_hello();
        let mut sent = 0;
        while channel.wants_logs() || sent < 1 << 20 {
            channel.send(&GuestMessage::LogChunk(guest::LogChunk {
                data: vec![b'x'; 30_000],
                ..Default::default()
            }));
            channel.flush();
            sent += 30_000;
        }
        assert!(!channel.is_flushed() && !channel.wants_logs());
        let mut reader = FrameReader::new();
        let mut frames = 0;
        while !channel.is_flushed() {
            reader.push(&received(&host));
            channel.flush();
        }
        reader.push(&received(&host));
        while let Some(frame) = reader.next_frame() {
            frame.expect("whole");
            frames += 1;
        }
        assert_eq!(frames * 30_000, sent);
    }
}
