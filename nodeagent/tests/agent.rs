//! The whole agent against a control plane in memory and real guests.
//!
//! Needs QEMU, `BULKHEAD_KERNEL_DIR`, `BULKHEAD_GUEST` and a static /bin/busybox; where one is missing, the tests that
//! need it say so and pass.

#[path = "agent/booted.rs"]
mod booted;
#[path = "faults/mod.rs"]
#[allow(unreachable_pub, reason = "a module of a test")]
mod faults;
#[path = "support/layout.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod layout;
#[path = "support/pages.rs"]
#[allow(unreachable_pub, reason = "a module of a test")]
mod pages;
#[path = "support/placed.rs"]
#[allow(unreachable_pub, reason = "a module of a test")]
mod placed;
#[path = "agent/resize.rs"]
mod resize;
#[path = "support/server.rs"]
#[allow(unreachable_pub, reason = "a module of a test")]
mod server;
#[path = "agent/talk.rs"]
mod talk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_nodeagent::image::{ImageStore, ImageStoreOptions};
use bulkhead_nodeagent::{
    AccelChoice, AgentConfig, AgentError, GuestSize, KernelSource, MemorySharing, NetworkChoice, VmPoolConfig,
};
use bulkhead_proto::v1;
use bulkhead_proto::v1::pod_io_client::PodIoClient;
use bulkhead_types::{
    ClaimIntent, Container, ContainerOptions, ContainerState, Deletion, Name, ObjectId, PodIntent,
    PodOptions, PodPhase, PodReport, PodSecurityContext, PodSpec, Rare, ResourceRequirements, RestartPolicy,
    SecurityContext, Shared, Sysctl, Volume, VolumeMount, VolumeOrder, VolumeSource, VolumeTask,
};
use layout::{LayoutMaker, Node, layer};
use server::FakeServer;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Until something that must come is missed. Emulated guests on a busy machine are slow.
const DEADLINE: Duration = Duration::from_secs(240);

/// What guests need; `None`, with a word on what is missing, where they cannot run.
fn guest_parts() -> Option<(PathBuf, PathBuf)> {
    let part = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        if path.is_none() {
            eprintln!("skipped: {name} names nothing");
        }
        path
    };
    let qemu = std::process::Command::new("qemu-system-x86_64").arg("-version").output();
    if qemu.is_err() {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return None;
    }
    if !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: there is no /bin/busybox (apt-get install busybox-static)");
        return None;
    }
    Some((part("BULKHEAD_KERNEL_DIR")?, part("BULKHEAD_GUEST")?))
}

/// An agent that runs, and how to stop it.
type Running = (oneshot::Sender<()>, JoinHandle<Result<(), AgentError>>);

/// A node: its directory and its agent, which may be stopped and started.
struct TestNode {
    _dir: tempfile::TempDir,
    config: AgentConfig,
    running: Option<Running>,
}

