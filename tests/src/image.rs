//! An image, built on the spot.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::find_program;

/// What pods call the image of [`layout`].
pub const IMAGE_NAME: &str = "demo/web:v1";

/// Builds an OCI layout with the tags `v1` and `v2` below `dir`: busybox, and a script that prints a line a second.
///
/// # Panics
/// When the script that builds it fails.
#[must_use]
pub fn layout(dir: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-image.sh");
    let output = Command::new(script).arg(dir).output().expect("the script starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir.join("layout")
}

/// As [`layout`]; `None`, with the missing program, where it cannot be built.
///
/// # Errors
/// The program that is missing.
pub fn build_layout(dir: &Path) -> Result<PathBuf, String> {
    match ["umoci", "busybox"].into_iter().find(|program| find_program(program).is_none()) {
        Some(missing) => Err(format!("{missing} is missing; remedy: make deps")),
        None => Ok(layout(dir)),
    }
}
