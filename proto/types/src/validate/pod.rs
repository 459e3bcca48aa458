//! Rules for pods and their containers.

use std::collections::BTreeSet;

use super::{
    AMOUNT_MAX, ARGS_MAX, CONTAINERS_MAX, ENV_MAX, GUEST_DISKS_MAX, PORTS_MAX, Path, Report, TAINTS_MAX,
    check_image_reference, claim, device, huge_pages, labels, map_bytes, naming, placement, probe,
    pull_secrets, security, volume,
};
use crate::{
    Container, ContainerPort, GUEST_DISKS_LEVEL, Name, PodSpec, Protocol, PublishedPort,
    ResourceRequirements, RestartPolicy, TaintEffect, Toleration, TolerationOperator, check_label_key,
    check_label_value, is_dns_label,
};

/// Longest name of a port, in bytes (RFC 6335 service name).
const PORT_NAME_MAX: usize = 15;
/// Roughly what one entry of a list takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 16;

/// Checks what a pod runs and where it may run.
pub(super) fn spec(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    report.duration(&path.field("terminationGracePeriodSeconds"), spec.termination_grace_ms);
    labels(&spec.node_selector, &path.field("nodeSelector"), report);
    if let Some(node) = &spec.node_name {
        report.check(&path.field("nodeName"), Name::new(node).map(drop));
    }
    if let Some(hostname) = &spec.hostname {
        report.check(&path.field("hostname"), Name::new(hostname).map(drop));
    }
    tolerations(&spec.tolerations, TAINTS_MAX, &path.field("tolerations"), report);
    if let Some(class) = spec.priority_class() {
        report.check(&path.field("priorityClassName"), Name::new(class).map(drop));
    }
    if let Some(found) = spec.placement() {
        placement::placement(found, path, report);
    }
    volume::volumes(spec, path, report);
    claim::of_pod(spec, path, report);
    security::pod(spec, path, report);
    naming::pod(spec, path, report);
    pull_secrets::pod(spec, path, report);
    containers(spec, path, report);
    if report.level >= GUEST_DISKS_LEVEL {
        disks(spec, path, report);
    }
}

/// Refuses what no guest has places for.
fn disks(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let (containers, volumes) = (spec.all_containers().count(), spec.disk_volumes().count());
    if containers + volumes > GUEST_DISKS_MAX {
        let field = if volumes > containers { "volumes" } else { "containers" };
        let reason = format!(
            "the pod needs {} disks, one for each of its {containers} containers and {volumes} volumes on disk, and a guest has \
             places for {GUEST_DISKS_MAX}: use fewer, emptyDir with medium Memory, or several pods",
            containers + volumes
        );
        report.push(&path.field(field), reason);
    }
}

/// Checks a list of at most so many tolerations.
pub(super) fn tolerations(list: &[Toleration], most: usize, path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "tolerations", list.len(), most);
    for (index, one) in list.iter().enumerate() {
        toleration(one, &path.index(index), report);
    }
}

fn toleration(toleration: &Toleration, path: &Path<'_>, report: &mut Report) {
    if toleration.key.is_empty() {
        if toleration.operator == TolerationOperator::Equal {
            report.push(&path.field("operator"), "must be Exists when key is empty");
        }
    } else {
        report.check(&path.field("key"), check_label_key(&toleration.key));
    }
    match toleration.operator {
        TolerationOperator::Exists if !toleration.value.is_empty() => {
            report.push(&path.field("value"), "must be empty when operator is Exists");
        }
        _ => report.check(&path.field("value"), check_label_value(&toleration.value)),
    }
    if let Some(ms) = toleration.toleration_ms {
        report.duration(&path.field("tolerationSeconds"), ms);
        if toleration.effect != Some(TaintEffect::NoExecute) {
            report.push(&path.field("effect"), "must be NoExecute when tolerationSeconds is set");
        }
    }
}

/// What must be unique in a pod, as far as it was seen.
#[derive(Default)]
struct Seen<'a> {
    names: BTreeSet<&'a str>,
    port_names: BTreeSet<&'a str>,
    ports: BTreeSet<(u16, Protocol)>,
    host_ports: Vec<PublishedPort>,
}

