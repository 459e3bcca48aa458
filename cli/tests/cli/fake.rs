//! A server in memory: just enough of every service for the command line.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bulkhead_manifest::{Edit, EditMode, PlanError, Source, parse, plan};
use bulkhead_proto::v1;
use bulkhead_types::{FEATURE_LEVEL_MAX, Name, Object, ObjectRef};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};
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

fn meta(object: &Kind) -> &v1::ObjectMeta {
    match object {
        Kind::Namespace(o) => o.meta.as_ref(),
        Kind::Node(o) => o.meta.as_ref(),
        Kind::Pod(o) => o.meta.as_ref(),
        Kind::ReplicaSet(o) => o.meta.as_ref(),
        Kind::Deployment(o) => o.meta.as_ref(),
        Kind::StatefulSet(o) => o.meta.as_ref(),
        Kind::DaemonSet(o) => o.meta.as_ref(),
        Kind::Job(o) => o.meta.as_ref(),
        Kind::CronJob(o) => o.meta.as_ref(),
        Kind::ConfigMap(o) => o.meta.as_ref(),
        Kind::Secret(o) => o.meta.as_ref(),
        Kind::ControllerRevision(o) => o.meta.as_ref(),
        Kind::HorizontalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::CronHorizontalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::PodDisruptionBudget(o) => o.meta.as_ref(),
        Kind::ElasticWorkload(o) => o.meta.as_ref(),
        Kind::VerticalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::PriorityClass(o) => o.meta.as_ref(),
        Kind::Profile(o) => o.meta.as_ref(),
        Kind::PersistentVolumeClaim(o) => o.meta.as_ref(),
        Kind::ResourceQuota(o) => o.meta.as_ref(),
        Kind::LimitRange(o) => o.meta.as_ref(),
        Kind::Department(o) => o.meta.as_ref(),
        Kind::Project(o) => o.meta.as_ref(),
    }
    .expect("every object has metadata")
}

fn meta_mut(object: &mut Kind) -> &mut v1::ObjectMeta {
    match object {
        Kind::Namespace(o) => o.meta.as_mut(),
        Kind::Node(o) => o.meta.as_mut(),
        Kind::Pod(o) => o.meta.as_mut(),
        Kind::ReplicaSet(o) => o.meta.as_mut(),
        Kind::Deployment(o) => o.meta.as_mut(),
        Kind::StatefulSet(o) => o.meta.as_mut(),
        Kind::DaemonSet(o) => o.meta.as_mut(),
        Kind::Job(o) => o.meta.as_mut(),
        Kind::CronJob(o) => o.meta.as_mut(),
        Kind::ConfigMap(o) => o.meta.as_mut(),
        Kind::Secret(o) => o.meta.as_mut(),
        Kind::ControllerRevision(o) => o.meta.as_mut(),
        Kind::HorizontalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::CronHorizontalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::PodDisruptionBudget(o) => o.meta.as_mut(),
        Kind::ElasticWorkload(o) => o.meta.as_mut(),
        Kind::VerticalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::PriorityClass(o) => o.meta.as_mut(),
        Kind::Profile(o) => o.meta.as_mut(),
        Kind::PersistentVolumeClaim(o) => o.meta.as_mut(),
        Kind::ResourceQuota(o) => o.meta.as_mut(),
        Kind::LimitRange(o) => o.meta.as_mut(),
        Kind::Department(o) => o.meta.as_mut(),
        Kind::Project(o) => o.meta.as_mut(),
    }
    .expect("every object has metadata")
}

