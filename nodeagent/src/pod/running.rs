//! What a spec asks of containers while they run, and as whom they do, as the guest is told.

use bulkhead_guest_protocol::host::{
    Check, CheckConfig, ContainerConfig, ExecCheck, FsGroupPolicy, GrpcCheck, HttpCheck, HttpHeader,
    ProbeConfig, SleepCheck, SysctlConfig, TcpCheck,
};
use bulkhead_types::{
    Container, ExecAction, FsGroupChangePolicy, Hook, HttpGet, PodSpec, PortRef, Probe, ProbeHandler,
    SeccompProfile, Sysctl, TERMINATION_MESSAGE_PATH_DEFAULT,
};
use thiserror::Error;

/// The user is one as whom the container must not run.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "runAsNonRoot is set, and the container would run as user 0: set runAsUser, or another USER in the image"
)]
pub(super) struct RunsAsRoot;

/// Checks the user that spec and image came to.
pub(super) fn check_user(spec: &PodSpec, container: &Container, uid: u32) -> Result<(), RunsAsRoot> {
    let refused = uid == 0 && spec.security_of(container).run_as_non_root == Some(true);
    if refused { Err(RunsAsRoot) } else { Ok(()) }
}

/// Groups of every container's user beside those of the image.
pub(super) fn further_groups(spec: &PodSpec) -> Vec<u32> {
    let Some(security) = spec.security() else { return Vec::new() };
    security.supplemental_groups.iter().copied().chain(security.fs_group).collect()
}

/// What of the volumes that had content before is given to the pod's group.
pub(super) fn fs_group_policy(spec: &PodSpec) -> FsGroupPolicy {
    match spec.security().and_then(|security| security.fs_group_change_policy) {
        Some(FsGroupChangePolicy::OnRootMismatch) => FsGroupPolicy::OnRootMismatch,
        // Kubernetes' default.
        Some(FsGroupChangePolicy::Always) | None => FsGroupPolicy::Always,
    }
}

/// Settings of the guest's kernel.
pub(super) fn sysctls(spec: &PodSpec) -> Vec<SysctlConfig> {
    let config = |sysctl: &Sysctl| SysctlConfig {
        name: sysctl.name.to_string(),
        path: sysctl.path(),
        value: sysctl.value.clone(),
        of_each_container: sysctl.is_of_each_container(),
    };
    spec.security().into_iter().flat_map(|security| &security.sysctls).map(config).collect()
}

/// Probes, hooks, rights, input and terminal of a container; nothing else.
pub(super) fn config(spec: &PodSpec, container: &Container) -> ContainerConfig {
    let security = spec.security_of(container);
    let probe = |probe: &Probe| probe_config(container, probe);
    let hook = |hook: &Hook| hook_config(container, hook);
    let options = container.options.get();
    let message_path = options.and_then(|options| options.termination_message_path.clone());
    ContainerConfig {
        read_only_root: security.read_only_root_filesystem == Some(true),
        startup_probe: container.startup_probe().map(probe),
        readiness_probe: container.readiness_probe().map(probe),
        liveness_probe: container.liveness_probe().map(probe),
        post_start: container.post_start().map(hook),
        pre_stop: container.pre_stop().map(hook),
        sidecar: container.is_sidecar(),
        capabilities: Some(security.capability_bits()),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        filters_system_calls: !security.privileged
            && security.seccomp_profile == Some(SeccompProfile::RuntimeDefault),
        privileged: security.privileged,
        stdin: options.is_some_and(|options| options.stdin),
        stdin_once: options.is_some_and(|options| options.stdin_once),
        tty: options.is_some_and(|options| options.tty),
        message_path: message_path.unwrap_or_else(|| TERMINATION_MESSAGE_PATH_DEFAULT.to_owned()),
        message_from_logs: options.is_some_and(|options| options.termination_message_from_logs),
        ..ContainerConfig::default()
    }
}

fn probe_config(container: &Container, probe: &Probe) -> ProbeConfig {
    let check = match &probe.handler {
        ProbeHandler::Exec(action) => exec(action),
        ProbeHandler::HttpGet(get) => http(container, get),
        ProbeHandler::TcpSocket { port, .. } => Check::Tcp(TcpCheck { port: number(container, port) }),
        ProbeHandler::Grpc { port, service } => {
            Check::Grpc(GrpcCheck { port: (*port).into(), service: service.clone() })
        }
    };
    let host = match &probe.handler {
        ProbeHandler::HttpGet(get) => get.host.get(),
        ProbeHandler::TcpSocket { host, .. } => host.get(),
        ProbeHandler::Exec(_) | ProbeHandler::Grpc { .. } => None,
    };
    ProbeConfig {
        check: Some(CheckConfig { kind: Some(check), own_address: host.is_none() }),
        initial_delay_ms: probe.initial_delay_ms,
        period_ms: probe.period_ms,
        timeout_ms: probe.timeout_ms,
        success_threshold: probe.success_threshold,
        failure_threshold: probe.failure_threshold,
        grace_ms: probe.termination_grace_ms,
    }
}

fn hook_config(container: &Container, hook: &Hook) -> CheckConfig {
    let check = match hook {
        Hook::Exec(action) => exec(action),
        Hook::HttpGet(get) => http(container, get),
        Hook::Sleep { sleep_ms } => Check::Sleep(SleepCheck { sleep_ms: *sleep_ms }),
    };
    let on_loopback = matches!(hook, Hook::HttpGet(get) if get.host.get().is_some());
    CheckConfig { kind: Some(check), own_address: !on_loopback }
}

fn exec(action: &ExecAction) -> Check {
    Check::Exec(ExecCheck { argv: action.command.clone() })
}

