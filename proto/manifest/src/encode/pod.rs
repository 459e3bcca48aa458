//! Pods as values.

use std::collections::BTreeMap;

use bulkhead_types::{
    Container, ContainerSize, ContainerState, ContainerStatus, ContainerTermination, ImagePullPolicy, Pod,
    PodCondition, PodPhase, PodSpec, Protocol, ResourceRequirements, RestartPolicy, RuntimeClass, Toleration,
    TolerationOperator, format_bytes, format_millis,
};
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::{Fields, effect, naming, placement, running, volume};

/// What a pod runs; `node` is where it runs or must run.
pub(super) fn spec(spec: &PodSpec, node: Option<&str>) -> Value {
    let RuntimeClass::Rune = spec.runtime_class;
    let restart_policy = match spec.restart_policy {
        RestartPolicy::Always => "Always",
        RestartPolicy::OnFailure => "OnFailure",
        RestartPolicy::Never => "Never",
    };
    let fields = Fields::new()
        .text("runtimeClassName", "rune")
        .text("restartPolicy", restart_policy)
        .set("terminationGracePeriodSeconds", (spec.termination_grace_ms / 1000).into())
        .map("nodeSelector", &spec.node_selector)
        .optional("nodeName", node)
        .optional("hostname", spec.hostname.as_deref())
        .optional("priorityClassName", spec.priority_class().map(SmolStr::as_str))
        .list("tolerations", spec.tolerations.iter().map(toleration))
        .list("initContainers", spec.init_containers.iter().map(container))
        .list("containers", spec.containers.iter().map(container))
        .list("volumes", spec.volumes().iter().map(volume::volume))
        .list("imagePullSecrets", spec.image_pull_secrets().iter().map(|name| json!({"name": name.as_str()})))
        .maybe("securityContext", running::pod_security(spec));
    naming::naming(placement::placement(fields, spec.placement()), spec.naming()).finish()
}

pub(super) fn toleration(toleration: &Toleration) -> Value {
    let operator = match toleration.operator {
        TolerationOperator::Equal => "Equal",
        TolerationOperator::Exists => "Exists",
    };
    let fields = Fields::new()
        .nonempty("key", &toleration.key)
        .text("operator", operator)
        .nonempty("value", &toleration.value)
        .optional("effect", toleration.effect.map(effect));
    match toleration.toleration_ms {
        Some(ms) => fields.set("tolerationSeconds", (ms / 1000).into()),
        None => fields,
    }
    .finish()
}

fn container(container: &Container) -> Value {
    let policy = match container.image_pull_policy {
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::Never => "Never",
    };
    let words =
        |words: &[String]| words.iter().map(|w| Value::from(w.as_str())).collect::<Vec<_>>().into_iter();
    let ports = container.ports.iter().map(|port| {
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        let fields = Fields::new()
            .optional("name", port.name.as_deref())
            .set("containerPort", port.container_port.into())
            .text("protocol", protocol);
        let Some(host) = port.host.get() else { return fields.finish() };
        let ip = host.ip.map(|ip| ip.to_string());
        fields.set("hostPort", host.port.into()).optional("hostIP", ip.as_deref()).finish()
    });
    let extended =
        container.options.get().and_then(|options| options.extended.get()).cloned().unwrap_or_default();
    let resources =
        Fields::new().set("requests", with_extended(amounts(container.requests), &extended.requests)).set(
            "limits",
            with_huge_pages(with_extended(amounts(container.limits), &extended.limits), container),
        );
    let resources = Fields(resources.0.into_iter().filter(|(_, v)| *v != json!({})).collect());
    let fields = Fields::new()
        .text("name", &container.name)
        .text("image", &container.image)
        .text("imagePullPolicy", policy)
        .list("command", words(&container.command))
        .list("args", words(&container.args))
        .optional("workingDir", container.working_dir.as_deref())
        .list("envFrom", container.env_from().iter().map(volume::env_from))
        .list("env", container.env.iter().map(volume::env_var))
        .list("ports", ports)
        .set("resources", resources.finish())
        .list("volumeMounts", container.volume_mounts().iter().map(volume::mount));
    running::container(fields, container).finish()
}

fn with_extended(mut amounts: Value, extended: &BTreeMap<SmolStr, u64>) -> Value {
    if let Value::Object(map) = &mut amounts {
        map.extend(extended.iter().map(|(name, amount)| (name.to_string(), amount.to_string().into())));
    }
    amounts
}

fn with_huge_pages(mut amounts: Value, container: &Container) -> Value {
    if let Value::Object(map) = &mut amounts {
        let pages = container.huge_pages().sizes();
        map.extend(pages.map(|(size, bytes)| (size.resource().to_owned(), format_bytes(bytes).into())));
    }
    amounts
}

