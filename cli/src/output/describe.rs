//! One object in full, for people.

mod autoscaling;
mod claims;
mod config;
mod cpus;
mod device;
mod elastic_quotas;
mod functions;
mod node_pools;
mod profiles;
mod queues;
mod quotas;
mod running;
mod sriov;
mod start;
mod vertical;
mod volumes;
mod workloads;

pub(super) use sriov::{device_type, sync_status};

use std::collections::BTreeMap;

use bulkhead_controlplane_core::devices::NodeDevices;
use bulkhead_proto::v1;
use bulkhead_types::{
    Condition, Container, ContainerSize, ContainerState, ContainerStatus, ContainerTermination, Delivery,
    DeliveryStatus, Deployment, DeploymentStrategy, GuestMemory, Kind, Node, NodeFacts, NodePrecondition,
    Object, ObjectId, Pod, PodCondition, PodSpec, ReplicaSet, ResourceRequirements, Resources, StringMap,
    format_bytes, format_millis,
};

pub(crate) use claims::{class_cells, snapshot_cells, volume_cells};
pub(crate) use elastic_quotas::{ELASTIC_COLUMNS, elastic_rows};
pub(crate) use quotas::{LEVEL_COLUMNS, level_rows};
pub(crate) use vertical::{RECOMMENDATION_COLUMNS, recommendations};

use super::row::{self, Columns, pairs, pod_status};
use super::table;
use crate::directory::Directory;
use crate::time::{age, rfc3339, short};

/// Columns of conditions.
const CONDITION_COLUMNS: [&str; 5] = ["TYPE", "STATUS", "FOR", "REASON", "MESSAGE"];
/// Where values begin.
const VALUE_COLUMN: usize = 18;

/// Lines of `Name:  value`, indented.
#[derive(Default)]
struct Page {
    text: String,
    indent: usize,
}

impl Page {
    fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        let mut lines = value.lines();
        let label = format!("{:indent$}{name}:", "", indent = self.indent);
        let first = lines.next().unwrap_or_default();
        self.text += format!("{label:<VALUE_COLUMN$} {first}").trim_end();
        self.text.push('\n');
        for further in lines {
            self.text += format!("{:VALUE_COLUMN$} {further}", "").trim_end();
            self.text.push('\n');
        }
    }

    fn optional(&mut self, name: &str, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.line(name, value);
        }
    }

    fn map(&mut self, name: &str, map: &StringMap) {
        let lines: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.line(name, if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n") });
    }

    fn section(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.text += &format!("{:indent$}{name}:\n", "", indent = self.indent);
        self.indent += 2;
        fill(self);
        self.indent -= 2;
    }

    fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        for line in table::render(header, rows).lines() {
            self.text += &format!("{:indent$}{line}\n", "", indent = self.indent);
        }
    }
}

/// What is around an object.
pub(crate) struct About<'a> {
    /// What others are called.
    pub(crate) directory: &'a Directory,
    /// What belongs to it.
    pub(crate) related: &'a [Object],
    /// What happened to it.
    pub(crate) history: &'a [v1::HistoryEntry],
    /// Of a node that reports devices: those, and the names of the pods that hold some.
    pub(crate) devices: Option<NodeView>,
    /// Of a pod on a node that can be asked: what the start of its guest spent its time with.
    pub(crate) start: Option<v1::StartPhasesResponse>,
}

/// The devices of a node.
pub(crate) struct NodeView {
    /// Who holds which.
    pub(crate) ledger: NodeDevices,
    /// What the agent said of them.
    pub(crate) slice: std::sync::Arc<bulkhead_types::ResourceSlice>,
    /// The names of the pods that hold some.
    pub(crate) names: BTreeMap<ObjectId, String>,
}

