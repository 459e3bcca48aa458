//! Questions that the guest asks itself over its loopback interface: HTTP, TCP, gRPC's health service.
//!
//! Runs in a process of its own, which is killed when the answer takes too long. What is read is bounded.

use bulkhead_guest_protocol::host::{Check, GrpcCheck, HttpCheck};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpStream;

/// Longest answer of a health service, in bytes.
const ANSWER_LENGTH_MAX: usize = 64 << 10;
/// What precedes a message of gRPC: a flag and four bytes of length.
const GRPC_PREFIX_LENGTH: usize = 5;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;
const USER_AGENT: &str = concat!("bulkhead-probe/", env!("CARGO_PKG_VERSION"));

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks and waits for the answer, however long it takes.
///
/// # Errors
/// Why it is no success.
pub(crate) fn ask(check: &Check) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        match check {
            Check::Tcp(tcp) => connect(tcp.port).await.map(drop),
            Check::Http(http) => ask_http(http).await,
            Check::Grpc(grpc) => ask_grpc(grpc).await,
            Check::Exec(_) | Check::Sleep(_) => Err("is no request".to_owned()),
        }
    })
}

async fn connect(port: u32) -> Result<TcpStream, String> {
    let port = u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?;
    let failed = |error| format!("connect to port {port}: {error}");
    TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await.map_err(failed)
}

/// Where it goes to is a redirection's own matter: it is a success, and is not followed.
async fn ask_http(http: &HttpCheck) -> Result<(), String> {
    let io = TokioIo::new(connect(http.port).await?);
    let text = |error: hyper::Error| format!("HTTP: {}", chain(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(text)?;
    tokio::spawn(connection);
    let response = sender.send_request(http_request(http)?).await.map_err(text)?;
    let status = response.status();
    let good = status.is_success() || status.is_redirection();
    if good { Ok(()) } else { Err(format!("HTTP status {status}")) }
}

fn http_request(http: &HttpCheck) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(&http.path);
    for own in &http.headers {
        request = request.header(&own.name, &own.value);
    }
    let defaults = [
        (header::HOST, format!("127.0.0.1:{}", http.port)),
        (header::USER_AGENT, USER_AGENT.to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in defaults {
        if request.headers_ref().is_some_and(|headers| !headers.contains_key(&name)) {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new()).map_err(|error| format!("the request cannot be made: {error}"))
}

async fn ask_grpc(grpc: &GrpcCheck) -> Result<(), String> {
    let io = TokioIo::new(connect(grpc.port).await?);
    let text = |error: hyper::Error| format!("gRPC: {}", chain(&error));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
    tokio::spawn(connection);
    let message = HealthCheckRequest { service: grpc.service.clone() }.encode_to_vec();
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let body = [&[0], length.to_be_bytes().as_slice(), &message].concat();
    let request = Request::post(format!("http://127.0.0.1:{}/grpc.health.v1.Health/Check", grpc.port))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::<Bytes>::from(body))
        .map_err(|error| format!("the request cannot be made: {error}"))?;
    let response = sender.send_request(request).await.map_err(text)?;
    if response.status() != StatusCode::OK {
        return Err(format!("HTTP status {}", response.status()));
    }
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), ANSWER_LENGTH_MAX).collect().await;
    let body = body.map_err(|error| format!("gRPC: {error}"))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let code = trailers.get("grpc-status").or_else(|| headers.get("grpc-status"));
    match code.map(|code| code.to_str().unwrap_or("unreadable")) {
        Some("0") => serving(&body.to_bytes()),
        // UNIMPLEMENTED: there is no health service.
        Some("12") => Err("the server has no gRPC health service".to_owned()),
        Some("5") => Err(format!("the health service does not know {:?}", grpc.service)),
        Some(code) => Err(format!("gRPC status {code}")),
        None => Err("no gRPC status: this is no gRPC server".to_owned()),
    }
}

fn serving(body: &[u8]) -> Result<(), String> {
    let message = body.get(GRPC_PREFIX_LENGTH..).ok_or("the gRPC answer is too short")?;
    let answer = HealthCheckResponse::decode(message).map_err(|error| format!("gRPC: {error}"))?;
    if answer.status == SERVING {
        Ok(())
    } else {
        Err(format!("serving status {}, not SERVING", answer.status))
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use bulkhead_guest_protocol::host::{HttpHeader, TcpCheck};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic_health::ServingStatus;

    use super::*;

    /// A server that answers one request with this text; tells its port, and the request once it is asked.
    fn server(answer: &'static str) -> (u32, std::thread::JoinHandle<String>) {
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

    fn check(answer: &'static str, expected: Result<(), &str>) -> String {
        let (port, asked) = server(answer);
        let headers = vec![HttpHeader { name: "Host".into(), value: "example".into() }];
        let http = HttpCheck { port, path: "/a?b=c".into(), headers };
        let found = ask(&Check::Http(http));
        assert_eq!(found, expected.map_err(str::to_owned), "{answer}");
        asked.join().expect("no panic")
    }

    #[test]
    fn a_status_from_200_to_399_is_success() {
        let request = check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(()));
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
        let lower = request.to_lowercase();
        assert!(lower.contains("host: example") && !lower.contains("127.0.0.1"), "{request}");
        assert!(lower.contains("user-agent: bulkhead-probe/"), "{request}");
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
        let refused = ask(&Check::Tcp(TcpCheck { port })).expect_err("nobody listens");
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
        let health = |service: &str| ask(&Check::Grpc(GrpcCheck { port, service: service.into() }));
        assert_eq!(health(""), Ok(()));
        assert_eq!(health("good"), Ok(()));
        assert_eq!(health("bad"), Err("serving status 2, not SERVING".into()));
        assert_eq!(health("none"), Err("the health service does not know \"none\"".into()));
        let (port, _asked) = server("HTTP/1.1 200 OK\r\n\r\n");
        let other = ask(&Check::Grpc(GrpcCheck { port, service: String::new() })).expect_err("no HTTP/2");
        assert!(other.starts_with("gRPC: "), "{other}");
    }
}