pub(super) fn amounts(amounts: ResourceRequirements) -> Value {
    Fields::new()
        .optional("cpu", amounts.cpu_millis.map(format_millis).as_deref())
        .optional("memory", amounts.memory_bytes.map(format_bytes).as_deref())
        .optional("ephemeral-storage", amounts.ephemeral_storage_bytes.map(format_bytes).as_deref())
        .finish()
}

/// What is known of a pod; the node that is nominated for it by name.
pub(super) fn status(pod: &Pod, nominated_node: Option<&str>) -> Value {
    let status = &pod.status;
    let phase = match status.phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    };
    let condition = |condition: PodCondition| {
        Fields::new()
            .text("type", condition.condition_type)
            .text("status", if condition.holds { "True" } else { "False" })
            .nonempty("reason", condition.reason)
            .nonempty("message", &condition.message)
            .time("lastTransitionTime", condition.since_ms)
            .finish()
    };
    let fields = Fields::new()
        .text("phase", phase)
        .nonempty("reason", &status.reason)
        .nonempty("message", &status.message)
        .optional("nominatedNodeName", nominated_node)
        .list("conditions", pod.conditions().into_iter().map(condition))
        .time("startTime", status.started_at_ms)
        .list("initContainerStatuses", status.init_containers.iter().map(|one| container_status(pod, one)))
        .list("containerStatuses", status.containers.iter().map(|one| container_status(pod, one)))
        .list("devices", pod.devices().iter().map(super::device::allocated))
        .list("networks", pod.networks().iter().map(super::sriov::attachment));
    let fields = match pod.cpus() {
        None => fields,
        Some(given) => {
            let numa_nodes = given.numa_nodes.iter().map(|id| Value::from(*id));
            fields.text("cpuset", &given.cpus.to_string()).list("numaNodes", numa_nodes)
        }
    };
    let fields = match status.addresses.get() {
        None => fields,
        Some(told) => {
            let host = told.host_ip.map(|ip| ip.to_string());
            let one = |ip: String| Fields::new().text("ip", &ip).finish();
            let first = told.pod_ips.first().map(ToString::to_string);
            fields
                .optional("hostIP", host.as_deref())
                .list("hostIPs", host.clone().into_iter().map(one))
                .optional("podIP", first.as_deref())
                .list("podIPs", told.pod_ips.iter().map(|ip| one(ip.to_string())))
        }
    };
    let fields = match status.sandbox_restarts {
        0 => fields,
        n => fields.set("sandboxRestarts", n.into()),
    };
    fields.finish()
}

/// What a container of a pod that was ever resized was given of the node, and what it has.
fn sizes(fields: Fields, pod: &Pod, name: &str) -> Fields {
    if pod.resize().is_none() && pod.status.actual.get().is_none() {
        return fields;
    }
    let of = |sizes: Vec<ContainerSize>| sizes.into_iter().find(|size| size.name == name);
    let allocated = of(pod.spec.sizes()).map(|size| amounts(size.reserved()));
    let actual = of(pod.actual_sizes()).map(|size| {
        Fields::new().set("requests", amounts(size.reserved())).set("limits", amounts(size.limits)).finish()
    });
    fields.maybe("allocatedResources", allocated).maybe("resources", actual)
}

fn container_status(pod: &Pod, status: &ContainerStatus) -> Value {
    let state = match &status.state {
        ContainerState::Waiting { reason, message } => {
            let waiting = Fields::new().nonempty("reason", reason).nonempty("message", message);
            json!({"waiting": waiting.finish()})
        }
        ContainerState::Running { started_at_ms } => {
            json!({"running": Fields::new().time("startedAt", *started_at_ms).finish()})
        }
        ContainerState::Terminated(termination) => json!({"terminated": terminated(termination)}),
    };
    let fields = Fields::new()
        .text("name", &status.name)
        .set("state", state)
        .set("ready", status.ready.into())
        .set("restartCount", status.restart_count.into())
        .nonempty("imageID", &status.image_digest);
    let fields = sizes(fields, pod, &status.name);
    match &status.last_termination {
        Some(last) => fields.set("lastState", json!({"terminated": terminated(last)})),
        None => fields,
    }
    .finish()
}

fn terminated(termination: &ContainerTermination) -> Value {
    let fields = Fields::new()
        .set("exitCode", termination.exit_code.into())
        .nonempty("reason", &termination.reason)
        .nonempty("message", &termination.message)
        .time("startedAt", termination.started_at_ms)
        .time("finishedAt", termination.finished_at_ms);
    match termination.signal {
        0 => fields,
        signal => fields.set("signal", signal.into()),
    }
    .finish()
}