/// The object, what belongs to it, and what happened to it.
pub(crate) fn text(object: &Object, about: &About<'_>) -> String {
    let About { directory, related, history, devices, start } = about;
    let mut page = Page::default();
    header(&mut page, object.meta(), directory);
    match object {
        Object::Namespace(_) => {}
        Object::Node(o) => {
            node(&mut page, o, related, directory);
            node_pools::of_node(&mut page, o);
            devices.iter().for_each(|view| device::node(&mut page, o.spec.gpu.get(), view));
        }
        Object::Pod(o) => {
            pod(&mut page, o, directory);
            start.iter().for_each(|start| start::steps(&mut page, o, start));
        }
        Object::ReplicaSet(o) => replica_set(&mut page, o, related, directory),
        Object::Deployment(o) => deployment(&mut page, o, related, directory),
        Object::StatefulSet(o) => workloads::stateful_set(&mut page, o, related, directory),
        Object::DaemonSet(o) => workloads::daemon_set(&mut page, o, related, directory),
        Object::Job(o) => workloads::job(&mut page, o, related, directory),
        Object::CronJob(o) => workloads::cron_job(&mut page, o, related, directory),
        Object::ConfigMap(o) => config::config_map(&mut page, o),
        Object::Secret(o) => config::secret(&mut page, o),
        Object::HorizontalPodAutoscaler(o) => autoscaling::autoscaler(&mut page, o),
        Object::CronHorizontalPodAutoscaler(o) => autoscaling::cron_autoscaler(&mut page, o),
        Object::ElasticWorkload(o) => autoscaling::elastic_workload(&mut page, o),
        Object::PodDisruptionBudget(o) => autoscaling::budget(&mut page, o),
        Object::VerticalPodAutoscaler(o) => vertical::autoscaler(&mut page, o),
        Object::PriorityClass(o) => profiles::priority_class(&mut page, o),
        Object::Profile(o) => profiles::profile(&mut page, o),
        Object::ResourceQuota(o) => quotas::level(&mut page, &o.spec.hard, &o.status),
        Object::Department(o) => quotas::level(&mut page, &o.spec.hard, &o.status),
        Object::Project(o) => {
            page.line("Department", o.spec.department.as_ref().map_or("<none>", |name| name.as_str()));
            quotas::level(&mut page, &o.spec.hard, &o.status);
        }
        Object::PodGroup(o) => queues::pod_group(&mut page, o),
        Object::Queue(o) => queues::queue(&mut page, o),
        Object::NodePool(o) => node_pools::pool(&mut page, o),
        Object::DeschedulerPolicy(o) => node_pools::descheduler(&mut page, o),
        Object::NodeOperation(o) => node_pools::operation(&mut page, o),
        Object::ElasticQuotaTree(o) => elastic_quotas::tree(&mut page, o),
        Object::LimitRange(o) => quotas::limit_range(&mut page, o),
        Object::DeviceClass(o) => device::class(&mut page, &o.spec),
        Object::SriovNetworkNodePolicy(o) => sriov::policy(&mut page, &o.spec),
        Object::SriovNetwork(o) => sriov::network(&mut page, &o.spec, true),
        Object::SriovIBNetwork(o) => sriov::network(&mut page, &o.spec.as_network(), false),
        Object::SriovNetworkNodeState(o) => sriov::state(&mut page, o),
        Object::PersistentVolumeClaim(o) => claims::claim(&mut page, o, related),
        Object::VolumeSnapshot(o) => claims::snapshot(&mut page, o),
        Object::StorageClass(o) => claims::class(&mut page, o),
        Object::PersistentVolume(o) => claims::volume(&mut page, o),
        Object::ControllerRevision(o) => revision(&mut page, o),
        Object::ResourceSlice(o) => page.line("Devices", o.devices.len().to_string()),
    }
    events(&mut page, history);
    page.text
}

/// What every object has.
fn header(page: &mut Page, meta: &bulkhead_types::ObjectMeta, directory: &Directory) {
    page.line("Name", meta.name.as_str());
    if let Some(namespace) = &meta.namespace {
        page.line("Namespace", namespace.as_str());
    }
    page.map("Labels", &meta.labels);
    page.map("Annotations", &meta.annotations);
    page.line("Created", format!("{} ({} ago)", rfc3339(meta.created_at_ms), age(meta.created_at_ms)));
    page.line("Revision", format!("{} (generation {})", meta.revision, meta.generation));
    if let Some(owner) = meta.owner {
        let name = directory.name_of(owner.kind, owner.id);
        let name = name.map_or_else(|| format!("{} (gone)", owner.id), |n| n.to_string());
        page.line("Controlled by", format!("{}/{name}", owner.kind));
    }
    if let Some(deletion) = &meta.deletion {
        let grace = short(deletion.grace_ms / 1000);
        page.line("Terminating", format!("asked for {} ago, grace {grace}", age(deletion.requested_at_ms)));
    }
}

