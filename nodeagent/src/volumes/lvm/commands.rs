//! lvm2's commands.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::report::{self, LogicalVolume, POOL_COLUMNS, PoolState, VOLUME_COLUMNS};
use super::{Kind, Lvm, LvmError, ThinPoolName};

/// How long a command may take; it waits for others of the same group, whoever gives them.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of what a command says is passed on, in bytes.
const SAID_LENGTH_MAX: usize = 512;

/// See the module.
#[derive(Debug)]
pub(in crate::volumes) struct Commands;

fn is_warning(line: &str) -> bool {
    line.starts_with("WARNING")
}

/// What a command said, without what it only warns of.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_warning(line));
    let mut said = lines.collect::<Vec<_>>().join("; ");
    said.truncate(said.floor_char_boundary(SAID_LENGTH_MAX));
    said
}

/// Runs it to its end, at most so long. Who is killed and does not end, because the kernel waits for a disk, is not waited for.
fn output_within(mut command: Command, shown: &str, limit: Duration) -> Result<Output, LvmError> {
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LvmError::NoProgram,
        _ => LvmError::Run(error),
    })?;
    let handle = Pid::from_raw(child.id().cast_signed()).ok_or(rustix::io::Errno::SRCH);
    let handle = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let (ended, end) = mpsc::channel();
    let waiting = std::thread::Builder::new().name("lvm".to_owned());
    let spawned = waiting.spawn(move || {
        // Nobody takes what comes too late.
        let _ = ended.send(child.wait_with_output());
    });
    spawned.map_err(LvmError::Run)?;
    match end.recv_timeout(limit) {
        Ok(output) => output.map_err(LvmError::Run),
        Err(_) => {
            if let Ok(handle) = handle {
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
            Err(LvmError::TimedOut { command: shown.to_owned(), seconds: limit.as_secs() })
        }
    }
}

/// Runs one of lvm2's commands.
fn lvm(args: &[&str]) -> Result<Vec<u8>, LvmError> {
    let shown = args.join(" ");
    let mut command = Command::new("lvm");
    // Administration programs are not on every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(args).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output_within(command, &shown, COMMAND_TIMEOUT)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(LvmError::Failed { command: shown, status: output.status.to_string(), said: said(&output.stderr) })
}

/// `lvs` of a group.
fn lvs(group: &str, columns: &str, selection: &str) -> Result<(String, Vec<u8>), LvmError> {
    let units = ["--reportformat", "json", "--units", "b", "--nosuffix"];
    let args = [&["lvs"], units.as_slice(), &["-o", columns, "-S", selection, group]].concat();
    let json = lvm(&args).map_err(|error| match error {
        LvmError::Failed { said, .. } if said.contains(&format!("Volume group \"{group}\" not found")) => {
            LvmError::NoGroup(group.to_owned())
        }
        other => other,
    })?;
    Ok((args.join(" "), json))
}

fn path_of(group: &str, name: &str) -> String {
    format!("{group}/{name}")
}

fn size(bytes: u64) -> String {
    // lvm2 takes whole sectors, and makes whole extents of them.
    format!("{}b", bytes.next_multiple_of(512))
}

#[cfg(debug_assertions)]
impl Commands {
    /// As a boot leaves it that activates nothing.
    pub(super) fn deactivate(&self, group: &str, name: &str) -> Result<(), LvmError> {
        lvm(&["lvchange", "--yes", "--activate", "n", &path_of(group, name)]).map(drop)
    }
}

impl Lvm for Commands {
    fn volumes(&self, group: &str, name: Option<&str>) -> Result<Vec<LogicalVolume>, LvmError> {
        let selection = match name {
            Some(name) => format!("lv_name=\"{name}\""),
            None => Kind::ALL.map(|kind| format!("lv_name=~\"^{}\"", kind.prefix())).join(" || "),
        };
        let (command, json) = lvs(group, VOLUME_COLUMNS, &selection)?;
        report::volumes(&json).map_err(|reason| LvmError::Report { command, reason })
    }

