//! Settings of the guest's kernel.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::host::SysctlConfig;

/// Where the kernel has them.
const ROOT: &str = "/proc/sys";

/// Writes all of them, in order. Those that every container has for itself are tried here as well, so that a mistake is found
/// before anything runs.
///
/// # Errors
/// With the name of the first that fails, and why.
pub(crate) fn set_all(sysctls: &[SysctlConfig]) -> Result<()> {
    sysctls.iter().try_for_each(|sysctl| set(Path::new(ROOT), sysctl))
}

/// Writes those that the calling process's container has for itself.
///
/// # Errors
/// As [`set_all`].
pub(crate) fn set_own(sysctls: &[SysctlConfig]) -> Result<()> {
    sysctls
        .iter()
        .filter(|sysctl| sysctl.of_each_container)
        .try_for_each(|sysctl| set(Path::new(ROOT), sysctl))
}

fn set(root: &Path, sysctl: &SysctlConfig) -> Result<()> {
    let path = root.join(&sysctl.path);
    // One write: the kernel reads each as a whole. What is not there is never made.
    let file = fs::OpenOptions::new().write(true).open(&path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, sysctl.value.as_bytes()));
    written.with_context(|| format!("sysctl {} cannot be set to {:?}", sysctl.name, sysctl.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_fails_is_named_and_made_nowhere() {
        let root = std::env::temp_dir().join(format!("bulkhead-sysctl-{}", std::process::id()));
        fs::create_dir_all(root.join("vm")).expect("a folder");
        fs::write(root.join("vm/swappiness"), "60\n").expect("a file");
        let sysctl = |path: &str| SysctlConfig {
            name: path.replace('/', "."),
            path: path.to_owned(),
            value: "1".to_owned(),
            of_each_container: false,
        };
        set(&root, &sysctl("vm/swappiness")).expect("it is there");
        assert_eq!(
            fs::read_to_string(root.join("vm/swappiness")).expect("read"),
            "10\n",
            "written, not replaced"
        );
        let error = set(&root, &sysctl("vm/nothing")).expect_err("it is not there");
        let expected = "sysctl vm.nothing cannot be set to \"1\": No such file or directory (os error 2)";
        assert_eq!(format!("{error:#}"), expected);
        assert!(!root.join("vm/nothing").exists());
        fs::remove_dir_all(&root).expect("removed");
    }
}
