//! Guests that go on after their agents have ended.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Processes of QEMU whose command line names something below `root`.
fn find(root: &Path) -> Vec<Pid> {
    let below = format!("{}/", root.display());
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_guest = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let program = command.split('\0').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        name.starts_with("qemu-system-") && command.contains(&below)
    };
    pids.filter(is_guest).map(Pid::from_raw).collect()
}

/// Ends guests, or says that they go on.
pub(super) fn settle(root: &Path, end: bool) {
    let guests = find(root);
    if guests.is_empty() {
        return;
    }
    if !end {
        let pids: Vec<String> = guests.iter().map(ToString::to_string).collect();
        eprintln!(
            "guests go on, and the next start adopts them: processes {}; --end-guests ends them too",
            pids.join(", ")
        );
        return;
    }
    for guest in guests {
        match kill(guest, Signal::SIGKILL) {
            Ok(()) => eprintln!("guest with process {guest} ended"),
            Err(error) => eprintln!("guest with process {guest} cannot be ended: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn only_guests_of_this_directory_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = |name: &str, argument: String| {
            let program = dir.path().join(name);
            std::os::unix::fs::symlink("/bin/cat", &program).expect("a link");
            let mut command = std::process::Command::new(program);
            // The path travels as the program's name: `cat` without arguments answers what it reads.
            std::os::unix::process::CommandExt::arg0(&mut command, argument);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
            // The kernel lets its parent go on a moment before it shows the new command line: who answers has that.
            child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("written");
            child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
            child
        };
        let mut ours = start("a", format!("{}/qemu-system-x86_64", dir.path().display()));
        let mut other = start("b", "/elsewhere/qemu-system-x86_64".to_owned());
        let expected = Pid::from_raw(i32::try_from(ours.id()).expect("a pid"));
        assert_eq!(find(dir.path()), [expected]);
        for child in [&mut ours, &mut other] {
            child.kill().expect("it ends");
            child.wait().expect("it ended");
        }
    }
}