    fn pool(&self, pool: &ThinPoolName) -> Result<Option<PoolState>, LvmError> {
        let (command, json) = lvs(&pool.group, POOL_COLUMNS, &format!("lv_name=\"{}\"", pool.pool))?;
        report::pool(&json).map_err(|reason| LvmError::Report { command, reason })
    }

    fn create(&self, pool: &ThinPoolName, name: &str, size_bytes: u64, tag: &str) -> Result<(), LvmError> {
        let (size, pool) = (size(size_bytes), pool.to_string());
        let made = ["--yes", "--thin", "--virtualsize", &size, "--name", name, "--addtag", tag];
        lvm(&[&["lvcreate"], made.as_slice(), &["--activate", "y", "--setactivationskip", "n", &pool]]
            .concat())
        .map(drop)
    }

    /// By its type and not by `--snapshot`, which asks the kernel for snapshots of the old kind as well.
    fn copy(&self, group: &str, of: &str, name: &str, tag: &str, active: bool) -> Result<(), LvmError> {
        let [activate, skip] = if active { ["y", "n"] } else { ["n", "y"] };
        let made = ["--yes", "--type", "thin", "--name", name, "--addtag", tag];
        let how = ["--activate", activate, "--setactivationskip", skip];
        lvm(&[&["lvcreate"], made.as_slice(), how.as_slice(), &[&path_of(group, of)]].concat()).map(drop)
    }

    fn activate(&self, group: &str, name: &str) -> Result<(), LvmError> {
        let how = ["--activate", "y", "--ignoreactivationskip"];
        lvm(&[&["lvchange", "--yes"], how.as_slice(), &[&path_of(group, name)]].concat()).map(drop)
    }

    fn change_tag(&self, group: &str, name: &str, from: &str, to: &str) -> Result<(), LvmError> {
        lvm(&["lvchange", "--yes", "--deltag", from, "--addtag", to, &path_of(group, name)]).map(drop)
    }

    fn extend(&self, group: &str, name: &str, size_bytes: u64) -> Result<(), LvmError> {
        lvm(&["lvextend", "--yes", "--size", &size(size_bytes), &path_of(group, name)]).map(drop)
    }

    fn remove(&self, group: &str, name: &str, tag: &str) -> Result<(), LvmError> {
        lvm(&["lvremove", "--yes", "-S", &format!("lv_tags=\"{tag}\""), &path_of(group, name)]).map(drop)
    }

    fn device(&self, group: &str, name: &str) -> PathBuf {
        Path::new("/dev").join(group).join(name)
    }

    fn is_active(&self, group: &str, name: &str) -> bool {
        let meta = std::fs::metadata(self.device(group, name));
        meta.is_ok_and(|meta| meta.file_type().is_block_device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn a_command_has_so_long_and_no_longer() {
        let within = |script, ms| output_within(shell(script), "lvs vg0", Duration::from_millis(ms));
        let output = within("echo out; echo err >&2; exit 5", 60_000).expect("it ends");
        assert_eq!((output.stdout.as_slice(), output.status.code()), (b"out\n".as_slice(), Some(5)));
        let late = within("exec sleep 600", 50).expect_err("it does not end");
        assert!(matches!(late, LvmError::TimedOut { .. }), "{late}");
        assert_eq!(late.to_string(), "lvs vg0: did not end within 0 s");
        let missing = output_within(Command::new("/nonexistent/lvm"), "", COMMAND_TIMEOUT);
        assert!(matches!(missing, Err(LvmError::NoProgram)));
    }

    #[test]
    fn warnings_are_not_what_went_wrong() {
        let text = b"  WARNING: Failed to monitor vg0/pool.\n  Failed to find logical volume \"vg0/x\"\n\n";
        assert_eq!(said(text), "Failed to find logical volume \"vg0/x\"");
    }
}
