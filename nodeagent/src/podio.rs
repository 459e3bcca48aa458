//! What goes into and comes out of this node's pods, for the servers to pass on.

pub(crate) mod relay;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_guest_protocol::stream::{Attach, Connect, Exec, Files, LogFiles, StreamKind};
use bulkhead_nodeagent_core::PhaseTime;
use bulkhead_proto::v1;
use bulkhead_proto::v1::pod_io_server::PodIo;
use bulkhead_types::{ObjectId, PodIntent};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::host::Host;
use crate::logs::{FromNowOn, PodLogs, Record, Selection, read};
use crate::streams::GuestStreams;
use crate::vm::console;
#[cfg(test)]
pub(crate) use relay::begin;
pub(crate) use relay::forward;

/// Records that wait for a client.
const RECORDS_MAX: usize = 16;

/// Longest piece of a console, in bytes.
const CHUNK_LENGTH: usize = 64 << 10;

/// Longest request, in bytes: a MiB of data, and what is around it.
pub(crate) const REQUEST_LENGTH_MAX: usize = (1 << 20) + 256;

/// The pods of this node by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pods: Arc<Mutex<BTreeMap<(String, String), Known>>>,
}

#[derive(Clone, Debug)]
struct Known {
    id: ObjectId,
    containers: Vec<String>,
}

impl Names {
    /// Adds a pod; of two with the same name the newer one counts.
    pub(crate) fn add(&self, id: ObjectId, namespace: &str, name: &str, containers: Vec<String>) {
        let mut pods = self.lock();
        let known = pods.entry((namespace.to_owned(), name.to_owned()));
        let new = Known { id, containers };
        known
            .and_modify(|known| {
                if known.id <= id {
                    *known = new.clone()
                }
            })
            .or_insert(new);
    }

    /// Adds the pod of an intent.
    pub(crate) fn intend(&self, pod: &PodIntent) {
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let containers = all.map(|container| container.name.to_string()).collect();
        self.add(pod.id, pod.namespace.as_str(), pod.name.as_str(), containers);
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, id: ObjectId) {
        self.lock().retain(|_, known| known.id != id);
    }