impl TestNode {
    async fn new(server: &FakeServer, kernel_dir: &Path, guest: &Path) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut config =
            AgentConfig::new("node-1", vec![format!("http://{}", server.address)], dir.path().join("data"));
        config.kernel = KernelSource::Folder(kernel_dir.to_owned());
        config.guest = guest.to_owned();
        config.guard = vec![env!("CARGO_BIN_EXE_bulkhead-fence-guard").into()];
        config.accel = AccelChoice::Tcg;
        config.backoff_ms = Some((500, 2_000));
        config.memory_bytes = Some(2 << 30);
        import_busybox(dir.path(), &config.data_dir).await;
        Self { _dir: dir, config, running: None }
    }

    fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let agent = bulkhead_nodeagent::run(self.config.clone(), async {
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(agent)));
    }

    async fn stop(&mut self) {
        let (stop, agent) = self.running.take().expect("running");
        stop.send(()).expect("it listens");
        agent.await.expect("no panic").expect("a clean end");
    }

    /// Process ids of this node's guests.
    fn guests(&self) -> Vec<i32> {
        let data = self.config.data_dir.display().to_string();
        let processes = std::fs::read_dir("/proc").expect("procfs");
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("-pidfile") && line.contains(&data)
            })
            .collect()
    }

    /// Waits until this guest of the pool waits for a pod.
    async fn pooled(&self, number: u64) {
        let ready = self.config.data_dir.join(format!("vm-pool/{number}/ready"));
        let there = async {
            while !ready.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, there).await.expect("it boots");
    }

    fn pod_folders(&self) -> usize {
        std::fs::read_dir(self.config.data_dir.join("pods")).expect("listed").count()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        // A test that failed leaves no guest behind.
        for pid in self.guests() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

async fn import_busybox(dir: &Path, data: &Path) {
    let Ok(busybox) = std::fs::read("/bin/busybox") else { return };
    let mut maker = LayoutMaker::new(&dir.join("layout"));
    let links = ["sh", "echo", "sleep", "cat", "true", "trap"].map(|name| (name, format!("bin/{name}")));
    let mut nodes = vec![Node::Dir("bin"), Node::File("bin/busybox", 0o755, &busybox)];
    nodes.extend(links.iter().map(|(_, path)| Node::Link(path, "busybox")));
    let config = serde_json::json!({"Entrypoint": ["/bin/sh", "-c"], "Env": ["PATH=/bin"]});
    maker.image("v1", "amd64", config, &[layer(&nodes)]);
    let options = ImageStoreOptions { free_bytes: 8 << 20, ..ImageStoreOptions::default() };
    let store = ImageStore::open(data, options).expect("opened");
    store.import_layout(&maker.dir, None, "busybox:v1").await.expect("imported");
}

fn pod(id: u64, script: &str, restart_policy: RestartPolicy) -> PodIntent {
    let limits = ResourceRequirements {
        cpu_millis: Some(500),
        memory_bytes: Some(96 << 20),
        ephemeral_storage_bytes: None,
    };
    let container = Container {
        name: "main".into(),
        image: "busybox:v1".into(),
        args: vec![script.to_owned()],
        limits,
        requests: limits,
        ..Container::default()
    };
    let spec = PodSpec {
        restart_policy,
        termination_grace_ms: 5_000,
        containers: vec![container],
        ..PodSpec::default()
    };
    PodIntent {
        id: ObjectId(id),
        uid: uuid::Uuid::from_u128(u128::from(id)),
        namespace: Name::new("default").expect("valid"),
        name: Name::new(format!("pod-{id}")).expect("valid"),
        spec: Shared::new(spec),
        deletion: None,
        ended: false,
        unique: false,
        trace_context: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        resolved: Rare::NONE,
        pull_credentials: Rare::NONE,
        claims: vec![],
        devices: vec![],
        networks: vec![],
        cpus: None,
        batch: false,
        resizing: false,
        bandwidth: None,
    }
}

/// The pod with a volume, and what is wanted of that later: to grow, and to be kept as a snapshot.
fn with_volume(mut pod: PodIntent) -> (PodIntent, Vec<VolumeOrder>) {
    let [volume, snapshot] = [70, 71].map(uuid::Uuid::from_u128);
    let source = VolumeSource::PersistentVolumeClaim { claim_name: "data".into(), read_only: false };
    let mut spec = PodSpec::clone(&pod.spec);
    let mut options = spec.options.get().cloned().unwrap_or_default();
    options.volumes.push(Volume { name: "data".into(), source });
    spec.options = Rare::some(options);
    pod.spec = Shared::new(spec);
    pod.claims = vec![ClaimIntent {
        claim_name: "data".into(),
        uid: volume,
        size_bytes: 16 << 20,
        used: false,
        read_only: false,
    }];
    let order = |id, task, volume, source| VolumeOrder {
        id: ObjectId(id),
        task,
        volume,
        source,
        size_bytes: 64 << 20,
    };
    let grow = order(50, VolumeTask::Expand, volume, uuid::Uuid::nil());
    (pod, vec![grow, order(51, VolumeTask::Snapshot, snapshot, volume)])
}

fn deleting(pod: PodIntent, grace_ms: u64) -> PodIntent {
    PodIntent {
        deletion: Some(Deletion { requested_at_ms: 1, grace_ms, by_job: false, preemptor: None }),
        ..pod
    }
}

/// What the pod's start spent its time with.
async fn start_phases(address: &str, pod: u64) -> v1::StartPhasesResponse {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = PodIoClient::new(endpoint.connect().await.expect("connected"));
    let request = v1::StartPhasesRequest { namespace: "default".to_owned(), pod: format!("pod-{pod}") };
    client.start_phases(request).await.expect("they are known").into_inner()
}

/// Reads a pod's output; with `until`, follows it until a line holds that.
async fn logs(address: &str, pod: u64, until: Option<&str>) -> Result<String, tonic::Status> {
    let (ticks, _) = watch::channel(0);
    logs_with(address, pod, until, &ticks).await
}

/// The same; tells how many bytes there were so far.
async fn logs_with(
    address: &str,
    pod: u64,
    until: Option<&str>,
    length: &watch::Sender<usize>,
) -> Result<String, tonic::Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = PodIoClient::new(endpoint.connect().await.expect("connected"));
    let request = v1::LogsRequest {
        namespace: "default".to_owned(),
        pod: format!("pod-{pod}"),
        follow: until.is_some(),
        ..v1::LogsRequest::default()
    };
    let mut stream = client.logs(request).await?.into_inner();
    let mut text = String::new();
    let read = async {
        while let Some(chunk) = stream.message().await? {
            text.push_str(&String::from_utf8_lossy(&chunk.data));
            length.send_replace(text.len());
            if until.is_some_and(|until| text.contains(until)) {
                break;
            }
        }
        Ok::<_, tonic::Status>(())
    };
    tokio::time::timeout(DEADLINE, read).await.expect("output in time")?;
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_outlives_the_agent_dies_returns_and_ends() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    // What it leaves in its volume without the pod's group is given to that group before it runs again.
    let script = "trap 'echo bye; exit 0' TERM; echo hello from $HOSTNAME; echo owner $(/bin/busybox stat -c %g:%a /data/kept 2>&1); \
                  echo kept > /data/kept; /bin/busybox chgrp 0 /data/kept; /bin/busybox chmod 600 /data/kept; /bin/busybox sync; \
                  while true; do sleep 1; echo tick; done";
    let mut web = with_volume(pod(7, script, RestartPolicy::Always)).0;
    booted::mount(&mut web);
    let mut spec = PodSpec::clone(&web.spec);
    let mut options = spec.options.get().cloned().expect("a volume");
    options.security =
        Rare::some(PodSecurityContext { fs_group: Some(2000), ..PodSecurityContext::default() });
    spec.options = Rare::some(options);
    web.spec = Shared::new(spec);
    server.intend(vec![web.clone()]);
    node.start();

    let running = server.report(7, "a ready pod", |report| report.status.ready).await;
    assert_eq!(running.status.phase, PodPhase::Running);
    assert!(running.status.containers[0].image_digest.starts_with("sha256:"), "{running:?}");
    let text = logs(&server.facts().address, 7, Some("tick")).await.expect("logs");
    assert!(text.starts_with("hello from pod-7\n"), "{text}");
    let steps = start_phases(&server.facts().address, 7).await;
    let names: Vec<_> = steps.phases.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names.join(" "), "image room disks qemu firmware kernel guest container output");
    let ordered = |two: &[v1::StartPhase]| two[0].end_ms.is_some_and(|end_ms| end_ms <= two[1].begin_ms);
    assert!(steps.phases.windows(2).all(ordered) && steps.phases[8].end_ms.is_some(), "{steps:?}");
    let kernel = &steps.phases[5];
    assert!(
        kernel.end_ms.is_some_and(|end_ms| end_ms > kernel.begin_ms),
        "the guest tells its clock: {steps:?}"
    );
    assert!(server.usage(7).await > 0);
    let guests = node.guests();
    assert_eq!(guests.len(), 1);

    // The agent restarts: the guest goes on and is adopted.
    node.stop().await;
    assert_eq!(node.guests(), guests, "the guest outlives the agent");
    node.start();
    let adopted = server.report(7, "an adopted pod", |report| report.sequence >> 32 == 2).await;
    assert!(adopted.status.ready, "{adopted:?}");
    assert_eq!((adopted.status.sandbox_restarts, node.guests()), (0, guests.clone()));
    let text = logs(&server.facts().address, 7, None).await.expect("logs");
    assert_eq!(text.matches("hello").count(), 1, "output is kept once: {text}");
    assert_eq!(start_phases(&server.facts().address, 7).await, steps, "the next agent knows how it started");

    // The guest dies: it is started again, after a wait.
    let killed = std::process::Command::new("kill").args(["-9", &guests[0].to_string()]).status();
    assert!(killed.expect("kill").success());
    let died = server.report(7, "a dead guest", |report| report.status.reason == "GuestDied").await;
    assert!(!died.status.ready && died.status.message.contains("console"), "{died:?}");
    let again =
        |report: &bulkhead_types::PodReport| report.status.ready && report.status.sandbox_restarts == 1;
    let returned = server.report(7, "a new guest", again).await;
    assert_eq!(returned.status.containers[0].restart_count, 1);

    // Deletion: SIGTERM reaches the container, and nothing is left.
    let address = server.facts().address;
    let (length, mut heard) = watch::channel(0);
    let follower = tokio::spawn(async move { logs_with(&address, 7, Some("bye"), &length).await });
    // Only then does the shell surely know what to do at SIGTERM.
    let tick = heard.wait_for(|length| *length > "hello from pod-7\n".len());
    tokio::time::timeout(DEADLINE, tick).await.expect("output").expect("kept");
    server.intend(vec![deleting(web, 5_000)]);
    let gone = server.report(7, "the end", |report| report.gone).await;
    assert!(!gone.status.ready);
    let text = follower.await.expect("no panic").expect("logs");
    assert!(text.contains("bye") && text.contains("owner 2000:660\n"), "{text}");
    assert_eq!(node.guests(), [0; 0]);
    server.intend(vec![]);
    node.stop().await;
    assert_eq!(node.pod_folders(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_and_tried_again() {
    let server = FakeServer::start().await;
    let empty = tempfile::tempdir().expect("temporary directory");
    let mut node = TestNode::new(&server, empty.path(), Path::new("/nonexistent")).await;
    if !Path::new("/bin/busybox").exists() {
        return eprintln!("skipped: there is no /bin/busybox");
    }
    node.start();
    let mut lost = pod(2, "true", RestartPolicy::Always);
    let mut spec = (*lost.spec).clone();
    spec.containers[0].image = "127.0.0.1:1/nothing:v1".into();
    lost.spec = Shared::new(spec);
    server.intend(vec![pod(1, "true", RestartPolicy::Always), lost.clone()]);
    let kernel = server.report(1, "KernelMissing", |report| report.status.reason == "KernelMissing").await;
    assert!(kernel.status.message.contains("fetch-kernel"), "{kernel:?}");
    assert_eq!(kernel.status.phase, PodPhase::Pending);
    server.report(2, "ErrImagePull", |report| report.status.reason == "ErrImagePull").await;
    server.report(2, "ImagePullBackOff", |report| report.status.reason == "ImagePullBackOff").await;
    server.intend(vec![deleting(pod(1, "true", RestartPolicy::Always), 5_000), deleting(lost, 5_000)]);
    server.report(1, "the end of the first", |report| report.gone).await;
    server.report(2, "the end of the second", |report| report.gone).await;
    node.stop().await;
    assert_eq!((node.guests(), node.pod_folders()), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_qemu_is_said() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    node.config.qemu = PathBuf::from("/nonexistent/qemu");
    node.start();
    server.intend(vec![pod(1, "true", RestartPolicy::Always)]);
    let missing = server.report(1, "QemuMissing", |report| report.status.reason == "QemuMissing").await;
    assert!(missing.status.message.contains("apt-get install"), "{missing:?}");
    assert!(server.facts().warnings.iter().any(|warning| warning.contains("/nonexistent/qemu")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_reports_is_ended_with_its_console() {
    let Some((kernel_dir, _)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    // Its first process ends, or waits without a word on the channel.
    let mut node = TestNode::new(&server, &kernel_dir, Path::new("/bin/busybox")).await;
    node.config.boot_deadline_ms = Some(20_000);
    node.start();
    server.intend(vec![pod(1, "true", RestartPolicy::Always)]);
    let died = server.report(1, "a failed guest", |report| report.status.sandbox_restarts > 0).await;
    let reasons = ["GuestDied", "GuestNotReporting"];
    assert!(reasons.contains(&died.status.reason.as_str()), "{died:?}");
    assert!(died.status.message.contains("last console lines"), "{died:?}");
    server.intend(vec![]);
    server.report(1, "the end", |report| report.gone).await;
    node.stop().await;
    assert_eq!((node.guests(), node.pod_folders()), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accelerator_is_found_by_running_a_guest_and_remembered() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    node.config.accel = AccelChoice::Auto;
    node.start();
    let job = pod(1, "echo done", RestartPolicy::Never);
    server.intend(vec![job]);
    server.report(1, "the job's end", |report| report.status.phase == PodPhase::Succeeded).await;
    let facts = server.facts();
    match facts.accelerator.as_str() {
        "kvm" => assert!(facts.warnings.is_empty(), "{facts:?}"),
        "tcg" => assert!(facts.warnings.iter().any(|warning| warning.contains("KVM")), "{facts:?}"),
        other => panic!("{other}"),
    }
    assert!(!node.config.data_dir.join("probe").exists(), "nothing is left of the trial");
    let tried = node.config.data_dir.join("accelerator.json").exists();
    assert_eq!(tried, Path::new("/dev/kvm").exists(), "the result is remembered");
    node.stop().await;
}

/// Allocates all pages but four of its volume, and says how many there are.
const PAGED: &str = "\
/bin/busybox grep HugePages_Total /proc/meminfo
/bin/busybox fallocate -l 58720256 /pages/file && echo written
/bin/busybox grep HugePages_Free /proc/meminfo
/bin/busybox grep /pages /proc/mounts
/bin/busybox fallocate -l 134217728 /pages/more || echo no more";

/// Pages of the machine's pool become the guest's, once nobody else uses them, and are given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_huge_pages_of_the_host_in_its_guest() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let Some(_pool) = pages::Pool::set_aside(64) else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    let job = pages::with_pages(pod(11, PAGED, RestartPolicy::Never), 32);
    let before = pages::free();
    let held = pages::hold(before - 31);
    server.intend(vec![job.clone()]);
    node.start();
    let waits = |report: &bulkhead_types::PodReport| report.status.reason == "HugePagesNotAllocated";
    let waiting = server.report(11, "too few huge pages", waits).await;
    let text = "the guest takes 32 pages of 2Mi, and the machine's pool hugepages-2Mi has 31 left";
    assert!(waiting.status.message.contains(text), "{waiting:?}");
    let told = server.facts().allocatable.huge_pages.two_mib_bytes;
    assert!(told >= 64 << 21, "{told}");
    // Nothing is left of the guest that was not started, and nobody else uses the pages any more.
    assert_eq!((node.guests(), pages::free()), (Vec::new(), 31));
    drop(held);
    let ended = server.report(11, "the end", |report| report.status.phase.is_terminal()).await;
    let text = logs(&server.facts().address, 11, None).await.expect("logs");
    assert_eq!(ended.status.phase, PodPhase::Succeeded, "{ended:?} {text}");
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in ["HugePages_Total: 32", "written", "HugePages_Free: 4", "no more"] {
        assert!(lines.iter().any(|line| line == expected), "{expected:?} is not in {text}");
    }
    assert!(text.contains("hugetlbfs") && text.contains("pagesize=2M"), "{text}");
    server.intend(vec![]);
    node.stop().await;
    assert_eq!((node.guests(), pages::free()), (Vec::new(), before), "the pages are given back");
}
