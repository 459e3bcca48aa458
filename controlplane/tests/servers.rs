//! Real servers in one process: real sockets, real sled, real time.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_controlplane::{RunError, ServerOptions, run};
use bulkhead_proto::v1;
use bulkhead_types::MemberId;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use v1::agents_client::AgentsClient;
use v1::cluster_client::ClusterClient;
use v1::commands_client::CommandsClient;
use v1::manifests_client::ManifestsClient;
use v1::queries_client::QueriesClient;

/// How often a server that starts is asked, 50 ms apart.
const STARTS_MAX: usize = 600;

const ROOM: v1::Resources = v1::Resources {
    cpu_millis: 4000,
    memory_bytes: 4 << 30,
    ephemeral_storage_bytes: 8 << 30,
    huge_pages: None,
    pinned_memory_bytes: 0,
};
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - {name: app, image: registry.example/app:1}
";

struct Running {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<(), RunError>>,
}

struct Servers {
    dir: TempDir,
    addresses: Vec<SocketAddr>,
    running: Vec<Option<Running>>,
}

/// Free ports below the range that outgoing connections draw from: a stopped server must find its own again.
async fn free_addresses(count: usize) -> Vec<SocketAddr> {
    // Tests run at the same time in processes of neighbouring ids: each has a block of its own.
    const BLOCK: u32 = 20;
    static TAKEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let block = 10_000 + std::process::id() % 450 * BLOCK;
    let first =
        block + TAKEN.fetch_add(u32::try_from(count).expect("few"), std::sync::atomic::Ordering::Relaxed);
    let mut held = Vec::new();
    for port in first..block + BLOCK {
        let port = u16::try_from(port).expect("below 20,000");
        held.extend(TcpListener::bind(("127.0.0.1", port)).await);
        if held.len() == count {
            break;
        }
    }
    assert_eq!(held.len(), count, "no free ports from {first} on");
    held.iter().map(|l| l.local_addr().expect("bound")).collect()
}

impl Servers {
    async fn start(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = free_addresses(count).await;
        let mut servers = Self { dir, addresses, running: Vec::new() };
        for number in 0..count {
            servers.running.push(None);
            servers.start_one(number);
        }
        servers
    }

    fn options(&self, number: usize) -> ServerOptions {
        let member = MemberId(number as u64 + 1);
        let data_dir = self.dir.path().join(format!("server-{member}"));
        let mut options = ServerOptions::new(member, data_dir, self.addresses[number]);
        options.tick_ms = 20;
        options.election_ticks = 15;
        options.heartbeat_ticks = 3;
        options.snapshot_entries = 200;
        let founders = self.addresses.iter().take(3).enumerate();
        options.initial_cluster =
            founders.map(|(n, address)| (MemberId(n as u64 + 1), address.to_string().into())).collect();
        options
    }

    fn start_one(&mut self, number: usize) {
        let options = self.options(number);
        self.start_with(number, options);
    }