fn revision(page: &mut Page, revision: &bulkhead_types::ControllerRevision) {
    page.line("Revision", revision.revision.to_string());
    template(page, &revision.template);
}

fn events(page: &mut Page, history: &[v1::HistoryEntry]) {
    if history.is_empty() {
        page.line("Events", "<none>");
        return;
    }
    let rows: Vec<Vec<String>> = history
        .iter()
        .map(|e| {
            vec![e.revision.to_string(), age(e.at_ms), e.actor.clone(), e.event.clone(), e.summary.clone()]
        })
        .collect();
    page.section("Events", |page| page.table(&["REVISION", "AGE", "ACTOR", "EVENT", "SUMMARY"], &rows));
}

fn objects(
    page: &mut Page,
    name: &str,
    kind: Kind,
    objects: &[Object],
    directory: &Directory,
    namespace: bool,
) {
    if objects.is_empty() {
        page.line(name, "<none>");
        return;
    }
    let columns = Columns { namespace, ..Columns::default() };
    let rows: Vec<_> = objects.iter().map(|o| row::row(o, columns, directory)).collect();
    page.section(name, |page| page.table(&row::header(kind, columns), &rows));
}

fn resources(amounts: Resources) -> String {
    let plain = format!(
        "cpu {}, memory {}, ephemeral-storage {}",
        format_millis(amounts.cpu_millis),
        format_bytes(amounts.memory_bytes),
        format_bytes(amounts.ephemeral_storage_bytes)
    );
    let pages = amounts.huge_pages.sizes();
    pages.fold(plain, |text, (size, bytes)| format!("{text}, {} {}", size.resource(), format_bytes(bytes)))
}

fn node(page: &mut Page, node: &Node, pods: &[Object], directory: &Directory) {
    let (status, facts) = (&node.status, &node.status.facts);
    page.line("Status", format!("{}, for {}", row::node_status(node), age(status.phase_since_ms)));
    let taints: Vec<String> =
        node.spec.taints.iter().map(|t| format!("{}={}:{:?}", t.key, t.value, t.effect)).collect();
    page.line("Taints", if taints.is_empty() { "<none>".to_owned() } else { taints.join("\n") });
    page.line("Capacity", format!("{}, pods {}", resources(facts.capacity), facts.pods_max));
    page.line("Allocatable", resources(facts.allocatable));
    page.optional("Accelerator", &facts.accelerator);
    page.optional("Address", &facts.address);
    page.optional("Agent", &facts.agent_version);
    page.optional("Kernel", &facts.kernel_version);
    page.optional("Boot id", &facts.boot_id);
    page.line("Incarnation", status.incarnation.to_string());
    page.optional("Warnings", facts.warnings.join("\n"));
    let used = pods.iter().filter_map(|o| match o {
        Object::Pod(pod) if !pod.status.phase.is_terminal() => Some(pod.spec.scheduling_request()),
        _ => None,
    });
    page.line("Reserved", resources(used.fold(Resources::ZERO, Resources::plus)));
    let pinned = pods.iter().filter_map(|o| match o {
        Object::Pod(pod) if !pod.status.phase.is_terminal() => Some(pod.spec.pinned_memory_bytes()),
        _ => None,
    });
    match pinned.fold(0u64, u64::saturating_add) {
        0 => {}
        bytes => page.line("Pinned memory", format_bytes(bytes)),
    }
    preconditions(page, facts);
    cpus::node(page, node, pods);
    let images = status.images.get().into_iter().flat_map(|images| &images.images);
    let shown = images.map(|image| {
        let name = image.names.first().unwrap_or(&image.digest);
        format!("{name} ({})", bulkhead_types::format_bytes(image.size_bytes))
    });
    page.optional("Images", shown.collect::<Vec<_>>().join("\n"));
    objects(page, "Pods", Kind::Pod, pods, directory, true);
}

