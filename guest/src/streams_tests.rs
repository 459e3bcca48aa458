//! Streams whose other end is here: no container is needed for a connection.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use bulkhead_guest_protocol::host::ContainerConfig;
use bulkhead_guest_protocol::stream::Attach;
use bulkhead_guest_protocol::stream::{Connect, STREAM_WINDOW};
use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

use super::*;
use crate::stdio::Ends;

struct Loop {
    epoll: Epoll,
    streams: Streams,
    sent: Vec<GuestMessage>,
}

impl Loop {
    fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
        Self { epoll, streams: Streams::default(), sent: Vec::new() }
    }

    fn connect(&mut self, stream: u64, port: u16) {
        self.connect_to(stream, port, false);
    }

    fn connect_to(&mut self, stream: u64, port: u16, own_address: bool) {
        let kind = Some(StreamKind::Connect(Connect { port: port.into(), own_address }));
        let answer = self.streams.open(StreamOpen { stream, kind }, None, &self.epoll, 1000);
        self.sent.extend(answer);
    }

    /// Goes on until `is_so`.
    fn until(&mut self, is_so: impl Fn(&[GuestMessage]) -> bool) {
        while !is_so(&self.sent) {
            self.pump();
            if is_so(&self.sent) {
                return;
            }
            self.turn();
        }
    }

    /// Moves all that can be moved now.
    fn pump(&mut self) {
        let sent = &mut self.sent;
        while self.streams.pump(&mut |message| {
            sent.push(message);
            true
        }) {}
    }

    /// Waits for the next event.
    fn turn(&mut self) {
        let mut events = [EpollEvent::empty(); 8];
        let timeout = EpollTimeout::from(10_000_u16);
        let count = self.epoll.wait(&mut events, timeout).expect("events");
        assert!(count > 0, "nothing happens any more: {:?}", self.sent);
        for event in &events[..count] {
            self.streams.on_event(event.data() - 1000, event.events());
        }
    }

    fn bytes(sent: &[GuestMessage]) -> Vec<u8> {
        let data = sent.iter().filter_map(|message| match message {
            GuestMessage::StreamData(data) => Some(data.data.as_slice()),
            _ => None,
        });
        data.flatten().copied().collect()
    }
}

fn is_closed(sent: &[GuestMessage]) -> bool {
    matches!(sent.last(), Some(GuestMessage::StreamClosed(_)))
}

fn input(stream: u64, data: &[u8], end: bool) -> StreamData {
    StreamData { stream, part: 0, data: data.to_vec(), end }
}

#[test]
fn a_connection_carries_bytes_both_ways_and_each_way_ends_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut all = String::new();
        socket.read_to_string(&mut all).expect("until the client has said all");
        socket.write_all(format!("heard {all}").as_bytes()).expect("written");
    });
    let mut one = Loop::new();
    one.connect(7, port);
    one.streams.data(input(7, b"hello", true));
    one.until(is_closed);
    server.join().expect("the server ends");
    assert!(matches!(one.sent[0], GuestMessage::StreamOpened(StreamOpened { stream: 7 })));
    assert_eq!(Loop::bytes(&one.sent), b"heard hello");
    let ends = one.sent.iter().filter(|m| matches!(m, GuestMessage::StreamData(data) if data.end)).count();
    assert_eq!(ends, 1);
    let Some(GuestMessage::StreamClosed(last)) = one.sent.last() else { panic!("closed") };
    assert_eq!((last.end(), last.message.as_str()), (StreamEnd::Done, ""));
    assert!(one.streams.streams.is_empty());
}

#[test]
fn a_port_on_which_nothing_listens_refuses() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut one = Loop::new();
    one.connect(1, port);
    one.until(is_closed);
    let [GuestMessage::StreamClosed(closed)] = &one.sent[..] else { panic!("{:?}", one.sent) };
    assert_eq!(closed.end(), StreamEnd::Refused);
    assert!(closed.message.contains("refused"), "{closed:?}");
}

#[test]
fn a_container_that_does_not_run_has_no_commands() {
    let mut one = Loop::new();
    let exec = bulkhead_guest_protocol::stream::Exec { argv: vec!["true".into()], ..Default::default() };
    let open = StreamOpen { stream: 1, kind: Some(StreamKind::Exec(exec)) };
    let answer = one.streams.open(open, None, &one.epoll, 0);
    let Some(GuestMessage::StreamClosed(closed)) = answer else { panic!("{answer:?}") };
    assert_eq!(closed.end(), StreamEnd::NotRunning);
}

#[test]
fn no_more_is_read_than_the_host_has_room_for_and_a_client_that_is_gone_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        // More than all buffers on the way hold, so that it ends only with the connection.
        while socket.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let mut one = Loop::new();
    one.connect(1, port);
    let full = STREAM_WINDOW - 64 * 8;
    one.until(|sent| Loop::bytes(sent).len() > full);
    one.until(|sent| Loop::bytes(sent).len() > full);
    assert!(Loop::bytes(&one.sent).len() <= STREAM_WINDOW);
    one.streams.credit(StreamCredit { stream: 1, bytes: 20_000 });
    one.until(|sent| Loop::bytes(sent).len() > STREAM_WINDOW);
    one.streams.close(1, 0);
    one.until(is_closed);
    server.join().expect("the server sees the end");
}

