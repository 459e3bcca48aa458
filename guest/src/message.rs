//! The last words of a container: what it writes to a file of its own, or the end of its output.
//!
//! Source: "Determine the Reason for Pod Failure" in the Kubernetes documentation.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::TEXT_LENGTH_MAX;
use bulkhead_guest_protocol::host::{ContainerConfig, MountConfig};
use nix::mount::MsFlags;

use crate::setup::mount_at;

/// Where the files are in the guest: a file system of their own, because containers write as much as they like.
const ROOT: &str = "/run/bulkhead-messages";
const ROOT_OPTIONS: &str = "mode=0755,size=1m";
/// Most lines of output that become a message (Kubernetes: 80).
const LINES_MAX: usize = 80;
/// Most bytes of output that become a message (Kubernetes: 2048).
const OUTPUT_LENGTH_MAX: usize = 2048;

/// The file of one container, and the end of its output.
#[derive(Debug)]
pub(crate) struct LastWords {
    file: PathBuf,
    /// Where the container finds the file; no path when it has none.
    pub(crate) mount: MountConfig,
    from_output: bool,
    output: Vec<u8>,
}

/// Makes the file system for the files.
pub(crate) fn mount() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("tmpfs", ROOT, flags, ROOT_OPTIONS)
}

impl LastWords {
    pub(crate) fn new(config: &ContainerConfig) -> Self {
        Self {
            file: Path::new(ROOT).join(&config.name),
            mount: MountConfig { path: config.message_path.clone(), ..MountConfig::default() },
            from_output: config.message_from_logs,
            output: Vec::new(),
        }
    }

    /// The file that a new run finds, empty; `None` when it has none.
    pub(crate) fn begin(&mut self) -> Result<Option<&Path>> {
        self.output.clear();
        if self.mount.path.is_empty() {
            return Ok(None);
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o666);
        let file = options.open(&self.file).context("make the file for the last words")?;
        // Any user of the container may write it, whatever the mask was.
        file.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(Some(&self.file))
    }

    /// Takes note of output.
    pub(crate) fn printed(&mut self, data: &[u8]) {
        if self.from_output {
            self.output.extend_from_slice(&data[data.len().saturating_sub(OUTPUT_LENGTH_MAX)..]);
            let surplus = self.output.len().saturating_sub(OUTPUT_LENGTH_MAX);
            self.output.drain(..surplus);
        }
    }

    /// What a run that ended said last; empty when it said nothing.
    pub(crate) fn end(&mut self, failed: bool) -> String {
        let text = self.written().unwrap_or_default();
        if !text.is_empty() || !failed {
            return text;
        }
        let output = String::from_utf8_lossy(&self.output).into_owned();
        let first = output.lines().count().saturating_sub(LINES_MAX);
        output.lines().skip(first).collect::<Vec<_>>().join("\n")
    }

    fn written(&self) -> io::Result<String> {
        let mut text = Vec::new();
        File::open(&self.file)?.take(TEXT_LENGTH_MAX as u64).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(from_output: bool) -> LastWords {
        let file = std::env::temp_dir().join(format!("bulkhead-words-{from_output}-{}", std::process::id()));
        let mount = MountConfig { path: "/dev/termination-log".into(), ..MountConfig::default() };
        LastWords { file, mount, from_output, output: Vec::new() }
    }

    #[test]
    fn the_file_comes_first_and_output_only_after_a_failure() {
        let mut words = words(true);
        let file = words.begin().expect("made").expect("there").to_owned();
        words.printed(b"one\ntwo\n");
        assert_eq!(words.end(false), "");
        assert_eq!(words.end(true), "one\ntwo");
        fs::write(&file, "because\n").expect("written");
        assert_eq!((words.end(true), words.end(false)), ("because".into(), "because".into()));
        words.begin().expect("made");
        assert_eq!(words.end(true), "", "a new run begins with nothing");
        fs::remove_file(&file).expect("removed");
        words.printed(&b"x".repeat(3000));
        words.printed(b"yz");
        assert_eq!(words.end(true).len(), OUTPUT_LENGTH_MAX);
        words.output = b"line\n".repeat(100);
        assert_eq!(words.end(true).lines().count(), LINES_MAX);
    }

    #[test]
    fn output_is_forgotten_when_nobody_asks_for_it() {
        let mut words = words(false);
        words.printed(b"one");
        assert!(words.output.is_empty() && words.end(true).is_empty());
    }
}
