//! Route netlink: the socket and the parser of all of the agent's requests, and one conversation for links, addresses and routes, which
//! is kept.
//!
//! ```text
//!  request ─► the connection that there is ─► kernel ─► its answers, until it says that these are all
//!             └─ of another network namespace, or ended: another one
//! ```
//! A socket stays in the network namespace in which it was made, so a thread of another one never uses it. What the kernel refuses
//! is an answer, and the connection as good as before. One that fails is given up: with nothing sent another one is tried at once;
//! else the change may have been made or not, which whoever asked for it has to know.
//!
//! [`Socket`] is also what `vf_settings` asks by, which reads answers itself.
//!
//! Source: `netlink(7)`, `rtnetlink(7)`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use bulkhead_nodeagent_core::hardware::network_namespace;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::machine::MachineTree;

/// Room for one part of an answer about links, in bytes: the kernel makes parts of lists as large as they fit into 32 KiB, and one link,
/// with its counters and without its virtual functions, is far smaller.
const PART_BYTES_MAX: usize = 64 << 10;
/// Most that one answer has in all its parts, in bytes: tens of thousands of links.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long an answer may not come, in seconds. The kernel does what it is asked for while it is sent to, and then has its answer ready; a
/// driver that asks its firmware takes some.
const ANSWER_WITHIN_S: i64 = 30;
/// How often something is listed that changes meanwhile, before what was told is taken.
const LISTINGS_MAX: usize = 4;
/// Length of `struct nlmsghdr`, and where flags and number are in it.
const HEADER_BYTES: usize = 16;
const FLAGS: std::ops::Range<usize> = 6..8;
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// The connection that is kept, once there is one.
#[derive(Debug, Default)]
pub(super) struct Netlink(Mutex<Option<Connection>>);

impl Netlink {
    /// Asks for one change, or one object.
    ///
    /// # Errors
    /// What the kernel says; or why it was not asked, or did not answer.
    pub(super) fn request(
        &self,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Ok(self.ask(message, flags)?.messages)
    }

    /// Asks for all objects of a kind.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub(super) fn list(&self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answer = self.ask(message, NLM_F_DUMP)?;
        for _ in 1..LISTINGS_MAX {
            if !answer.is_inconsistent {
                break;
            }
            answer = self.ask(message, NLM_F_DUMP)?;
        }
        Ok(answer.messages)
    }

    fn ask(&self, message: &RouteNetlinkMessage, flags: u16) -> io::Result<Answer> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespace();
        // What fails leaves none behind.
        let connection = kept.take().filter(|kept| kept.namespace == namespace);
        let is_old = connection.is_some();
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(namespace.clone())?,
        };
        let mut answer = connection.ask(message, flags);
        if let (Err(Failure::Unsent(_)), true) = (&answer, is_old) {
            connection = Connection::open(namespace)?;
            answer = connection.ask(message, flags);
        }
        match answer {
            Ok(answer) => {
                *kept = Some(connection);
                Ok(answer)
            }
            Err(Failure::Refused(errno)) => {
                *kept = Some(connection);
                Err(errno.into())
            }
            Err(Failure::Unsent(error) | Failure::Lost(error)) => Err(error),
        }
    }
}

/// The network namespace of this thread; unset where /proc does not say.
fn namespace() -> Option<String> {
    network_namespace(&MachineTree::new("/"))
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel said no.
    Refused(Errno),
    /// It was not asked.
    Unsent(io::Error),
    /// It was asked, and what it said is not known.
    Lost(io::Error),
}

/// What the kernel said.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// What is listed changed meanwhile: something may be missing.
    is_inconsistent: bool,
}

/// A socket with where it was made.
#[derive(Debug)]
struct Connection {
    socket: Socket,
    namespace: Option<String>,
}

impl Connection {
    fn open(namespace: Option<String>) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(PART_BYTES_MAX)?, namespace })
    }

    fn ask(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Result<Answer, Failure> {
        let mut messages = Vec::new();
        let is_inconsistent = self.socket.ask(&bytes(message, flags, 0), |message| {
            // What cannot be read here is of somebody else's link, of a kind that is not known here.
            let read = NetlinkMessage::deserialize(message).map(|message| message.payload);
            if let Ok(NetlinkPayload::InnerMessage(message)) = read {
                messages.push(message);
            }
        })?;
        Ok(Answer { messages, is_inconsistent })
    }
}

