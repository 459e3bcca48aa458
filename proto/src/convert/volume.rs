//! What pods take from ConfigMaps, Secrets and themselves.

use bulkhead_types::{
    ConfigKeyRef, ConfigKind, ConfigProjection, ContainerOptions, ContainerResource, DownwardItem,
    DownwardSource, EnvFrom, EnvSource, GuestMemory, HugePageMedium, KeyToPath, PodField, PodOptions,
    Projection, ResourceField, Volume, VolumeMount, VolumeSource,
};

use super::{ConvertError, Field, wire_enum, wire_field, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::{downward_source, env_source, projection, volume_source};

wire_enum! {
    ConfigKind { ConfigMap, Secret }
    HugePageMedium { Any, TwoMib, OneGib }
    ContainerResource {
        RequestsCpu, LimitsCpu, RequestsMemory, LimitsMemory, RequestsEphemeralStorage, LimitsEphemeralStorage,
    }
}

wire_struct!(PodOptions => v1::PodOptions {
    volumes, security, priority_class, placement, guest_memory, naming, image_pull_secrets,
});
wire_struct!(GuestMemory => v1::GuestMemory { pinned, huge_pages });
wire_struct!(Volume => v1::Volume { name, source });
wire_struct!(ConfigProjection => v1::ConfigProjection { name, optional, items });
wire_struct!(KeyToPath => v1::KeyToPath { key, path, mode });
wire_struct!(DownwardItem => v1::DownwardItem { path, source, mode });
wire_struct!(ResourceField => v1::ResourceField { container_name, resource, divisor });
wire_struct!(ContainerOptions => v1::ContainerOptions {
    env_from, volume_mounts, startup_probe, readiness_probe, liveness_probe, lifecycle, sidecar, security,
    termination_message_path, termination_message_from_logs, extended, stdin, stdin_once, tty, huge_pages, resize_policy,
});
wire_struct!(EnvFrom => v1::EnvFrom { prefix, kind, name, optional });
wire_struct!(VolumeMount => v1::VolumeMount { name, mount_path, sub_path, read_only });
wire_struct!(ConfigKeyRef => v1::ConfigKeyRef { name, key, optional });

wire_oneof!(VolumeSource => volume_source {
    values {}
    messages {
        EmptyDir "empty_dir" { memory, size_limit_bytes, huge_pages }
        Files "files" { source, default_mode }
        Projected "projected" { sources, default_mode }
        PersistentVolumeClaim "persistent_volume_claim" { claim_name, read_only }
    }
});
wire_oneof!(Projection => projection {
    values { ConfigMap "config_map", Secret "secret" }
    messages { DownwardApi "downward_api" { items } }
});
wire_oneof!(DownwardSource => downward_source {
    values { Field "field", Resource "resource" }
    messages {}
});
wire_oneof!(EnvSource => env_source {
    values { ConfigMapKey "config_map_key", SecretKey "secret_key", Downward "downward" }
    messages {}
});
wire_variant_message! {
    VolumeSource => v1::VolumeSource,
    Projection => v1::Projection,
    DownwardSource => v1::DownwardSource,
    EnvSource => v1::EnvSource,
}
wire_field! {
    PodOptions => v1::PodOptions,
    GuestMemory => v1::GuestMemory,
    Volume => v1::Volume,
    ConfigProjection => v1::ConfigProjection,
    KeyToPath => v1::KeyToPath,
    DownwardItem => v1::DownwardItem,
    ResourceField => v1::ResourceField,
    ContainerOptions => v1::ContainerOptions,
    EnvFrom => v1::EnvFrom,
    VolumeMount => v1::VolumeMount,
    ConfigKeyRef => v1::ConfigKeyRef,
}

impl Field<String> for PodField {
    fn to_wire(&self) -> String {
        self.to_string()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        Self::parse(&wire).map_err(|e| ConvertError::new(e.to_string()))
    }
}
