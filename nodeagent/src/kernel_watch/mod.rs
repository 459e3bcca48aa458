//! What the kernel tells while it happens: uevents of devices, and its log.
//!
//! What such a message means is decided in `bulkhead_nodeagent_core::hardware` ([`KernelMessages`]); here are the socket and the file.
//!
//! Source: `netlink(7)`, `lib/kobject_uevent.c` and `Documentation/ABI/testing/dev-kmsg` of Linux.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fake;

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::task::{Context, Poll, ready};

use bulkhead_nodeagent_core::hardware::{
    KernelMessage, KernelMessages, KernelWatch, RECORD_BYTES_MAX, TreeError, UEVENT_BYTES_MAX,
};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, socket,
};
use tokio::io::unix::AsyncFd;

use crate::machine::told;

#[cfg(test)]
pub(crate) use fake::FakeKernel;

/// The group of what the kernel says itself; group 2 is udev's.
const GROUP_KERNEL: u32 = 1;
/// The kernel's log.
const KMSG: &str = "/dev/kmsg";

/// The kernel that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunningKernel;

impl KernelWatch for RunningKernel {
    fn uevents(&self) -> Result<Box<dyn KernelMessages>, TreeError> {
        Ok(Box::new(Uevents::open().map_err(told)?))
    }

    fn log(&self) -> Result<Box<dyn KernelMessages>, TreeError> {
        Ok(Box::new(KernelLog::open().map_err(told)?))
    }
}

/// Waits for ever where there is nothing to wait for.
pub(crate) async fn or_never<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Lets the runtime wait for it.
#[expect(
    deprecated,
    reason = "what is owned here keeps its descriptor for as long as it lives; the other way is unsafe code"
)]
fn registered<T: std::os::fd::AsRawFd>(owned: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owned)
}

/// The socket of uevents.
#[derive(Debug)]
struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Listens.
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_KERNEL))?;
        registered(socket).map(Self)
    }
}

/// The next message of a socket; `None`: it has no place here.
fn receive(socket: &OwnedFd) -> io::Result<Option<KernelMessage>> {
    let mut buffer = [0; UEVENT_BYTES_MAX];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    // With this flag the length is that of the message, whether there is room for it or not.
    let received = recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_TRUNC)?;
    let (length, sender) = (received.bytes, received.address.map(|from| from.pid()));
    // Who does not say who it is is not the kernel.
    let sender = sender.unwrap_or(u32::MAX);
    Ok(buffer.get(..length).map(|bytes| KernelMessage::Said { sender, bytes: bytes.to_vec() }))
}

impl KernelMessages for Uevents {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<KernelMessage, TreeError>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context)).map_err(told)?;
            let Ok(received) = ready.try_io(|socket| receive(socket.get_ref())) else { continue };
            return Poll::Ready(match received {
                Ok(message) => Ok(message.unwrap_or(KernelMessage::Lost)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(KernelMessage::Lost),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(told(error)),
            });
        }
    }
}

/// The kernel's log, from its beginning.
#[derive(Debug)]
struct KernelLog(AsyncFd<File>);

impl KernelLog {
    fn open() -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(KMSG)?;
        registered(file).map(Self)
    }
}

impl KernelMessages for KernelLog {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<KernelMessage, TreeError>> {
        let mut record = [0; RECORD_BYTES_MAX];
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context)).map_err(told)?;
            let Ok(read) = ready.try_io(|file| file.get_ref().read(&mut record)) else { continue };
            return Poll::Ready(match read {
                Ok(0) => Err(told(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => Ok(KernelMessage::Said { sender: 0, bytes: record[..length].to_vec() }),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // Records were overwritten before they were read, or one is too long: the next one follows.
                    Some(libc::EPIPE | libc::EINVAL) => Ok(KernelMessage::Lost),
                    _ => Err(told(error)),
                },
            });
        }
    }
}
