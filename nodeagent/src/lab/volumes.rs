//! Volumes in a thin pool of the real lvm2, on a loop device of the lab's machine.

use std::path::Path;
use std::process::Command;

use super::{Outcome, said};
use crate::vm::command::Disk;
use crate::volumes::check_thin_pool;

/// Runs a program of the machine.
fn run(line: &str) -> Outcome {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The conformance suite with the real driver; a disk for a guest, if this machine has lvm2.
pub(super) fn volumes_in_a_thin_pool() -> Outcome<Option<Disk>> {
    const POOL: &str = "labvg/thin";
    if !["/usr/sbin/lvm", "/sbin/lvm"].iter().any(|path| Path::new(path).exists()) {
        said("skipped: volumes in a thin pool, as lvm2 was not installed where this machine was made");
        return Ok(None);
    }
    run("/bin/busybox truncate -s 400M /tmp/pool.img")?;
    run("/bin/busybox losetup /dev/loop0 /tmp/pool.img")?;
    run("lvm vgcreate labvg /dev/loop0")?;
    run("lvm lvcreate --type thin-pool --size 320M --name thin labvg")?;
    // Ends the lab when LVM does otherwise.
    let published = check_thin_pool(Path::new("/tmp/volumes"), &POOL.parse()?);
    said(
        "a volume in a thin pool: made, copied, grown, adopted, half made and made anew, deleted, as files are; others' are left alone",
    );
    Ok(Some(Disk {
        file: published.file.display().to_string(),
        is_kept: true,
        driver: published.driver,
        serial: "thin".to_owned(),
    }))
}
