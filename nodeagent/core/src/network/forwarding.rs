//! Whether the host forwards packets.

use crate::hardware::{MachineSettings, TreeError};

/// The file that says so (`Documentation/networking/ip-sysctl.rst` of Linux).
pub const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Has the host forward packets. Where the file is read-only somebody else may have said so already.
///
/// # Errors
/// When it does not and cannot be told to.
pub fn switch_forwarding_on(settings: &mut dyn MachineSettings) -> Result<(), TreeError> {
    if settings.read(IP_FORWARD)?.trim_ascii() == b"1" {
        return Ok(());
    }
    settings.set(IP_FORWARD, "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{MemoryTree, Tree as _};

    #[test]
    fn it_is_switched_on_where_it_is_not() {
        let check = |tree: &mut MemoryTree, expected: Result<(), TreeError>, then: Option<&[u8]>| {
            assert_eq!(switch_forwarding_on(tree), expected);
            assert_eq!(tree.read(IP_FORWARD).ok().as_deref(), then);
        };
        let mut tree = MemoryTree::new();
        check(&mut tree, Err(TreeError::NotFound), None);
        check(tree.file(IP_FORWARD, "0\n"), Ok(()), Some(b"1"));
        check(tree.read_only(IP_FORWARD, "1\n"), Ok(()), Some(b"1\n"));
        check(tree.read_only(IP_FORWARD, "0\n"), Err(TreeError::Denied), Some(b"0\n"));
        check(tree.denied(IP_FORWARD), Err(TreeError::Denied), None);
    }
}
