//! HTTP as the kubelet's probes speak it: a redirection is followed as long as it leads to the pod itself, and of an answer no more is
//! read than is needed. Whoever answers is hostile: all that is kept has bounds; what never ends is ended by the time-out of the
//! caller, who drops the future or kills the process.
//!
//! ```text
//!  HttpCheck ─► Place ─► Dial ─► request ─► answer ─► a redirection within the pod? ─► Place ...
//!                                                   └► status from 200 to 399: success
//! ```
//!
//! Source: `pkg/probe/http` of Kubernetes 1.34, and what Go's `net/http` does with redirections.

mod io;
mod place;

use std::future::Future;
use std::net::IpAddr;

use bulkhead_guest_protocol::host::HttpCheck;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};

pub use io::Io;
pub use place::{Next, Place};

/// How much of an answer's body is read; what is beyond it does not matter. `maxRespBodyLength` of the kubelet, in bytes.
const BODY_BYTES_MAX: usize = 10 << 10;
/// Redirections that are followed; `RedirectChecker` of the kubelet.
const REDIRECTS_MAX: usize = 10;
/// Longest head of an answer, in bytes; `MaxResponseHeaderBytes` of Go is larger, and a probe needs none of it.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What servers know the kubelet's probes by, so that they can leave them out of their logs.
pub const USER_AGENT: &str = concat!("kube-probe/1.34 bulkhead/", env!("CARGO_PKG_VERSION"));

/// Connects into the pod.
pub trait Dial {
    /// A connection to a place, agreed on keys where that asks for TLS, and whether it is HTTP/2.
    ///
    /// # Errors
    /// Why there is none.
    fn dial(&self, place: &Place) -> impl Future<Output = Result<(Io, bool), Failure>> + Send;
}

/// Why a question has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// For people.
    Text(String),
    /// Who asks cannot speak TLS.
    NeedsTls,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Asks an address of the pod, and follows where it is sent within the pod; without an end where the server gives none.
///
/// # Errors
/// Why it is no success.
pub async fn ask(http: &HttpCheck, tls: bool, host: IpAddr, dial: &impl Dial) -> Result<(), Failure> {
    let own_host = http.headers.iter().find(|one| one.name.eq_ignore_ascii_case("host"));
    let port = u16::try_from(http.port).map_err(|_| format!("port {} is out of range", http.port))?;
    let mut place = Place {
        tls,
        host,
        port,
        target: http.path.clone(),
        authority: own_host.map(|host| host.value.clone()).filter(|host| !host.is_empty()),
    };
    for _ in 0..REDIRECTS_MAX {
        let response = get(&place, http, dial).await?;
        match next(&place, &response)? {
            Some(further) => place = further,
            None => return Ok(judge(response).await?),
        }
    }
    Err(Failure::Text(format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// Where an answer sends to, if that is to be followed.
fn next(place: &Place, response: &Response<Incoming>) -> Result<Option<Place>, String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| "the redirection leads to no text".to_owned())?;
    if location.is_empty() {
        return Ok(None);
    }
    match place.follow(location)? {
        Next::Within(further) => Ok(Some(further)),
        // Being sent elsewhere is an answer of its own, and a success.
        Next::Elsewhere => Ok(None),
    }
}

async fn judge(response: Response<Incoming>) -> Result<(), String> {
    let status = response.status();
    // An answer that breaks off is none, as for the kubelet.
    let mut body = response.into_body();
    let mut length = 0;
    while length < BODY_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| format!("HTTP: {}", chain(&error)))?;
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    let good = status.is_success() || status.is_redirection();
    if good { Ok(()) } else { Err(format!("HTTP status {status}")) }
}

async fn get(place: &Place, http: &HttpCheck, dial: &impl Dial) -> Result<Response<Incoming>, Failure> {
    let (io, is_http2) = dial.dial(place).await?;
    let text = |error: hyper::Error| format!("HTTP: {}", chain(&error));
    let request = request(place, http, is_http2)?;
    if is_http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
                .await
                .map_err(text)?;
        tokio::spawn(connection);
        return Ok(sender.send_request(request).await.map_err(text)?);
    }
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(text)?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await.map_err(text)?)
}

/// The request: the probe's headers, and the kubelet's own where it does not say them. One of them that is empty is left out.
fn request(place: &Place, http: &HttpCheck, is_http2: bool) -> Result<Request<Empty<Bytes>>, String> {
    let bad = |error: &dyn std::fmt::Display| format!("the request cannot be made: {error}");
    let authority = place.authority();
    let uri = if is_http2 { format!("https://{authority}{}", place.target) } else { place.target.clone() };
    let version = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut request = Request::get(uri).version(version).body(Empty::new()).map_err(|error| bad(&error))?;
    let headers = request.headers_mut();
    for own in &http.headers {
        let name = HeaderName::from_bytes(own.name.as_bytes()).map_err(|error| bad(&error))?;
        let value = HeaderValue::from_str(&own.value).map_err(|error| bad(&error))?;
        headers.append(name, value);
    }
    for (name, value) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
        match headers.get(&name) {
            None => drop(headers.insert(name, HeaderValue::from_static(value))),
            Some(own) if own.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers.remove(header::HOST);
    if is_http2 {
        // They belong to a connection of HTTP/1, and a server of HTTP/2 refuses them.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
    } else {
        headers.insert(header::HOST, HeaderValue::from_str(&authority).map_err(|error| bad(&error))?);
        headers.entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
    }
    Ok(request)
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
