//! What the kernel tells while it happens: uevents of devices, and its log.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use bulkhead_nodeagent_core::hardware::{
    KernelRecord, RECORD_BYTES_MAX, UEVENT_BYTES_MAX, kernel_record, uevent,
};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use tokio::io::unix::AsyncFd;

/// The group of what the kernel says itself; group 2 is udev's.
const GROUP_KERNEL: u32 = 1;

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
pub(crate) struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Listens.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_KERNEL))?;
        registered(socket).map(Self)
    }

    /// Waits until devices may be others than before; also when messages were lost. An error means that nothing comes any more.
    pub(crate) async fn devices_changed(&self) -> io::Result<()> {
        let mut message = [0; UEVENT_BYTES_MAX];
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|fd| Ok(recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut message)?));
            match received {
                Err(_) => {}
                // The kernel's own have no sender.
                Ok(Ok((length, from))) => {
                    let is_kernel = from.is_some_and(|from| from.pid() == 0);
                    let event = uevent(&message[..length.min(message.len())]).filter(|_| is_kernel);
                    if event.is_some_and(|event| event.is_of_devices()) {
                        return Ok(());
                    }
                }
                // Nobody knows what was lost.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// The kernel's log, from its beginning.
#[derive(Debug)]
pub(crate) struct KernelLog(AsyncFd<File>);

impl KernelLog {
    /// Opens `/dev/kmsg`.
    pub(crate) fn open() -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg")?;
        registered(file).map(Self)
    }

    /// The next record. An error means that none comes any more.
    pub(crate) async fn next(&self) -> io::Result<KernelRecord> {
        let mut record = [0; RECORD_BYTES_MAX];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| file.get_ref().read(&mut record)) {
                Err(_) => {}
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(length)) => {
                    if let Some(record) = kernel_record(&record[..length]) {
                        return Ok(record);
                    }
                }
                // Records were overwritten before they were read, or one is too long: the next one follows.
                Ok(Err(error)) => match error.raw_os_error() {
                    Some(nix::libc::EPIPE | nix::libc::EINTR | nix::libc::EINVAL) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_listened_to_where_it_may_be() {
        // Which user may is the machine's to say; neither may panic or block.
        if let Ok(uevents) = Uevents::open() {
            let none = tokio::time::timeout(std::time::Duration::ZERO, uevents.devices_changed()).await;
            assert!(none.is_err() || none.is_ok_and(|one| one.is_ok()));
        }
        if let Ok(log) = KernelLog::open() {
            let first = log.next().await.expect("a machine that runs has said something");
            let second = log.next().await.expect("more than once");
            assert!(second.sequence > first.sequence);
        }
    }
}
