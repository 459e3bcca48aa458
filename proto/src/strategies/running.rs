//! What is asked of containers while they run, and as whom they do.

use super::*;

record!(/// Any command.
    exec_action: ExecAction { command: vec(text(), 0..3) });
record!(/// Any header.
    http_header: HttpHeader { name: text(), value: text() });

fn port_ref() -> impl Strategy<Value = PortRef> + Clone {
    prop_oneof![any::<u16>().prop_map(PortRef::Number), small().prop_map(PortRef::Name)]
}

record!(/// Any request.
    http_get: HttpGet { path: text(), port: port_ref(), headers: vec(http_header(), 0..2), https: any::<bool>(), host: of(text()).prop_map(Rare::from) });

fn probe_handler() -> impl Strategy<Value = ProbeHandler> + Clone {
    prop_oneof![
        exec_action().prop_map(ProbeHandler::Exec),
        http_get().prop_map(ProbeHandler::HttpGet),
        (port_ref(), of(text())).prop_map(|(port, host)| ProbeHandler::TcpSocket { port, host: host.into() }),
        (any::<u16>(), text()).prop_map(|(port, service)| ProbeHandler::Grpc { port, service }),
    ]
}

record!(/// Any probe.
probe: Probe {
    handler: probe_handler(), initial_delay_ms: any::<u64>(), period_ms: any::<u64>(), timeout_ms: any::<u64>(),
    success_threshold: any::<u32>(), failure_threshold: any::<u32>(), termination_grace_ms: of(any::<u64>()),
});

fn hook() -> impl Strategy<Value = Hook> + Clone {
    prop_oneof![
        exec_action().prop_map(Hook::Exec),
        http_get().prop_map(Hook::HttpGet),
        any::<u64>().prop_map(|sleep_ms| Hook::Sleep { sleep_ms }),
    ]
}

record!(/// Any hooks.
    lifecycle: Lifecycle { post_start: of(hook()), pre_stop: of(hook()) });
record!(/// Any capabilities.
    capabilities: Capabilities { add: vec(small(), 0..2), drop: vec(small(), 0..2) });

fn seccomp_profile() -> impl Strategy<Value = SeccompProfile> + Clone {
    select(vec![SeccompProfile::RuntimeDefault, SeccompProfile::Unconfined])
}

record!(/// What any container says of its rights.
security_context: SecurityContext {
    run_as_user: of(any::<u32>()), run_as_group: of(any::<u32>()), run_as_non_root: of(any::<bool>()),
    read_only_root_filesystem: of(any::<bool>()), allow_privilege_escalation: of(any::<bool>()),
    capabilities: capabilities(), seccomp_profile: of(seccomp_profile()), privileged: any::<bool>(),
});
record!(/// Any setting.
    sysctl: Sysctl { name: small(), value: text() });
record!(/// What any pod says of its containers' rights.
pod_security_context: PodSecurityContext {
    run_as_user: of(any::<u32>()), run_as_group: of(any::<u32>()), run_as_non_root: of(any::<bool>()),
    supplemental_groups: vec(any::<u32>(), 0..3), fs_group: of(any::<u32>()),
    seccomp_profile: of(seccomp_profile()), sysctls: vec(sysctl(), 0..2),
    fs_group_change_policy: of(select(vec![FsGroupChangePolicy::Always, FsGroupChangePolicy::OnRootMismatch])),
});
