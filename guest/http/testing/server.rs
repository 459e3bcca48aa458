//! A server for the tests of both who ask by HTTP, the guest and its agent: both include this file.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use bulkhead_guest_protocol::host::{HttpCheck, HttpHeader};

/// Reads until the end of a head.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer).expect("read");
        assert!(length > 0, "it ended");
        head.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that treats its connections one after the other, so many; tells its port, and what came of each.
pub(crate) fn serve<T: Send + 'static>(
    connections: usize,
    treat: impl Fn(usize, TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<Vec<T>>) {
    serve_at(Ipv4Addr::LOCALHOST.into(), connections, treat)
}

/// The same at this address only.
pub(crate) fn serve_at<T: Send + 'static>(
    host: IpAddr,
    connections: usize,
    treat: impl Fn(usize, TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind((host, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let treat = move || {
        let one = |n| treat(n, listener.accept().expect("asked").0);
        (0..connections).map(one).collect()
    };
    (port, std::thread::spawn(treat))
}

/// A request for `/ready?full` with these headers.
pub(crate) fn check_of(port: u16, headers: &[(&str, &str)]) -> HttpCheck {
    let header = |(name, value): &(&str, &str)| HttpHeader { name: (*name).into(), value: (*value).into() };
    HttpCheck { port: port.into(), path: "/ready?full".into(), headers: headers.iter().map(header).collect() }
}
