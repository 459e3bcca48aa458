//! What is asked of containers while they run, and as whom they do.

use bulkhead_types::{
    Container, FsGroupChangePolicy, Hook, HttpGet, PodSpec, PortRef, Probe, ProbeHandler, SecurityContext,
};

use crate::time::short;

/// A line for each probe and hook of a container.
pub(super) fn checks(container: &Container) -> Vec<(&'static str, String)> {
    let name = |field| match field {
        "startupProbe" => "Startup",
        "readinessProbe" => "Readiness",
        _ => "Liveness",
    };
    let probes = container.probes().map(|(field, one)| (name(field), probe(one)));
    let hooks = [("Post start", container.post_start()), ("Pre stop", container.pre_stop())];
    probes.chain(hooks.into_iter().filter_map(|(name, one)| Some((name, hook(one?))))).collect()
}

fn probe(probe: &Probe) -> String {
    let how = match &probe.handler {
        ProbeHandler::Exec(action) => format!("exec: {}", action.command.join(" ")),
        ProbeHandler::HttpGet(get) => http(get),
        ProbeHandler::TcpSocket { port: of, host } => {
            format!("tcp-socket {}:{}", host.get().map_or("", String::as_str), port(of))
        }
        ProbeHandler::Grpc { port, service } => format!("grpc :{port} {service}").trim_end().to_owned(),
    };
    format!(
        "{how} delay={} timeout={} period={} success={} failure={}",
        short(probe.initial_delay_ms / 1000),
        short(probe.timeout_ms / 1000),
        short(probe.period_ms / 1000),
        probe.success_threshold,
        probe.failure_threshold
    )
}

fn hook(hook: &Hook) -> String {
    match hook {
        Hook::Exec(action) => format!("exec: {}", action.command.join(" ")),
        Hook::HttpGet(get) => http(get),
        Hook::Sleep { sleep_ms } => format!("sleep {}", short(sleep_ms / 1000)),
    }
}

fn http(get: &HttpGet) -> String {
    let scheme = if get.https { "https" } else { "http" };
    let host = get.host.get().map_or("", String::as_str);
    format!("http-get {scheme}://{host}:{}{}", port(&get.port), get.path)
}

fn port(port: &PortRef) -> String {
    match port {
        PortRef::Number(number) => number.to_string(),
        PortRef::Name(name) => name.to_string(),
    }
}

/// What a container runs as, as far as the spec says so; empty when it says nothing.
pub(super) fn rights(container: &Container) -> String {
    let Some(security) = container.security() else { return String::new() };
    let SecurityContext { capabilities, .. } = security;
    let names = |sign: &str, names: &[smol_str::SmolStr]| {
        names.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
    };
    let parts = [
        user(security.run_as_user, security.run_as_group, security.run_as_non_root),
        flag(security.privileged.then_some(true), "privileged"),
        flag(security.read_only_root_filesystem, "read-only root"),
        flag(security.allow_privilege_escalation.map(|allowed| !allowed), "no new privileges"),
        names("+", &capabilities.add),
        names("-", &capabilities.drop),
        security.seccomp_profile.map_or_else(String::new, |profile| format!("seccomp {profile:?}")),
    ];
    joined(&parts)
}

/// The same for what holds for all containers of a pod.
pub(super) fn pod_rights(spec: &PodSpec) -> String {
    let Some(security) = spec.security() else { return String::new() };
    let groups = security.supplemental_groups.iter().map(|group| format!("group {group}"));
    let mut parts = vec![user(security.run_as_user, security.run_as_group, security.run_as_non_root)];
    parts.extend(groups);
    parts.extend(security.fs_group.map(|group| format!("volumes of group {group}")));
    let on_mismatch = security.fs_group_change_policy == Some(FsGroupChangePolicy::OnRootMismatch);
    parts.push(flag(Some(on_mismatch), "given on root mismatch"));
    parts.extend(security.seccomp_profile.map(|profile| format!("seccomp {profile:?}")));
    parts.extend(security.sysctls.iter().map(|one| format!("{}={}", one.name, one.value)));
    joined(&parts)
}

fn user(user: Option<u32>, group: Option<u32>, non_root: Option<bool>) -> String {
    let parts = [
        user.map_or_else(String::new, |user| format!("user {user}")),
        group.map_or_else(String::new, |group| format!("group {group}")),
        flag(non_root, "not as root"),
    ];
    joined(&parts)
}

fn flag(value: Option<bool>, text: &str) -> String {
    if value == Some(true) { text.to_owned() } else { String::new() }
}

fn joined(parts: &[String]) -> String {
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
}
