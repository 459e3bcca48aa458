//! Stand-ins for QEMU, its tools, a kernel and a guest, for tests of processes rather than of what runs in them.

use std::path::{Path, PathBuf};

use crate::stub_files;

/// Says that it is QEMU and, as a guest, does nothing until it is killed. It executes nothing else: its arguments are
/// what guests are found by.
const QEMU: &str = "#!/bin/sh\ncase \"$*\" in\n*-version*) echo 'QEMU emulator version 0.0.0' ;;\n\
    *-pidfile*) kill -STOP $$ ;;\n*) exit 1 ;;\nesac\n";
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
        stub_files::make(&root);
        let (programs, kernel_dir, guest) = (root.join("bin"), root.join("kernel"), root.join("guest"));
        stub_files::program(&programs.join("qemu-system-x86_64"), QEMU);
        Self { programs, kernel_dir, guest }
    }
}
