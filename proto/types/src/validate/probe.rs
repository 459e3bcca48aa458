//! Rules for probes and hooks.

use super::pod::{cut, no_nul};
use super::{ARGS_MAX, Path, Report};
use crate::{
    Container, ExecAction, Hook, HttpGet, LOOPBACK_HOSTS, PodSpec, PortRef, Probe, ProbeHandler, Rare,
};

/// Most headers of a request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Longest path, name or value in a request, and name of a service, in bytes.
pub const HTTP_TEXT_BYTES_MAX: usize = 4096;
/// Largest threshold: what Kubernetes' 32-bit numbers hold.
const THRESHOLD_MAX: u32 = i32::MAX as u32;

/// Checks a container's probes and hooks.
pub(super) fn container(
    spec: &PodSpec,
    container: &Container,
    is_init: bool,
    path: &Path<'_>,
    report: &mut Report,
) {
    for (field, one) in container.probes() {
        let path = path.field(field);
        if is_init && !container.is_sidecar() {
            report.push(
                &path,
                "is not possible: an init container ends by itself, unless its restartPolicy is Always",
            );
        }
        probe(container, one, field, &path, report);
    }
    let lifecycle = path.field("lifecycle");
    for (field, one) in [("postStart", container.post_start()), ("preStop", container.pre_stop())] {
        let Some(one) = one else { continue };
        let path = lifecycle.field(field);
        if is_init && !container.is_sidecar() {
            report.push(
                &path,
                "is not possible: an init container ends by itself, unless its restartPolicy is Always",
            );
        }
        hook(spec, container, one, &path, report);
    }
}

fn probe(container: &Container, probe: &Probe, field: &str, path: &Path<'_>, report: &mut Report) {
    match &probe.handler {
        ProbeHandler::Exec(action) => exec(action, &path.field("exec"), report),
        ProbeHandler::HttpGet(get) => http_get(container, get, &path.field("httpGet"), report),
        ProbeHandler::TcpSocket { port: of, host: named } => {
            let path = path.field("tcpSocket");
            port(container, of, &path.field("port"), report);
            host(named, &path, report);
        }
        ProbeHandler::Grpc { port: number, service } => {
            let path = path.field("grpc");
            port(container, &PortRef::Number(*number), &path.field("port"), report);
            text(service, &path.field("service"), report);
        }
    }
    report.duration(&path.field("initialDelaySeconds"), probe.initial_delay_ms);
    for (name, ms) in [("periodSeconds", probe.period_ms), ("timeoutSeconds", probe.timeout_ms)] {
        report.duration(&path.field(name), ms);
        if ms == 0 {
            report.push(&path.field(name), "must be at least 1");
        }
    }
    for (name, count) in
        [("successThreshold", probe.success_threshold), ("failureThreshold", probe.failure_threshold)]
    {
        if count == 0 || count > THRESHOLD_MAX {
            report.push(&path.field(name), "must be between 1 and 2147483647");
        }
    }
    if field != "readinessProbe" && probe.success_threshold > 1 {
        report.push(&path.field("successThreshold"), format!("must be 1 in a {field}"));
    }
    if let Some(ms) = probe.termination_grace_ms {
        let path = path.field("terminationGracePeriodSeconds");
        report.duration(&path, ms);
        if field == "readinessProbe" {
            report.push(&path, "must not be set: the failure of a readinessProbe ends nothing");
        } else if ms == 0 {
            report.push(&path, "must be at least 1");
        }
    }
}

fn hook(spec: &PodSpec, container: &Container, hook: &Hook, path: &Path<'_>, report: &mut Report) {
    match hook {
        Hook::Exec(action) => exec(action, &path.field("exec"), report),
        Hook::HttpGet(get) => http_get(container, get, &path.field("httpGet"), report),
        Hook::Sleep { sleep_ms } if *sleep_ms > spec.termination_grace_ms => {
            let reason =
                "must be at most terminationGracePeriodSeconds: the container would be killed before";
            report.push(&path.field("sleep").field("seconds"), reason);
        }
        Hook::Sleep { .. } => {}
    }
}