    /// Each server has a runtime of its own, as it has in a process of its own: when it stops, nothing of it
    /// stays behind that could hold its data directory.
    fn start_with(&mut self, number: usize, options: ServerOptions) {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            let result = runtime.block_on(run(options, async {
                let _ = stopped.await;
            }));
            runtime.shutdown_timeout(Duration::from_secs(10));
            if let Err(error) = &result {
                eprintln!("a server ended: {error}");
            }
            result
        });
        self.running[number] = Some(Running { stop, thread });
    }

    async fn stop_one(&mut self, number: usize) {
        let Running { stop, thread } = self.running[number].take().expect("it runs");
        drop(stop);
        let ended = tokio::task::spawn_blocking(|| thread.join()).await.expect("joined");
        ended.expect("no panic").expect("ends well");
    }

    fn channel(&self, number: usize) -> Channel {
        let uri = format!("http://{}", self.addresses[number]);
        Endpoint::from_shared(uri).expect("an address").timeout(Duration::from_secs(30)).connect_lazy()
    }

    /// Asks a server until it answers: one that has just been started may not listen yet, and an election may take its
    /// time; one that has ended says why.
    async fn ask<T, F>(&self, number: usize, ask: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        for _ in 0..STARTS_MAX {
            if self.running[number].as_ref().is_none_or(|running| running.thread.is_finished()) {
                panic!("server {number} has ended");
            }
            match ask(self.channel(number)).await {
                Err(status) if status.code() == tonic::Code::Unavailable || is_being_founded(&status) => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                answer => return answer.map(Response::into_inner),
            }
        }
        panic!("server {number} never became available");
    }

    async fn apply(&self, number: usize, text: &str) -> v1::ApplyResponse {
        let file = v1::ManifestFile { name: "test.yaml".into(), text: text.into() };
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = &v1::ApplyRequest { files: vec![file], request_id, ..Default::default() };
        let apply = async |channel| ManifestsClient::new(channel).apply(request.clone()).await;
        self.ask(number, apply).await.expect("applied")
    }

    /// Waits until the only pod has a node, and returns its id.
    async fn bound_pod(&self, number: usize) -> u64 {
        let request = v1::WatchRequest { kind: v1::Kind::Pod.into(), ..v1::WatchRequest::default() };
        let mut changes = self
            .ask(number, |channel| {
                let request = request.clone();
                async move { QueriesClient::new(channel).watch(request).await }
            })
            .await
            .expect("watched");
        while let Some(change) = changes.message().await.expect("a change") {
            if let Some(v1::object::Object::Pod(pod)) = change.object.and_then(|o| o.object)
                && pod.node.is_some()
            {
                return pod.meta.expect("metadata").id;
            }
        }
        panic!("the watch ended");
    }

    async fn names(&self, number: usize, kind: v1::Kind) -> Vec<String> {
        let request = &v1::ListRequest { kind: kind.into(), ..Default::default() };
        let list = async |channel| QueriesClient::new(channel).list(request.clone()).await;
        self.ask(number, list).await.expect("lists").items.into_iter().map(name_of).collect()
    }
}

/// A new cluster has the level of its members once all have said it, a moment after it answers.
fn is_being_founded(status: &Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition
        && status.message().contains("the cluster runs at level 1;")
}

