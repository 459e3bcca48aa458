//! Requests against servers of every kind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use bulkhead_guest_protocol::host::{HttpCheck, HttpHeader, TcpCheck};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;

use super::*;

/// A server that answers one request with this text; tells its port, and the request once it is asked.
fn server(answer: &'static str) -> (u32, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port().into();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        // What comes after the head may arrive with it.
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = stream.read(&mut buffer).expect("read");
            request.extend_from_slice(&buffer[..length]);
        }
        stream.write_all(answer.as_bytes()).expect("answered");
        String::from_utf8_lossy(&request).into_owned()
    });
    (port, asked)
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Text(text) => text,
        Failure::NeedsTls => "needs TLS".to_owned(),
    }
}

fn check(answer: &'static str, expected: Result<(), &str>) -> String {
    let (port, asked) = server(answer);
    let headers = vec![HttpHeader { name: "Host".into(), value: "example".into() }];
    let http = HttpCheck { port, path: "/a?b=c".into(), headers };
    let found = ask(&Check::Http(http)).map_err(text);
    assert_eq!(found, expected.map_err(str::to_owned), "{answer}");
    asked.join().expect("no panic")
}

#[test]
fn a_status_from_200_to_399_is_success() {
    let request = check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(()));
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    let lower = request.to_lowercase();
    assert!(lower.contains("host: example") && !lower.contains("127.0.0.1"), "{request}");
    assert!(lower.contains("user-agent: kube-probe/"), "{request}");
    check("HTTP/1.0 302 Found\r\nlocation: http://example/\r\n\r\n", Ok(()));
    check("HTTP/1.1 404 Not Found\r\n\r\n", Err("HTTP status 404 Not Found"));
    check("HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("HTTP status 503 Service Unavailable"));
    check("SSH-2.0-server\r\n", Err("HTTP: invalid HTTP version parsed"));
}

#[test]
fn a_connection_that_is_accepted_is_success() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port().into();
    assert_eq!(ask(&Check::Tcp(TcpCheck { port })), Ok(()));
    drop(listener);
    let refused = text(ask(&Check::Tcp(TcpCheck { port })).expect_err("nobody listens"));
    assert!(refused.starts_with(&format!("connect to port {port}: Connection refused")), "{refused}");
}

#[test]
fn a_health_service_that_says_serving_is_success() {
    let (tell, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
        runtime.block_on(async {
            let (reporter, service) = tonic_health::server::health_reporter();
            reporter.set_service_status("good", ServingStatus::Serving).await;
            reporter.set_service_status("bad", ServingStatus::NotServing).await;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
            tell.send(listener.local_addr().expect("an address").port()).expect("awaited");
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
        })
    });
    let port = port.recv().expect("bound").into();
    let health = |service: &str| ask(&Check::Grpc(GrpcCheck { port, service: service.into() })).map_err(text);
    assert_eq!(health(""), Ok(()));
    assert_eq!(health("good"), Ok(()));
    assert_eq!(health("bad"), Err("serving status 2, not SERVING".into()));
    assert_eq!(health("none"), Err("the health service does not know \"none\"".into()));
    let (port, _asked) = server("HTTP/1.1 200 OK\r\n\r\n");
    let other = text(ask(&Check::Grpc(GrpcCheck { port, service: String::new() })).expect_err("no HTTP/2"));
    assert!(other.starts_with("gRPC: "), "{other}");
}

/// Reads until the end of a head.
fn read_head(stream: &mut impl Read) -> String {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer).expect("read");
        assert!(length > 0, "it ended");
        head.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that treats its connections one after the other, so many; tells its port, and what came of each.
fn serve<T: Send + 'static>(
    connections: usize,
    treat: impl Fn(usize, TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let treat = move || {
        let one = |n| treat(n, listener.accept().expect("asked").0);
        (0..connections).map(one).collect()
    };
    (port, std::thread::spawn(treat))
}

fn check_of(port: u16, headers: &[(&str, &str)]) -> HttpCheck {
    let header = |(name, value): &(&str, &str)| HttpHeader { name: (*name).into(), value: (*value).into() };
    HttpCheck { port: port.into(), path: "/ready?full".into(), headers: headers.iter().map(header).collect() }
}

/// A server that answers its requests in turn with these words, in which PORT is its port; what is asked for, and what comes of it.
fn check_redirects(answers: &'static [&'static str], targets: &[&str], expected: Result<(), &str>) {
    let (port, asked) = serve(targets.len(), |n, mut stream| {
        let port = stream.local_addr().expect("an address").port().to_string();
        let answer = answers[n.min(answers.len() - 1)].replace("PORT", &port);
        let head = read_head(&mut stream);
        stream.write_all(answer.as_bytes()).expect("answered");
        let mut words = head.split_whitespace();
        let target = words.nth(1).expect("a target").to_owned();
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned();
        (target, host.replace(&port, "PORT"))
    });
    let found = ask(&Check::Http(check_of(port, &[("Host", "web.example")]))).map_err(text);
    assert_eq!(found, expected.map_err(str::to_owned), "{answers:?}");
    let asked: Vec<String> =
        asked.join().expect("no panic").iter().map(|(target, host)| format!("{target} of {host}")).collect();
    assert_eq!(asked, targets);
}

#[test]
fn redirections_within_the_guest_are_followed_ten_times() {
    check_redirects(
        &["HTTP/1.1 302 Found\r\nlocation: /in\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
        &["/ready?full of web.example", "/in of web.example"],
        Ok(()),
    );
    check_redirects(
        &["HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:PORT/in\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n"],
        &["/ready?full of web.example", "/in of 127.0.0.1:PORT"],
        Err("HTTP status 503 Service Unavailable"),
    );
    // Elsewhere, nowhere, and not to be followed: an answer of its own.
    for answer in [
        &["HTTP/1.1 301 Moved\r\nlocation: https://web.example/\r\n\r\n"],
        &["HTTP/1.1 308 Moved\r\n\r\n"],
        &["HTTP/1.1 304 Not Modified\r\nlocation: /in\r\n\r\n"],
    ] {
        check_redirects(answer, &["/ready?full of web.example"], Ok(()));
    }
    let round = [&["/ready?full of web.example"][..], &["/in of web.example"; 9]].concat();
    check_redirects(
        &["HTTP/1.1 302 Found\r\nlocation: /in\r\n\r\n"],
        &round,
        Err("stopped after 10 redirects"),
    );
    check_redirects(
        &["HTTP/1.1 302 Found\r\nlocation: gopher://127.0.0.1/\r\n\r\n"],
        &["/ready?full of web.example"],
        Err("the redirection leads to gopher:, which is not HTTP"),
    );
    // The agent does it.
    check_redirects(
        &["HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\n\r\n"],
        &["/ready?full of web.example"],
        Err("needs TLS"),
    );
}

#[test]
fn an_answer_that_breaks_off_is_none() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
    let (port, _) = serve(1, move |_, mut stream| {
        read_head(&mut stream);
        stream.write_all(cut.as_bytes()).expect("answered");
    });
    let found = text(ask(&Check::Http(check_of(port, &[]))).expect_err("it breaks off"));
    assert!(found.starts_with("HTTP: "), "{found}");
}
