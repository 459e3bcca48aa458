//! Errors of preparing the boot files.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why there is nothing to boot from.
#[derive(Debug, Error)]
pub enum BootError {
    /// No kernel image.
    #[error(
        "No kernel image at {path}; fetch one with `scripts/fetch-kernel.sh <dir>` \
         or `apt-get install linux-image-cloud-amd64`, and name it with --kernel-dir, or with --kernel and --modules-dir"
    )]
    KernelMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No guest binary.
    #[error(
        "No guest binary at {path}; build it with RUSTFLAGS='-C target-feature=+crt-static' \
         cargo build --release --target x86_64-unknown-linux-gnu -p bulkhead-guest"
    )]
    GuestMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The guest binary needs shared libraries, which the initramfs does not have.
    #[error("{path} is {found}, the guest needs a static x86-64 ELF executable (target-feature=+crt-static)")]
    GuestNotStatic {
        /// The binary.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A module that the guest needs is neither there nor built into the kernel.
    #[error(
        "Kernel module {name} is neither below {dir} nor built in; \
         use Debian's linux-image-cloud-amd64 (`scripts/fetch-kernel.sh <dir>`)"
    )]
    ModuleMissing {
        /// Name of the module.
        name: &'static str,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A NIC of the guest has no driver in its kernel.
    #[error(
        "no driver for {ids} in the guest's kernel {kernel}; give the agent a kernel that has one with --kernel-dir"
    )]
    NoDriver {
        /// Vendor and device id.
        ids: String,
        /// The kernel's version.
        kernel: String,
    },
    /// A module that a driver of the guest's NICs needs is not there.
    #[error(
        "module {name} is not in the guest's kernel {kernel}; give the agent a kernel that has it with --kernel-dir"
    )]
    DriverModuleMissing {
        /// Name of the module.
        name: String,
        /// The kernel's version.
        kernel: String,
    },
    /// A compressed module cannot be read.
    #[error("Module {path} cannot be decompressed: {reason}")]
    ModuleCompression {
        /// The module.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A file operation failed.
    #[error("Cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl BootError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source }
    }
}