fn name_of(object: v1::Object) -> String {
    let object = bulkhead_types::Object::try_from(object).expect("an object");
    object.meta().name.to_string()
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_any_server_are_read_from_every_other_one() {
    let servers = Servers::start(3).await;
    for number in 0..3 {
        let response = servers.apply(number, &namespace(&format!("from-{number}"))).await;
        assert!(response.errors.is_empty(), "{:?}", response.errors);
        assert_eq!(response.objects[0].action, i32::from(v1::ApplyAction::Created));
        for reader in 0..3 {
            let names = servers.names(reader, v1::Kind::Namespace).await;
            assert!(names.contains(&format!("from-{number}")), "{reader}: {names:?}");
        }
    }
    let again = servers.apply(0, &namespace("from-1")).await;
    assert_eq!(again.objects[0].action, i32::from(v1::ApplyAction::Unchanged));
    let bad =
        servers.apply(1, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: BAD\n  colour: red\n").await;
    assert_eq!(bad.errors.len(), 2, "{:?}", bad.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_by_every_server_and_by_no_log() {
    let servers = Servers::start(3).await;
    servers.apply(0, POD).await;
    let facts = v1::NodeFacts {
        capacity: Some(ROOM),
        allocatable: Some(ROOM),
        pods_max: 10,
        ..v1::NodeFacts::default()
    };
    let join = v1::JoinRequest { node: "n1".to_owned(), facts: Some(facts), ..v1::JoinRequest::default() };
    let joined = servers
        .ask(0, |channel| {
            let join = join.clone();
            async move { AgentsClient::new(channel).join(join).await }
        })
        .await
        .expect("joined");
    let pod = servers.bound_pod(0).await;
    let container = v1::ContainerUsage { name: "app".to_owned(), cpu_millis: 40, memory_bytes: 1 << 20 };
    let usage = v1::PodUsage {
        pod,
        cpu_millis: 50,
        memory_bytes: 2 << 20,
        window_ms: 10_000,
        age_ms: 5,
        containers: vec![container.clone()],
    };
    let report = v1::AgentReport {
        node: joined.node,
        incarnation: joined.incarnation,
        usage: vec![usage],
        ..v1::AgentReport::default()
    };
    // Whoever is not the leader refuses: the report goes on to the next one.
    let mut taken = false;
    for number in (0..3).cycle().take(300) {
        let told = AgentsClient::new(servers.channel(number)).report(report.clone()).await;
        taken = told.is_ok();
        if taken {
            break;
        }
    }
    assert!(taken, "some server leads");
    for number in 0..3 {
        for (kind, allocatable) in [(v1::Kind::Pod, None), (v1::Kind::Node, Some(ROOM))] {
            let request = v1::UsageRequest { kind: kind.into(), ..v1::UsageRequest::default() };
            let page = servers
                .ask(number, |channel| {
                    let request = request.clone();
                    async move { QueriesClient::new(channel).usage(request).await }
                })
                .await
                .expect("told");
            let [item] = page.items.as_slice() else { panic!("one {kind:?} of server {number}: {page:?}") };
            assert_eq!((item.cpu_millis, item.memory_bytes, item.window_ms), (50, 2 << 20, 10_000));
            assert_eq!(item.allocatable, allocatable);
            let is_pod = kind == v1::Kind::Pod;
            assert_eq!(item.containers, is_pod.then(|| container.clone()).into_iter().collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_every_change_and_a_retry_is_applied_once() {
    let servers = Servers::start(3).await;
    servers.apply(0, &namespace("first")).await;
    let request = v1::WatchRequest { kind: v1::Kind::Namespace.into(), ..Default::default() };
    let request = &request;
    let watch = async |channel| QueriesClient::new(channel).watch(request.clone()).await;
    let mut watch = servers.ask(1, watch).await.expect("watches");
    let mut seen = Vec::new();
    loop {
        let response = watch.message().await.expect("goes on").expect("more");
        if response.r#type() == v1::WatchType::Bookmark {
            break;
        }
        seen.push(name_of(response.object.expect("an object")));
    }
    assert_eq!(seen, ["default", "first"]);
    let meta = bulkhead_types::ObjectMeta::new(None, bulkhead_types::Name::new("second").expect("a name"));
    let object = bulkhead_types::Object::Namespace(std::sync::Arc::new(bulkhead_types::Namespace { meta }));
    let command =
        v1::UserCommand::try_from(&bulkhead_types::Command::Create(object)).expect("a user's command");
    let request = v1::SubmitRequest {
        request_id: "6f1c7f0e-2a4b-4a55-9d0e-0d5f8f1f2a3b".into(),
        commands: vec![command],
        ..Default::default()
    };
    let request = &request;
    let submit = async |channel| CommandsClient::new(channel).submit(request.clone()).await;
    let first = servers.ask(2, submit).await.expect("accepted");
    let second = servers.ask(2, submit).await.expect("answered again");
    assert_eq!(first.revision, second.revision);
    let other = &v1::SubmitRequest { request_id: String::new(), ..request.clone() };
    let refused =
        servers.ask(2, async |channel| CommandsClient::new(channel).submit(other.clone()).await).await;
    assert_eq!(refused.expect_err("the name is taken").code(), tonic::Code::AlreadyExists);
    let response = watch.message().await.expect("goes on").expect("more");
    assert_eq!(name_of(response.object.expect("an object")), "second");
    assert_eq!(response.revision, first.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_catches_up_and_a_new_member_joins_by_snapshot() {
    let mut servers = Servers::start(3).await;
    servers.apply(0, &namespace("before")).await;
    servers.stop_one(2).await;
    for n in 0..300 {
        servers.apply(0, &namespace(&format!("n{n}"))).await;
    }
    servers.start_one(2);
    let state = servers.apply(2, &namespace("after")).await;
    assert!(state.errors.is_empty());
    assert_eq!(servers.names(2, v1::Kind::Namespace).await.len(), 303);

    let address = free_addresses(1).await[0];
    servers.addresses.push(address);
    servers.running.push(None);
    let request_id = uuid::Uuid::new_v4().to_string();
    let add = &v1::AddLearnerRequest { address: address.to_string(), request_id, ..Default::default() };
    let add = async |channel| ClusterClient::new(channel).add_learner(add.clone()).await;
    for _ in 0..2 {
        // A repeated request adds nobody, and names the same member.
        assert_eq!(servers.ask(1, add).await.expect("added").member, 4);
    }
    let mut options = servers.options(3);
    options.join = servers.addresses[..3].iter().map(|a| a.to_string().into()).collect();
    servers.start_with(3, options);
    let read = &v1::ListRequest {
        kind: v1::Kind::Namespace.into(),
        consistency: v1::Consistency::Stale.into(),
        at_least: state.revision,
        ..Default::default()
    };
    let list = servers.ask(3, async |channel| QueriesClient::new(channel).list(read.clone()).await).await;
    assert_eq!(list.expect("the learner has it").items.len(), 303);
    // The leader hears of it a moment after the learner has it; until then it refuses, as it should.
    let mut promoted = Err(Status::unknown("never asked"));
    for _ in 0..STARTS_MAX {
        let request_id = uuid::Uuid::new_v4().to_string();
        let promote = &v1::PromoteRequest { member: 4, request_id, ..Default::default() };
        let promote = async |channel| ClusterClient::new(channel).promote(promote.clone()).await;
        promoted = servers.ask(1, promote).await;
        match &promoted {
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {}
            _ => break,
        }
    }
    promoted.expect("promoted");
    let violations = ClusterClient::new(servers.channel(3)).check(v1::CheckRequest {}).await.expect("checks");
    assert!(violations.into_inner().violations.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut servers = Servers::start(3).await;
    servers.apply(0, &namespace("a")).await;
    servers.stop_one(0).await;
    let mut options = servers.options(0);
    options.initial_cluster.truncate(1);
    let refused = run(options, std::future::pending()).await.expect_err("another cluster");
    assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_past_has_no_gap_although_memory_does_not_reach_back() {
    const NAMESPACES: u64 = 60;
    let mut servers = Servers::start(1).await;
    servers.stop_one(0).await;
    let mut options = servers.options(0);
    options.watch_changes = 8;
    options.snapshot_entries = 20;
    servers.start_with(0, options.clone());
    for n in 0..NAMESPACES {
        servers.apply(0, &namespace(&format!("n{n}"))).await;
    }
    past_is_complete(&servers, NAMESPACES).await;
    // Nor does it after a restart.
    servers.stop_one(0).await;
    servers.start_with(0, options);
    servers.apply(0, &namespace("last")).await;
    past_is_complete(&servers, NAMESPACES + 1).await;
}

/// Watches from the first revision on must show every namespace, once and in order.
async fn past_is_complete(servers: &Servers, namespaces: u64) {
    let request =
        v1::WatchRequest { kind: v1::Kind::Namespace.into(), from_revision: 1, ..Default::default() };
    let mut watch = QueriesClient::new(servers.channel(0)).watch(request).await.expect("kept").into_inner();
    let mut last = 1;
    // One more than were made: `default` comes with the cluster.
    for seen in 0..=namespaces {
        let change = watch.message().await.expect("goes on").expect("more");
        assert_eq!(change.r#type(), v1::WatchType::Added, "{seen}: {change:?}");
        assert!(change.revision > last, "{seen}: {} after {last}", change.revision);
        last = change.revision;
        let name = name_of(change.object.expect("an object"));
        let expected = match seen {
            0 => "default".to_owned(),
            seen if seen > 60 => "last".to_owned(),
            seen => format!("n{}", seen - 1),
        };
        assert_eq!(name, expected);
    }
}

/// A stand-in for Prometheus in whose queue 41 messages wait.
async fn queue_of_41() -> String {
    let answer =
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"41"]}]}}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = axum::Router::new().route("/api/v1/query", axum::routing::get(async move || answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_goes_by_what_the_metrics_endpoint_says() {
    const SCALED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: 'registry.example/app:1'}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {kind: Deployment, name: web}
  maxReplicas: 9
  metrics:
  - {type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 10}}}
";
    let mut servers = Servers {
        dir: tempfile::tempdir().expect("a directory"),
        addresses: free_addresses(1).await,
        running: vec![None],
    };
    let options = ServerOptions { metrics_endpoint: Some(queue_of_41().await), ..servers.options(0) };
    servers.start_with(0, options);
    let applied = servers.apply(0, SCALED).await;
    assert_eq!(applied.errors, [], "{applied:?}");
    let request = &v1::WatchRequest { kind: v1::Kind::Deployment.into(), ..v1::WatchRequest::default() };
    let watch = async |channel| QueriesClient::new(channel).watch(request.clone()).await;
    let mut changes = servers.ask(0, watch).await.expect("watched");
    loop {
        let change = changes.message().await.expect("a change").expect("the watch goes on");
        let Some(v1::object::Object::Deployment(web)) = change.object.and_then(|o| o.object) else {
            continue;
        };
        // A new leader looks when agents have told it what they know; 4 more pods are allowed at once.
        if web.spec.and_then(|spec| spec.replicas) == Some(5) {
            break;
        }
    }
    servers.stop_one(0).await;
}