fn kind(object: &Kind) -> v1::Kind {
    match object {
        Kind::Namespace(_) => v1::Kind::Namespace,
        Kind::Node(_) => v1::Kind::Node,
        Kind::Pod(_) => v1::Kind::Pod,
        Kind::ReplicaSet(_) => v1::Kind::ReplicaSet,
        Kind::Deployment(_) => v1::Kind::Deployment,
        Kind::StatefulSet(_) => v1::Kind::StatefulSet,
        Kind::DaemonSet(_) => v1::Kind::DaemonSet,
        Kind::Job(_) => v1::Kind::Job,
        Kind::CronJob(_) => v1::Kind::CronJob,
        Kind::ConfigMap(_) => v1::Kind::ConfigMap,
        Kind::Secret(_) => v1::Kind::Secret,
        Kind::ControllerRevision(_) => v1::Kind::ControllerRevision,
        Kind::HorizontalPodAutoscaler(_) => v1::Kind::HorizontalPodAutoscaler,
        Kind::CronHorizontalPodAutoscaler(_) => v1::Kind::CronHorizontalPodAutoscaler,
        Kind::PodDisruptionBudget(_) => v1::Kind::PodDisruptionBudget,
        Kind::ElasticWorkload(_) => v1::Kind::ElasticWorkload,
        Kind::VerticalPodAutoscaler(_) => v1::Kind::VerticalPodAutoscaler,
        Kind::PriorityClass(_) => v1::Kind::PriorityClass,
        Kind::Profile(_) => v1::Kind::Profile,
        Kind::PersistentVolumeClaim(_) => v1::Kind::PersistentVolumeClaim,
        Kind::ResourceQuota(_) => v1::Kind::ResourceQuota,
        Kind::LimitRange(_) => v1::Kind::LimitRange,
        Kind::Department(_) => v1::Kind::Department,
        Kind::Project(_) => v1::Kind::Project,
    }
}

/// What a server says of an eviction that a budget does not allow.
fn kept_by_a_budget() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_ALLOWED", "bulkhead.io", HashMap::<String, String>::new());
    let text = "PodDisruptionBudget web does not allow it";
    Status::with_error_details(Code::FailedPrecondition, text, details)
}

/// A time whose age is shown in whole days.
fn days_ago(days: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    now.as_millis() as u64 - days * 86_400_000
}

