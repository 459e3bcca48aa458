//! What an agent needs of a kernel, a guest program and QEMU's tools, in form only: for tests of processes rather than of what runs
//! in them. The agent's own tests have this file, too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

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
/// What the kernel says of a driver of NICs, as if that were built in as well: modules.builtin.modinfo.
const NIC_DRIVER: &str = "mlx5_core.alias=pci:v000015B3d*sv*sd*bc*sc*i*\0";

/// `EM_X86_64` of elf(5).
const X86_64: u8 = 62;

/// Makes `bin`, with a qemu-img, `kernel` and `guest` below a folder.
///
/// # Panics
/// When that fails.
pub fn make(root: &Path) {
    let modules = root.join("kernel/lib/modules/1");
    for folder in [&root.join("bin"), &root.join("kernel/boot"), &modules] {
        fs::create_dir_all(folder).expect("a folder");
    }
    program(&root.join("bin/qemu-img"), QEMU_IMG);
    fs::write(root.join("kernel/boot/vmlinuz-1"), "a kernel").expect("written");
    let builtin: String = MODULES.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
    fs::write(modules.join("modules.builtin"), builtin).expect("written");
    fs::write(modules.join("modules.builtin.modinfo"), NIC_DRIVER).expect("written");
    // An agent takes nothing but a static program: this is one without anything in it.
    let mut program = [0; 64];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    program[18] = X86_64;
    fs::write(root.join("guest"), program).expect("written");
}

/// Makes a program from a text.
///
/// # Panics
/// When that fails.
pub fn program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
}
