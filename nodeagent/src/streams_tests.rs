//! Clients' streams through the agent's channel to a guest made here.

use std::net::{IpAddr, Ipv4Addr};

use bulkhead_guest_protocol::guest::{
    self, StreamClosed, StreamCredit, StreamData, StreamEnd, StreamOpened, StreamPart,
};
use bulkhead_guest_protocol::host::PodConfig;
use bulkhead_guest_protocol::stream::{Connect, Incoming, Outgoing};
use bulkhead_guest_protocol::{FrameReader, PROTOCOL_VERSION, decode, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::channel::Talk;
use crate::host_ports::{BoundPorts, HostPort};
use crate::podio::begin;

/// Connections to it are answered with what they send.
const ECHO: u16 = 80;
/// Connections to it are answered with bytes for ever.
const SOURCE: u16 = 81;
/// Connections to it are refused.
const CLOSED: u16 = 82;

/// One connection in the guest.
struct End {
    port: u32,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// A guest that keeps to the rules, until the agent closes the channel.
struct FakeGuest {
    socket: UnixStream,
    reader: FrameReader,
    ends: BTreeMap<u64, End>,
    knows_streams: bool,
}

impl FakeGuest {
    async fn run(mut self) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = self.socket.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            self.reader.push(&buffer[..length]);
            while let Some(frame) = self.reader.next_frame() {
                let message = decode::<HostMessage>(&frame.expect("whole")).expect("a message");
                let mut answers = self.answer(message);
                answers.extend(self.move_bytes());
                let mut out = Vec::new();
                answers.iter().for_each(|message| encode(message, &mut out).expect("short enough"));
                if self.socket.write_all(&out).await.is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&mut self, message: HostMessage) -> Vec<GuestMessage> {
        let closed = |stream, end: StreamEnd, message: &str| {
            let message = message.to_owned();
            GuestMessage::StreamClosed(StreamClosed { stream, end: end.into(), exit_code: None, message })
        };
        match message {
            HostMessage::Hello(_) => vec![GuestMessage::Hello(guest::Hello {
                protocol_version: PROTOCOL_VERSION,
                configured: true,
                streams: self.knows_streams,
                ..guest::Hello::default()
            })],
            HostMessage::StreamOpen(open) => {
                let Some(StreamKind::Connect(Connect { port, .. })) = open.kind else { panic!("{open:?}") };
                if port == u32::from(CLOSED) {
                    return vec![closed(open.stream, StreamEnd::Refused, "refused")];
                }
                let (incoming, outgoing) = Default::default();
                self.ends.insert(open.stream, End { port, incoming, outgoing });
                vec![GuestMessage::StreamOpened(StreamOpened { stream: open.stream })]
            }
            HostMessage::StreamData(data) => {
                let end = self.ends.get_mut(&data.stream).expect("open");
                end.incoming.push(StreamPart::Output, data.data, data.end).expect("within the window");
                Vec::new()
            }
            HostMessage::StreamCredit(credit) => {
                self.ends.get_mut(&credit.stream).expect("open").outgoing.grant(credit.bytes);
                Vec::new()
            }
            HostMessage::StreamClose(close) => {
                self.ends.remove(&close.stream);
                vec![closed(close.stream, StreamEnd::Done, "")]
            }
            _ => Vec::new(),
        }
    }

    fn move_bytes(&mut self) -> Vec<GuestMessage> {
        let mut out = Vec::new();
        self.ends.retain(|&stream, end| {
            let part = StreamPart::Output.into();
            loop {
                let room = end.outgoing.room();
                let data = match end.incoming.front() {
                    _ if room == 0 => break,
                    Some(front) => front[..front.len().min(room)].to_vec(),
                    None if end.port == u32::from(SOURCE) => vec![b'x'; room],
                    None => break,
                };
                if end.incoming.front().is_some() {
                    end.incoming.consume(data.len());
                }
                end.outgoing.spend(data.len());
                out.push(GuestMessage::StreamData(StreamData { stream, part, data, end: false }));
            }
            if let Some(bytes) = end.incoming.grant() {
                out.push(GuestMessage::StreamCredit(StreamCredit { stream, bytes }));
            }
            let is_over = end.incoming.is_over() && end.outgoing.room() > 0;
            if is_over {
                let data = StreamData { stream, part, data: Vec::new(), end: true };
                out.push(GuestMessage::StreamData(data));
                out.push(GuestMessage::StreamClosed(StreamClosed { stream, ..StreamClosed::default() }));
            }
            !is_over
        });
        out
    }
}

/// Streams with such a guest, the agent's channel to it, and what ends it.
fn guest(knows_streams: bool) -> (GuestStreams, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let (ends, reader) = (BTreeMap::new(), FrameReader::new());
    tokio::spawn(FakeGuest { socket: theirs, reader, ends, knows_streams }.run());
    let streams = GuestStreams::default();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (inputs, mut told) = mpsc::channel(1000);
    let (stop, stopped) = watch::channel(None);
    let mut talk = Talk {
        pod: ObjectId(7),
        instance: 1,
        config: PodConfig::default(),
        logs: crate::logs::LogStore::default().pod(ObjectId(7), dir.path()),
        streams: streams.clone(),
        inputs,
        files: watch::channel(Vec::new()).1,
        volume_orders: mpsc::channel(1).1,
        resizing: mpsc::channel(1).1,
        stop: stopped,
        times: bulkhead_nodeagent_core::GuestTimes::new(0, crate::clock::both()),
        start: None,
        starts: std::sync::Arc::default(),
        look_every: std::time::Duration::from_secs(60),
        still: std::sync::Arc::default(),
    };
    let ended = streams.clone();
    let talking = tokio::spawn(async move {
        let _kept = (dir, stop);
        let _ = talk.run(ours).await;
        ended.end("the pod's guest has ended");
    });
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    (streams, talking)
}

fn connect(port: u16) -> StreamKind {
    StreamKind::Connect(Connect { port: port.into(), own_address: false })
}

/// Sends these bytes and gives what comes back, which is as many.
async fn echo(stream: &GuestStream, data: &[u8]) -> Vec<u8> {
    let write = async {
        assert!(stream.write(data).await);
        stream.finish();
    };
    let read = async {
        let mut all = Vec::new();
        loop {
            match stream.next().await {
                StreamEvent::Data(_, bytes) => all.extend(bytes),
                StreamEvent::Closed(_) => return all,
                StreamEvent::Opened | StreamEvent::End => {}
            }
        }
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let (streams, _talking) = guest(true);
    let stuck = begin(&streams, connect(SOURCE)).await.expect("open");
    // Longer than several windows, in both directions.
    let data: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let other = begin(&streams, connect(ECHO)).await.expect("open");
    assert!(echo(&other, &data).await == data);
    let mut waiting = 0;
    while waiting < bulkhead_guest_protocol::stream::STREAM_WINDOW - 16 * 1024 {
        let StreamEvent::Data(_, bytes) = stuck.next().await else { panic!("data") };
        waiting += bytes.len();
    }
    drop((stuck, other));
    assert!(echo(&begin(&streams, connect(ECHO)).await.expect("open"), b"again").await == b"again");
}

#[tokio::test]
async fn refusals_and_ends_say_why() {
    let (streams, talking) = guest(true);
    let refused = begin(&streams, connect(CLOSED)).await.expect_err("refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::FailedPrecondition, "port 82 in the pod: refused")
    );
    let invalid = begin(&streams, connect(0)).await.expect_err("no port");
    assert_eq!(invalid.code(), tonic::Code::InvalidArgument);
    let mut open = Vec::new();
    let too_many = loop {
        match begin(&streams, connect(ECHO)).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(open.len(), bulkhead_guest_protocol::stream::CONNECTIONS_MAX);
    assert_eq!(too_many.code(), tonic::Code::ResourceExhausted);
    talking.abort();
    let _ = talking.await;
    streams.end("the pod's guest has ended");
    let StreamEvent::Closed(closed) = open[0].next().await else { panic!("closed") };
    assert_eq!((closed.end(), closed.message.as_str()), (StreamEnd::Failed, "the pod's guest has ended"));

    let (old, _talking) = guest(false);
    let refused = begin(&old, connect(ECHO)).await.expect_err("an old guest");
    assert!(refused.message().contains("an earlier version"), "{refused}");
}

#[tokio::test]
async fn host_ports_lead_into_the_pod() {
    let (streams, _talking) = guest(true);
    let host_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = |container_port| HostPort { host_ip, host_port: 0, container_port };
    let ports = BoundPorts::bind(&[port(ECHO), port(CLOSED)]).await.expect("bound").serve(&streams);
    let [to_echo, to_closed] = ports.addresses[..] else { panic!("two") };
    let mut both: Vec<TcpStream> = Vec::new();
    for text in ["one", "two"] {
        let mut socket = TcpStream::connect(to_echo).await.expect("connected");
        socket.write_all(text.as_bytes()).await.expect("written");
        both.push(socket);
    }
    for (socket, expected) in both.iter_mut().zip(["one", "two"]) {
        socket.shutdown().await.expect("half-closed");
        let mut text = String::new();
        socket.read_to_string(&mut text).await.expect("until the end");
        assert_eq!(text, expected);
    }
    let mut refused = TcpStream::connect(to_closed).await.expect("accepted, at first");
    assert_eq!(refused.read(&mut [0; 8]).await.unwrap_or(0), 0);

    let taken = HostPort { host_ip, host_port: to_echo.port(), container_port: 1 };
    let error = BoundPorts::bind(&[taken]).await.expect_err("taken");
    assert!(error.to_string().starts_with(&format!("host port {to_echo}: ")), "{error}");
    drop(ports);
    // The listeners end when their tasks are next looked at.
    while TcpStream::connect(to_echo).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