fn containers(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    if spec.containers.is_empty() {
        report.push(&path.field("containers"), "must have at least one container");
    }
    let mut seen = Seen::default();
    for (field, list) in [("containers", &spec.containers), ("initContainers", &spec.init_containers)] {
        let path = path.field(field);
        let is_init = field == "initContainers";
        report.at_most(&path, "containers", list.len(), CONTAINERS_MAX);
        for (index, one) in list.iter().enumerate() {
            let path = path.index(index);
            if is_init && !one.is_sidecar() {
                // It runs alone: it shares ports with nobody.
                let shared = std::mem::take(&mut seen.ports);
                container(spec, one, is_init, &path, &mut seen, report);
                seen.ports = shared;
            } else {
                container(spec, one, is_init, &path, &mut seen, report);
            }
        }
    }
}

fn container<'a>(
    spec: &PodSpec,
    container: &'a Container,
    is_init: bool,
    path: &Path<'_>,
    seen: &mut Seen<'a>,
    report: &mut Report,
) {
    report.check(&path.field("name"), Name::new(&container.name).map(drop));
    if container.is_sidecar() && !is_init {
        report.push(
            &path.field("restartPolicy"),
            "is possible in init containers only: the pod has one for the others",
        );
    }
    if is_dns_label(&container.name) && !seen.names.insert(&container.name) {
        let reason = format!("{:?} is used twice: names of containers are unique in a pod", container.name);
        report.push(&path.field("name"), reason);
    }
    report.check(&path.field("image"), check_image_reference(&container.image));
    for (field, words) in [("command", &container.command), ("args", &container.args)] {
        let path = path.field(field);
        report.at_most(&path, "words", words.len(), ARGS_MAX);
        for (index, word) in words.iter().enumerate() {
            no_nul(word, &path.index(index), report);
        }
    }
    if let Some(dir) = &container.working_dir {
        no_nul(dir, &path.field("workingDir"), report);
        if !dir.starts_with('/') {
            report.push(&path.field("workingDir"), format!("{:?} must be an absolute path", cut(dir)));
        }
    }
    env(spec, container, path, report);
    volume::container(spec, container, path, report);
    probe::container(spec, container, is_init, path, report);
    security::container(spec, container, path, report);
    ports(container, path, seen, report);
    amounts(container, path, report);
    resize_policy(spec, container, path, report);
    device::container(container, is_init, path, report);
    huge_pages::container(container, path, report);
}

/// Kubernetes' rule: what is never started again cannot be restarted for other resources.
fn resize_policy(spec: &PodSpec, container: &Container, path: &Path<'_>, report: &mut Report) {
    let policy = container.resize_policy();
    let restarts = policy.restart_for_cpu || policy.restart_for_memory;
    if restarts && spec.restart_policy == RestartPolicy::Never {
        let reason = "RestartContainer is not possible with restartPolicy Never";
        report.push(&path.field("resizePolicy"), reason);
    }
}

pub(super) fn no_nul(text: &str, path: &Path<'_>, report: &mut Report) {
    if text.contains('\0') {
        report.push(path, "must not contain a NUL character");
    }
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Kubernetes' relaxed rule: printable ASCII without '='.
pub(super) fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')
}

fn env(spec: &PodSpec, container: &Container, path: &Path<'_>, report: &mut Report) {
    let path = path.field("env");
    report.at_most(&path, "variables", container.env.len(), ENV_MAX);
    for (index, var) in container.env.iter().enumerate() {
        let path = path.index(index);
        if !is_env_name(&var.name) {
            report.push(
                &path.field("name"),
                format!(
                    "environment variable {:?} is invalid: must be printable ASCII without '='",
                    cut(&var.name)
                ),
            );
        }
        no_nul(&var.value, &path.field("value"), report);
        volume::value_from(spec, var, &path, report);
    }
}

