//! A server in memory: just enough of every service for the command line.

mod cluster;
mod commands;
mod manifests;
mod objects;
mod queries;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bulkhead_manifest::{Source, parse};
use bulkhead_proto::v1;
use bulkhead_types::Name;
use objects::{key_of, kind, meta, meta_mut};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use v1::object::Object as Kind;

#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<String, v1::Object>,
    revision: u64,
    pub(crate) request_ids: Vec<String>,
    pub(crate) traceparents: Vec<String>,
    /// How many submissions are answered with UNAVAILABLE, after their ids were noted.
    pub(crate) refuse_submissions: u32,
    /// Every submission is answered with ABORTED.
    pub(crate) conflict: bool,
    /// A deletion marks the object only.
    pub(crate) delete_slowly: bool,
    /// Nothing from before this revision is kept.
    pub(crate) oldest: u64,
    /// What happened.
    pub(crate) history: Vec<v1::HistoryEntry>,
    /// How many evictions a budget refuses.
    pub(crate) refuse_evictions: u32,
    /// What pods (with a namespace) and nodes use.
    pub(crate) usage: Vec<v1::ObjectUsage>,
    /// What it says would happen, whatever it is asked; and what it was asked.
    pub(crate) what_if: v1::WhatIfResponse,
    pub(crate) asked: Vec<v1::WhatIfRequest>,
    /// What was wanted of operations on many nodes.
    pub(crate) controls: Vec<v1::command::ControlNodeOperation>,
    /// How far the level is below the newest one.
    pub(crate) levels_behind: u32,
}

impl State {
    /// Refuses to go on from before what is kept, as servers do.
    fn check_kept(&self, from_revision: u64) -> Result<(), Status> {
        if from_revision == 0 || from_revision + 1 >= self.oldest {
            return Ok(());
        }
        let metadata = [("oldest_revision".to_owned(), self.oldest.to_string())];
        let details = ErrorDetails::with_error_info("COMPACTED", "bulkhead", metadata);
        Err(Status::with_error_details(Code::OutOfRange, "history is compacted", details))
    }

    pub(crate) fn object_of(&self, wanted: v1::Kind, name: &str) -> Option<&Kind> {
        let found = self.objects.values().filter_map(|o| o.object.as_ref());
        found.filter(|o| kind(o) == wanted).find(|o| meta(o).name == name)
    }

    pub(crate) fn object(&self, name: &str) -> Option<&Kind> {
        self.objects.values().filter_map(|o| o.object.as_ref()).find(|o| meta(o).name == name)
    }
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    /// What watches send; `None` breaks them.
    changes: broadcast::Sender<Option<v1::WatchResponse>>,
    /// How many watches were opened.
    watches: Arc<watch::Sender<u32>>,
}

/// A time whose age is shown in whole days.
fn days_ago(days: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    now.as_millis() as u64 - days * 86_400_000
}

