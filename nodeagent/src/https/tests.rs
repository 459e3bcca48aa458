//! HTTPS against servers good and hostile, and what guests hand over.

#[path = "../../../guest/http/testing/server.rs"]
mod server;

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::sync::Arc;

use bulkhead_guest_http::USER_AGENT;
use bulkhead_guest_protocol::guest::{GuestMessage, StreamData, StreamOpened, StreamPart};
use bulkhead_guest_protocol::host::{HostMessage, StreamKind};
use bulkhead_guest_protocol::stream::StreamClosed;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use server::{check_of, read_head, serve};

use super::*;

/// The certificate of `elsewhere.example`, by itself, which was over in 2020; and the key for it, which is for these tests only.
const CERTIFICATE: &[u8] = include_bytes!("testdata/cert.der");
const KEY: &[u8] = include_bytes!("testdata/key.der");

fn server_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    builder
        .expect("they are known")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_slice(CERTIFICATE)],
            PrivatePkcs8KeyDer::from(KEY.to_vec()).into(),
        )
        .expect("a key and its certificate")
}

/// Speaks TLS over a connection.
fn by_tls<T>(
    mut stream: TcpStream,
    config: ServerConfig,
    talk: impl FnOnce(&mut rustls::Stream<'_, ServerConnection, TcpStream>) -> T,
) -> T {
    let mut connection = ServerConnection::new(Arc::new(config)).expect("it can begin");
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let found = talk(&mut tls);
    tls.conn.send_close_notify();
    let _ = tls.flush();
    found
}

/// Connects to servers of the test itself.
struct Local;

impl Dial for Local {
    async fn dial(&self, place: &Place) -> Result<(Io, bool), Failure> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", place.port)).await;
        connected(stream.map_err(|error| error.to_string())?, place).await
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// What stands for the pod's own address, which is no address of this machine.
const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const OWN_IN_GUEST: &str = "192.0.2.7";
const WITHIN: Duration = Duration::from_secs(60);

fn ask(kind: Check) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
    runtime.block_on(answer(&CheckConfig::of(kind), LOOPBACK, WITHIN, &Local))
}

fn both() -> Vec<&'static rustls::SupportedProtocolVersion> {
    vec![&rustls::version::TLS13, &rustls::version::TLS12]
}

#[test]
fn any_certificate_will_do_and_the_request_is_the_kubelets() {
    for version in both() {
        let (port, asked) = serve(1, move |_, stream| {
            by_tls(stream, server_config(&[version]), |tls| {
                let head = read_head(tls);
                tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answered");
                (head, tls.conn.server_name().map(str::to_owned))
            })
        });
        let headers = [("Host", "web.example"), ("X-Own", "1"), ("x-own", "2"), ("Accept", "")];
        assert_eq!(ask(Check::Https(check_of(port, &headers))), Ok(()), "{version:?}");
        let (head, name) = asked.join().expect("no panic").remove(0);
        let mut lines: Vec<String> = head.trim_end().lines().map(str::to_lowercase).collect();
        lines.sort();
        let agent = format!("user-agent: {USER_AGENT}");
        let expected = [
            "connection: close",
            "get /ready?full http/1.1",
            "host: web.example",
            &agent,
            "x-own: 1",
            "x-own: 2",
        ];
        assert_eq!(lines, expected);
        assert_eq!(name, None, "an address has no server name");
    }
}

#[test]
fn a_server_that_speaks_http2_only_is_asked_by_it() {
    use hyper::service::service_fn;
    let (tell, port) = std::sync::mpsc::channel();
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
            tell.send(listener.local_addr().expect("an address").port()).expect("awaited");
            let (stream, _) = listener.accept().await.expect("asked");
            let mut config = server_config(&both());
            config.alpn_protocols = vec![b"h2".to_vec()];
            let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.expect("TLS");
            let (found, mut heard) = tokio::sync::mpsc::unbounded_channel();
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let uri = request.uri().to_string();
                let _ = found.send((uri, request.headers().get("x-own").cloned()));
                async {
                    Ok::<_, String>(hyper::Response::new(http_body_util::Empty::<hyper::body::Bytes>::new()))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
            heard.recv().await.expect("a request")
        })
    });
    let port = port.recv().expect("bound");
    let headers = [("X-Own", "1"), ("Connection", "close")];
    assert_eq!(ask(Check::Https(check_of(port, &headers))), Ok(()));
    let (uri, own) = asked.join().expect("no panic");
    assert_eq!(uri, format!("https://127.0.0.1:{port}/ready?full"));
    assert_eq!(own.expect("sent"), "1");
}

