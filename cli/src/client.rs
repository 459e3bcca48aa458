//! How servers are reached: any of them will do, and the next one when one does not answer.

mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use bulkhead_proto::v1::cluster_client::ClusterClient;
use bulkhead_proto::v1::commands_client::CommandsClient;
use bulkhead_proto::v1::manifests_client::ManifestsClient;
use bulkhead_proto::v1::pod_io_client::PodIoClient;
use bulkhead_proto::v1::queries_client::QueriesClient;
use bulkhead_types::{Command, Kind, Name, Object, ObjectRef, Precondition, Revision};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::failure::{Class, Failure};
use crate::progress::Progress;
use crate::telemetry::TraceParent;
pub(crate) use watch::{Change, Watcher, oldest_kept};

/// How long to try when the user does not say.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one server may take over one call before the next is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that does not answer a ping so long is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Longest message that is taken from a server: a full page of large objects.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Items of one page of a list.
const PAGE: u32 = 500;

/// The servers.
pub(crate) struct Client {
    endpoints: Vec<(String, Channel)>,
    /// The one that answered last.
    preferred: AtomicUsize,
    timeout: Duration,
    /// How long the present attempt may take, in milliseconds: servers are told, so that they say why in time.
    attempt_ms: AtomicU64,
    actor: String,
    trace: TraceParent,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// All namespaces when unset.
    pub(crate) namespace: Option<Name>,
    pub(crate) labels: String,
    pub(crate) fields: String,
}

/// Makes a channel to `host:port` that connects when it is first used.
pub(crate) fn channel(address: &str) -> Result<Channel, Failure> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| Failure::usage(format!("server {address:?} is not host:port: {error}")))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