    /// Servers ask for pods that are bound to this node. One that the agent does not know has not reached it yet, and may within a moment.
    fn find(&self, namespace: &str, name: &str) -> Result<Known, Status> {
        let known = self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned();
        known.ok_or_else(|| {
            Status::failed_precondition(format!("pod {namespace}/{name} has not begun on this node yet"))
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Known>> {
        // No code panics while it holds the lock.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) host: Arc<Host>,
    pub(crate) names: Names,
}

/// What a call answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Chunks = Answers<v1::LogChunk>;

impl Service {
    /// The logs of a container that has started.
    fn logs_of(&self, known: &Known, container: &str) -> Result<PodLogs, Status> {
        let dir = self.host.records.pod_dir(known.id).join("logs");
        let logs = match self.host.logs.find(known.id) {
            Some(logs) => Some(logs),
            // Logs of a pod that ended before this agent started.
            None if dir.is_dir() => {
                let logs = self.host.logs.pod(known.id, &dir);
                let marked = known.containers.iter().try_for_each(|container| logs.mark_over(container));
                marked.map_err(|error| Status::internal(format!("cannot read the log: {error}")))?;
                Some(logs)
            }
            None => None,
        };
        let missing = || Status::failed_precondition(format!("container {container} has not started yet"));
        logs.filter(|logs| logs.exists(container)).ok_or_else(missing)
    }

    /// What the pod's guests said on their consoles, as far as it is kept.
    fn console(&self, known: &Known, request: &v1::LogsRequest) -> Result<Vec<v1::LogChunk>, Status> {
        if request.follow
            || request.previous
            || request.timestamps
            || request.since_ms > 0
            || !request.file.is_empty()
        {
            let reason = "a console is read as it is kept: only tail says how much of it";
            return Err(Status::invalid_argument(reason));
        }
        let kept = console::kept(&self.host.records.pod_dir(known.id));
        let kept = kept.map_err(|error| Status::internal(format!("cannot read the console: {error}")))?;
        let text = request.tail_lines.map_or(&kept[..], |lines| console::last_of(&kept, lines));
        let chunk = |data: &[u8]| v1::LogChunk {
            data: data.to_vec().into(),
            time_ms: 0,
            stream: v1::LogStream::Stdout.into(),
        };
        Ok(text.chunks(CHUNK_LENGTH).map(chunk).collect())
    }

    /// The streams of a pod whose guest runs.
    fn streams(&self, known: &Known) -> Result<GuestStreams, Status> {
        let missing = || Status::failed_precondition("the pod's guest does not run");
        self.host.streams.find(known.id).ok_or_else(missing)
    }
}

fn exec_kind(start: v1::ExecStart, container: String) -> Result<StreamKind, Status> {
    use v1::exec_start::What;
    Ok(match start.what.ok_or_else(|| Status::invalid_argument("the start names nothing to do"))? {
        What::Command(command) => StreamKind::Exec(Exec {
            container,
            argv: command.argv,
            stdin: command.stdin,
            tty: command.tty,
            size: command.size.map(relay::size),
        }),
        What::ReadPath(path) => StreamKind::ReadFiles(Files { container, path }),
        What::WritePath(path) => StreamKind::WriteFiles(Files { container, path }),
        What::Attach(attach) => {
            StreamKind::Attach(Attach { container, stdin: attach.stdin, size: attach.size.map(relay::size) })
        }
    })
}

fn log_files(request: v1::LogsRequest, container: String) -> Result<StreamKind, Status> {
    if request.previous || request.timestamps || request.since_ms > 0 {
        let reason = "files have neither times nor runs: previous, timestamps and since are about a container's output";
        return Err(Status::invalid_argument(reason));
    }
    let (pattern, follow, tail_lines) = (request.file, request.follow, request.tail_lines);
    Ok(StreamKind::ReadLogs(LogFiles { container, pattern, follow, tail_lines }))
}

#[tonic::async_trait]
impl PodIo for Service {
    type LogsStream = Chunks;
    type ExecStream = Answers<v1::ExecResponse>;
    type PortForwardStream = Answers<v1::PortForwardResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let Some(v1::ExecRequest { message: Some(v1::exec_request::Message::Start(start)) }) =
            requests.message().await?
        else {
            return Err(Status::invalid_argument("the first request is no start"));
        };
        let known = self.names.find(&start.namespace, &start.pod)?;
        let container = choose(&known.containers, &start.container)?;
        let streams = self.streams(&known)?;
        let kind = exec_kind(start, container.clone())?;
        let is_attach = matches!(kind, StreamKind::Attach(_));
        let stream = relay::begin(&streams, kind).await?;
        if !is_attach {
            return Ok(Response::new(Box::pin(relay::exec(stream, requests))));
        }
        // The process runs by now, and reads nothing before its output is listened to.
        let logs = self.logs_of(&known, &container)?;
        let output = FromNowOn::of(&logs, &container);
        let output = output.map_err(|error| Status::failed_precondition(crate::error::chain(&error)))?;
        Ok(Response::new(Box::pin(relay::attach(stream, requests, output))))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let mut requests = request.into_inner();
        let Some(v1::PortForwardRequest { message: Some(v1::port_forward_request::Message::Start(start)) }) =
            requests.message().await?
        else {
            return Err(Status::invalid_argument("the first request is no start"));
        };
        let streams = self.streams(&self.names.find(&start.namespace, &start.pod)?)?;
        let kind = StreamKind::Connect(Connect { port: start.port, own_address: false });
        let stream = relay::begin(&streams, kind).await?;
        Ok(Response::new(Box::pin(relay::port_forward(stream, requests))))
    }

    async fn start_phases(
        &self,
        request: Request<v1::StartPhasesRequest>,
    ) -> Result<Response<v1::StartPhasesResponse>, Status> {
        let request = request.into_inner();
        let known = self.names.find(&request.namespace, &request.pod)?;
        let phases = self.host.starts.find(known.id, &self.host.records.pod_dir(known.id));
        let unknown = || Status::failed_precondition("nothing is known of a start of the pod's guest");
        let phases = phases.ok_or_else(unknown)?;
        let phase = |time: &PhaseTime| v1::StartPhase {
            name: time.phase.name().to_owned(),
            begin_ms: time.begin_ms,
            end_ms: time.end_ms,
        };
        Ok(Response::new(v1::StartPhasesResponse {
            told_at_ms: phases.told_at_ms,
            phases: phases.times().iter().map(phase).collect(),
            from_pool: phases.from_pool,
            from_template: phases.from_template,
            booted_because: phases.booted_because.unwrap_or_default(),
        }))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        let known = self.names.find(&request.namespace, &request.pod)?;
        if request.console {
            let console = self.console(&known, &request)?;
            return Ok(Response::new(Box::pin(futures::stream::iter(console.into_iter().map(Ok)))));
        }
        let container = choose(&known.containers, &request.container)?;
        if !request.file.is_empty() {
            let kind = log_files(request, container)?;
            let stream = relay::begin(&self.streams(&known)?, kind).await?;
            return Ok(Response::new(Box::pin(relay::log_files(stream))));
        }
        let logs = self.logs_of(&known, &container)?;
        let selection = Selection {
            previous: request.previous,
            follow: request.follow,
            tail_lines: request.tail_lines,
            since_ms: request.since_ms,
        };
        let (sender, receiver) = mpsc::channel(RECORDS_MAX);
        let timestamps = request.timestamps;
        let reading = tokio::spawn(read(logs, container, selection, sender));
        let records = ReceiverStream::new(receiver).map(move |record| chunks(record, timestamps));
        let chunks = records.flat_map_iter_ok();
        let ending = futures::stream::once(async move {
            match reading.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Err(Status::failed_precondition(crate::error::chain(&error)))),
                Err(error) => Some(Err(Status::internal(error.to_string()))),
            }
        });
        Ok(Response::new(Box::pin(chunks.chain(ending.filter_map(|end| end)))))
    }
}

/// Flattens lists into their elements.
trait FlatMapIterOk: Stream<Item = Vec<v1::LogChunk>> + Sized {
    fn flat_map_iter_ok(self) -> impl Stream<Item = Result<v1::LogChunk, Status>> {
        futures::StreamExt::flat_map(self, |list| futures::stream::iter(list.into_iter().map(Ok)))
    }
}

impl<S: Stream<Item = Vec<v1::LogChunk>>> FlatMapIterOk for S {}

fn choose(containers: &[String], wanted: &str) -> Result<String, Status> {
    match (wanted, containers) {
        ("", [only]) => Ok(only.clone()),
        ("", all) => Err(Status::invalid_argument(format!(
            "the pod has several containers, name one of: {}",
            all.join(", ")
        ))),
        (name, all) if all.iter().any(|known| known == name) => Ok(name.to_owned()),
        (name, all) => {
            Err(Status::not_found(format!("the pod has no container {name}, only: {}", all.join(", "))))
        }
    }
}

/// A record as it is sent; with `lines`, cut after each line, so that each has its time.
fn chunks(record: Record, lines: bool) -> Vec<v1::LogChunk> {
    let stream = if record.stderr { v1::LogStream::Stderr } else { v1::LogStream::Stdout };
    let chunk =
        |data: Vec<u8>| v1::LogChunk { data: data.into(), time_ms: record.time_ms, stream: stream.into() };
    if lines {
        record.data.split_inclusive(|&byte| byte == b'\n').map(|line| chunk(line.to_vec())).collect()
    } else {
        vec![chunk(record.data.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_pods_with_one_name_the_newer_counts_and_one_that_is_not_known_may_come() {
        let names = Names::default();
        let of = |id| names.add(ObjectId(id), "default", "web", vec!["main".to_owned()]);
        let find = || names.find("default", "web").map(|known| known.id.0).map_err(|status| status.code());
        assert_eq!(find(), Err(tonic::Code::FailedPrecondition));
        of(7);
        of(5);
        assert_eq!(find(), Ok(7));
        of(9);
        assert_eq!(find(), Ok(9));
        names.remove(ObjectId(7));
        assert_eq!(find(), Ok(9), "another one's end takes nothing from it");
        names.remove(ObjectId(9));
        assert_eq!(find(), Err(tonic::Code::FailedPrecondition));
    }
}