#[test]
fn http_leads_to_https() {
    let (secure, _) = serve(1, |_, stream| {
        by_tls(stream, server_config(&both()), |tls| {
            read_head(tls);
            tls.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").expect("answered");
        });
    });
    let (plain, _) = serve(1, move |_, mut stream| {
        read_head(&mut stream);
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:{secure}/\r\n\r\n");
        stream.write_all(answer.as_bytes()).expect("answered");
    });
    let found = ask(Check::Http(check_of(plain, &[])));
    assert_eq!(found, Err("HTTP status 500 Internal Server Error".to_owned()));
}

/// A server that answers the first bytes of TLS with these, and ends.
fn check_garbage(answer: Vec<u8>, expected: &str) {
    let (port, _) = serve(1, move |_, mut stream| {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).expect("read");
        assert_eq!(buffer[..length.min(1)], [22], "a handshake");
        stream.write_all(&answer).expect("answered");
    });
    let found = ask(Check::Https(check_of(port, &[]))).expect_err("no TLS");
    assert!(found.starts_with(expected), "{found}, not {expected}");
}

#[test]
fn a_server_that_speaks_no_tls_is_no_success() {
    check_garbage(Vec::new(), "TLS: ");
    check_garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "TLS: the server speaks no TLS: ");
    check_garbage(vec![0xff; 70_000], "TLS: the server speaks no TLS: ");
    // A handshake message of 16 MiB, in as many records as it takes.
    let record = |body: &[u8]| [&[22, 3, 3, 0x40, 0][..], body].concat();
    let mut endless = record(&[&[2, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat());
    (0..20).for_each(|_| endless.extend(record(&[0; 16_384])));
    check_garbage(endless, "TLS: ");
    // An alert: fatal, handshake failure.
    check_garbage(vec![21, 3, 3, 0, 2, 2, 40], "TLS: received fatal alert: ");
}

#[tokio::test]
async fn a_peer_that_stalls_is_given_up_and_holds_up_nobody() {
    // One that says nothing, and one that stops within its greeting.
    for greeting in [&b""[..], &[22, 3, 3, 0, 100, 2, 0, 0, 96]] {
        let (port, server) = serve(1, move |_, mut stream| {
            stream.write_all(greeting).expect("sent");
            let mut all = Vec::new();
            // Until the client is gone.
            let _ = stream.read_to_end(&mut all);
        });
        let check = CheckConfig::of(Check::Https(check_of(port, &[])));
        let found = answer(&check, LOOPBACK, Duration::from_millis(300), &Local).await;
        assert_eq!(found, Err("no answer within 300 ms".to_owned()));
        tokio::task::spawn_blocking(|| server.join().expect("the connection was closed"))
            .await
            .expect("no panic");
    }
}

/// A server that sends a head and then the same bytes until nobody takes them; how many it could.
fn check_endless(tls: bool, head: &'static [u8], more: &'static [u8], expected: Result<(), &str>) {
    const MOST: usize = 64 << 20;
    let pour = move |stream: &mut dyn Write| {
        let mut poured = 0;
        stream.write_all(head).expect("answered");
        while poured < MOST && stream.write_all(more).is_ok() {
            poured += more.len();
        }
        poured
    };
    let (port, poured) = serve(1, move |_, mut stream| {
        if tls {
            by_tls(stream, server_config(&both()), |tls| {
                read_head(tls);
                pour(tls)
            })
        } else {
            read_head(&mut stream);
            pour(&mut stream)
        }
    });
    let check = check_of(port, &[]);
    let found = ask(if tls { Check::Https(check) } else { Check::Http(check) });
    match (found, expected) {
        (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}, not {expected}"),
        (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
    }
    let poured = poured.join().expect("no panic").remove(0);
    // What the kernel's buffers of both ends hold, and not without end.
    assert!(poured < MOST, "all of {poured} bytes were taken");
}

#[test]
fn what_has_no_end_is_not_read_to_it() {
    for tls in [false, true] {
        check_endless(tls, b"HTTP/1.1 200 OK\r\n", b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", Err("HTTP: "));
        check_endless(tls, b"HTTP/1.1 200 OK\r\nx: ", &[b'y'; 4096], Err("HTTP: "));
        check_endless(tls, b"HTTP/1.1 200 OK\r\n\r\n", &[b'z'; 4096], Ok(()));
    }
}

/// A guest that connects streams to servers of the test: as much of one as questions need. The pod's own address is [`OWN`].
async fn bridge(streams: GuestStreams) {
    let mut writers = BTreeMap::new();
    loop {
        streams.wanted().await;
        while let Some(message) = streams.next_message() {
            match message {
                HostMessage::StreamOpen(open) => {
                    let Some(StreamKind::Connect(connect)) = open.kind else { panic!("{open:?}") };
                    let port = u16::try_from(connect.port).expect("a port");
                    let host = if connect.own_address { OWN } else { LOOPBACK };
                    let server = tokio::net::TcpStream::connect((host, port)).await.expect("a server");
                    let (mut reader, writer) = server.into_split();
                    writers.insert(open.stream, writer);
                    streams.hear(GuestMessage::StreamOpened(StreamOpened { stream: open.stream }));
                    let streams = streams.clone();
                    tokio::spawn(async move {
                        let mut buffer = [0; 4096];
                        while let Ok(length @ 1..) =
                            tokio::io::AsyncReadExt::read(&mut reader, &mut buffer).await
                        {
                            let (part, data) = (StreamPart::Output.into(), buffer[..length].to_vec());
                            let data = StreamData { stream: open.stream, part, data, end: false };
                            streams.hear(GuestMessage::StreamData(data));
                        }
                        let closed = StreamClosed { stream: open.stream, ..StreamClosed::default() };
                        streams.hear(GuestMessage::StreamClosed(closed));
                    });
                }
                HostMessage::StreamData(data) => {
                    let writer = writers.get_mut(&data.stream).expect("it was opened");
                    let _ = tokio::io::AsyncWriteExt::write_all(writer, &data.data).await;
                }
                HostMessage::StreamClose(close) => drop(writers.remove(&close.stream)),
                _ => {}
            }
        }
    }
}

fn pod_of(port: u16) -> PodConfig {
    let check = CheckConfig::of(Check::Https(check_of(port, &[])));
    let probe = ProbeConfig { check: Some(check.clone()), timeout_ms: 60_000, ..ProbeConfig::default() };
    let container = ContainerConfig {
        name: "main".to_owned(),
        liveness_probe: Some(probe),
        pre_stop: Some(check),
        ..ContainerConfig::default()
    };
    PodConfig { containers: vec![container], ..PodConfig::default() }
}

fn asked(number: u64, container: &str, task: HostTask) -> AskHost {
    AskHost { number, container: container.to_owned(), task: task.into() }
}

#[tokio::test]
async fn what_a_guest_hands_over_is_asked_through_it() {
    let (port, server) = serve(2, |n, stream| {
        by_tls(stream, server_config(&both()), |tls| {
            let head = read_head(tls);
            let status = ["200 OK", "503 Unavailable"][n];
            tls.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .expect("answered");
            head.lines().next().map(str::to_owned)
        })
    });
    let (streams, pod, mut asks) = (GuestStreams::default(), pod_of(port), Asks::default());
    let guest = tokio::spawn(bridge(streams.clone()));
    asks.begin(asked(7, "main", HostTask::Liveness), &pod, &streams);
    assert_eq!(asks.next().await, HostAnswer { number: 7, error: String::new() });
    // What the pod has not is not asked; what it has goes on.
    asks.begin(asked(8, "other", HostTask::Liveness), &pod, &streams);
    asks.begin(asked(9, "main", HostTask::Readiness), &pod, &streams);
    asks.begin(asked(10, "main", HostTask::PreStop), &pod, &streams);
    let error = "HTTP status 503 Service Unavailable".to_owned();
    assert_eq!(asks.next().await, HostAnswer { number: 10, error });
    let heads = tokio::task::spawn_blocking(|| server.join().expect("no panic")).await.expect("no panic");
    assert_eq!(
        heads,
        [Some("GET /ready?full HTTP/1.1".to_owned()), Some("GET /ready?full HTTP/1.1".to_owned())]
    );
    assert!(asks.running.is_empty());
    guest.abort();
}

#[tokio::test]
async fn a_pod_with_an_address_is_asked_at_it_and_told_so() {
    let (port, server) = server::serve_at(OWN, 1, |_, stream| {
        by_tls(stream, server_config(&both()), |tls| {
            let head = read_head(tls);
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
            head.lines().find(|line| line.starts_with("host: ")).map(str::to_owned)
        })
    });
    let (streams, mut pod, mut asks) = (GuestStreams::default(), pod_of(port), Asks::default());
    let probe = pod.containers[0].liveness_probe.as_mut().expect("there");
    probe.check.as_mut().expect("there").own_address = true;
    let address = format!("{OWN_IN_GUEST}/16");
    let primary = bulkhead_guest_protocol::host::InterfaceConfig { address, ..Default::default() };
    pod.interfaces.push(primary);
    let guest = tokio::spawn(bridge(streams.clone()));
    asks.begin(asked(7, "main", HostTask::Liveness), &pod, &streams);
    assert_eq!(asks.next().await, HostAnswer { number: 7, error: String::new() });
    let heads = tokio::task::spawn_blocking(|| server.join().expect("no panic")).await.expect("no panic");
    assert_eq!(heads, [Some(format!("host: {OWN_IN_GUEST}:{port}"))]);
    guest.abort();
}

/// With 200 pods on a node, half of them with peers that stall, the others are answered as if they were alone; and a guest that asks
/// for the same again and again has one question under way.
#[tokio::test]
async fn guests_whose_peers_stall_hold_up_neither_others_nor_the_agent() {
    const PODS: usize = 200;
    let (stalled_port, stalled) = serve(PODS / 2, |_, stream| stream);
    let (port, server) = serve(PODS / 2, |_, stream| {
        by_tls(stream, server_config(&both()), |tls| {
            read_head(tls);
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
        });
    });
    let (mut all, mut guests) = (Vec::new(), JoinSet::new());
    for n in 0..PODS {
        let (streams, mut asks) = (GuestStreams::default(), Asks::default());
        let pod = pod_of(if n % 2 == 0 { stalled_port } else { port });
        guests.spawn(bridge(streams.clone()));
        asks.begin(asked(n as u64, "main", HostTask::Liveness), &pod, &streams);
        all.push((asks, streams, pod));
    }
    for (n, (asks, ..)) in all.iter_mut().enumerate().filter(|(n, _)| n % 2 == 1) {
        assert_eq!(asks.next().await, HostAnswer { number: n as u64, error: String::new() });
    }
    let connections =
        tokio::task::spawn_blocking(|| stalled.join().expect("no panic")).await.expect("no panic");
    assert_eq!(connections.len(), PODS / 2);
    let (asks, streams, pod) = &mut all[0];
    for number in 1..1_000 {
        asks.begin(asked(number, "main", HostTask::Liveness), pod, streams);
    }
    assert_eq!(asks.last.len(), 1);
    while asks.running.len() > 1 {
        // Those that were given up.
        assert!(asks.running.join_next().await.expect("more than one").is_err());
    }
    drop(all);
    tokio::task::spawn_blocking(|| server.join().expect("no panic")).await.expect("no panic");
}
