//! A volume stands still while the host copies it: everything is written out, and nothing new is.
//!
//! ```text
//!  FreezeVolume ─► fork ─► FIFREEZE ─► "" ─► waits: for the other end to close, or for its time to be over ─► FITHAW
//!                             └─ error ─► its text
//! ```
//!
//! A process of its own does it: writing out may take long, while this program goes on to answer; and however that fares, the
//! volume goes on after a bounded time. With the host's end of the port closed, it goes on at once.
//!
//! Source: `FIFREEZE` and `FITHAW` in `linux/fs.h`; `fsfreeze(8)`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bulkhead_guest_protocol::FREEZE_MS_MAX;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::IS_CONTAINER_CHILD;
use crate::sys::{self, CloneResult};

/// Longest text of a failure, in bytes.
const TEXT_LENGTH_MAX: usize = 256;
/// The volume is frozen.
const FROZEN: u8 = b'f';
/// It goes on, because its time is over.
const LATE: u8 = b'l';
/// It goes on, because somebody said so.
const THAWED: u8 = b't';
/// It could not be frozen; the reason follows.
const FAILED: u8 = b'e';

/// What became of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing yet.
    None,
    /// It stands still.
    Frozen,
    /// It goes on; whether it stood still until it was said that it may.
    Over { in_time: bool },
    /// It never stood still.
    Failed(String),
}

/// A volume that stands still, or is about to. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Freezer {
    pub(crate) volume: String,
    stream: UnixStream,
}

impl Freezer {
    /// Begins to freeze what is mounted at a path, for so long at most.
    ///
    /// # Errors
    /// When that is too long, or no process could be made for it.
    pub(crate) fn start(volume: String, path: &Path, for_ms: u64) -> Result<Self> {
        ensure!(
            for_ms <= FREEZE_MS_MAX,
            "{volume} cannot stand still for {for_ms} ms: {FREEZE_MS_MAX} ms at most"
        );
        let root = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (ours, theirs) = UnixStream::pair().context("make a pair of sockets")?;
        ours.set_nonblocking(true)?;
        match sys::fork().context("make a process")? {
            CloneResult::Parent(_) => Ok(Self { volume, stream: ours }),
            CloneResult::Child => {
                IS_CONTAINER_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
                drop(ours);
                freeze_for(&root, theirs, for_ms);
                sys::exit_now(0)
            }
        }
    }

    /// Where its news come from.
    pub(crate) fn fd(&self) -> &UnixStream {
        &self.stream
    }

    /// It may go on; the news follow.
    pub(crate) fn thaw(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// What became of it since the last look.
    pub(crate) fn news(&mut self) -> News {
        let mut buffer = [0; TEXT_LENGTH_MAX + 1];
        match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => News::None,
            Err(error) => News::Failed(error.to_string()),
            Ok(0) => News::Failed("the process that held it still has ended".to_owned()),
            // Two of them at once: the last one holds.
            Ok(length) => match (buffer[0], buffer[length - 1]) {
                (FAILED, _) => News::Failed(String::from_utf8_lossy(&buffer[1..length]).into_owned()),
                (_, FROZEN) => News::Frozen,
                (_, last) => News::Over { in_time: last == THAWED },
            },
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// What the process does.
fn freeze_for(root: &File, mut stream: UnixStream, for_ms: u64) {
    if let Err(error) = sys::freeze(root) {
        let text = error.to_string();
        let end = text.floor_char_boundary(TEXT_LENGTH_MAX.min(text.len()));
        let _ = stream.write_all(&[&[FAILED], &text.as_bytes()[..end]].concat());
        return;
    }
    let _ = stream.write_all(&[FROZEN]);
    let timeout = PollTimeout::try_from(for_ms).unwrap_or(PollTimeout::MAX);
    let said = poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], timeout);
    let in_time = said.is_ok_and(|count| count > 0);
    // Nothing else thaws it.
    while sys::thaw(root).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    let _ = stream.write_all(&[if in_time { THAWED } else { LATE }]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_volume_stands_still_for_longer_than_the_bound() {
        // Nothing can be held still there, should it be tried.
        let start = |for_ms| Freezer::start("data".to_owned(), Path::new("/proc"), for_ms);
        let refused = start(FREEZE_MS_MAX + 1).expect_err("too long").to_string();
        assert_eq!(refused, "data cannot stand still for 60001 ms: 60000 ms at most");
        assert!(start(u64::MAX).is_err());
    }
}