/// Something that happened to whatever is asked about.
pub(crate) fn entry(revision: u64) -> v1::HistoryEntry {
    v1::HistoryEntry {
        revision,
        at_ms: days_ago(87),
        actor: "system:scheduler".to_owned(),
        event: "PodBound".to_owned(),
        object: None,
        summary: "bound to node-1".to_owned(),
        trace_context: None,
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let fake = Self {
            address: listener.local_addr().expect("an address").to_string(),
            state: Arc::default(),
            changes: broadcast::channel(1024).0,
            watches: Arc::new(watch::channel(0).0),
        };
        fake.state().history.push(entry(7));
        let services = tonic::transport::Server::builder()
            .add_service(v1::commands_server::CommandsServer::new(fake.clone()))
            .add_service(v1::queries_server::QueriesServer::new(fake.clone()))
            .add_service(v1::manifests_server::ManifestsServer::new(fake.clone()))
            .add_service(v1::cluster_server::ClusterServer::new(fake.clone()))
            .add_service(v1::pod_io_server::PodIoServer::new(fake.clone()));
        tokio::spawn(services.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Stores an object as a server does, and tells watchers. Says what was done.
    fn put(&self, mut object: Kind) -> v1::ApplyAction {
        let mut state = self.state();
        let key = key_of(&object);
        let old = state.objects.get(&key).and_then(|o| o.object.clone());
        if let Some(old) = &old {
            let (new, was) = (meta_mut(&mut object), meta(old));
            (new.id, new.revision, new.generation) = (was.id, was.revision, was.generation);
            new.created_at_ms = was.created_at_ms;
            if object == *old {
                return v1::ApplyAction::Unchanged;
            }
        }
        state.revision += 1;
        let revision = state.revision;
        let new = meta_mut(&mut object);
        new.revision = revision;
        if old.is_none() {
            (new.id, new.generation, new.created_at_ms) = (revision, 1, days_ago(90));
        }
        let object = v1::Object { object: Some(object) };
        state.objects.insert(key, object.clone());
        let (kind, action) = match old {
            None => (v1::WatchType::Added, v1::ApplyAction::Created),
            Some(_) => (v1::WatchType::Modified, v1::ApplyAction::Configured),
        };
        let _ = self.changes.send(Some(v1::WatchResponse {
            r#type: kind.into(),
            object: Some(object),
            revision,
        }));
        action
    }

    /// Changes what is there in place.
    pub(crate) fn change_objects(&self, change: impl Fn(&mut Kind)) {
        let mut state = self.state();
        state.objects.values_mut().filter_map(|object| object.object.as_mut()).for_each(change);
    }

    pub(crate) fn put_manifest(&self, text: &str) {
        for parsed in parse_text("-", text).expect("the test's manifest is good") {
            self.put(v1::Object::from(&parsed.object).object.expect("an object"));
        }
    }

    pub(crate) fn put_running_pod(&self, name: &str, node: &str) {
        self.put_manifest(&format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n"));
        self.put_manifest(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\n\
             spec: {{containers: [{{name: web, image: 'web:v1'}}]}}\n"
        ));
        let (node, pod) = {
            let state = self.state();
            let node = meta(state.object(node).expect("the node")).id;
            (node, state.object(name).expect("the pod").clone())
        };
        let Kind::Pod(mut pod) = pod else { panic!("{name} is no pod") };
        pod.node = Some(node);
        let running = v1::container_state::Variant::Running(v1::container_state::Running {
            started_at_ms: days_ago(89),
        });
        pod.status = Some(v1::PodStatus {
            phase: v1::PodPhase::Running.into(),
            ready: true,
            ready_since_ms: days_ago(88),
            containers: vec![v1::ContainerStatus {
                name: "web".to_owned(),
                state: Some(v1::ContainerState { variant: Some(running) }),
                ready: true,
                restart_count: 0,
                ..v1::ContainerStatus::default()
            }],
            ..v1::PodStatus::default()
        });
        self.put(Kind::Pod(pod));
    }

    /// The devices that a node's agent reported.
    pub(crate) fn put_slice(&self, node: &str, devices: Vec<v1::Device>, cordoned: &[&str]) {
        let id = meta(self.state().object(node).expect("the node")).id;
        let meta = v1::ObjectMeta { name: node.to_owned(), ..v1::ObjectMeta::default() };
        let cordoned = cordoned.iter().map(ToString::to_string).collect();
        let slice = v1::ResourceSlice {
            meta: Some(meta),
            node: id,
            incarnation: 1,
            sequence: 1,
            devices,
            cordoned,
            state: None,
        };
        self.put(Kind::ResourceSlice(slice));
    }

    /// Changes an object as a server does.
    fn change(&self, of: v1::Kind, name: &str, change: impl FnOnce(&mut Kind)) {
        let found = self.state().object_of(of, name).cloned();
        let mut object = found.unwrap_or_else(|| panic!("no {of:?} {name}"));
        change(&mut object);
        self.put(object);
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut state = self.state();
        let key = state.object(name).map(key_of).expect("the object is there");
        let object = state.objects.remove(&key);
        state.revision += 1;
        let revision = state.revision;
        let gone = v1::WatchResponse { r#type: v1::WatchType::Deleted.into(), object, revision };
        let _ = self.changes.send(Some(gone));
    }

    /// Returns when so many watches were opened in all.
    pub(crate) async fn watched(&self, count: u32) {
        self.watches.subscribe().wait_for(|opened| *opened >= count).await.expect("the sender lives");
    }

    /// Returns when no watcher has anything left to send.
    pub(crate) async fn seen_by_watchers(&self) {
        while !self.changes.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn break_watches(&self) {
        let _ = self.changes.send(None);
    }
}

/// One function for each kind that tests change.
macro_rules! changes {
    ($($name:ident: $kind:ident),* $(,)?) => {
        impl Fake {
            $(pub(crate) fn $name(&self, name: &str, change: impl FnOnce(&mut v1::$kind)) {
                self.change(v1::Kind::$kind, name, |object| match object {
                    Kind::$kind(found) => change(found),
                    other => panic!("{name} is {other:?}"),
                });
            })*
        }
    };
}

changes! {
    change_deployment: Deployment,
    change_stateful_set: StatefulSet,
    change_daemon_set: DaemonSet,
    change_job: Job,
    change_autoscaler: HorizontalPodAutoscaler,
    change_vertical_autoscaler: VerticalPodAutoscaler,
}

fn parse_text(
    name: &str,
    text: &str,
) -> Result<Vec<bulkhead_manifest::Parsed>, Vec<bulkhead_manifest::ManifestError>> {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    parse(&[source], Some(&Name::new("default").expect("a name")))
}
