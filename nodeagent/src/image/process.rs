//! What a container executes: the pod's wishes on top of the image's configuration, by Kubernetes' rules.

use std::collections::BTreeMap;

use bulkhead_types::expand;
use thiserror::Error;

use super::config::ImageConfig;

/// PATH where neither image nor pod sets one (as container runtimes have it).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the pod says about a container.
///
/// Printed without command and variables: they may hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProcessOverrides {
    /// `command`: replaces ENTRYPOINT and drops CMD. Empty means not given.
    pub command: Vec<String>,
    /// `args`: replaces CMD. Empty means not given.
    pub args: Vec<String>,
    /// Name and value in order; a later one may refer to an earlier one as `$(NAME)`.
    pub env: Vec<(String, String)>,
    /// Command, args and env are final: nothing in them is replaced any more.
    pub is_resolved: bool,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `runAsUser`.
    pub run_as_user: Option<u32>,
    /// `runAsGroup`.
    pub run_as_group: Option<u32>,
    /// `supplementalGroups` and `fsGroup`.
    pub additional_gids: Vec<u32>,
    /// Hostname of the pod, for HOSTNAME.
    pub hostname: String,
}

/// What to execute and as whom.
///
/// Printed without command and variables: they may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerProcess {
    /// Command and arguments; not empty.
    pub argv: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, sorted, without `gid`.
    pub additional_gids: Vec<u32>,
}

impl std::fmt::Debug for ProcessOverrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessOverrides").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ContainerProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerProcess")
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

/// Why a container cannot be executed as described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcessError {
    /// Neither the image nor the pod names a command.
    #[error("No command: the image has neither ENTRYPOINT nor CMD; set command or args")]
    NoCommand,
    /// USER names somebody whom the image does not have.
    #[error("User {user:?} is not in the image's /etc/passwd; set securityContext.runAsUser")]
    UnknownUser {
        /// As in the image's configuration.
        user: String,
    },
    /// USER names a group that the image does not have.
    #[error("Group {group:?} is not in the image's /etc/group; set securityContext.runAsGroup")]
    UnknownGroup {
        /// As in the image's configuration.
        group: String,
    },
    /// The working directory is not absolute.
    #[error("Working directory {path:?} is not absolute")]
    RelativeWorkingDir {
        /// As given.
        path: String,
    },
}

/// Merges the pod's wishes into the image's configuration.
///
/// # Errors
/// [`ProcessError`] says what is missing.
pub fn resolve_process(
    image: &ImageConfig,
    overrides: &ProcessOverrides,
) -> Result<ContainerProcess, ProcessError> {
    let user = resolve_user(image, overrides)?;
    let env = merge_env(image, overrides, user.home.as_deref());
    let final_word = |text: &String| {
        if overrides.is_resolved { text.clone() } else { expand(text, &env.own) }
    };
    let expand_all = |list: &[String]| list.iter().map(final_word).collect::<Vec<_>>();
    let (mut argv, cmd) = if overrides.command.is_empty() {
        (image.entrypoint.clone(), image.cmd.as_slice())
    } else {
        (expand_all(&overrides.command), [].as_slice())
    };
    if overrides.args.is_empty() {
        argv.extend_from_slice(cmd);
    } else {
        argv.extend(expand_all(&overrides.args));
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(ProcessError::NoCommand);
    }
    let working_dir = match overrides.working_dir.as_deref().unwrap_or(&image.working_dir) {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => return Err(ProcessError::RelativeWorkingDir { path: path.into() }),
    };
    Ok(ContainerProcess {
        argv,
        env: env.merged,
        working_dir,
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids,
    })
}

struct ResolvedUser {
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
    home: Option<String>,
}

/// `runAsUser` wins over USER; a group that neither names comes from the image's /etc/passwd, else it is root's.
fn resolve_user(image: &ImageConfig, overrides: &ProcessOverrides) -> Result<ResolvedUser, ProcessError> {
    let (user, group) = match image.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image.user.as_str(), None),
    };
    let uid = match overrides.run_as_user {
        Some(uid) => uid,
        None if user.is_empty() => 0,
        None => match (user.parse(), image.users.iter().find(|entry| entry.name == user)) {
            (_, Some(entry)) => entry.uid,
            (Ok(uid), None) => uid,
            (Err(_), None) => return Err(ProcessError::UnknownUser { user: user.into() }),
        },
    };
    let entry = image.users.iter().find(|entry| entry.uid == uid);
    let gid = match (overrides.run_as_group, group) {
        (Some(gid), _) => gid,
        (None, Some(group)) if overrides.run_as_user.is_none() => {
            match (group.parse(), image.groups.iter().find(|entry| entry.name == group)) {
                (_, Some(entry)) => entry.gid,
                (Ok(gid), None) => gid,
                (Err(_), None) => return Err(ProcessError::UnknownGroup { group: group.into() }),
            }
        }
        (None, _) => entry.map_or(0, |entry| entry.gid),
    };
    let is_member = |members: &[String]| entry.is_some_and(|entry| members.contains(&entry.name));
    let memberships = image.groups.iter().filter(|group| is_member(&group.members)).map(|group| group.gid);
    let mut additional_gids: Vec<u32> =
        memberships.chain(overrides.additional_gids.iter().copied()).collect();
    additional_gids.sort_unstable();
    additional_gids.dedup();
    additional_gids.retain(|additional| *additional != gid);
    Ok(ResolvedUser { uid, gid, additional_gids, home: entry.map(|entry| entry.home.clone()) })
}

struct MergedEnv {
    /// `NAME=value`, each name once, in the order of first appearance.
    merged: Vec<String>,
    /// What `$(NAME)` may refer to: only what the pod itself sets.
    own: BTreeMap<String, String>,
}

fn merge_env(image: &ImageConfig, overrides: &ProcessOverrides, home: Option<&str>) -> MergedEnv {
    let mut merged: Vec<String> = Vec::new();
    let mut own = BTreeMap::new();
    let name_of = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let mut set = |entry: String| {
        let name = name_of(&entry);
        match merged.iter_mut().find(|existing| name_of(existing) == name) {
            Some(existing) => *existing = entry,
            None => merged.push(entry),
        }
    };
    set(DEFAULT_PATH.into());
    if !overrides.hostname.is_empty() {
        set(format!("HOSTNAME={}", overrides.hostname));
    }
    if let Some(home) = home {
        set(format!("HOME={home}"));
    }
    image.env.iter().for_each(|entry| set(entry.clone()));
    for (name, value) in &overrides.env {
        let value = if overrides.is_resolved { value.clone() } else { expand(value, &own) };
        set(format!("{name}={value}"));
        own.insert(name.clone(), value);
    }
    MergedEnv { merged, own }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
