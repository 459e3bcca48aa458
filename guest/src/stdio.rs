//! Standard input, output and terminal of a container's own process.
//!
//! ```text
//!  stdin: false          /dev/null ─► process ─► two pipes ─► log
//!  stdin: true   attached clients ─► pipe ─► process ─► two pipes ─► log
//!  tty: true     attached clients ─► terminal ─► process ─► terminal ─► log (as standard output)
//! ```
//! The terminal is of a devpts of the container's own, which is made here before the process is, so that its name is the same
//! for both.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::host::ContainerConfig;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat, minor};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::container::set_nonblocking;
use crate::sys;

/// How every devpts of a container is mounted.
pub(crate) const DEVPTS_OPTIONS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";
/// The group of terminals, as devpts is mounted.
pub(crate) const TTY_GROUP: u32 = 5;
/// What a terminal is called where the container does not say it.
pub(crate) const TERM: &str = "TERM=xterm";

/// What this program keeps.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Where attached clients write; `None` when the process reads nothing.
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
}

/// What the process gets.
#[derive(Debug)]
pub(crate) struct Stdio {
    /// `None`: /dev/null.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    pub(crate) terminal: Option<Terminal>,
}

/// A terminal that is a process's own.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The devpts with it.
    devpts: PathBuf,
    /// Its name in there.
    number: u64,
}

/// Makes both ends. `folder` is the container's own, outside its root.
pub(crate) fn make(config: &ContainerConfig, folder: &Path) -> Result<(Ends, Stdio)> {
    if config.tty {
        return make_terminal(config, folder).context("make a terminal");
    }
    let user = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
    // The container's user may open them again, as /dev/stdout does.
    let pipe = |is_input: bool| {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        set_nonblocking(if is_input { &writer } else { &reader })?;
        fchown(if is_input { &reader } else { &writer }, Some(user.0), Some(user.1))
            .context("give the pipe away")?;
        anyhow::Ok((reader, writer))
    };
    let (stdin, input) = match config.stdin {
        true => pipe(true).map(|(reader, writer)| (Some(reader), Some(File::from(writer))))?,
        false => (None, None),
    };
    let ((output, stdout), (errors, stderr)) = (pipe(false)?, pipe(false)?);
    let ends = Ends { stdin: input, stdout: Some(output.into()), stderr: Some(errors.into()) };
    Ok((ends, Stdio { stdin, stdout, stderr, terminal: None }))
}

fn make_terminal(config: &ContainerConfig, folder: &Path) -> Result<(Ends, Stdio)> {
    let devpts = folder.join("pts");
    if !devpts.join("ptmx").exists() {
        fs::create_dir_all(&devpts).with_context(|| format!("make {}", devpts.display()))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some("devpts"), &devpts, Some("devpts"), flags, Some(DEVPTS_OPTIONS))
            .context("mount devpts")?;
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open(&devpts.join("ptmx"), flags, Mode::empty()).context("open it")?;
    set_nonblocking(&master)?;
    let slave = sys::terminal_peer(&master).context("open its other end")?;
    fchown(&slave, Some(Uid::from_raw(config.uid)), Some(Gid::from_raw(TTY_GROUP)))
        .context("give it away")?;
    let number = minor(fstat(&slave)?.st_rdev);
    let copy = || slave.try_clone().context("copy a descriptor");
    let (stdout, stderr) = (copy()?, copy()?);
    let stdin = config.stdin.then(|| master.try_clone()).transpose().context("copy a descriptor")?;
    let ends = Ends { stdin: stdin.map(File::from), stdout: Some(master.into()), stderr: None };
    // Where nobody may write, it is a terminal at which nobody types.
    let terminal = Some(Terminal { devpts, number });
    Ok((ends, Stdio { stdin: Some(slave), stdout, stderr, terminal }))
}

impl Stdio {
    /// The calling process reads and writes there.
    pub(crate) fn redirect(&self) -> Result<()> {
        let null;
        let stdin = match &self.stdin {
            Some(stdin) => stdin,
            None => {
                null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
                &null
            }
        };
        nix::unistd::dup2_stdin(stdin)?;
        nix::unistd::dup2_stdout(&self.stdout)?;
        nix::unistd::dup2_stderr(&self.stderr)?;
        Ok(())
    }
}

impl Terminal {
    /// A copy of the mount with it; before the guest's file tree is let go of.
    pub(crate) fn take(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(&self.devpts, flags, Mode::empty()).context("find the terminal")?;
        sys::clone_tree(folder.as_fd()).context("take the terminal")
    }

    /// Makes it the container's console; its devpts is at /dev/pts by now.
    pub(crate) fn become_console(&self) -> Result<()> {
        File::create("/dev/console").context("/dev/console")?;
        let source = format!("/dev/pts/{}", self.number);
        mount(Some(source.as_str()), "/dev/console", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("make the terminal the console")
    }
}

/// The container's variables, and what its terminal is called where they do not say it.
pub(crate) fn with_term(env: &[String], has_terminal: bool) -> Vec<String> {
    let mut env = env.to_vec();
    if has_terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push(TERM.to_owned());
    }
    env
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn config(stdin: bool) -> ContainerConfig {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        ContainerConfig { stdin, uid, gid, ..ContainerConfig::default() }
    }

    #[test]
    fn input_is_a_pipe_only_where_it_is_asked_for_and_ends_when_it_is_closed() {
        let (ends, stdio) = make(&config(false), Path::new("/nowhere")).expect("made");
        assert!(ends.stdin.is_none() && stdio.stdin.is_none() && stdio.terminal.is_none());
        let (mut ends, stdio) = make(&config(true), Path::new("/nowhere")).expect("made");
        let mut input = ends.stdin.take().expect("asked for");
        input.write_all(b"typed").expect("there is room");
        drop(input);
        let mut read = String::new();
        File::from(stdio.stdin.expect("asked for")).read_to_string(&mut read).expect("until it is closed");
        assert_eq!(read, "typed");
    }

    #[test]
    fn a_terminal_has_a_name_unless_the_container_says_another() {
        let env = ["A=b".to_owned()];
        assert_eq!(with_term(&env, false), ["A=b"]);
        assert_eq!(with_term(&env, true), ["A=b", "TERM=xterm"]);
        assert_eq!(with_term(&["TERM=vt100".to_owned()], true), ["TERM=vt100"]);
    }
}
