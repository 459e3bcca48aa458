//! Pods.

use bulkhead_types::{
    ActualSizes, Container, ContainerPort, ContainerSize, ContainerState, ContainerStatus,
    ContainerTermination, EnvVar, HostPort, ImagePullPolicy, POD_IPS_MAX, Pod, PodAddresses, PodPhase,
    PodResize, PodSpec, PodStatus, PodTemplate, Protocol, RESIZED_CONTAINERS_MAX, ResizePolicy, ResizeStage,
    ResourceRequirements, RestartPolicy, RuntimeClass, Toleration, TolerationOperator,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::container_state;

wire_enum! {
    RuntimeClass { Rune }
    RestartPolicy { Always, OnFailure, Never }
    TolerationOperator { Equal, Exists }
    ImagePullPolicy { IfNotPresent, Always, Never }
    Protocol { Tcp, Udp, Sctp }
    PodPhase { Pending, Running, Succeeded, Failed }
    ResizeStage { Deferred, Infeasible, InProgress }
}

wire_struct!(Pod => v1::Pod { meta, spec, node, status });
wire_struct!(PodTemplate => v1::PodTemplate { labels, annotations, spec });
wire_struct!(PodSpec => v1::PodSpec {
    runtime_class, restart_policy, termination_grace_ms, node_selector, node_name, tolerations, hostname,
    init_containers, containers, options,
});
wire_struct!(Toleration => v1::Toleration { key, operator, value, effect, toleration_ms });
wire_struct!(Container => v1::Container {
    name, image, image_pull_policy, command, args, working_dir, env, ports, requests, limits, options,
});
wire_struct!(EnvVar => v1::EnvVar { name, value, value_from });
wire_struct!(ContainerPort => v1::ContainerPort { name, container_port, protocol, host });
wire_struct!(HostPort => v1::HostPort { port, ip });
wire_struct!(ResourceRequirements => v1::ResourceRequirements {
    cpu_millis, memory_bytes, ephemeral_storage_bytes,
});
wire_struct!(PodStatus => v1::PodStatus {
    phase, reason, message, ready, ready_since_ms, bound_at_ms, started_at_ms, report_sequence,
    sandbox_restarts, init_containers, containers, nominated_node, devices, networks, cpus, addresses,
    resize, actual,
});
wire_struct!(PodAddresses => v1::PodAddresses { pod_ips (POD_IPS_MAX), host_ip });
wire_struct!(ContainerStatus => v1::ContainerStatus {
    name, state, last_termination, restart_count, ready, image_digest,
});
wire_struct!(ResizePolicy => v1::ResizePolicy { restart_for_cpu, restart_for_memory });
wire_struct!(ContainerSize => v1::ContainerSize { name, requests, limits });
wire_struct!(PodResize => v1::PodResize { desired (RESIZED_CONTAINERS_MAX), stage, message, since_ms });
wire_struct!(ActualSizes => v1::ActualSizes {
    containers (RESIZED_CONTAINERS_MAX), wanted (RESIZED_CONTAINERS_MAX), reason, message, refused,
});
wire_struct!(ContainerTermination => v1::ContainerTermination {
    exit_code, signal, reason, message, started_at_ms, finished_at_ms,
});

wire_oneof!(ContainerState => container_state {
    values { Terminated "terminated" }
    messages {
        Waiting "waiting" { reason, message }
        Running "running" { started_at_ms }
    }
});
wire_variant_message!(ContainerState => v1::ContainerState);

wire_field! {
    Pod => v1::Pod,
    PodTemplate => v1::PodTemplate,
    PodSpec => v1::PodSpec,
    Toleration => v1::Toleration,
    Container => v1::Container,
    EnvVar => v1::EnvVar,
    ContainerPort => v1::ContainerPort,
    HostPort => v1::HostPort,
    ContainerStatus => v1::ContainerStatus,
    ContainerTermination => v1::ContainerTermination,
    PodAddresses => v1::PodAddresses,
    ContainerSize => v1::ContainerSize,
    PodResize => v1::PodResize,
    ActualSizes => v1::ActualSizes,
    ResizePolicy => v1::ResizePolicy,
}
wire_field_or_default! {
    ResourceRequirements => v1::ResourceRequirements,
    PodStatus => v1::PodStatus,
}
