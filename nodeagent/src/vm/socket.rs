//! Connections to the sockets of a guest.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;

/// QEMU makes its sockets within some ms of its start; they are looked for this often, and less often later.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest wait between two attempts.
const RETRY_LAST: Duration = Duration::from_secs(1);

/// Connects to a socket in a folder of any depth: a socket's path is at most 107 bytes long (unix(7)), so it goes
/// through its descriptor. It is a socket, and no link to one: a hostile QEMU can put anything into its folder.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("a socket without a folder"));
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&socket)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(io::Error::other("is no socket"));
    }
    UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()))).await
}

/// Connects as soon as somebody listens. Whoever calls this gives up when the process has ended.
pub(crate) async fn connect_when_there(path: &Path) -> UnixStream {
    let mut wait = RETRY_FIRST;
    loop {
        match connect(path).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(wait).await,
        }
        // So what is lost is a fifth of what it took at most.
        wait = (wait + wait / 4).min(RETRY_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_connected_to_and_a_link_to_one_is_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("qmp.sock");
        let _listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        connect(&path).await.expect("it listens");
        let link = dir.path().join("guest.sock");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        connect(&link).await.expect_err("another pod's, perhaps");
        std::fs::write(dir.path().join("console.sock"), "").expect("written");
        connect(&dir.path().join("console.sock")).await.expect_err("a file");
    }
}
