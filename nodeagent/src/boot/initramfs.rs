//! The content of the initramfs: /init, the modules and the list that tells their order.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use bulkhead_guest_protocol::MODULES_LIST_PATH;

use super::cpio::CpioWriter;
use super::drivers::{self, GuestNic};
use super::{BootError, modules};

/// How the initramfs is packed. Whatever it is, the kernel recognises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: nothing to unpack in the guest. Under emulation gzip takes as long and zstd longer, because the
    /// 2 MB are copied by the host and unpacked by the guest.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// The whole initramfs in memory.
pub(super) fn build(
    modules_dir: &Path,
    guest: &Path,
    nics: &[GuestNic],
    compression: Compression,
) -> Result<Vec<u8>, BootError> {
    let init = fs::read(guest).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BootError::GuestMissing { path: guest.into() },
        _ => BootError::io("read", guest, error),
    })?;
    check_static(&init).map_err(|found| BootError::GuestNotStatic { path: guest.into(), found })?;
    let mut cpio = CpioWriter::new();
    for dir in ["dev", "proc", "sys", "newroot", "lib", "lib/modules"] {
        cpio.directory(dir, 0o755);
    }
    let mut list = String::new();
    let all = modules::read_all(modules_dir)?.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in all.chain(drivers::read_for(modules_dir, nics)?) {
        let path = format!("lib/modules/{name}.ko");
        cpio.file(&path, 0o644, &bytes);
        list.push_str(&format!("/{path}\n"));
    }
    // Not in the list: a guest loads them when it first needs them.
    for (name, bytes) in modules::read_later(modules_dir)? {
        cpio.file(&format!("lib/modules/{name}.ko"), 0o644, &bytes);
    }
    cpio.file(MODULES_LIST_PATH.trim_start_matches('/'), 0o644, list.as_bytes());
    cpio.file("init", 0o755, &init);
    pack(&cpio.finish(), compression).map_err(|e| BootError::io("compress", guest, e))
}

fn pack(archive: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(archive.to_vec()),
        Compression::Gzip => {
            // The default header has no name and no time, so the bytes are stable.
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(archive)?;
            encoder.finish()
        }
        Compression::Zstd => zstd::encode_all(archive, 9),
    }
}

/// Refuses an executable that the kernel could not start in the initramfs: one for another machine, or one with a
/// program interpreter (`PT_INTERP`), i.e. a dynamic one. ELF64 offsets are those of the System V ABI.
fn check_static(bytes: &[u8]) -> Result<(), &'static str> {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let u32_at = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01".as_slice()) || u16_at(18) != Some(62) {
        return Err("no x86-64 ELF executable");
    }
    let headers =
        bytes.get(32..40).map_or(0, |b| b.iter().rev().fold(0_u64, |sum, b| sum << 8 | u64::from(*b)));
    let (size, count) = (u16_at(54).unwrap_or(0), u16_at(56).unwrap_or(0));
    for number in 0..u64::from(count) {
        let at = headers.saturating_add(number * u64::from(size));
        let kind = usize::try_from(at).ok().and_then(u32_at).ok_or("a damaged ELF executable")?;
        if kind == PT_INTERP {
            return Err("dynamically linked");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with program headers of these types.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + kinds.len() * 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).expect("few");
        for (number, kind) in kinds.iter().enumerate() {
            bytes[64 + number * 56..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn only_static_executables_are_taken() {
        assert_eq!(check_static(&elf(&[1, 6])), Ok(()));
        assert_eq!(check_static(&elf(&[1, 3])), Err("dynamically linked"));
        assert_eq!(check_static(b"#!/bin/sh"), Err("no x86-64 ELF executable"));
        assert_eq!(check_static(&elf(&[1, 1])[..100]), Err("a damaged ELF executable"));
        assert_eq!(check_static(b""), Err("no x86-64 ELF executable"));
    }
}
