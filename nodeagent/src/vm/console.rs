//! The serial console of a guest: read at once, kept within bounds.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::{process::QEMU_LOG, socket};
use crate::pod::Boot;

/// The socket, in the instance's folder.
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
/// The file, in the pod's folder: it outlives the guest, so that its end can be looked at.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// A console file is started over when it is this long; one older file is kept. In bytes.
const CONSOLE_LENGTH_MAX: u64 = 128 << 10;
/// What is read of a file for a status, in bytes.
const TAIL_LENGTH: u64 = 8 << 10;

/// After the console broke while the process lives.
const RECONNECT: Duration = Duration::from_millis(200);

/// Copies the console to a file until the guest is gone. Runs as long as the guest; a guest that writes without end
/// fills no disk.
pub(crate) async fn record(instance_dir: PathBuf, log: PathBuf, exited: CancellationToken, mut boots: Boot) {
    let path = instance_dir.join(CONSOLE_SOCKET);
    while !exited.is_cancelled() {
        let mut stream = tokio::select! {
            stream = socket::connect_when_there(&path) => stream,
            () = exited.cancelled() => return,
        };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            boots.wrote();
            if let Err(error) = append(&log, &buffer[..length]) {
                tracing::warn!(path = %log.display(), %error, "console output is lost");
            }
        }
        // QEMU closed it: its process is about to end, or somebody else looks at the console.
        tokio::select! {
            () = exited.cancelled() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > CONSOLE_LENGTH_MAX {
        fs::rename(path, path.with_extension("log.1"))?;
        file = OpenOptions::new().create(true).append(true).open(path)?;
    }
    file.write_all(bytes)
}

/// Begins the console of a new guest.
pub(crate) fn start_over(pod_dir: &Path) -> io::Result<()> {
    let log = pod_dir.join(CONSOLE_LOG);
    match fs::rename(&log, log.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the guest said last on its console or, if it said nothing, what QEMU said.
pub(crate) fn last_lines(pod_dir: &Path, instance_dir: &Path) -> String {
    [pod_dir.join(CONSOLE_LOG), instance_dir.join(QEMU_LOG)]
        .iter()
        .filter_map(|path| tail(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// All that is kept: of this guest, and, as far as there is room, of the one before it.
pub(crate) fn kept(pod_dir: &Path) -> io::Result<Vec<u8>> {
    let log = pod_dir.join(CONSOLE_LOG);
    let mut bytes = Vec::new();
    for path in [log.with_extension("log.1"), log] {
        match fs::File::open(&path) {
            Ok(file) => drop(file.take(2 * CONSOLE_LENGTH_MAX).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The last lines of a text; a last line without its end counts as one.
pub(crate) fn last_of(text: &[u8], lines: u64) -> &[u8] {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let start = text.split_inclusive(|byte| *byte == b'\n').rev().take(lines).map(<[u8]>::len).sum::<usize>();
    &text[text.len() - start..]
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(TAIL_LENGTH)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_LENGTH).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_console_is_bounded_and_its_end_is_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join(CONSOLE_LOG);
        for n in 0..200 {
            append(&log, format!("{n:>4000}\n").as_bytes()).expect("written");
        }
        let total: u64 = fs::read_dir(dir.path())
            .expect("listed")
            .map(|entry| entry.expect("entry").metadata().expect("metadata").len())
            .sum();
        assert!(total < 2 * CONSOLE_LENGTH_MAX + 16_000, "{total}");
        assert!(last_lines(dir.path(), dir.path()).ends_with("199"));
        let all = kept(dir.path()).expect("read");
        assert_eq!(all.len() as u64, total);
        let last = String::from_utf8(last_of(&all, 2).to_vec()).expect("text");
        assert_eq!(last.split_whitespace().collect::<Vec<_>>(), ["198", "199"]);
        assert_eq!(
            (last_of(b"a\nb", 1), last_of(b"a\nb\n", 9), last_of(b"a", 0)),
            (&b"b"[..], &b"a\nb\n"[..], &b""[..])
        );
    }

    #[test]
    fn a_silent_guest_leaves_the_word_to_qemu() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(last_lines(dir.path(), dir.path()), "");
        fs::write(dir.path().join(QEMU_LOG), "no such option\n").expect("written");
        assert_eq!(last_lines(dir.path(), dir.path()), "no such option");
    }
}
