//! Requests against servers of every kind.

#[path = "../../http/testing/server.rs"]
mod server;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread::JoinHandle;

use bulkhead_guest_protocol::host::{HttpCheck, TcpCheck};
use server::{check_of, read_head, serve};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// What stands for the pod's own address.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A server that answers one request with this text; tells its port, and the request once it is asked.
fn answering(answer: &'static str) -> (u16, JoinHandle<Vec<String>>) {
    serve(1, move |_, mut stream| {
        let head = read_head(&mut stream);
        stream.write_all(answer.as_bytes()).expect("answered");
        head
    })
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Text(text) => text,
        Failure::NeedsTls => "needs TLS".to_owned(),
    }
}

fn check(answer: &'static str, expected: Result<(), &str>) -> String {
    let (port, asked) = answering(answer);
    let http = HttpCheck { path: "/a?b=c".into(), ..check_of(port, &[("Host", "example")]) };
    let found = ask(&Check::Http(http), LOOPBACK).map_err(text);
    assert_eq!(found, expected.map_err(str::to_owned), "{answer}");
    asked.join().expect("no panic").remove(0)
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
    assert_eq!(ask(&Check::Tcp(TcpCheck { port }), LOOPBACK), Ok(()));
    drop(listener);
    let refused = text(ask(&Check::Tcp(TcpCheck { port }), LOOPBACK).expect_err("nobody listens"));
    assert!(refused.starts_with(&format!("connect to 127.0.0.1:{port}: Connection refused")), "{refused}");
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
    let health = |service: &str| {
        ask(&Check::Grpc(GrpcCheck { port, service: service.into() }), LOOPBACK).map_err(text)
    };
    assert_eq!(health(""), Ok(()));
    assert_eq!(health("good"), Ok(()));
    assert_eq!(health("bad"), Err("serving status 2, not SERVING".into()));
    assert_eq!(health("none"), Err("the health service does not know \"none\"".into()));
    let (port, _asked) = answering("HTTP/1.1 200 OK\r\n\r\n");
    let port = port.into();
    let other =
        text(ask(&Check::Grpc(GrpcCheck { port, service: String::new() }), LOOPBACK).expect_err("no HTTP/2"));
    assert!(other.starts_with("gRPC: "), "{other}");
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
    let found = ask(&Check::Http(check_of(port, &[("Host", "web.example")])), LOOPBACK).map_err(text);
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
    let found = text(ask(&Check::Http(check_of(port, &[])), LOOPBACK).expect_err("it breaks off"));
    assert!(found.starts_with("HTTP: "), "{found}");
}

#[test]
fn a_server_at_the_own_address_only_is_asked_there_and_nowhere_else() {
    let (port, asked) = server::serve_at(OWN, 2, |n, mut stream| {
        let head = read_head(&mut stream);
        let port = stream.local_addr().expect("an address").port();
        let answer = match n {
            0 => format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:{port}/in\r\n\r\n"),
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).expect("answered");
        head.lines().find(|line| line.starts_with("host: ")).map(str::to_owned)
    });
    assert_eq!(ask(&Check::Http(check_of(port, &[])), OWN), Ok(()));
    let host = Some(format!("host: 127.0.0.2:{port}"));
    assert_eq!(asked.join().expect("no panic"), [host.clone(), host]);
    let listener = TcpListener::bind((OWN, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port().into();
    assert_eq!(ask(&Check::Tcp(TcpCheck { port }), OWN), Ok(()));
    let refused = text(ask(&Check::Tcp(TcpCheck { port }), LOOPBACK).expect_err("nobody listens there"));
    assert!(refused.contains("127.0.0.1"), "{refused}");
}