/// A socket of route netlink, in the network namespace of the thread that made it. One request after the other.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    /// Of the last request.
    sequence: u32,
    /// Room for one part of an answer.
    buffer: Vec<u8>,
}

impl Socket {
    /// One that takes parts of answers of so many bytes.
    ///
    /// # Errors
    /// When there can be none.
    pub(crate) fn open(part_bytes_max: usize) -> io::Result<Self> {
        let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, kind.0, kind.1, kind.2)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_S, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; part_bytes_max] })
    }

    /// Asks with one message, which gets its number here, and hands over each message of the answer as it came, its header included.
    /// Whether what is listed changed meanwhile.
    ///
    /// # Errors
    /// What the kernel says; or why it was not asked, or what it said is not known.
    pub(crate) fn ask(&mut self, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<bool, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = numbered(request, self.sequence).map_err(Failure::Unsent)?;
        // A socket that is bound to nobody talks to the kernel.
        let sent = interrupted(|| send(self.socket.as_raw_fd(), &request, MsgFlags::empty()));
        sent.map_err(|errno| Failure::Unsent(errno.into()))?;
        let mut reading = Reading::of(self.sequence);
        loop {
            let part = self.receive().map_err(Failure::Lost)?;
            if reading.take(&self.buffer[..part], &mut each)? {
                return Ok(reading.is_inconsistent);
            }
        }
    }

    /// The length of the next part of an answer.
    fn receive(&mut self) -> io::Result<usize> {
        // With this flag the length is that of the part, whether there is room for it or not.
        let received = interrupted(|| recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC));
        match received {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) if length > self.buffer.len() => {
                Err(io::Error::other(format!("the kernel's answer has {length} bytes at once")))
            }
            Ok(length) => Ok(length),
            Err(Errno::EAGAIN) => {
                let message = format!("the kernel did not answer within {ANSWER_WITHIN_S} s");
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A request with its number, of which the end of the answer is told: that of a list always is.
fn numbered(request: &[u8], sequence: u32) -> io::Result<Vec<u8>> {
    if request.len() < HEADER_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = request.to_vec();
    let flags = u16::from_ne_bytes([request[FLAGS.start], request[FLAGS.start + 1]]);
    let ends = if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
    request[FLAGS].copy_from_slice(&(flags | NLM_F_REQUEST | ends).to_ne_bytes());
    request[SEQUENCE].copy_from_slice(&sequence.to_ne_bytes());
    Ok(request)
}

/// Does a call again that a signal interrupted.
fn interrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn bytes(message: &RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (flags, sequence);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message.clone()));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The answer to a request as it comes.
#[derive(Debug)]
struct Reading {
    /// The number of the request: what has another one answers another.
    sequence: u32,
    /// How much more it may have.
    left_bytes: usize,
    is_inconsistent: bool,
}

impl Reading {
    fn of(sequence: u32) -> Self {
        Self { sequence, left_bytes: ANSWER_BYTES_MAX, is_inconsistent: false }
    }

