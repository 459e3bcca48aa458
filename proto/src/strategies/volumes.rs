//! What pods take from ConfigMaps, Secrets and themselves.

use super::*;

/// Any part, or none.
pub fn rare<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Rare<T>> + Clone {
    of(value).prop_map(Rare::from)
}

fn pod_field() -> impl Strategy<Value = PodField> + Clone {
    prop_oneof![
        select(vec![
            PodField::Name,
            PodField::Namespace,
            PodField::Uid,
            PodField::NodeName,
            PodField::PodIp,
            PodField::PodIps,
            PodField::HostIp,
            PodField::HostIps,
            PodField::Labels,
            PodField::Annotations,
        ]),
        small().prop_map(PodField::Label),
        small().prop_map(PodField::Annotation),
    ]
}

record!(/// Any resource of a container.
resource_field: ResourceField {
    container_name: of(small()), resource: select(ContainerResource::ALL.to_vec()), divisor: any::<u64>(),
});

fn downward_source() -> impl Strategy<Value = DownwardSource> + Clone {
    prop_oneof![
        pod_field().prop_map(DownwardSource::Field),
        resource_field().prop_map(DownwardSource::Resource)
    ]
}

record!(/// Any key of a ConfigMap or Secret.
    config_key_ref: ConfigKeyRef { name: small(), key: small(), optional: any::<bool>() });

/// Any source of a variable.
pub fn env_source() -> impl Strategy<Value = EnvSource> + Clone {
    prop_oneof![
        config_key_ref().prop_map(EnvSource::ConfigMapKey),
        config_key_ref().prop_map(EnvSource::SecretKey),
        downward_source().prop_map(EnvSource::Downward),
    ]
}

record!(/// Any set of variables.
env_from: EnvFrom {
    prefix: small(), kind: select(vec![ConfigKind::ConfigMap, ConfigKind::Secret]), name: small(),
    optional: any::<bool>(),
});
record!(/// Any mount.
volume_mount: VolumeMount {
    name: small(), mount_path: text(), sub_path: of(text()), read_only: any::<bool>(),
});
record!(/// What few containers have.
container_options: ContainerOptions {
    env_from: vec(env_from(), 0..2), volume_mounts: vec(volume_mount(), 0..2), startup_probe: rare(probe()),
    readiness_probe: rare(probe()), liveness_probe: rare(probe()), lifecycle: rare(lifecycle()),
    sidecar: any::<bool>(), security: rare(security_context()), termination_message_path: of(text()),
    termination_message_from_logs: any::<bool>(), extended: rare(extended_resources()), stdin: any::<bool>(),
    stdin_once: any::<bool>(), tty: any::<bool>(), huge_pages: huge_pages(), resize_policy: rare(resize_policy()),
});
record!(/// Any key as a file.
    key_to_path: KeyToPath { key: small(), path: text(), mode: of(any::<u32>()) });
record!(/// Any files of a ConfigMap or Secret.
    config_projection: ConfigProjection { name: small(), optional: any::<bool>(), items: vec(key_to_path(), 0..2) });
record!(/// Any file of the pod's own fields.
    downward_item: DownwardItem { path: text(), source: downward_source(), mode: of(any::<u32>()) });

fn projection() -> impl Strategy<Value = Projection> + Clone {
    prop_oneof![
        config_projection().prop_map(Projection::ConfigMap),
        config_projection().prop_map(Projection::Secret),
        vec(downward_item(), 0..2).prop_map(|items| Projection::DownwardApi { items }),
    ]
}

fn volume_source() -> impl Strategy<Value = VolumeSource> + Clone {
    prop_oneof![
        (any::<bool>(), of(any::<u64>()), rare(select(HugePageMedium::NAMES.map(|(_, one)| one).to_vec())))
            .prop_map(|(memory, size_limit_bytes, huge_pages)| VolumeSource::EmptyDir {
                memory,
                size_limit_bytes,
                huge_pages
            }),
        (projection(), any::<u32>())
            .prop_map(|(source, default_mode)| VolumeSource::Files { source, default_mode }),
        (vec(projection(), 0..2), any::<u32>())
            .prop_map(|(sources, default_mode)| VolumeSource::Projected { sources, default_mode }),
        (small(), any::<bool>()).prop_map(|(claim_name, read_only)| {
            VolumeSource::PersistentVolumeClaim { claim_name, read_only }
        }),
    ]
}

record!(/// Any volume.
    volume: Volume { name: small(), source: volume_source() });
record!(/// Any way in which memory is had.
    guest_memory: GuestMemory { pinned: any::<bool>(), huge_pages: any::<bool>() });
record!(/// What few pods have.
    pod_options: PodOptions { volumes: vec(volume(), 0..2), security: rare(pod_security_context()),
    priority_class: rare(small()), placement: rare(pod_placement()), guest_memory: rare(guest_memory()),
    naming: rare(pod_naming()), image_pull_secrets: rare(image_pull_secrets()),
});

fn sensitive() -> impl Strategy<Value = Sensitive> + Clone {
    vec(any::<u8>(), 0..6).prop_map(Sensitive::from)
}

record!(/// Any variable with its value.
    env_value: EnvValue { name: text(), value: sensitive() });
record!(/// What any container executes.
resolved_container: ResolvedContainer {
    name: small(), env: vec(env_value(), 0..2), command: vec(sensitive(), 0..2), args: vec(sensitive(), 0..2),
});
record!(/// Any file.
    volume_file: VolumeFile { path: text(), mode: any::<u32>(), data: sensitive() });
record!(/// Any files.
    volume_files: VolumeFiles { volume: small(), files: vec(volume_file(), 0..2) });
record!(/// What any pod's references came to.
resolved_pod: ResolvedPod {
    missing: text(), containers: vec(resolved_container(), 0..2), volumes: vec(volume_files(), 0..2),
});