/// What the machine needs, as its agent found it; what to do only where something is to be done.
fn preconditions(page: &mut Page, facts: &NodeFacts) {
    let row = |one: &NodePrecondition| {
        let remedy = if one.remedy.is_empty() { "-" } else { one.remedy.as_str() };
        [&one.name, one.outcome.as_str(), &one.found, remedy].map(str::to_owned).to_vec()
    };
    let told = facts.preconditions.get().into_iter().flat_map(|told| &told.preconditions);
    let rows: Vec<Vec<String>> = told.map(row).collect();
    if !rows.is_empty() {
        let header = ["NAME", "OUTCOME", "FOUND", "REMEDY"];
        page.section("Preconditions", |page| page.table(&header, &rows));
    }
}

fn pod(page: &mut Page, pod: &Pod, directory: &Directory) {
    let (spec, status) = (&pod.spec, &pod.status);
    let node = pod
        .node
        .map(|id| directory.name_of(Kind::Node, id).map_or_else(|| id.to_string(), |n| n.to_string()));
    page.line("Node", node.unwrap_or_else(|| "<none>".to_owned()));
    if let Some(id) = status.nominated_node.get().filter(|_| pod.node.is_none()) {
        let name = directory.name_of(Kind::Node, *id).map_or_else(|| id.to_string(), |n| n.to_string());
        page.line("Nominated node", name);
    }
    if let Some(id) = pod.meta.deletion.as_ref().and_then(|deletion| deletion.preemptor) {
        let name = directory.name_of(Kind::Pod, id).map_or_else(|| id.to_string(), |n| n.to_string());
        page.line("Preempted by", name);
    }
    page.line("Status", pod_status(pod));
    if let Some(told) = status.addresses.get() {
        let ips: Vec<String> = told.pod_ips.iter().map(ToString::to_string).collect();
        page.line("IP", ips.join(", "));
        if let Some(host_ip) = told.host_ip {
            page.line("Host IP", host_ip.to_string());
        }
    }
    page.optional("Reason", &status.reason);
    page.optional("Message", &status.message);
    page.line(
        "Ready",
        if status.ready { format!("yes, for {}", age(status.ready_since_ms)) } else { "no".to_owned() },
    );
    pod_conditions(page, pod);
    if status.bound_at_ms > 0 {
        page.line("Bound", rfc3339(status.bound_at_ms));
    }
    if status.started_at_ms > 0 {
        page.line("Guest started", rfc3339(status.started_at_ms));
    }
    page.line("Guest restarts", status.sandbox_restarts.to_string());
    page.line("Reserves", resources(spec.scheduling_request()));
    guest_memory(page, spec);
    page.line("Restart policy", format!("{:?}", spec.restart_policy));
    page.line("Grace", short(spec.termination_grace_ms / 1000));
    if !spec.node_selector.is_empty() {
        page.line("Node selector", pairs(spec.node_selector.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
    }
    page.optional("Priority class", spec.priority_class().map(ToString::to_string).unwrap_or_default());
    page.optional("Image pull secrets", spec.image_pull_secrets().join(", "));
    page.optional("Security", running::pod_rights(spec));
    page.optional("Volumes", volumes::volumes(spec).join("\n"));
    page.optional("Devices", device::given(pod).join("\n"));
    page.optional("Networks", sriov::attached(pod).join("\n"));
    page.optional("CPUs", cpus::given(pod));
    for (name, containers, states) in [
        ("Init containers", &spec.init_containers, &status.init_containers),
        ("Containers", &spec.containers, &status.containers),
    ] {
        if !containers.is_empty() {
            page.section(name, |page| {
                for one in containers {
                    let state = states.iter().find(|s| s.name == one.name);
                    page.section(&one.name, |page| {
                        container(page, one, state);
                        sizes(page, pod, &one.name);
                    });
                }
            });
        }
    }
}

/// How the guest's memory is had, where that is another way than others'.
fn guest_memory(page: &mut Page, spec: &PodSpec) {
    let how = spec.guest_memory();
    let of = if how.huge_pages { "all of huge pages" } else { "ordinary" };
    match how {
        GuestMemory { pinned: true, .. } => {
            page.line("Guest memory", format!("pinned ({}), {of}", format_bytes(spec.pinned_memory_bytes())));
        }
        GuestMemory { huge_pages: true, .. } => page.line("Guest memory", of),
        _ => {}
    }
}

/// What a container of a pod that was ever resized shall have, was given of the node, and has.
fn sizes(page: &mut Page, pod: &Pod, name: &str) {
    if pod.resize().is_none() && pod.status.actual.get().is_none() {
        return;
    }
    let shown = |sizes: Vec<ContainerSize>| {
        let size = sizes.into_iter().find(|size| size.name == name)?;
        let (requests, limits) = (requirements(size.reserved()), requirements(size.limits));
        Some(format!("requests {requests}; limits {limits}"))
    };
    for (title, sizes) in [
        ("Desired", pod.desired_spec().sizes()),
        ("Allocated", pod.spec.sizes()),
        ("Actual", pod.actual_sizes()),
    ] {
        page.optional(title, shown(sizes).unwrap_or_default());
    }
}

fn pod_conditions(page: &mut Page, pod: &Pod) {
    let row = |c: PodCondition| {
        let since = if c.since_ms == 0 { "-".to_owned() } else { age(c.since_ms) };
        let holds = if c.holds { "True" } else { "False" };
        vec![c.condition_type.to_owned(), holds.to_owned(), since, c.reason.to_owned(), c.message]
    };
    let rows: Vec<Vec<String>> = pod.conditions().into_iter().map(row).collect();
    page.section("Conditions", |page| page.table(&CONDITION_COLUMNS, &rows));
}

fn container(page: &mut Page, container: &Container, status: Option<&ContainerStatus>) {
    page.line("Image", container.image.as_str());
    page.optional("Command", container.command.join(" "));
    page.optional("Args", container.args.join(" "));
    page.optional("Directory", container.working_dir.as_deref().unwrap_or_default());
    let ports: Vec<String> = container
        .ports
        .iter()
        .map(|p| {
            let own = format!("{}/{}", p.container_port, format!("{:?}", p.protocol).to_uppercase());
            p.published().map_or(own.clone(), |host| {
                let at = std::net::SocketAddr::new(host.ip, host.port);
                format!("{own} as {at} of the node")
            })
        })
        .collect();
    page.optional("Ports", ports.join(", "));
    page.optional("Requests", requirements(container.requests));
    page.optional("Limits", requirements(container.limits));
    page.optional("Devices", device::asked(container));
    page.optional("Environment", volumes::environment(container).join("\n"));
    page.optional("Mounts", volumes::mounts(container).join("\n"));
    for (name, text) in running::checks(container) {
        page.line(name, text);
    }
    page.optional("Security", running::rights(container));
    if container.is_sidecar() {
        page.line("Restart policy", "Always (sidecar)");
    }
    let Some(status) = status else { return };
    let state = match &status.state {
        ContainerState::Waiting { reason, message } => joined("Waiting", reason, message),
        ContainerState::Running { started_at_ms } => format!("Running, for {}", age(*started_at_ms)),
        ContainerState::Terminated(termination) => terminated(termination),
    };
    page.line("State", state);
    if let Some(last) = &status.last_termination {
        page.line("Last state", terminated(last));
    }
    page.line("Restarts", status.restart_count.to_string());
    page.line("Ready", if status.ready { "yes" } else { "no" });
    page.optional("Image digest", &status.image_digest);
}

fn joined(state: &str, reason: &str, message: &str) -> String {
    [state, reason, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

fn terminated(t: &ContainerTermination) -> String {
    let state = joined("Terminated", &t.reason, &t.message);
    let signal = if t.signal == 0 { String::new() } else { format!(" (signal {})", t.signal) };
    format!("{state}, exit code {}{signal}, {} ago", t.exit_code, age(t.finished_at_ms))
}

fn requirements(amounts: ResourceRequirements) -> String {
    let parts = [
        amounts.cpu_millis.map(|v| format!("cpu {}", format_millis(v))),
        amounts.memory_bytes.map(|v| format!("memory {}", format_bytes(v))),
        amounts.ephemeral_storage_bytes.map(|v| format!("ephemeral-storage {}", format_bytes(v))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn template(page: &mut Page, template: &bulkhead_types::PodTemplate) {
    page.section("Pod template", |page| {
        page.map("Labels", &template.labels);
        if !template.annotations.is_empty() {
            page.map("Annotations", &template.annotations);
        }
        for one in template.spec.init_containers.iter().chain(&template.spec.containers) {
            page.section(&one.name, |page| container(page, one, None));
        }
    });
}

fn replica_set(page: &mut Page, set: &ReplicaSet, pods: &[Object], directory: &Directory) {
    page.line("Selector", row::selector(&set.spec.selector));
    page.line("Rollout", set.spec.rollout_revision.to_string());
    page.line(
        "Replicas",
        format!(
            "{} wanted, {} there, {} ready, {} available",
            set.spec.replicas, set.status.replicas, set.status.ready_replicas, set.status.available_replicas
        ),
    );
    template(page, &set.spec.template);
    objects(page, "Pods", Kind::Pod, pods, directory, false);
}

/// How a Deployment is delivered, and where that stands.
fn delivery(delivery: &Delivery, status: Option<&DeliveryStatus>, desired: u32) -> String {
    let name = match delivery {
        Delivery::Batches { .. } => "Batches",
        Delivery::Canary { .. } => "Canary",
        Delivery::BlueGreen { .. } => "BlueGreen",
    };
    let Some(status) = status else { return name.to_owned() };
    let active = status.active(delivery, desired);
    let place = match (status.is_under_way(), status.is_aborted()) {
        (false, _) => "nothing under way".to_owned(),
        (_, true) => format!("ended ({})", status.abort_reason),
        _ => format!("step {} of {}", status.step + 1, delivery.steps(desired)),
    };
    format!("{name}: {place}, {active} is active, {} new pods failed", status.failed_pods.len())
}

fn deployment(page: &mut Page, deployment: &Deployment, sets: &[Object], directory: &Directory) {
    let (spec, status) = (&deployment.spec, &deployment.status);
    page.line("Selector", row::selector(&spec.selector));
    page.line(
        "Replicas",
        format!(
            "{} wanted, {} updated, {} there, {} available, {} unavailable",
            spec.replicas,
            status.updated_replicas,
            status.replicas,
            status.available_replicas,
            status.unavailable_replicas
        ),
    );
    let paused = if spec.paused { ", paused" } else { "" };
    let stopped = if spec.stopped { ", stopped" } else { "" };
    page.line("Rollout", format!("{}{paused}{stopped}", status.rollout_revision));
    let strategy = match spec.strategy {
        DeploymentStrategy::Recreate => "Recreate".to_owned(),
        DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } => {
            format!("RollingUpdate: at most {max_surge} more, {max_unavailable} unavailable")
        }
    };
    page.line("Strategy", strategy);
    if let Some(delivery) = spec.delivery.get() {
        page.line("Delivery", self::delivery(delivery, status.delivery.get(), spec.replicas));
    }
    page.line("Min ready", short(spec.min_ready_ms / 1000));
    page.line("Deadline", short(spec.progress_deadline_ms / 1000));
    conditions(page, &status.conditions);
    template(page, &spec.template);
    objects(page, "ReplicaSets", Kind::ReplicaSet, sets, directory, false);
}

fn conditions(page: &mut Page, conditions: &[Condition]) {
    if conditions.is_empty() {
        return;
    }
    let row = |c: &Condition| {
        let (kind, status) = (c.condition_type.to_string(), format!("{:?}", c.status));
        vec![kind, status, age(c.last_transition_ms), c.reason.to_string(), c.message.clone()]
    };
    let rows: Vec<Vec<String>> = conditions.iter().map(row).collect();
    page.section("Conditions", |page| page.table(&CONDITION_COLUMNS, &rows));
}
