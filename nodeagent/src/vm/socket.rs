//! Connections to the sockets of a guest.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// QEMU makes its sockets within some ms of its start; they are looked for this often, and less often later.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest wait between two attempts.
const RETRY_LAST: Duration = Duration::from_secs(1);

/// Connects to a socket in a folder of any depth: a socket's path is at most 107 bytes long (unix(7)), so it goes
/// through the folder's descriptor.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("a socket without a folder"));
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)).await
}

/// Connects as soon as somebody listens. Whoever calls this gives up when the process has ended.
pub(crate) async fn connect_when_there(path: &Path) -> UnixStream {
    let mut wait = RETRY_FIRST;
    loop {
        match connect(path).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(RETRY_LAST);
    }
}
