//! What the references of a pod came to. Its values are never printed.

use bulkhead_types::{EnvValue, ResolvedContainer, ResolvedPod, VolumeFile, VolumeFiles};

use super::{wire_field, wire_struct};
use crate::v1;

wire_struct!(ResolvedPod => v1::ResolvedPod { missing, containers, volumes });
wire_struct!(ResolvedContainer => v1::ResolvedContainer { name, env, command, args });
wire_struct!(EnvValue => v1::EnvValue { name, value });
wire_struct!(VolumeFiles => v1::VolumeFiles { volume, files });
wire_struct!(VolumeFile => v1::VolumeFile { path, mode, data });

wire_field! {
    ResolvedPod => v1::ResolvedPod,
    ResolvedContainer => v1::ResolvedContainer,
    EnvValue => v1::EnvValue,
    VolumeFiles => v1::VolumeFiles,
    VolumeFile => v1::VolumeFile,
}

impl std::fmt::Debug for v1::ResolvedContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolvedContainer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::EnvValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvValue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeFile").field("path", &self.path).finish_non_exhaustive()
    }
}