fn http(container: &Container, get: &HttpGet) -> Check {
    let header = |header: &bulkhead_types::HttpHeader| HttpHeader {
        name: header.name.clone(),
        value: header.value.clone(),
    };
    let port = number(container, &get.port);
    let mut headers: Vec<HttpHeader> = get.headers.iter().map(header).collect();
    // Without a word of its own the server is called by the host that is asked; the guest knows addresses only.
    if let Some(host) =
        get.host.get().filter(|_| !headers.iter().any(|one| one.name.eq_ignore_ascii_case("host")))
    {
        headers.push(HttpHeader { name: "Host".to_owned(), value: format!("{host}:{port}") });
    }
    let check = HttpCheck { port, path: get.path.clone(), headers };
    if get.https { Check::Https(check) } else { Check::Http(check) }
}

/// A name that the container does not have was refused long before; the guest refuses port 0.
fn number(container: &Container, port: &PortRef) -> u32 {
    port.resolve(container).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        ContainerOptions, ContainerPort, PodOptions, PodSecurityContext, Protocol, Rare, SecurityContext,
    };

    use super::*;

    #[test]
    fn who_is_privileged_has_every_right_and_no_filter() {
        let security = SecurityContext { privileged: true, ..SecurityContext::default() };
        let options =
            ContainerOptions { security: Rare::some(security), stdin: true, tty: true, ..Default::default() };
        let container = Container { options: Rare::some(options), ..Container::default() };
        let sysctl = |name: &str| Sysctl { name: name.into(), value: "1".to_owned() };
        let security = PodSecurityContext {
            seccomp_profile: Some(SeccompProfile::RuntimeDefault),
            sysctls: vec![sysctl("vm.swappiness"), sysctl("kernel/sem")],
            ..PodSecurityContext::default()
        };
        let options = PodOptions { security: Rare::some(security), ..PodOptions::default() };
        let spec = PodSpec { options: Rare::some(options), ..PodSpec::default() };
        let found = config(&spec, &container);
        assert!(
            found.privileged && !found.filters_system_calls && found.stdin && found.tty && !found.stdin_once
        );
        assert_eq!(found.capabilities, Some((1 << 41) - 1));
        let plain = config(&spec, &Container::default());
        assert!(!plain.privileged && plain.filters_system_calls && !plain.stdin && !plain.tty);
        let sysctls = sysctls(&spec);
        let expected = [("vm/swappiness", false), ("kernel/sem", true)];
        assert_eq!(
            sysctls.iter().map(|one| (one.path.as_str(), one.of_each_container)).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn ports_have_numbers_and_the_pod_speaks_for_its_containers() {
        let port = PortRef::Name("web".into());
        let get = |https, host: Option<&str>| HttpGet {
            path: "/healthz".to_owned(),
            port: port.clone(),
            headers: Vec::new(),
            https,
            host: host.map(str::to_owned).into(),
        };
        let gets = [get(false, Some("localhost")), get(true, None)];
        let probe = Probe {
            handler: ProbeHandler::TcpSocket { port: port.clone(), host: Rare::NONE },
            initial_delay_ms: 1,
            period_ms: 2,
            timeout_ms: 3,
            success_threshold: 4,
            failure_threshold: 5,
            termination_grace_ms: Some(6),
        };
        let [post_start, pre_stop] = gets.map(|get| Some(Hook::HttpGet(get)));
        let lifecycle = bulkhead_types::Lifecycle { post_start, pre_stop };
        let security =
            SecurityContext { read_only_root_filesystem: Some(true), ..SecurityContext::default() };
        let options = ContainerOptions {
            readiness_probe: Rare::some(probe),
            lifecycle: Rare::some(lifecycle),
            security: Rare::some(security),
            ..ContainerOptions::default()
        };
        let container = Container {
            ports: vec![ContainerPort {
                name: Some("web".into()),
                container_port: 8080,
                host: Rare::NONE,
                protocol: Protocol::Tcp,
            }],
            options: Rare::some(options),
            ..Container::default()
        };
        let security = PodSecurityContext {
            run_as_non_root: Some(true),
            supplemental_groups: vec![7],
            fs_group: Some(8),
            seccomp_profile: Some(SeccompProfile::RuntimeDefault),
            ..PodSecurityContext::default()
        };
        let options = PodOptions { security: Rare::some(security), ..PodOptions::default() };
        let spec = PodSpec { options: Rare::some(options), ..PodSpec::default() };

        let found = config(&spec, &container);
        let readiness = found.readiness_probe.expect("there");
        let check = readiness.check.expect("there");
        assert_eq!((check.kind, check.own_address), (Some(Check::Tcp(TcpCheck { port: 8080 })), true));
        assert_eq!((readiness.initial_delay_ms, readiness.period_ms, readiness.timeout_ms), (1, 2, 3));
        assert_eq!((readiness.success_threshold, readiness.failure_threshold), (4, 5));
        assert_eq!(readiness.grace_ms, Some(6));
        let (post_start, pre_stop) = (found.post_start.expect("there"), found.pre_stop.expect("there"));
        assert_eq!((post_start.own_address, pre_stop.own_address), (false, true));
        let Some(Check::Http(http)) = post_start.kind else { panic!("a request") };
        assert_eq!((http.port, http.path.as_str()), (8080, "/healthz"));
        assert_eq!(http.headers, [HttpHeader { name: "Host".into(), value: "localhost:8080".into() }]);
        assert_eq!(pre_stop.kind, Some(Check::Https(HttpCheck { headers: Vec::new(), ..http })));
        assert!(found.read_only_root && found.filters_system_calls && !found.no_new_privileges);
        assert_eq!(further_groups(&spec), [7, 8]);
        assert_eq!(check_user(&spec, &container, 0), Err(RunsAsRoot));
        assert_eq!(check_user(&spec, &container, 1), Ok(()));
    }
}
