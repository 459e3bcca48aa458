//! Connections to what listens in the guest.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, connect, getsockopt, shutdown, socket,
    sockopt,
};

use super::{Port, Stream, Subject};

/// Begins to connect; [`outcome`] says what came of it once the socket can be written.
pub(super) fn begin(number: u64, host: IpAddr, port: u32) -> Result<Stream> {
    let port = u16::try_from(port).context("no port")?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let family = if host.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, flags, None).context("make a socket")?;
    let place = SocketAddr::new(host, port);
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(place)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connect to {place}")),
    }
    let other: OwnedFd = socket.try_clone().context("copy a descriptor")?;
    let mut stream = Stream::new(number, Subject::Connection { is_made: false });
    stream.input = Some(Port { file: File::from(socket), is_ready: false });
    stream.output = Some(Port { file: File::from(other), is_ready: false });
    Ok(stream)
}

/// Whether the connection was made.
pub(super) fn outcome(socket: &File) -> io::Result<()> {
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        error => Err(Errno::from_raw(error).into()),
    }
}

/// Nothing more is sent.
pub(super) fn shut_down(socket: &File) {
    // One that the other end has reset already cannot be.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}