impl Client {
    /// A client of these servers; nothing is connected yet. Must be called inside of a runtime.
    pub(crate) fn new(servers: &[String], timeout: Duration, actor: String) -> Result<Self, Failure> {
        let endpoints = servers
            .iter()
            .map(|address| Ok((address.clone(), channel(address)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        if endpoints.is_empty() {
            return Err(Failure::usage("no server is given: --server host:port[,host:port...]"));
        }
        let attempt_ms = AtomicU64::new(millis(ATTEMPT_TIMEOUT.min(timeout)));
        let (preferred, trace) = (AtomicUsize::new(0), TraceParent::new());
        Ok(Self { endpoints, preferred, timeout, attempt_ms, actor, trace })
    }

    /// The `traceparent` of everything that this run changes.
    pub(crate) fn trace(&self) -> TraceParent {
        self.trace
    }

    /// Who asks, such as `user:alice`.
    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    /// Every server, for what is about one of them.
    pub(crate) fn endpoints(&self) -> &[(String, Channel)] {
        &self.endpoints
    }

    /// A message with this run's trace, and how long it may take.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_millis(self.attempt_ms.load(Ordering::Relaxed)));
        if let Ok(value) = self.trace.to_string().parse() {
            request.metadata_mut().insert("traceparent", value);
        }
        request
    }

    /// Calls servers in turn until one answers or refuses, or the time is over.
    ///
    /// Only "not available" is tried again, so what changes something must carry a request id.
    pub(crate) async fn call<R, F, Fut>(&self, call: F) -> Result<R, Failure>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        Ok(self.call_or_refusal(call).await??)
    }

    /// The same for a caller who looks at why a server refuses.
    pub(crate) async fn call_or_refusal<R, F, Fut>(&self, call: F) -> Result<Result<R, Status>, Failure>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let progress = Progress::start("asking the servers");
        let (mut backoff, mut tried, mut said) = (BACKOFF_MIN, 0, BTreeMap::new());
        loop {
            let index = self.preferred.load(Ordering::Relaxed) % self.endpoints.len();
            let (address, channel) = &self.endpoints[index];
            let limit = ATTEMPT_TIMEOUT.min(self.timeout.saturating_sub(started.elapsed()));
            self.attempt_ms.store(millis(limit), Ordering::Relaxed);
            let attempt = tokio::time::timeout(limit, call(channel.clone())).await;
            let status = match attempt {
                Ok(Ok(response)) => return Ok(Ok(response.into_inner())),
                Ok(Err(status)) if !is_unavailable(&status) => return Ok(Err(status)),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            tried += 1;
            progress.set(format!("{address}: {}; trying again", status.message()));
            let wait = retry_delay(&status).unwrap_or(backoff);
            // A last attempt that had no time left says nothing about the reason.
            if is_timeout(&status) {
                said.entry(index).or_insert_with(|| crate::failure::describe(&status));
            } else {
                said.insert(index, crate::failure::describe(&status));
            }
            if started.elapsed() + wait >= self.timeout {
                return Err(self.gave_up(&said));
            }
            self.preferred.store(index + 1, Ordering::Relaxed);
            if tried % self.endpoints.len() == 0 {
                tokio::time::sleep(wait).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Calls the server that answered last, once: for what must not happen twice. After a failure the next call goes to
    /// the next server.
    pub(crate) async fn call_once<R, F, Fut>(&self, call: F) -> Result<R, Failure>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let index = self.preferred.load(Ordering::Relaxed) % self.endpoints.len();
        let (address, channel) = &self.endpoints[index];
        let limit = ATTEMPT_TIMEOUT.min(self.timeout);
        let status = match tokio::time::timeout(limit, call(channel.clone())).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("{address} did not answer within {limit:?}")),
        };
        if is_unavailable(&status) {
            self.preferred.store(index + 1, Ordering::Relaxed);
        }
        Err(status.into())
    }

    /// What each server said last: the one that knows the reason need not be the one that was asked last.
    fn gave_up(&self, said: &BTreeMap<usize, String>) -> Failure {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (index, reason) in said {
            reasons.entry(reason).or_default().push(&self.endpoints[*index].0);
        }
        let lines: Vec<String> = reasons
            .iter()
            .map(|(reason, servers)| format!("{} said: {reason}", servers.join(", ")))
            .collect();
        let message = format!("no answer within {:?}; {}", self.timeout, lines.join("\n  "));
        Failure::new(Class::Unavailable, message)
    }

    /// Submits commands, as a whole or not at all. The answer is the revision.
    pub(crate) async fn submit(
        &self,
        commands: Vec<Command>,
        preconditions: Vec<Precondition>,
    ) -> Result<Revision, Failure> {
        let commands = commands
            .iter()
            .map(|command| v1::UserCommand::try_from(command).map_err(Failure::from))
            .collect::<Result<Vec<_>, _>>()?;
        let request = v1::SubmitRequest {
            request_id: Uuid::new_v4().to_string(),
            actor: self.actor.clone(),
            preconditions: preconditions.iter().map(Into::into).collect(),
            commands,
            trace_context: Some(self.trace.to_string()),
            tag: 0,
        };
        let answer = self
            .call(|channel| {
                let request = self.request(request.clone());
                async move { CommandsClient::new(channel).submit(request).await }
            })
            .await?;
        Ok(answer.revision)
    }

    /// Reads one object.
    pub(crate) async fn get(&self, object: &ObjectRef) -> Result<Object, Failure> {
        let request = v1::GetRequest {
            kind: v1::Kind::from(object.kind).into(),
            namespace: object.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: object.name.to_string(),
            ..v1::GetRequest::default()
        };
        let answer = self
            .call(|channel| {
                let request = self.request(request.clone());
                async move { queries(channel).get(request).await }
            })
            .await?;
        decode(answer.object)
    }

    /// Reads all objects of a kind that match, and the revision to watch from.
    pub(crate) async fn list(&self, kind: Kind, filter: &Filter) -> Result<(Vec<Object>, Revision), Failure> {
        let mut request = v1::ListRequest {
            kind: v1::Kind::from(kind).into(),
            namespace: scope(kind, filter),
            label_selector: filter.labels.clone(),
            field_selector: filter.fields.clone(),
            limit: PAGE,
            ..v1::ListRequest::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self
                .call(|channel| {
                    let request = self.request(request.clone());
                    async move { queries(channel).list(request).await }
                })
                .await?;
            for item in page.items {
                objects.push(Object::try_from(item)?);
            }
            if page.continue_token.is_empty() {
                return Ok((objects, page.revision));
            }
            request.continue_token = page.continue_token;
        }
    }

    /// Watches what changes after a list: what it held, and its revision.
    pub(crate) fn watch(
        &self,
        kind: Kind,
        filter: &Filter,
        listed: &[Object],
        revision: Revision,
    ) -> Watcher<'_> {
        Watcher::new(self, kind, filter, listed, revision)
    }
}

fn scope(kind: Kind, filter: &Filter) -> String {
    let namespace = filter.namespace.as_ref().filter(|_| kind.is_namespaced());
    namespace.map(ToString::to_string).unwrap_or_default()
}

/// Reads an object that must be there.
pub(crate) fn decode(object: Option<v1::Object>) -> Result<Object, Failure> {
    let object = object.ok_or_else(|| Failure::failed("the server's answer holds no object"))?;
    Ok(Object::try_from(object)?)
}

pub(crate) fn queries(channel: Channel) -> QueriesClient<Channel> {
    QueriesClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn manifests(channel: Channel) -> ManifestsClient<Channel> {
    ManifestsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn pod_io(channel: Channel) -> PodIoClient<Channel> {
    PodIoClient::new(channel)
}

/// Whether another server, or the same one later, may answer: it said so, or the connection broke.
pub(crate) fn is_unavailable(status: &Status) -> bool {
    let connection_broke = std::error::Error::source(status).is_some()
        && matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    // A server that is full says when to come back.
    let is_busy = status.code() == Code::ResourceExhausted && retry_delay(status).is_some();
    status.code() == Code::Unavailable || is_timeout(status) || connection_broke || is_busy
}

/// Whether a time-out ended it, here or on the way: that is no answer.
fn is_timeout(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay).map(|d| d.min(BACKOFF_MAX))
}