fn exec(action: &ExecAction, path: &Path<'_>, report: &mut Report) {
    let path = path.field("command");
    if action.command.first().is_none_or(String::is_empty) {
        report.push(&path, "must name a program");
    }
    report.at_most(&path, "words", action.command.len(), ARGS_MAX);
    for (index, word) in action.command.iter().enumerate() {
        no_nul(word, &path.index(index), report);
    }
}

fn http_get(container: &Container, get: &HttpGet, path: &Path<'_>, report: &mut Report) {
    port(container, &get.port, &path.field("port"), report);
    host(&get.host, path, report);
    text(&get.path, &path.field("path"), report);
    let plain = |b: u8| b.is_ascii_graphic();
    if !get.path.starts_with('/') || !get.path.bytes().all(plain) {
        let reason = "must begin with '/' and hold printable ASCII without spaces: escape others as %20";
        report.push(&path.field("path"), reason);
    }
    let path = path.field("httpHeaders");
    report.at_most(&path, "headers", get.headers.len(), HTTP_HEADERS_MAX);
    for (index, header) in get.headers.iter().enumerate() {
        let path = path.index(index);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if header.name.is_empty() || !header.name.bytes().all(token) {
            let reason = format!("{:?} is no name of a header: letters, digits and '-'", cut(&header.name));
            report.push(&path.field("name"), reason);
        }
        text(&header.name, &path.field("name"), report);
        text(&header.value, &path.field("value"), report);
        if header.value.bytes().any(|b| b != b'\t' && !(b' '..=b'~').contains(&b)) {
            report.push(&path.field("value"), "must be printable ASCII");
        }
    }
}

fn host(host: &Rare<String>, path: &Path<'_>, report: &mut Report) {
    if let Some(host) = host.get().filter(|host| !LOOPBACK_HOSTS.contains(&host.as_str())) {
        let reason = format!(
            "{:?} cannot be asked: a pod is asked by its own guest; leave the field out for the pod's own address, or say one of {}",
            cut(host),
            LOOPBACK_HOSTS.join(", ")
        );
        report.push(&path.field("host"), reason);
    }
}

fn text(text: &str, path: &Path<'_>, report: &mut Report) {
    if text.len() > HTTP_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        report.push(path, format!("must have at most {HTTP_TEXT_BYTES_MAX} bytes and no control characters"));
    }
}

fn port(container: &Container, port: &PortRef, path: &Path<'_>, report: &mut Report) {
    match port {
        PortRef::Number(0) => report.push(path, "must be between 1 and 65535"),
        PortRef::Name(name) if port.resolve(container).is_none() => {
            report.push(path, format!("{:?} is the name of no port of this container", cut(name)));
        }
        _ => {}
    }
}

/// Bytes of a container's probes and hooks, roughly.
pub(super) fn bytes(container: &Container) -> usize {
    let words = |action: &ExecAction| action.command.iter().map(|w| w.len() + 16).sum::<usize>();
    let get = |get: &HttpGet| {
        get.path.len() + get.headers.iter().map(|h| h.name.len() + h.value.len() + 16).sum::<usize>()
    };
    let probes = container.probes().map(|(_, probe)| match &probe.handler {
        ProbeHandler::Exec(action) => words(action),
        ProbeHandler::HttpGet(one) => get(one),
        ProbeHandler::TcpSocket { .. } => 0,
        ProbeHandler::Grpc { service, .. } => service.len(),
    });
    let hooks = [container.post_start(), container.pre_stop()].into_iter().flatten().map(|hook| match hook {
        Hook::Exec(action) => words(action),
        Hook::HttpGet(one) => get(one),
        Hook::Sleep { .. } => 0,
    });
    probes.sum::<usize>() + hooks.sum::<usize>()
}