#[test]
fn a_new_conversation_knows_nothing_of_the_streams_of_the_last_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut one = Loop::new();
    one.connect(1, port);
    one.until(|sent| !sent.is_empty());
    one.streams.close_all(0);
    one.sent.clear();
    one.connect(1, port);
    one.until(|sent| !sent.is_empty());
    assert!(matches!(&one.sent[..], [GuestMessage::StreamOpened(_)]), "{:?}", one.sent);
    assert_eq!(one.streams.streams.len(), 1);
}

/// A process that reads: what it would read, and the streams of its clients.
struct Reader {
    one: Loop,
    config: ContainerConfig,
    ends: Ends,
    process: File,
}

const READER: Pid = Pid::from_raw(7);

impl Reader {
    fn new() -> Self {
        let (process, input) = nix::unistd::pipe().expect("a pipe");
        crate::container::set_nonblocking(&input).expect("set");
        let ends = Ends { stdin: Some(File::from(input)), stdout: None, stderr: None };
        let config = ContainerConfig { stdin: true, ..ContainerConfig::default() };
        Self { one: Loop::new(), config, ends, process: File::from(process) }
    }

    fn attach(&mut self, number: u64, stdin: bool) -> Result<(), String> {
        let attach = Attach { container: "main".into(), stdin, size: None };
        let stream = attached::begin(number, &attach, READER, &self.config, &self.ends);
        let stream = stream.map_err(|error| format!("{error:#}"))?;
        stream.watch(&self.one.epoll, 1000).expect("watched");
        self.one.streams.streams.push(stream);
        Ok(())
    }

    /// What the process reads next.
    fn reads(&mut self, expected: &str) {
        self.one.pump();
        let mut read = vec![0; expected.len()];
        self.process.read_exact(&mut read).expect("written");
        assert_eq!(String::from_utf8_lossy(&read), expected);
    }
}

#[test]
fn clients_write_to_a_process_and_leave_it_until_the_last_word_carries_its_exit_code() {
    let mut reader = Reader::new();
    reader.attach(1, true).expect("it reads");
    reader.attach(2, false).expect("it runs");
    // The news that its input has room.
    reader.one.turn();
    reader.one.streams.data(input(1, b"first", false));
    reader.reads("first");
    assert!(reader.one.streams.take_ended_inputs().is_empty(), "it may write more");
    // One that says that it has no more, one that goes away, and one that never wrote.
    reader.one.streams.data(input(1, b"last", true));
    reader.reads("last");
    assert_eq!(reader.one.streams.take_ended_inputs(), [READER]);
    reader.attach(3, true).expect("its input is still open: it is not said to end with the first");
    reader.one.streams.close(3, 0);
    reader.one.streams.close(2, 0);
    assert_eq!(reader.one.streams.take_ended_inputs(), [READER]);
    reader.one.streams.end_attached(READER, 3);
    reader.one.until(|sent| sent.iter().filter(|m| matches!(m, GuestMessage::StreamClosed(_))).count() == 3);
    let codes = reader.one.sent.iter().filter_map(|message| match message {
        GuestMessage::StreamClosed(closed) => Some((closed.stream, closed.exit_code)),
        _ => None,
    });
    let codes: std::collections::BTreeMap<u64, Option<i32>> = codes.collect();
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [(1, Some(3)), (2, None), (3, None)]);
    assert!(reader.one.streams.streams.is_empty());
}

#[test]
fn a_process_whose_input_is_over_says_so_and_others_lose_it_with_the_first() {
    let mut reader = Reader::new();
    reader.attach(1, true).expect("it reads");
    reader.one.streams.close_inputs(READER);
    reader.ends.stdin = None;
    let mut rest = String::new();
    reader.process.read_to_string(&mut rest).expect("nobody holds its input any more");
    assert_eq!(rest, "");
    let refused = reader.attach(2, true).expect_err("it is over");
    assert!(refused.contains("stdinOnce"), "{refused}");
    reader.config.stdin = false;
    let refused = reader.attach(3, true).expect_err("it reads nothing");
    assert!(refused.contains("does not say stdin: true"), "{refused}");
    reader.attach(4, false).expect("its output is there for everybody");
}

#[test]
fn a_connection_goes_to_the_pods_own_address_where_it_is_asked_for() {
    let own = Ipv4Addr::new(127, 0, 0, 2);
    let listener = TcpListener::bind((own, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let open = |own_address, address: Option<Ipv4Addr>| {
        let mut one = Loop::new();
        one.streams.own_address = address.map(IpAddr::from);
        one.connect_to(1, port, own_address);
        one.until(|sent| !sent.is_empty());
        matches!(one.sent[0], GuestMessage::StreamOpened(_))
    };
    assert!(open(true, Some(own)));
    assert!(!open(false, Some(own)), "only the own address is listened at");
    assert!(!open(true, None), "a pod without a network has the loopback only");
}
