//! What an image says about how to run it, kept beside its file system.

use serde::{Deserialize, Serialize};

/// More users or groups than this in an image's /etc/passwd or /etc/group are cut off.
const ACCOUNTS_MAX: usize = 4096;

/// The part of an image's configuration that matters for running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// ENTRYPOINT.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// CMD.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// WORKDIR; empty means `/`.
    #[serde(default)]
    pub working_dir: String,
    /// USER as written: `uid`, `name`, `uid:gid` or `name:group`; empty means root.
    #[serde(default)]
    pub user: String,
    /// STOPSIGNAL as written; empty means SIGTERM.
    #[serde(default)]
    pub stop_signal: String,
    /// The image's /etc/passwd.
    #[serde(default)]
    pub users: Vec<User>,
    /// The image's /etc/group.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// The number of a signal as images write it: `SIGQUIT`, `QUIT`, `3`, `RTMIN+3`; 0 for none.
///
/// Source: signal(7); the real-time signals begin at 34, as the GNU C library has it.
///
/// # Errors
/// When no signal is called so.
pub(crate) fn signal_number(text: &str) -> Result<i32, String> {
    const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
    if text.is_empty() {
        return Ok(0);
    }
    let unknown = || format!("the image's STOPSIGNAL {text:?} is no signal: write SIGQUIT, 3 or SIGRTMIN+3");
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(|number| (1..=64).contains(number)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = format!("SIG{name}").parse::<nix::sys::signal::Signal>() {
        return Ok(signal as i32);
    }
    let from = |base: i32, offset: &str| match offset {
        "" => Some(base),
        offset => base.checked_add(offset.parse().ok()?),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => from(*REAL_TIME.start(), offset),
        (_, Some(offset)) => from(*REAL_TIME.end(), offset),
        _ => None,
    };
    number.filter(|number| REAL_TIME.contains(number)).ok_or_else(unknown)
}

/// A line of /etc/passwd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// A line of /etc/group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Names of its members.
    pub members: Vec<String>,
}

/// The well-formed lines of an /etc/passwd.
pub(super) fn parse_passwd(text: &str) -> Vec<User> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(User { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
    };
    text.lines().filter_map(parse).take(ACCOUNTS_MAX).collect()
}

/// The well-formed lines of an /etc/group.
pub(super) fn parse_group(text: &str) -> Vec<Group> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, gid, members, ..] = fields.as_slice() else { return None };
        let members = members.split(',').filter(|member| !member.is_empty()).map(Into::into).collect();
        Some(Group { name: name.into(), gid: gid.parse().ok()?, members })
    };
    text.lines().filter_map(parse).take(ACCOUNTS_MAX).collect()
}

impl From<&oci_spec::image::Config> for ImageConfig {
    fn from(config: &oci_spec::image::Config) -> Self {
        Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone().unwrap_or_default(),
            users: Vec::new(),
            groups: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_in_several_ways() {
        let check =
            |text: &str, expected: Option<i32>| assert_eq!(signal_number(text).ok(), expected, "{text}");
        check("", Some(0));
        check("SIGTERM", Some(15));
        check("QUIT", Some(3));
        check("sigint", Some(2));
        check("9", Some(9));
        check("SIGRTMIN+3", Some(37));
        check("RTMIN", Some(34));
        check("RTMAX-1", Some(63));
        for bad in ["SIGNOTHING", "0", "65", "-1", "RTMIN+31", "RTMIN-1", "RTMAX+1", "SIGRTMIN+9999999999"] {
            check(bad, None);
        }
    }

    #[test]
    fn accounts_are_read_and_nonsense_is_skipped() {
        let users = parse_passwd("root:x:0:0:root:/root:/bin/sh\nbad\nx:x:a:0::/:\nweb:x:33:34::/var/www:\n");
        assert_eq!(users.len(), 2);
        assert_eq!(
            (users[1].name.as_str(), users[1].uid, users[1].gid, users[1].home.as_str()),
            ("web", 33, 34, "/var/www")
        );
        let groups = parse_group("root:x:0:\nadm:x:4:web,root\nbad:x\n");
        assert_eq!(groups.len(), 2);
        assert_eq!(
            groups[1],
            Group { name: "adm".into(), gid: 4, members: vec!["web".into(), "root".into()] }
        );
    }
}
