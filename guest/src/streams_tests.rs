//! Streams whose other end is here: no container is needed for a connection.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use bulkhead_guest_protocol::stream::{Connect, STREAM_WINDOW};
use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

use super::*;

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
        let kind = Some(StreamKind::Connect(Connect { port: port.into() }));
        let answer = self.streams.open(StreamOpen { stream, kind }, None, &self.epoll, 1000);
        self.sent.extend(answer);
    }

    /// Goes on until `is_so`.
    fn until(&mut self, is_so: impl Fn(&[GuestMessage]) -> bool) {
        while !is_so(&self.sent) {
            let sent = &mut self.sent;
            while self.streams.pump(&mut |message| {
                sent.push(message);
                true
            }) {}
            if is_so(&self.sent) {
                return;
            }
            let mut events = [EpollEvent::empty(); 8];
            let timeout = EpollTimeout::from(10_000_u16);
            let count = self.epoll.wait(&mut events, timeout).expect("events");
            assert!(count > 0, "nothing happens any more: {:?}", self.sent);
            for event in &events[..count] {
                self.streams.on_event(event.data() - 1000, event.events());
            }
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
