//! What the references in a pod's spec came to: values and files, for the node that runs the pod.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::Sensitive;

/// Most bytes of the values and files of one pod together: the guest keeps files in memory.
pub const RESOLVED_POD_BYTES_MAX: usize = 4 << 20;
/// Most bytes of the values and files of all pods of a node together: they travel in one message.
pub const RESOLVED_NODE_BYTES_MAX: usize = 32 << 20;

/// The configuration of one pod. What may come from a Secret is [`Sensitive`], so all of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResolvedPod {
    /// What keeps it from starting, for people, such as a ConfigMap that is not there; the rest is empty then. Empty when
    /// nothing does.
    pub missing: String,
    /// Every container, init containers first.
    pub containers: Vec<ResolvedContainer>,
    /// Every volume that has files, in spec order.
    pub volumes: Vec<VolumeFiles>,
}

/// What one container executes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResolvedContainer {
    /// Its name.
    pub name: SmolStr,
    /// Variables of the spec with their final values, each name once.
    pub env: Vec<EnvValue>,
    /// `command` with its final words.
    pub command: Vec<Sensitive>,
    /// `args` with its final words.
    pub args: Vec<Sensitive>,
}

/// A variable with its final value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvValue {
    /// Its name.
    pub name: String,
    /// Its value, UTF-8 without NUL.
    pub value: Sensitive,
}

/// The files of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeFiles {
    /// The volume's name.
    pub volume: SmolStr,
    /// In path order, each path once.
    pub files: Vec<VolumeFile>,
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Relative to the volume's root, without `.` and `..`.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub data: Sensitive,
}

impl ResolvedPod {
    /// Bytes of values and files.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = |words: &[Sensitive]| words.iter().map(Sensitive::len).sum::<usize>();
        let container = |c: &ResolvedContainer| {
            let env: usize = c.env.iter().map(|var| var.name.len() + var.value.len()).sum();
            env + words(&c.command) + words(&c.args)
        };
        let files = self.volumes.iter().flat_map(|v| &v.files).map(|f| f.path.len() + f.data.len());
        self.containers.iter().map(container).sum::<usize>() + files.sum::<usize>()
    }
}
