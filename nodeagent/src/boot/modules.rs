//! The kernel modules that a guest loads, and where to find them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::BootError;

/// The modules in load order: each after those it needs.
pub(super) const LOAD_ORDER: &[&str] = &[
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

/// Modules that a guest loads when it first needs them: the names of [`bulkhead_guest_protocol::MEMORY_MODULE_PATHS`].
const LATER: &[&str] = &["virtio_mem", "virtio_balloon"];

/// Reads the modules in load order, decompressed. Those that are built into the kernel are left out.
pub(super) fn read_all(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, BootError> {
    let builtin = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let mut found = BTreeMap::new();
    find(&dir.join("kernel"), &mut found)?;
    let mut modules = Vec::new();
    for &name in LOAD_ORDER {
        match found.get(name) {
            Some(path) => modules.push((name, read(path)?)),
            None if builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name)) => {}
            None => return Err(BootError::ModuleMissing { name, dir: dir.into() }),
        }
    }
    Ok(modules)
}

/// The drivers of memory that comes and goes, decompressed. A kernel without them has guests that keep the memory that they have.
pub(super) fn read_later(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, BootError> {
    let mut found = BTreeMap::new();
    find(&dir.join("kernel"), &mut found)?;
    let there = LATER.iter().filter_map(|name| Some((*name, found.get(*name)?)));
    there.map(|(name, path)| Ok((name, read(path)?))).collect()
}

/// All modules below a directory, by name.
pub(super) fn find(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<(), BootError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BootError::io("list", dir, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| BootError::io("list", dir, e))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, found)?;
        } else if let Some(name) = module_name(&path) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/net/core/failover.ko.xz` is the module `failover`; in names `-` and `_` mean the same.
pub(super) fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem =
        [".ko", ".ko.zst", ".ko.xz", ".ko.gz"].into_iter().find_map(|suffix| file.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, BootError> {
    let bytes = fs::read(path).map_err(|e| BootError::io("read", path, e))?;
    let failed = |reason: String| BootError::ModuleCompression { path: path.into(), reason };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => zstd::decode_all(bytes.as_slice()).map_err(|e| failed(e.to_string())),
        Some("gz") => {
            let mut out = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes.as_slice()), &mut out)
                .map_err(|e| failed(e.to_string()))?;
            Ok(out)
        }
        Some("xz") => {
            let output = Command::new("xz").args(["-dc", "--"]).arg(path).output();
            let output = output.map_err(|e| failed(format!("xz: {e} (apt-get install xz-utils)")))?;
            if output.status.success() {
                Ok(output.stdout)
            } else {
                Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
            }
        }
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names() {
        for (path, expected) in [
            ("kernel/net/core/failover.ko", Some("failover")),
            ("a/virtio-rng.ko.zst", Some("virtio_rng")),
            ("a/x.ko.xz", Some("x")),
            ("a/modules.dep", None),
        ] {
            assert_eq!(module_name(Path::new(path)).as_deref(), expected, "{path}");
        }
    }
}