fn key(kind: i32, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

fn key_of(object: &Kind) -> String {
    key(kind(object).into(), &meta(object).namespace, &meta(object).name)
}

fn key_of_ref(object: &v1::ObjectRef) -> String {
    key(object.kind, &object.namespace, &object.name)
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

    pub(crate) fn change_deployment(&self, name: &str, change: impl FnOnce(&mut v1::Deployment)) {
        let found = self.state().object(name).cloned();
        let Some(Kind::Deployment(mut deployment)) = found else { panic!("no deployment {name}") };
        change(&mut deployment);
        self.put(Kind::Deployment(deployment));
    }

    pub(crate) fn change_stateful_set(&self, name: &str, change: impl FnOnce(&mut v1::StatefulSet)) {
        let found = self.state().object(name).cloned();
        let Some(Kind::StatefulSet(mut set)) = found else { panic!("no StatefulSet {name}") };
        change(&mut set);
        self.put(Kind::StatefulSet(set));
    }

    pub(crate) fn change_daemon_set(&self, name: &str, change: impl FnOnce(&mut v1::DaemonSet)) {
        let found = self.state().object(name).cloned();
        let Some(Kind::DaemonSet(mut set)) = found else { panic!("no DaemonSet {name}") };
        change(&mut set);
        self.put(Kind::DaemonSet(set));
    }

    pub(crate) fn change_job(&self, name: &str, change: impl FnOnce(&mut v1::Job)) {
        let found = self.state().object(name).cloned();
        let Some(Kind::Job(mut job)) = found else { panic!("no job {name}") };
        change(&mut job);
        self.put(Kind::Job(job));
    }

    pub(crate) fn change_autoscaler(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::HorizontalPodAutoscaler),
    ) {
        let found = self.state().object_of(v1::Kind::HorizontalPodAutoscaler, name).cloned();
        let Some(Kind::HorizontalPodAutoscaler(mut found)) = found else { panic!("no autoscaler {name}") };
        change(&mut found);
        self.put(Kind::HorizontalPodAutoscaler(found));
    }

    pub(crate) fn change_vertical_autoscaler(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::VerticalPodAutoscaler),
    ) {
        let found = self.state().object_of(v1::Kind::VerticalPodAutoscaler, name).cloned();
        let Some(Kind::VerticalPodAutoscaler(mut found)) = found else { panic!("no autoscaler {name}") };
        change(&mut found);
        self.put(Kind::VerticalPodAutoscaler(found));
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

    fn run(&self, command: v1::user_command::Variant) -> Result<(), Status> {
        use v1::user_command::Variant;
        match command {
            Variant::Create(object) | Variant::Apply(object) => {
                self.put(object.object.ok_or_else(|| Status::invalid_argument("no object"))?);
            }
            Variant::Delete(delete) => {
                let object = delete.object.unwrap_or_default();
                let found = self.state().objects.contains_key(&key_of_ref(&object));
                if !found {
                    return Err(Status::not_found("gone"));
                }
                if !self.state().delete_slowly {
                    self.remove(&object.name);
                }
            }
            Variant::Evict(evict) => {
                let pod = evict.pod.unwrap_or_default();
                let mut state = self.state();
                if !state.objects.contains_key(&key_of_ref(&pod)) {
                    return Err(Status::not_found("gone"));
                }
                if state.refuse_evictions > 0 {
                    state.refuse_evictions -= 1;
                    return Err(kept_by_a_budget());
                }
                drop(state);
                self.remove(&pod.name);
            }
            Variant::Scale(scale) => {
                let object = scale.object.unwrap_or_default();
                let replicas = Some(scale.replicas);
                if object.kind() == v1::Kind::StatefulSet {
                    let change =
                        |set: &mut v1::StatefulSet| set.spec.get_or_insert_default().replicas = replicas;
                    self.change_stateful_set(&object.name, change);
                } else {
                    let change = |d: &mut v1::Deployment| d.spec.get_or_insert_default().replicas = replicas;
                    self.change_deployment(&object.name, change);
                }
            }
            // What becomes of it is the server's.
            Variant::RestartRollout(_) | Variant::UndoRollout(_) => {}
            Variant::PromoteRollout(_) | Variant::AbortRollout(_) | Variant::RetryRollout(_) => {}
            Variant::SetStopped(set) => {
                let name = set.object.unwrap_or_default().name;
                self.change_deployment(&name, |d| d.spec.get_or_insert_default().stopped = set.stopped);
            }
            Variant::SetSuspended(set) => {
                let name = set.object.unwrap_or_default().name;
                self.change_job(&name, |job| job.spec.get_or_insert_default().suspend = set.suspended);
            }
            Variant::RunCronJob(run) => {
                let cron_job = self.state().object(&run.cron_job.unwrap_or_default().name).cloned();
                let Some(Kind::CronJob(cron_job)) = cron_job else {
                    return Err(Status::not_found("no such CronJob"));
                };
                let mut meta = cron_job.meta.unwrap_or_default();
                (meta.name, meta.id, meta.revision) = (run.name, 0, 0);
                let spec = cron_job.spec.and_then(|spec| spec.job_template).and_then(|t| t.spec);
                self.put(Kind::Job(v1::Job { meta: Some(meta), spec, status: None }));
            }
            Variant::SetUnschedulable(set) => {
                let found = self.state().object(&set.node).cloned();
                let Some(Kind::Node(mut node)) = found else { return Err(Status::not_found("no such node")) };
                node.spec.get_or_insert_default().unschedulable = set.unschedulable;
                self.put(Kind::Node(node));
            }
            _ => return Err(Status::unimplemented("not needed by the tests")),
        }
        Ok(())
    }
}

fn parse_text(
    name: &str,
    text: &str,
) -> Result<Vec<bulkhead_manifest::Parsed>, Vec<bulkhead_manifest::ManifestError>> {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    parse(&[source], Some(&Name::new("default").expect("a name")))
}

