//! Stand-ins for QEMU, its tools, a kernel and a guest, for tests of processes rather than of what runs in them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::process::find_program;

/// Says that it is QEMU and, as a guest, does nothing until it is killed. It executes nothing else: its arguments are
/// what guests are found by.
const QEMU: &str = "#!/bin/sh\ncase \"$*\" in\n*-version*) echo 'QEMU emulator version 0.0.0' ;;\n\
    *-pidfile*) kill -STOP $$ ;;\n*) exit 1 ;;\nesac\n";
/// Makes any disk: its path is the last argument but one.
const QEMU_IMG: &str = "#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\n: > \"$1\"\n";
/// What guests load, as if it were built into the kernel.
const MODULES: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
];

/// Where they are.
#[derive(Debug)]
pub struct Stubs {
    /// Programs, to be found before the real ones.
    pub(crate) programs: PathBuf,
    /// A kernel, in a form.
    pub(crate) kernel_dir: PathBuf,
    /// A guest program, in a form.
    pub(crate) guest: PathBuf,
}

impl Stubs {
    /// Makes them below `dir`.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn make(dir: &Path) -> Self {
        let root = dir.join("stubs");
        let (programs, kernel_dir) = (root.join("bin"), root.join("kernel"));
        let modules = kernel_dir.join("lib/modules/1");
        for folder in [&programs, &kernel_dir.join("boot"), &modules] {
            fs::create_dir_all(folder).expect("a folder");
        }
        for (name, text) in [("qemu-system-x86_64", QEMU), ("qemu-img", QEMU_IMG)] {
            let path = programs.join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
        }
        fs::write(kernel_dir.join("boot/vmlinuz-1"), "a kernel").expect("written");
        let builtin: String = MODULES.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        fs::write(modules.join("modules.builtin"), builtin).expect("written");
        let guest = root.join("guest");
        // An agent takes nothing but a static program.
        fs::copy(find_program("busybox").expect("the image needs it, too"), &guest).expect("copied");
        Self { programs, kernel_dir, guest }
    }
}
