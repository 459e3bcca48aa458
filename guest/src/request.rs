//! Questions that the guest asks itself, at the pod's own address or the loopback: HTTP, TCP, gRPC's health service. What needs TLS is the agent's to
//! ask.
//!
//! Runs in a process of its own, which is killed when the answer takes too long. What is read is bounded.

#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use bulkhead_guest_http::{Dial, Failure, Io, Place, USER_AGENT, chain};
use bulkhead_guest_protocol::host::{Check, GrpcCheck};
use http_body_util::{BodyExt as _, Full, Limited};
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

/// Asks at this address of the guest, and waits for the answer, however long it takes.
///
/// # Errors
/// Why it is no success.
pub(crate) fn ask(check: &Check, host: IpAddr) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        match check {
            Check::Tcp(tcp) => Ok(connect(host, tcp.port).await.map(drop)?),
            Check::Http(http) => bulkhead_guest_http::ask(http, false, host, &Own).await,
            Check::Https(_) => Err(Failure::NeedsTls),
            Check::Grpc(grpc) => Ok(ask_grpc(grpc, host).await?),
            Check::Exec(_) | Check::Sleep(_) => Err(Failure::Text("is no request".to_owned())),
        }
    })
}

/// Connects to the guest itself; in the clear only, as TLS would make this program larger by a third.
struct Own;

impl Dial for Own {
    async fn dial(&self, place: &Place) -> Result<(Io, bool), Failure> {
        if place.tls {
            return Err(Failure::NeedsTls);
        }
        Ok((Io::new(connect(place.host, place.port.into()).await?), false))
    }
}

async fn connect(host: IpAddr, port: u32) -> Result<TcpStream, String> {
    let port = u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?;
    let place = SocketAddr::new(host, port);
    TcpStream::connect(place).await.map_err(|error| format!("connect to {place}: {error}"))
}

async fn ask_grpc(grpc: &GrpcCheck, host: IpAddr) -> Result<(), String> {
    let stream = connect(host, grpc.port).await?;
    let authority = stream.peer_addr().map_err(|error| error.to_string())?;
    let io = TokioIo::new(Io::new(stream));
    let text = |error: hyper::Error| format!("gRPC: {}", chain(&error));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
    tokio::spawn(connection);
    let message = HealthCheckRequest { service: grpc.service.clone() }.encode_to_vec();
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let body = [&[0], length.to_be_bytes().as_slice(), &message].concat();
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
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