#[tonic::async_trait]
impl v1::commands_server::Commands for Fake {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let traceparent =
            request.metadata().get("traceparent").and_then(|t| t.to_str().ok()).unwrap_or_default();
        let traceparent = traceparent.to_owned();
        let request = request.into_inner();
        {
            let mut state = self.state();
            state.request_ids.push(request.request_id.clone());
            if request.actor == "user:test" {
                state.traceparents.push(traceparent);
            }
            if state.conflict {
                return Err(Status::aborted("somebody else changed it"));
            }
            if state.refuse_submissions > 0 {
                state.refuse_submissions -= 1;
                return Err(Status::unavailable("no leader"));
            }
        }
        for command in request.commands {
            self.run(command.variant.ok_or_else(|| Status::invalid_argument("no command"))?)?;
        }
        let revision = self.state().revision;
        Ok(Response::new(v1::SubmitResponse { revision, request_id: request.request_id }))
    }

    type SubmitStreamStream = BoxStream<'static, Result<v1::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let fake = self.clone();
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            for command in request.commands {
                fake.run(command.variant.ok_or_else(|| Status::invalid_argument("no command"))?)?;
            }
            let revision = fake.state().revision;
            let result = Some(v1::submit_stream_response::Result::Revision(revision));
            Ok(v1::SubmitStreamResponse { tag: request.tag, result })
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[tonic::async_trait]
impl v1::queries_server::Queries for Fake {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        match state.objects.get(&key(request.kind, &request.namespace, &request.name)) {
            Some(object) => {
                Ok(Response::new(v1::GetResponse { object: Some(object.clone()), revision: state.revision }))
            }
            None => Err(Status::not_found(format!("{} not found", request.name))),
        }
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let with_label = request.label_selector.split_once('=');
        let by_name = request.field_selector.strip_prefix("metadata.name=");
        let mut items = state.objects.values().filter(|o| {
            let Some(object) = &o.object else { return false };
            i32::from(kind(object)) == request.kind
                && (request.namespace.is_empty() || meta(object).namespace == request.namespace)
                && by_name.is_none_or(|name| meta(object).name == name)
                && with_label
                    .is_none_or(|(key, value)| meta(object).labels.get(key).is_some_and(|v| v == value))
        });
        // One item a page, so that paging is always at work.
        let skip = request.continue_token.parse().unwrap_or(0);
        let page: Vec<v1::Object> = items.by_ref().skip(skip).take(1).cloned().collect();
        let continue_token = if items.next().is_some() { (skip + 1).to_string() } else { String::new() };
        let revision = state.revision;
        Ok(Response::new(v1::ListResponse { items: page, revision, continue_token, remaining: None }))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let checked = self.state().check_kept(request.from_revision);
        checked?;
        let changes = self.changes.subscribe();
        let missed: Vec<_> = {
            let state = self.state();
            let is_newer =
                |o: &&v1::Object| o.object.as_ref().is_some_and(|o| meta(o).revision > request.from_revision);
            let modified = |o: &v1::Object| {
                let revision = o.object.as_ref().map_or(0, |o| meta(o).revision);
                let r#type = v1::WatchType::Modified.into();
                Ok(v1::WatchResponse { r#type, object: Some(o.clone()), revision })
            };
            state.objects.values().filter(is_newer).map(modified).collect()
        };
        let later = stream::unfold(changes, |mut changes| async {
            match changes.recv().await {
                Ok(Some(change)) => Some((Ok(change), changes)),
                // As a connection that breaks: nothing says goodbye.
                _ => None,
            }
        });
        self.watches.send_modify(|opened| *opened += 1);
        Ok(Response::new(stream::iter(missed).chain(later).boxed()))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageResponse>, Status> {
        let request = request.into_inner();
        let of_kind = |one: &&v1::ObjectUsage| {
            let is_pod = request.kind == i32::from(v1::Kind::Pod);
            one.namespace.is_empty() != is_pod
                && (request.namespace.is_empty() || one.namespace == request.namespace)
        };
        // One item a page, as in `list`.
        let skip = request.continue_token.parse().unwrap_or(0);
        let all: Vec<v1::ObjectUsage> = self.state().usage.iter().filter(of_kind).cloned().collect();
        let continue_token = if all.len() > skip + 1 { (skip + 1).to_string() } else { String::new() };
        let items = all.into_iter().skip(skip).take(1).collect();
        Ok(Response::new(v1::UsageResponse { items, continue_token }))
    }

    type ListEventsStream = BoxStream<'static, Result<v1::HistoryEntry, Status>>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let request = request.into_inner();
        let kept = {
            let state = self.state();
            state.check_kept(request.from_revision)?;
            let is_later = |entry: &&v1::HistoryEntry| entry.revision > request.from_revision;
            state.history.iter().filter(is_later).cloned().collect::<Vec<_>>()
        };
        let of_object = |entry| Ok(v1::HistoryEntry { object: request.object.clone(), ..entry });
        // Streams that follow end when they have sent what there is, as a connection that breaks.
        Ok(Response::new(stream::iter(kept.into_iter().map(of_object).collect::<Vec<_>>()).boxed()))
    }
}

/// What users set of an object.
fn bare(object: &Object) -> serde_json::Value {
    let names = bulkhead_manifest::Names { cluster_id: None, name_of: &|_, _| None };
    let mut value = bulkhead_manifest::to_value(object, names);
    value["status"].take();
    let metadata = value["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|name, _| name == "labels" || name == "annotations");
    value
}

#[tonic::async_trait]
impl v1::manifests_server::Manifests for Fake {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let request = request.into_inner();
        let (mode, dry_run) = (request.mode(), request.dry_run);
        let mut answer = v1::ApplyResponse { request_id: request.request_id, ..v1::ApplyResponse::default() };
        let files: Vec<Source> =
            request.files.into_iter().map(|f| Source { name: f.name, text: f.text }).collect();
        if self.state().conflict {
            return Err(Status::aborted("somebody else changed it"));
        }
        let present = |reference: &ObjectRef| {
            let key = key_of_ref(&reference.into());
            self.state().objects.get(&key).cloned().map(|o| Object::try_from(o).expect("an object"))
        };
        let mode = match mode {
            v1::ApplyMode::Replace => EditMode::Replace,
            _ => EditMode::Apply { force: request.force_conflicts },
        };
        let edit = Edit { manager: &request.field_manager, mode };
        match plan(&files, Name::new(&request.namespace).ok().as_ref(), edit, &present) {
            Err(PlanError::Mistakes(errors)) => {
                answer.errors = errors
                    .into_iter()
                    .map(|e| v1::ManifestError {
                        file: e.file,
                        line: e.line as u32,
                        column: e.column as u32,
                        path: e.path,
                        reason: e.reason,
                    })
                    .collect();
            }
            Err(PlanError::Conflicts(conflicts)) => {
                let lines = conflicts.iter().map(|c| format!("{} is managed by {:?}", c.field, c.manager));
                return Err(Status::aborted(lines.collect::<Vec<_>>().join("\n")));
            }
            Ok(planned) => {
                for one in planned.into_iter().map(|one| one.parsed) {
                    let object = one.object.object_ref();
                    let was = present(&object);
                    let revision = was.as_ref().map(|was| was.meta().revision);
                    if one.resource_version.is_some_and(|wanted| Some(wanted) != revision) {
                        return Err(Status::aborted(format!("{object} changed meanwhile")));
                    }
                    if was.is_none() && mode == EditMode::Replace {
                        return Err(Status::not_found(format!("{object} does not exist")));
                    }
                    let wanted = v1::Object::from(&one.object);
                    let is_same = was.as_ref().is_some_and(|was| bare(was) == bare(&one.object));
                    let action = match dry_run {
                        true if was.is_some() => v1::ApplyAction::Configured,
                        true => v1::ApplyAction::Created,
                        false => self.put(wanted.object.clone().expect("an object")),
                    };
                    // Who manages fields is no change that is told.
                    let action = if is_same { v1::ApplyAction::Unchanged } else { action };
                    answer.objects.push(v1::AppliedObject {
                        object: Some((&object).into()),
                        action: action.into(),
                        revision: 0,
                        result: dry_run.then_some(wanted),
                    });
                }
            }
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Fake {
    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        let state = self.state();
        Ok(Response::new(v1::MembersResponse {
            cluster_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            members: vec![],
            revision: state.revision,
            feature_level: FEATURE_LEVEL_MAX - state.levels_behind,
        }))
    }
    async fn add_learner(
        &self,
        _: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn promote(
        &self,
        _: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn remove(
        &self,
        _: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse { member: 1, leader: 1, ..v1::StatusResponse::default() }))
    }
    async fn take_snapshot(
        &self,
        _: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn check(&self, _: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        Ok(Response::new(v1::CheckResponse::default()))
    }

    type BackupStream = BoxStream<'static, Result<v1::BackupChunk, Status>>;

    /// A backup whose end gets lost on the way.
    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let chunk = v1::BackupChunk { data: b"BULKHEAD BACKUP\n\x01".as_slice().into() };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }
    async fn set_feature_level(
        &self,
        _: Request<v1::SetFeatureLevelRequest>,
    ) -> Result<Response<v1::SetFeatureLevelResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
}

#[tonic::async_trait]
impl v1::pod_io_server::PodIo for Fake {
    type LogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;

    async fn logs(&self, _: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let chunk = |data: &'static str, time_ms| {
            Ok(v1::LogChunk { data: data.into(), time_ms, stream: v1::LogStream::Stdout.into() })
        };
        let chunks =
            [chunk("hello ", 1), chunk("world\n", 2), chunk("second\nthi", 1000), chunk("rd\n", 1001)];
        Ok(Response::new(stream::iter(chunks).boxed()))
    }
}
