//! Containers of a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_types::{
    Container, ContainerOptions, ContainerPort, EnvVar, ExtendedResources, HostPort, HugePageSize, HugePages,
    ImagePullPolicy, Protocol, Rare, ResizePolicy, ResourceRequirements, TERMINATION_MESSAGE_PATH_DEFAULT,
    format_bytes, is_extended_resource_name, parse_millis, parse_units,
};

use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Schema, suggestion};
use super::{probe, security, volume};
use crate::tree::{Node, Value};

const CONTAINER: Schema = Schema {
    known: &[
        "name",
        "image",
        "imagePullPolicy",
        "command",
        "args",
        "workingDir",
        "env",
        "envFrom",
        "ports",
        "resources",
        "volumeMounts",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "lifecycle",
        "restartPolicy",
        "securityContext",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "stdin",
        "stdinOnce",
        "tty",
        "resizePolicy",
    ],
    not_yet: &["restartPolicyRules", "volumeDevices"],
    ..Schema::EMPTY
};
const ENV: Schema = Schema { known: &["name", "value", "valueFrom"], ..Schema::EMPTY };
const PORT: Schema =
    Schema { known: &["name", "containerPort", "protocol", "hostPort", "hostIP"], ..Schema::EMPTY };
const RESOURCES: Schema = Schema { known: &["requests", "limits"], not_yet: &["claims"], ..Schema::EMPTY };
const RESOURCE_NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const PULL_POLICIES: [(&str, ImagePullPolicy); 3] = [
    ("Always", ImagePullPolicy::Always),
    ("IfNotPresent", ImagePullPolicy::IfNotPresent),
    ("Never", ImagePullPolicy::Never),
];
const RESIZE_POLICY: Schema = Schema { known: &["resourceName", "restartPolicy"], ..Schema::EMPTY };
const RESIZE_POLICIES: [(&str, bool); 2] = [("NotRequired", false), ("RestartContainer", true)];
const RESIZED_RESOURCES: [(&str, bool); 2] = [("cpu", true), ("memory", false)];
const MESSAGE_POLICIES: [(&str, bool); 2] = [("File", false), ("FallbackToLogsOnError", true)];
const PROTOCOLS: [(&str, Protocol); 3] =
    [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

/// One container.
pub(super) fn container(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Container> {
    let fields = d.fields(node, path, &CONTAINER)?;
    let name = d.required_text(&fields, "name").unwrap_or_default();
    let image = d.required_text(&fields, "image").unwrap_or_default();
    let policy = d.choice(&fields, "imagePullPolicy", &PULL_POLICIES);
    let (requests, limits, extended) = resources(d, &fields);
    let huge_pages = huge_pages(d, &fields);
    Some(Container {
        image_pull_policy: policy.unwrap_or_else(|| default_pull_policy(&image)),
        name: name.into(),
        image: image.into(),
        command: d.texts(&fields, "command"),
        args: d.texts(&fields, "args"),
        working_dir: d.text(&fields, "workingDir").filter(|dir| !dir.is_empty()),
        env: d.each(&fields, "env", env),
        ports: d.each(&fields, "ports", port),
        requests,
        limits,
        options: Rare::unless_default(ContainerOptions {
            env_from: d.each(&fields, "envFrom", volume::env_from),
            volume_mounts: d.each(&fields, "volumeMounts", volume::mount),
            startup_probe: probe::probe(d, &fields, "startupProbe"),
            readiness_probe: probe::probe(d, &fields, "readinessProbe"),
            liveness_probe: probe::probe(d, &fields, "livenessProbe"),
            lifecycle: probe::lifecycle(d, &fields),
            sidecar: restarts_always(d, &fields),
            security: security::container(d, &fields),
            termination_message_path: d
                .text(&fields, "terminationMessagePath")
                .filter(|path| !path.is_empty() && path != TERMINATION_MESSAGE_PATH_DEFAULT),
            termination_message_from_logs: d
                .choice(&fields, "terminationMessagePolicy", &MESSAGE_POLICIES)
                .unwrap_or_default(),
            extended: Rare::unless_default(extended),
            huge_pages,
            stdin: d.boolean(&fields, "stdin").unwrap_or_default(),
            stdin_once: d.boolean(&fields, "stdinOnce").unwrap_or_default(),
            tty: d.boolean(&fields, "tty").unwrap_or_default(),
            resize_policy: resize_policy(d, &fields),
        }),
    })
}

/// For which resources the container is restarted when they change.
fn resize_policy(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Rare<ResizePolicy> {
    let rules = d.each(fields, "resizePolicy", |d, node, path| {
        let fields = d.fields(node, path, &RESIZE_POLICY)?;
        let (resource, policy) =
            (d.required_text(&fields, "resourceName"), d.required_text(&fields, "restartPolicy"));
        resource.and(policy)?;
        let is_cpu = d.choice(&fields, "resourceName", &RESIZED_RESOURCES)?;
        Some((is_cpu, d.choice(&fields, "restartPolicy", &RESIZE_POLICIES)?))
    });
    let restarts = |wanted: bool| rules.iter().any(|(is_cpu, restarts)| *is_cpu == wanted && *restarts);
    let policy = ResizePolicy { restart_for_cpu: restarts(true), restart_for_memory: restarts(false) };
    Rare::unless_default(policy)
}

/// `restartPolicy: Always` makes an init container a sidecar; other policies of a container are none.
fn restarts_always(d: &mut Decoder<'_>, fields: &Fields<'_>) -> bool {
    match d.text(fields, "restartPolicy").as_deref() {
        None => false,
        Some("Always") => true,
        Some(other) => {
            let reason = format!(
                "{other:?} is not supported: only Always, in init containers; the pod has the others'"
            );
            d.fail(fields.place("restartPolicy"), &fields.path("restartPolicy"), reason);
            false
        }
    }
}

/// Kubernetes' rule: ask the registry every time when the tag is `latest`, or when there is neither tag nor digest.
fn default_pull_policy(image: &str) -> ImagePullPolicy {
    let last = image.rsplit('/').next().unwrap_or(image);
    match (last.contains('@'), last.rsplit_once(':')) {
        (true, _) => ImagePullPolicy::IfNotPresent,
        (false, Some((_, tag))) if tag != "latest" => ImagePullPolicy::IfNotPresent,
        (false, _) => ImagePullPolicy::Always,
    }
}

fn env(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<EnvVar> {
    let fields = d.fields(node, path, &ENV)?;
    let value = d.text(&fields, "value").unwrap_or_default();
    let source = fields.get("valueFrom").map(|node| volume::value_from(d, node, &fields.path("valueFrom")));
    let name = d.required_text(&fields, "name")?;
    let value_from = match source {
        None => Rare::NONE,
        // What it names could not be read: the whole variable is left out.
        Some(source) => Rare::some(source?),
    };
    Some(EnvVar { name, value, value_from })
}

fn port(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ContainerPort> {
    let fields = d.fields(node, path, &PORT)?;
    let name = d.text(&fields, "name").filter(|name| !name.is_empty()).map(Into::into);
    let protocol = d.choice(&fields, "protocol", &PROTOCOLS).unwrap_or_default();
    if fields.get("containerPort").is_none() {
        d.missing(&fields, "containerPort");
    }
    let number = d.number(&fields, "containerPort", u64::from(u16::MAX))?;
    let host = Rare::from(host_port(d, &fields));
    Some(ContainerPort { name, container_port: u16::try_from(number).ok()?, protocol, host })
}

/// 0 is no port of the node, as in Kubernetes.
fn host_port(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<HostPort> {
    let port = d.number(fields, "hostPort", u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port > 0);
    let Some(ip) = d.text(fields, "hostIP").filter(|ip| !ip.is_empty()) else {
        return port.map(|port| HostPort { port, ip: None });
    };
    match (ip.parse::<IpAddr>(), port) {
        (Ok(_), None) if fields.get("hostPort").is_none() => {
            let reason = "says nothing without hostPort";
            d.fail(fields.place("hostIP"), &fields.path("hostIP"), reason);
        }
        (Err(_), _) => {
            let reason = "must be an IP address of the node, such as 10.0.0.1";
            d.fail(fields.place("hostIP"), &fields.path("hostIP"), reason);
        }
        (Ok(ip), Some(port)) => return Some(HostPort { port, ip: Some(ip) }),
        (Ok(_), None) => {}
    }
    None
}

fn resources(
    d: &mut Decoder<'_>,
    container: &Fields<'_>,
) -> (ResourceRequirements, ResourceRequirements, ExtendedResources) {
    let fields =
        container.get("resources").and_then(|node| d.fields(node, &container.path("resources"), &RESOURCES));
    let Some(fields) = fields else { return Default::default() };
    let mut extended = ExtendedResources::default();
    let requests = all_amounts(d, &fields, "requests", Some(&mut extended.requests));
    let limits = all_amounts(d, &fields, "limits", Some(&mut extended.limits));
    (requests, limits, extended)
}

pub(super) fn amounts(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> ResourceRequirements {
    all_amounts(d, fields, name, None)
}

/// The huge pages of a container: its limits. A request must be the same, and alone it is none (Kubernetes' rules).
fn huge_pages(d: &mut Decoder<'_>, container: &Fields<'_>) -> HugePages {
    let mut pages = HugePages::NONE;
    let Some(Value::Map(resources)) = container.get("resources").map(|node| &node.value) else {
        return pages;
    };
    let read = |d: &mut Decoder<'_>, list: &str, size: HugePageSize| {
        let (_, node) = resources.iter().find(|(key, _)| key.text == list)?;
        let Value::Map(entries) = &node.value else { return None };
        let (key, value) = entries.iter().find(|(key, _)| key.text == size.resource())?;
        let path = format!("{}.{list}.{}", container.path("resources"), size.resource());
        let text = match &value.value {
            Value::Text(text) | Value::Number(text) => text,
            _ if value.is_null() => return None,
            _ => {
                let reason = format!("expected a quantity, found {}", value.describe());
                d.fail(value.place, &path, reason);
                return None;
            }
        };
        match parse_units(text) {
            Ok(bytes) => Some((bytes, key.place, path)),
            Err(error) => {
                d.fail(value.place, &path, error.to_string());
                None
            }
        }
    };
    for size in HugePageSize::ALL {
        let (request, limit) = (read(d, "requests", size), read(d, "limits", size));
        match (request, limit) {
            (Some((_, place, path)), None) => {
                let reason =
                    "needs a limit as well: huge pages are not given beyond one, so both must be the same";
                d.fail(place, &path, reason);
            }
            (Some((request, place, path)), Some((limit, ..))) if request != limit => {
                let [request, limit] = [request, limit].map(format_bytes);
                let reason =
                    format!("is {request}, the limit is {limit}: of huge pages both must be the same");
                d.fail(place, &path, reason);
            }
            (_, Some((limit, ..))) => pages.set(size, limit),
            (None, None) => {}
        }
    }
    pages
}

/// Amounts of the built-in resources, and, where there may be such, those of extended ones.
fn all_amounts(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    name: &str,
    mut extended: Option<&mut BTreeMap<SmolStr, u64>>,
) -> ResourceRequirements {
    let mut found = ResourceRequirements::default();
    let Some(node) = fields.get(name) else { return found };
    let path = fields.path(name);
    let Value::Map(entries) = &node.value else {
        d.fail(node.place, &path, format!("expected a map of quantities, found {}", node.describe()));
        return found;
    };
    for (key, value) in entries {
        let resource = key.text.as_str();
        let path = format!("{path}.{resource}");
        if let Some(extended) = extended.as_deref_mut().filter(|_| is_extended_resource_name(resource)) {
            if let Some(amount) = whole_number(d, value, &path) {
                extended.insert(resource.into(), amount);
            }
            continue;
        }
        if extended.is_some() && HugePageSize::of_resource(resource).is_some() {
            // See `huge_pages`.
            continue;
        }
        if !RESOURCE_NAMES.contains(&resource) {
            let is_of_kubernetes =
                resource.contains('/') || resource.starts_with("hugepages-") || resource == "storage";
            let reason = if is_of_kubernetes {
                format!("resource {resource} is not supported yet")
            } else {
                format!("unknown resource{}", suggestion(resource, RESOURCE_NAMES))
            };
            d.fail(key.place, &path, reason);
            continue;
        }
        let (Value::Text(text) | Value::Number(text)) = &value.value else {
            if !value.is_null() {
                d.fail(value.place, &path, format!("expected a quantity, found {}", value.describe()));
            }
            continue;
        };
        let amount = if resource == "cpu" { parse_millis(text) } else { parse_units(text) };
        match (amount, resource) {
            (Ok(amount), "cpu") => found.cpu_millis = Some(amount),
            (Ok(amount), "memory") => found.memory_bytes = Some(amount),
            (Ok(amount), _) => found.ephemeral_storage_bytes = Some(amount),
            (Err(error), _) => d.fail(value.place, &path, error.to_string()),
        }
    }
    found
}

/// The amount of an extended resource: devices are not divided.
fn whole_number(d: &mut Decoder<'_>, value: &Node, path: &str) -> Option<u64> {
    let (Value::Text(text) | Value::Number(text)) = &value.value else {
        if !value.is_null() {
            d.fail(value.place, path, format!("expected a quantity, found {}", value.describe()));
        }
        return None;
    };
    // In thousandths, to see fractions that a count of units would round up.
    match (parse_millis(text), parse_units(text)) {
        (Ok(millis), Ok(amount)) if amount.checked_mul(1000) == Some(millis) => Some(amount),
        (_, Ok(amount)) if text.bytes().all(|b| b.is_ascii_digit()) => Some(amount),
        (Ok(_), _) => {
            d.fail(value.place, path, format!("must be a whole number, found {text}"));
            None
        }
        (Err(error), _) => {
            d.fail(value.place, path, error.to_string());
            None
        }
    }
}
