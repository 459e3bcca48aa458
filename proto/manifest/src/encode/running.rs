//! Probes, hooks and security contexts as values.

use bulkhead_types::{
    Capabilities, Container, ContainerOptions, ExecAction, FsGroupChangePolicy, Hook, HttpGet, PodSpec,
    PortRef, Probe, ProbeHandler, SeccompProfile,
};
use serde_json::{Value, json};

use super::Fields;

/// A container's probes, hooks, rights and messages, set in its map.
pub(super) fn container(fields: Fields, container: &Container) -> Fields {
    let fields = container.probes().fold(fields, |fields, (name, one)| fields.set(name, probe(one)));
    let hooks = Fields::new()
        .maybe("postStart", container.post_start().map(hook))
        .maybe("preStop", container.pre_stop().map(hook))
        .finish();
    let fields = if hooks == json!({}) { fields } else { fields.set("lifecycle", hooks) };
    let fields = if container.is_sidecar() { fields.text("restartPolicy", "Always") } else { fields };
    let options = container.options.get();
    let fields = fields.optional(
        "terminationMessagePath",
        options.and_then(|options| options.termination_message_path.as_deref()),
    );
    let from_logs = options.is_some_and(|options| options.termination_message_from_logs);
    let fields =
        if from_logs { fields.text("terminationMessagePolicy", "FallbackToLogsOnError") } else { fields };
    let said = |said: fn(&ContainerOptions) -> bool| options.is_some_and(said).then_some(Value::Bool(true));
    fields
        .maybe("stdin", said(|options| options.stdin))
        .maybe("stdinOnce", said(|options| options.stdin_once))
        .maybe("tty", said(|options| options.tty))
        .maybe("securityContext", security(container))
        .list("resizePolicy", resize_policy(container).into_iter())
}

/// Only what is not Kubernetes' default.
fn resize_policy(container: &Container) -> Vec<Value> {
    let policy = container.resize_policy();
    let all = [("cpu", policy.restart_for_cpu), ("memory", policy.restart_for_memory)];
    let restarting = all.into_iter().filter(|(_, restarts)| *restarts);
    let rule = |(name, _): (&str, bool)| json!({"resourceName": name, "restartPolicy": "RestartContainer"});
    restarting.map(rule).collect()
}

fn probe(probe: &Probe) -> Value {
    let fields = match &probe.handler {
        ProbeHandler::Exec(action) => Fields::new().set("exec", exec(action)),
        ProbeHandler::HttpGet(get) => Fields::new().set("httpGet", http_get(get)),
        ProbeHandler::TcpSocket { port: of, host } => {
            let tcp =
                Fields::new().set("port", port(of)).nonempty("host", host.get().map_or("", String::as_str));
            Fields::new().set("tcpSocket", tcp.finish())
        }
        ProbeHandler::Grpc { port, service } => {
            let grpc = Fields::new().set("port", (*port).into()).nonempty("service", service);
            Fields::new().set("grpc", grpc.finish())
        }
    };
    let seconds = |ms: u64| Some(ms / 1000);
    fields
        .number("initialDelaySeconds", seconds(probe.initial_delay_ms).filter(|seconds| *seconds > 0))
        .number("periodSeconds", seconds(probe.period_ms))
        .number("timeoutSeconds", seconds(probe.timeout_ms))
        .number("successThreshold", Some(probe.success_threshold.into()))
        .number("failureThreshold", Some(probe.failure_threshold.into()))
        .number("terminationGracePeriodSeconds", probe.termination_grace_ms.and_then(seconds))
        .finish()
}

fn hook(hook: &Hook) -> Value {
    match hook {
        Hook::Exec(action) => json!({"exec": exec(action)}),
        Hook::HttpGet(get) => json!({"httpGet": http_get(get)}),
        Hook::Sleep { sleep_ms } => json!({"sleep": {"seconds": sleep_ms / 1000}}),
    }
}

fn exec(action: &ExecAction) -> Value {
    json!({"command": action.command})
}

fn http_get(get: &HttpGet) -> Value {
    let header = |header: &bulkhead_types::HttpHeader| json!({"name": header.name, "value": header.value});
    Fields::new()
        .text("path", &get.path)
        .set("port", port(&get.port))
        .nonempty("host", get.host.get().map_or("", String::as_str))
        .text("scheme", if get.https { "HTTPS" } else { "HTTP" })
        .list("httpHeaders", get.headers.iter().map(header))
        .finish()
}

fn port(port: &PortRef) -> Value {
    match port {
        PortRef::Number(number) => (*number).into(),
        PortRef::Name(name) => name.as_str().into(),
    }
}

fn security(container: &Container) -> Option<Value> {
    let security = container.security()?;
    let fields = ids(security.run_as_user, security.run_as_group, security.run_as_non_root)
        .maybe("readOnlyRootFilesystem", security.read_only_root_filesystem.map(Into::into))
        .maybe("allowPrivilegeEscalation", security.allow_privilege_escalation.map(Into::into))
        .maybe("capabilities", capabilities(&security.capabilities))
        .maybe("seccompProfile", security.seccomp_profile.map(seccomp))
        .maybe("privileged", security.privileged.then_some(Value::Bool(true)));
    Some(fields.finish())
}

/// What holds for all containers of a pod.
pub(super) fn pod_security(spec: &PodSpec) -> Option<Value> {
    let security = spec.security()?;
    let fields = ids(security.run_as_user, security.run_as_group, security.run_as_non_root)
        .list("supplementalGroups", security.supplemental_groups.iter().map(|group| (*group).into()))
        .number("fsGroup", security.fs_group.map(Into::into))
        .maybe("fsGroupChangePolicy", security.fs_group_change_policy.map(change_policy))
        .maybe("seccompProfile", security.seccomp_profile.map(seccomp))
        .list("sysctls", security.sysctls.iter().map(|one| json!({"name": one.name, "value": one.value})));
    Some(fields.finish())
}

fn ids(user: Option<u32>, group: Option<u32>, non_root: Option<bool>) -> Fields {
    Fields::new()
        .number("runAsUser", user.map(Into::into))
        .number("runAsGroup", group.map(Into::into))
        .maybe("runAsNonRoot", non_root.map(Into::into))
}

fn capabilities(capabilities: &Capabilities) -> Option<Value> {
    let names = |names: &[smol_str::SmolStr]| {
        names.iter().map(|name| Value::from(name.as_str())).collect::<Vec<_>>().into_iter()
    };
    let fields =
        Fields::new().list("add", names(&capabilities.add)).list("drop", names(&capabilities.drop)).finish();
    (fields != json!({})).then_some(fields)
}

fn change_policy(policy: FsGroupChangePolicy) -> Value {
    let name = match policy {
        FsGroupChangePolicy::Always => "Always",
        FsGroupChangePolicy::OnRootMismatch => "OnRootMismatch",
    };
    name.into()
}

fn seccomp(profile: SeccompProfile) -> Value {
    json!({"type": match profile {
        SeccompProfile::RuntimeDefault => "RuntimeDefault",
        SeccompProfile::Unconfined => "Unconfined",
    }})
}
