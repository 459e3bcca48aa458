//! The processes of the machine, by its `/proc`.

use std::fs::{self, File};
use std::io::{self, Read as _};

use bulkhead_nodeagent_core::hardware::{FILE_BYTES_MAX, TreeError};
use bulkhead_nodeagent_core::{
    ARGUMENTS_BYTES_MAX, PIDS_MAX, ProcessStat, Processes, effective_user, process_arguments, process_stat,
};

use crate::machine::told;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostProcesses;

/// One that ends while it is looked at is not there any more.
fn of_process(error: io::Error) -> TreeError {
    match error.raw_os_error() {
        Some(nix::libc::ESRCH) => TreeError::NotFound,
        _ => told(error),
    }
}

fn read(pid: i32, name: &str, bytes_max: usize) -> Result<Vec<u8>, TreeError> {
    let file = File::open(format!("/proc/{pid}/{name}")).map_err(of_process)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut bytes).map_err(of_process)?;
    Ok(bytes)
}

/// What a text of the kernel says.
fn said<T>(pid: i32, name: &str, read_text: impl FnOnce(&str) -> Option<T>) -> Result<T, TreeError> {
    let text = read(pid, name, FILE_BYTES_MAX)?;
    let found = read_text(&String::from_utf8_lossy(&text));
    found.ok_or_else(|| TreeError::Other(format!("/proc/{pid}/{name} makes no sense")))
}

/// The numbers among a folder's names.
fn numbers(folder: &str) -> Result<Vec<i32>, TreeError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(of_process)? {
        let name = entry.map_err(of_process)?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        // None is left out silently: a guest that is not seen would be started again.
        if found.len() > PIDS_MAX {
            return Err(TreeError::Other(format!("{folder} has more than {PIDS_MAX} entries")));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

impl Processes for HostProcesses {
    fn pids(&self) -> Result<Vec<i32>, TreeError> {
        numbers("/proc")
    }

    fn arguments(&self, pid: i32) -> Result<Vec<Vec<u8>>, TreeError> {
        read(pid, "cmdline", ARGUMENTS_BYTES_MAX).map(|bytes| process_arguments(&bytes))
    }

    fn working_dir(&self, pid: i32) -> Result<String, TreeError> {
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).map_err(of_process)?;
        let text = folder.into_os_string().into_string();
        text.map_err(|_| TreeError::Other(format!("the folder of process {pid} is no text")))
    }

    fn user(&self, pid: i32) -> Result<u32, TreeError> {
        said(pid, "status", effective_user)
    }

    fn stat(&self, pid: i32) -> Result<ProcessStat, TreeError> {
        said(pid, "stat", process_stat)
    }

    fn threads(&self, pid: i32) -> Result<Vec<i32>, TreeError> {
        numbers(&format!("/proc/{pid}/task"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use bulkhead_nodeagent_core::{KnownProcess, check_processes};
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    fn id(child: &Child) -> i32 {
        i32::try_from(child.id()).expect("small")
    }

    /// Waits until it is in this state, and leaves it there.
    fn wait_until(child: &Child, options: WaitIdOptions) {
        let pid = Pid::from_raw(id(child)).expect("not 0");
        waitid(WaitId::Pid(pid), options | WaitIdOptions::NOWAIT).expect("it is ours");
    }

    #[test]
    fn processes_of_this_machine_are_as_those_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = fs::canonicalize(folder.path()).expect("it is there");
        let dir = folder.to_str().expect("a text");
        let start = |arguments: &[&str]| {
            let mut command = Command::new("/bin/sh");
            command.args(arguments).current_dir(dir).stdin(Stdio::null());
            command.spawn().expect("there is a shell")
        };
        let stops = ["-c", "kill -STOP $$", "a b", "", "-pidfile", "/x y"];
        let (mut stopped, mut ended, mut awaited) = (start(&stops), start(&["-c", ":"]), start(&["-c", ":"]));
        wait_until(&stopped, WaitIdOptions::STOPPED);
        wait_until(&ended, WaitIdOptions::EXITED);
        awaited.wait().expect("it ends");
        let arguments = [&["/bin/sh"][..], &stops].concat();
        let user = rustix::process::geteuid().as_raw();
        let known = KnownProcess {
            pid: id(&stopped),
            arguments: &arguments,
            working_dir: dir,
            user,
            state: 'T',
            threads: 1,
        };
        check_processes(&HostProcesses, &[known], id(&ended), id(&awaited));
        for child in [&mut stopped, &mut ended] {
            let _ = child.kill();
            child.wait().expect("it ends");
        }
    }
}
