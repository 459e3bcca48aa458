//! Whether the host's kernel merges pages that are alike (`admin-guide/mm/ksm.rst` of Linux' documentation).

use std::fs;
use std::path::Path;

/// Where it is set up.
pub(crate) const KSM: &str = "/sys/kernel/mm/ksm";

/// What keeps it from doing so, and what an operator does about it. The setting is the whole machine's, so no agent changes it.
pub(crate) fn problem(ksm: &Path) -> Option<String> {
    let run = ksm.join("run");
    let asked = "guests share no memory, although --memory-sharing ksm asks for it:";
    match fs::read_to_string(&run) {
        Ok(text) if text.trim() == "1" => None,
        Ok(_) => Some(format!("{asked} the kernel merges no pages; run: echo 1 > {}", run.display())),
        Err(error) => {
            Some(format!("{asked} {} ({error}); a kernel with CONFIG_KSM is needed", run.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let check = |expected: Option<&str>| {
            let problem = problem(dir.path());
            match expected {
                None => assert_eq!(problem, None),
                Some(expected) => {
                    assert!(problem.as_ref().is_some_and(|text| text.contains(expected)), "{problem:?}")
                }
            }
        };
        check(Some("CONFIG_KSM"));
        for (run, expected) in [("0\n", Some("echo 1 >")), ("2\n", Some("echo 1 >")), ("1\n", None)] {
            fs::write(dir.path().join("run"), run).expect("written");
            check(expected);
        }
    }
}
