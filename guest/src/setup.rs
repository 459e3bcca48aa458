//! From the first instruction of /init to a guest that can run containers: file systems, modules, the port.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_protocol::{MODULES_LIST_PATH, PORT_NAME};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::stat::Mode;

use crate::channel::find_port;

/// More lines than this in the module list are a mistake of its writer.
const MODULES_MAX: usize = 64;
/// The driver learns the port's name within milliseconds; a guest without its port is of no use to anybody.
const PORT_WAIT: Duration = Duration::from_secs(30);
/// A disk that was added to a running guest is there within a fraction of a second, and some seconds on a very busy host.
const DISK_WAIT: Duration = Duration::from_secs(10);

/// Mounts one file system on `target`, which is made if it is missing.
pub(crate) fn mount_at(kind: &str, target: &str, flags: MsFlags, data: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
    mount(Some(kind), target, Some(kind), flags, Some(data))
        .with_context(|| format!("mount {kind} on {target}"))
}

/// Sends what this process prints to the console; the initramfs holds no device node for it.
pub(crate) fn open_console() -> Result<()> {
    mount_at("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0755")?;
    let console: OwnedFd = nix::fcntl::open("/dev/console", OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty())?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    // The kernel gave no descriptors, so `console` may itself be one of the three.
    if console.as_raw_fd() <= 2 {
        std::mem::forget(console);
    }
    Ok(())
}

/// Mounts what the rest of this program reads.
pub(crate) fn mount_system() -> Result<()> {
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("proc", "/proc", strict, "")?;
    mount_at("sysfs", "/sys", strict, "")?;
    mount_at("cgroup2", "/sys/fs/cgroup", strict, "")
}

/// Loads the modules that the initramfs lists, in order. One that fails is told and skipped: what depends on it says
/// more clearly what is missing.
pub(crate) fn load_modules() {
    let Ok(list) = fs::read_to_string(MODULES_LIST_PATH) else {
        eprintln!("bulkhead-guest: no module list at {MODULES_LIST_PATH}");
        return;
    };
    for path in list.lines().map(str::trim).filter(|line| !line.is_empty()).take(MODULES_MAX) {
        let loaded = fs::File::open(path).map_err(anyhow::Error::from).and_then(|file| {
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        match loaded {
            // Its pages are of no more use and count against the guest's memory.
            Ok(()) => drop(fs::remove_file(path)),
            Err(error) => eprintln!("bulkhead-guest: module {path}: {error:#}"),
        }
    }
}

/// Leaves the initramfs for a tmpfs. pivot_root(2), which gives containers a root they cannot leave, refuses to work
/// below the initial root file system.
pub(crate) fn leave_initramfs() -> Result<()> {
    const ROOT: &str = "/newroot";
    mount_at("tmpfs", ROOT, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755,size=16m")?;
    for directory in ["dev", "proc", "sys"] {
        let target = Path::new(ROOT).join(directory);
        fs::create_dir(&target)?;
        let source = Path::new("/").join(directory);
        mount(Some(&source), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("move /{directory}"))?;
    }
    for directory in ["run", "tmp"] {
        fs::create_dir(Path::new(ROOT).join(directory))?;
    }
    nix::unistd::chdir(ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("move the new root to /")?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// The kernel's announcements about devices.
pub(crate) struct DeviceEvents(OwnedFd);

impl DeviceEvents {
    /// Must be opened before the modules are loaded, or the announcement of the port may be missed.
    pub(crate) fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(socket))
    }

    /// Waits for the next announcement; false when none came until then. What it says does not matter: it is a reason to look again.
    pub(crate) fn heard(&self, until: Instant) -> Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error).context("wait for a device"),
            }
        }
        while recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_ok() {}
        Ok(true)
    }

    /// Waits until the host's port has its name.
    pub(crate) fn wait_for_port(&self) -> Result<PathBuf> {
        self.wait(PORT_WAIT, find_port)?.with_context(|| {
            format!(
                "no virtio-serial port named {PORT_NAME} after {PORT_WAIT:?}; QEMU needs \
                 -device virtio-serial-pci -device virtserialport,chardev=…,name={PORT_NAME}"
            )
        })
    }

    /// Looks again at every announcement until something is found, or the time is over.
    fn wait<T>(&self, limit: Duration, look: impl Fn() -> Option<T>) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            if let Some(found) = look() {
                return Ok(Some(found));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if left.is_zero() {
                return Ok(None);
            }
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for a device"),
            }
            // The content does not matter: any announcement is a reason to look again.
            while recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_ok() {}
        }
    }
}

/// The device whose virtio-blk serial is this. A guest that was booted before there was a pod for it gets its disks while it runs: they
/// are added before it is told of them, and it finds them within a moment.
pub(crate) fn find_disk(serial: &str) -> Result<PathBuf> {
    if let Ok(path) = look_for_disk(serial) {
        return Ok(path);
    }
    let events = DeviceEvents::open()?;
    let found = events.wait(DISK_WAIT, || look_for_disk(serial).ok())?;
    found.map_or_else(|| look_for_disk(serial), Ok)
}

fn look_for_disk(serial: &str) -> Result<PathBuf> {
    let mut present = Vec::new();
    for entry in fs::read_dir("/sys/block").context("list /sys/block")?.flatten() {
        let Ok(found) = fs::read_to_string(entry.path().join("serial")) else { continue };
        if found.trim() == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
        present.push(found.trim().to_owned());
    }
    present.sort();
    bail!("no virtio-blk disk with serial {serial}; present: [{}]", present.join(", "))
}

/// Ends the guest. Falls back to a reset, which ends QEMU as well under `-no-reboot`.
pub(crate) fn power_off() -> ! {
    nix::unistd::sync();
    for mode in [RebootMode::RB_POWER_OFF, RebootMode::RB_AUTOBOOT] {
        let Err(error) = reboot(mode);
        eprintln!("bulkhead-guest: {mode:?}: {error}");
    }
    // Neither works outside a virtual machine; the end of PID 1 makes the kernel panic, and panic=-1 resets.
    std::process::exit(1)
}

/// A file's text without its line end, for reports only.
pub(crate) fn kernel_release() -> String {
    let text: io::Result<String> = fs::read_to_string("/proc/sys/kernel/osrelease");
    text.map_or_else(|_| "unknown".into(), |text| text.trim().into())
}
