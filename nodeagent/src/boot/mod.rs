//! The kernel and the initramfs that every guest VM boots from.
//!
//! ```text
//!  vmlinuz ─────────────────────────┐
//!  lib/modules/<version>/…/*.ko ─┐  ├─► <data>/boot/<sha256>/vmlinuz
//!  bulkhead-guest ───────────────┴──┴─► <data>/boot/<sha256>/initramfs
//! ```
//!
//! Entry point: [`BootAssets::prepare`]. The same inputs give the same bytes and so the same directory; a running
//! guest never sees its files change. Nothing here starts QEMU.

mod cpio;
mod drivers;
mod error;
mod initramfs;
mod modules;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub(crate) use drivers::GuestNic;
pub use error::BootError;
pub use initramfs::Compression;

/// Kernel command line of every guest.
///
/// First line: console on the first serial port, few lines, and an end of QEMU (started with `-no-reboot`) instead of
/// a hang when the kernel panics. `no_timer_check`: without it a boot on a busy host now and then panics because
/// emulated timer interrupts come late. Second line: what makes a boot under emulation about a third shorter: no
/// waiting for RCU grace periods, no recalibration of the TSC, no self-tests of ciphers, no probing for a keyboard
/// that no guest has, and no rewriting of the kernel's locks for a single processor (`noreplace-smp`), which costs a tenth of a boot
/// under emulation and saves next to nothing afterwards.
pub const KERNEL_ARGS: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check noreplace-smp \
     rcupdate.rcu_expedited=1 tsc=reliable cryptomgr.notests i8042.noaux i8042.nokbd i8042.nopnp";

/// Where the inputs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSources {
    /// The kernel image (bzImage).
    pub kernel: PathBuf,
    /// Its modules, `…/lib/modules/<version>`.
    pub modules_dir: PathBuf,
    /// The static `bulkhead-guest` binary.
    pub guest: PathBuf,
}

/// A kernel and an initramfs that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAssets {
    /// SHA-256 over kernel and initramfs, in hex.
    pub digest: String,
    /// For QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// For QEMU's `-initrd`.
    pub initramfs: PathBuf,
}

impl BootSources {
    /// Finds kernel and modules in a directory with `boot/vmlinuz-<version>` and `lib/modules/<version>`, such as
    /// `scripts/fetch-kernel.sh` makes or `/` on a Debian host. With several versions, the one that sorts last wins.
    ///
    /// # Errors
    /// [`BootError::KernelMissing`] if there is no version with both.
    pub fn from_kernel_dir(dir: &Path, guest: &Path) -> Result<Self, BootError> {
        let missing = || BootError::KernelMissing { path: dir.join("boot/vmlinuz-*") };
        let mut versions: Vec<String> = fs::read_dir(dir.join("boot"))
            .map_err(|_| missing())?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .filter(|version| modules_of(dir, version).is_some())
            .collect();
        versions.sort();
        let version = versions.pop().ok_or_else(missing)?;
        Ok(Self {
            kernel: dir.join(format!("boot/vmlinuz-{version}")),
            modules_dir: modules_of(dir, &version).ok_or_else(missing)?,
            guest: guest.into(),
        })
    }
}

fn modules_of(dir: &Path, version: &str) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .map(|base| dir.join(base).join(version))
        .find(|path| path.is_dir())
}

impl BootAssets {
    /// Makes the files under `<data>/boot/`, or finds them there. Reads some 10 MB; call it once at the start.
    ///
    /// # Errors
    /// [`BootError`] that names the missing input or the failed file operation.
    pub fn prepare(data: &Path, sources: &BootSources) -> Result<Self, BootError> {
        Self::prepare_with(data, sources, Compression::default())
    }

    /// As [`Self::prepare`], with a choice of compression.
    ///
    /// # Errors
    /// [`BootError`] that names the missing input or the failed file operation.
    pub fn prepare_with(
        data: &Path,
        sources: &BootSources,
        compression: Compression,
    ) -> Result<Self, BootError> {
        Self::prepare_for(data, sources, &[], compression)
    }

    /// As [`Self::prepare_with`], with the drivers of a guest's own NICs.
    ///
    /// # Errors
    /// [`BootError`] that names the missing input, the NIC without a driver, or the failed file operation.
    pub(crate) fn prepare_for(
        data: &Path,
        sources: &BootSources,
        nics: &[GuestNic],
        compression: Compression,
    ) -> Result<Self, BootError> {
        let kernel = fs::read(&sources.kernel).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BootError::KernelMissing { path: sources.kernel.clone() },
            _ => BootError::io("read", &sources.kernel, error),
        })?;
        let initramfs = initramfs::build(&sources.modules_dir, &sources.guest, nics, compression)?;
        let mut hasher = Sha256::new();
        hasher.update((kernel.len() as u64).to_le_bytes());
        hasher.update(&kernel);
        hasher.update(&initramfs);
        let digest = format!("{:x}", hasher.finalize());
        let base = data.join("boot");
        let dir = base.join(&digest);
        let assets = Self { digest, kernel: dir.join("vmlinuz"), initramfs: dir.join("initramfs") };
        if !dir.is_dir() {
            publish(&base, &dir, &[("vmlinuz", &kernel), ("initramfs", &initramfs)])?;
        }
        Ok(assets)
    }
}

/// Writes the files into a temporary directory and renames it, so that `dir` is either complete or absent.
fn publish(base: &Path, dir: &Path, files: &[(&str, &[u8])]) -> Result<(), BootError> {
    fs::create_dir_all(base).map_err(|e| BootError::io("make", base, e))?;
    let temporary = base.join(format!(".tmp-{}-{}", std::process::id(), uuid::Uuid::new_v4()));
    fs::create_dir(&temporary).map_err(|e| BootError::io("make", &temporary, e))?;
    let written = files.iter().try_for_each(|(name, bytes)| {
        let path = temporary.join(name);
        write_synced(&path, bytes).map_err(|e| BootError::io("write", &path, e))
    });
    let renamed = written.and_then(|()| {
        sync_dir(&temporary)?;
        match fs::rename(&temporary, dir) {
            Ok(()) => sync_dir(base),
            // Somebody else published the same content in the meantime.
            Err(_) if dir.is_dir() => {
                let _ = fs::remove_dir_all(&temporary);
                Ok(())
            }
            Err(e) => Err(BootError::io("rename to", dir, e)),
        }
    });
    if renamed.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    renamed
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> Result<(), BootError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| BootError::io("sync", path, e))
}

#[cfg(test)]
mod tests;