    /// Takes a part of it; whether it was the last one.
    fn take(&mut self, mut part: &[u8], each: &mut impl FnMut(&[u8])) -> Result<bool, Failure> {
        let lost = |what: &str| Failure::Lost(io::Error::other(format!("the kernel's answer {what}")));
        let cut = || lost("is cut off");
        self.left_bytes = self.left_bytes.checked_sub(part.len()).ok_or_else(|| lost("has no end"))?;
        let mut is_last = false;
        while !part.is_empty() {
            let message = NetlinkBuffer::new_checked(part).map_err(|_| cut())?;
            let length = usize::try_from(message.length()).map_err(|_| cut())?;
            let (kind, flags, is_ours) =
                (message.message_type(), message.flags(), message.sequence_number() == self.sequence);
            let (this, rest) = (&part[..length], part.get(length.next_multiple_of(4)..).unwrap_or_default());
            part = rest;
            if !is_ours {
                continue;
            }
            self.is_inconsistent |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                // Both begin with a number, which is negative when it is an error's.
                NLMSG_ERROR | NLMSG_DONE => {
                    let code = this.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|code| code.try_into().ok());
                    let code = i32::from_ne_bytes(code.ok_or_else(cut)?);
                    if code < 0 {
                        return Err(Failure::Refused(Errno::from_raw(code.saturating_neg())));
                    }
                    is_last = true;
                }
                NLMSG_OVERRUN => return Err(lost("is not whole")),
                NLMSG_NOOP => {}
                _ => each(this),
            }
        }
        Ok(is_last)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use netlink_packet_core::NLM_F_MULTIPART;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn link(name: &str) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::NewLink(link)
    }

    /// `struct nlmsghdr` with a number behind it.
    fn end(kind: u16, sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes
    }

    fn name(message: &[u8]) -> String {
        match NetlinkMessage::deserialize(message).expect("whole").payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                format!("{:?}", link.attributes)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What comes of the parts of an answer to request 7.
    fn check(parts: &[Vec<u8>], expected: Result<(bool, &[&str]), &str>) {
        let (mut reading, mut names) = (Reading::of(7), Vec::new());
        let mut outcome = Ok(false);
        for part in parts {
            assert!(matches!(outcome, Ok(false)), "{outcome:?} is no end");
            outcome = reading.take(part, &mut |message| names.push(name(message)));
        }
        match (outcome, expected) {
            (Ok(is_last), Ok((wanted, links))) => {
                let links: Vec<_> = links.iter().map(|name| format!("[IfName({name:?})]")).collect();
                assert_eq!((is_last, names), (wanted, links));
            }
            (Err(failure), Err(wanted)) => assert!(format!("{failure:?}").contains(wanted), "{failure:?}"),
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn answers_are_read_until_their_end() {
        let link = |name: &str, sequence| bytes(&link(name), NLM_F_MULTIPART, sequence);
        check(&[end(NLMSG_ERROR, 7, 0)], Ok((true, &[])));
        check(&[link("a", 7), end(NLMSG_ERROR, 7, 0)], Ok((true, &["a"])));
        let both = [link("a", 7), link("bcd", 7)].concat();
        check(&[both.clone(), link("e", 7), end(NLMSG_DONE, 7, 0)], Ok((true, &["a", "bcd", "e"])));
        check(&[[both, end(NLMSG_DONE, 7, 0)].concat()], Ok((true, &["a", "bcd"])));
        // Answers to others.
        check(&[end(NLMSG_ERROR, 6, -1), link("a", 8)], Ok((false, &[])));
        check(&[end(NLMSG_ERROR, 7, -19)], Err("Refused(ENODEV)"));
        check(&[link("a", 7), end(NLMSG_DONE, 7, -4)], Err("Refused(EINTR)"));
        check(&[end(NLMSG_OVERRUN, 7, 0)], Err("not whole"));
        check(&[link("a", 7)[..20].to_vec()], Err("cut off"));
        check(&[vec![1]], Err("cut off"));
        let mut reading = Reading::of(7);
        let interrupted = bytes(&self::link("a"), NLM_F_MULTIPART | NLM_F_DUMP_INTR, 7);
        assert!(!reading.take(&interrupted, &mut |_| {}).expect("a part") && reading.is_inconsistent);
    }

    #[test]
    fn an_answer_without_an_end_is_given_up() {
        let part = link_part(1 << 20);
        let (mut reading, mut taken) = (Reading::of(7), 0);
        let failure = loop {
            match reading.take(&part, &mut |message| taken += message.len()) {
                Ok(is_last) => assert!(!is_last && taken <= ANSWER_BYTES_MAX),
                Err(failure) => break failure,
            }
        };
        assert!(format!("{failure:?}").contains("has no end") && taken <= ANSWER_BYTES_MAX, "{failure:?}");
        // What others are told counts as well: nobody else's flood keeps this one reading.
        let mut reading = Reading::of(8);
        let all = (0..=ANSWER_BYTES_MAX / part.len()).map(|_| reading.take(&part, &mut |_| {}));
        assert!(all.last().is_some_and(|last| last.is_err()));
    }

    /// A part of so many bytes, at least, of an answer to request 7.
    fn link_part(bytes_min: usize) -> Vec<u8> {
        let one = bytes(&link("a"), NLM_F_MULTIPART, 7);
        one.repeat(bytes_min.div_ceil(one.len()))
    }

    #[test]
    fn requests_have_a_number_and_an_end() {
        let check = |flags: u16, expected: u16| {
            let request = numbered(&bytes(&get("lo"), flags, 99), 7).expect("whole");
            let message = NetlinkBuffer::new_checked(&request).expect("whole");
            assert_eq!((message.flags(), message.sequence_number()), (expected, 7));
        };
        check(0, NLM_F_REQUEST | NLM_F_ACK);
        check(NLM_F_REQUEST | NLM_F_ACK, NLM_F_REQUEST | NLM_F_ACK);
        check(NLM_F_DUMP, NLM_F_REQUEST | NLM_F_DUMP);
        // Half of a dump is none.
        check(NLM_F_DUMP & 0x100, NLM_F_REQUEST | NLM_F_ACK | 0x100);
        assert!(numbered(&[0; 15], 7).is_err());
    }

    /// A connection to somebody who says this to whatever is asked, or is gone.
    fn connected_to(says: Option<&[Vec<u8>]>) -> (Netlink, Option<UnixDatagram>) {
        let (ours, theirs) = UnixDatagram::pair().expect("sockets");
        ours.set_read_timeout(Some(std::time::Duration::from_millis(1))).expect("set");
        says.into_iter().flatten().for_each(|part| _ = theirs.send(part).expect("sent"));
        let socket = OwnedFd::from(ours);
        let socket = Socket { socket, sequence: 0, buffer: vec![0; 64] };
        let connection = Connection { socket, namespace: namespace() };
        (Netlink(Mutex::new(Some(connection))), says.map(|_| theirs))
    }

    fn is_kept(netlink: &Netlink) -> bool {
        netlink.0.lock().expect("whole").is_some()
    }

    fn get(name: &str) -> RouteNetlinkMessage {
        match link(name) {
            RouteNetlinkMessage::NewLink(link) => RouteNetlinkMessage::GetLink(link),
            other => other,
        }
    }

    #[test]
    fn a_connection_that_ended_is_opened_again_and_one_that_fails_is_said_so() {
        // Nothing could be sent: the kernel is asked by another one.
        let (ended, _) = connected_to(None);
        assert_eq!(ended.request(&get("lo"), 0).expect("there is one").len(), 1);
        assert!(is_kept(&ended));
        // It was asked, and says nothing, or nothing that can be read: whoever asked learns of it, and the next one asks the kernel.
        let junk: [(&[Vec<u8>], &str); 3] = [
            (&[], "did not answer within"),
            (&[vec![1; 3]], "cut off"),
            (&[vec![0; 65]], "65 bytes at once"),
        ];
        for (says, expected) in junk {
            let (netlink, _theirs) = connected_to(Some(says));
            let error = netlink.request(&get("lo"), 0).expect_err("lost").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!is_kept(&netlink));
            assert_eq!(netlink.request(&get("lo"), 0).expect("there is one").len(), 1);
        }
        // A refusal is an answer.
        let (netlink, _theirs) = connected_to(Some(&[end(NLMSG_ERROR, 1, -17)]));
        let error = netlink.request(&link("lo"), 0).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(is_kept(&netlink));
    }

    #[test]
    fn a_thread_of_another_network_namespace_has_a_connection_of_its_own() {
        let netlink = Netlink::default();
        let asked =
            |netlink: &Netlink| netlink.0.lock().expect("whole").as_ref().map(|kept| kept.socket.sequence);
        let own = namespace();
        for requests in 1..=3 {
            netlink.request(&get("lo"), 0).expect("asked");
            assert_eq!(asked(&netlink), Some(requests), "by the same connection");
        }
        let elsewhere = std::thread::scope(|scope| {
            let inside = || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
                let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
                Some((netlink.list(&all).expect("asked"), namespace()))
            };
            scope.spawn(inside).join().expect("no panic")
        });
        let Some((links, other)) = elsewhere else { return eprintln!("skipped: it needs root") };
        assert_ne!(own, other);
        assert_eq!(links.len(), 1, "only lo is there: {links:?}");
        netlink.request(&get("lo"), 0).expect("asked");
        let kept = netlink.0.lock().expect("whole").as_ref().map(|kept| kept.namespace.clone());
        assert_eq!(kept, Some(own));
    }
}