fn ports<'a>(container: &'a Container, path: &Path<'_>, seen: &mut Seen<'a>, report: &mut Report) {
    let path = path.field("ports");
    report.at_most(&path, "ports", container.ports.len(), PORTS_MAX);
    for (index, port) in container.ports.iter().enumerate() {
        let path = path.index(index);
        if port.container_port == 0 {
            report.push(&path.field("containerPort"), "must be between 1 and 65535");
        } else if !seen.ports.insert((port.container_port, port.protocol)) {
            let name = protocol_name(port.protocol);
            report.push(
                &path.field("containerPort"),
                format!("{}/{name} is used twice in the pod", port.container_port),
            );
        }
        host_port(port, &path, seen, report);
        let Some(name) = &port.name else { continue };
        if !is_port_name(name) {
            let reason = format!(
                "port name {:?} is invalid: must be 1 to 15 of a-z, 0-9 and single '-', with at least one letter",
                cut(name)
            );
            report.push(&path.field("name"), reason);
        } else if !seen.port_names.insert(name) {
            report
                .push(&path.field("name"), format!("{name:?} is used twice: port names are unique in a pod"));
        }
    }
}

fn host_port(port: &ContainerPort, path: &Path<'_>, seen: &mut Seen<'_>, report: &mut Report) {
    let Some(published) = port.published() else { return };
    let (path, name) = (path.field("hostPort"), protocol_name(published.protocol));
    if published.port == 0 {
        report.push(&path, "must be between 1 and 65535");
    } else if seen.host_ports.iter().any(|other| other.conflicts_with(&published)) {
        report.push(&path, format!("{}/{name} is used twice in the pod", published.port));
    }
    if published.protocol != Protocol::Tcp {
        report.push(&path, format!("{name} ports cannot be published on a node yet, only TCP ones"));
    }
    seen.host_ports.push(published);
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn is_port_name(text: &str) -> bool {
    is_dns_label(text)
        && text.len() <= PORT_NAME_MAX
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

fn amounts(container: &Container, path: &Path<'_>, report: &mut Report) {
    let path = path.field("resources");
    let list = |r: &ResourceRequirements| {
        [("cpu", r.cpu_millis), ("memory", r.memory_bytes), ("ephemeral-storage", r.ephemeral_storage_bytes)]
    };
    for (field, resources) in [("requests", &container.requests), ("limits", &container.limits)] {
        for (name, amount) in list(resources) {
            if amount.is_some_and(|a| a > AMOUNT_MAX) {
                report.push(&path.field(field).field(name), "is beyond any machine: at most 2^53 is allowed");
            }
        }
    }
    for ((name, request), (_, limit)) in list(&container.requests).into_iter().zip(list(&container.limits)) {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let shown = |amount| match name {
                "cpu" => crate::format_millis(amount),
                _ => crate::format_bytes(amount),
            };
            report.push(
                &path.field("requests").field(name),
                format!("{} is above the limit of {}", shown(request), shown(limit)),
            );
        }
    }
}

/// Bytes of a pod spec, roughly.
pub(super) fn bytes(spec: &PodSpec) -> usize {
    let tolerations: usize = spec.tolerations.iter().map(|t| t.key.len() + t.value.len() + ENTRY_BYTES).sum();
    let containers = spec.containers.iter().chain(&spec.init_containers).map(container_bytes);
    let placement = spec.placement().map_or(0, placement::bytes);
    placement
        + map_bytes(&spec.node_selector)
        + tolerations
        + containers.sum::<usize>()
        + volume::bytes(spec)
        + naming::bytes(spec)
        + pull_secrets::bytes(spec)
}

fn container_bytes(container: &Container) -> usize {
    let words = container.command.iter().chain(&container.args).map(|w| w.len() + ENTRY_BYTES);
    let env = container.env.iter().map(|v| v.name.len() + v.value.len() + ENTRY_BYTES);
    container.name.len()
        + container.image.len()
        + container.working_dir.as_ref().map_or(0, String::len)
        + words.sum::<usize>()
        + env.sum::<usize>()
        + container.ports.len() * 2 * ENTRY_BYTES
        + probe::bytes(container)
        + device::bytes(container)
}
