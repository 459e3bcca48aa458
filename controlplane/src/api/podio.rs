//! `PodIo`: passed on to the agent on whose node the pod is.

use std::pin::Pin;

use bulkhead_proto::v1;
use bulkhead_proto::v1::pod_io_client::PodIoClient;
use bulkhead_proto::v1::pod_io_server::PodIo;
use bulkhead_types::{Kind, Name, Object, ObjectRef};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, optional_name};
use crate::deadline::deadline;
use crate::error::invalid;
use crate::transport::connect;

/// What a call answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The agent on whose node a pod is.
struct Away {
    node: Name,
    client: PodIoClient<Channel>,
}

impl Away {
    fn unreachable(&self, error: &str) -> Status {
        Status::unavailable(format!("the agent of node {} cannot be reached: {error}", self.node))
    }

    /// Why the agent did not answer, as the client gets it.
    fn explained(&self, status: Status) -> Status {
        match status.code() {
            tonic::Code::Unavailable => self.unreachable(status.message()),
            _ => status,
        }
    }

    /// The agent's answer, as the client gets it.
    fn pass_on<T: Send + 'static>(
        &self,
        answer: Result<Response<Streaming<T>>, Status>,
    ) -> Result<Response<Answers<T>>, Status> {
        let stream = answer.map_err(|status| self.explained(status))?;
        let node = self.node.clone();
        // Of itself an agent says a status; a broken connection has a cause here, which is no news to the client.
        let broken = move |status: Status| match std::error::Error::source(&status) {
            Some(_) => Status::unavailable(format!("the connection to the agent of node {node} was lost")),
            None => status,
        };
        Ok(Response::new(Box::pin(stream.into_inner().map(move |item| item.map_err(&broken)))))
    }
}

impl Api {
    /// Finds a pod's agent, as the newest confirmed state says.
    async fn agent_of(&self, namespace: &str, pod: &str, deadline: Instant) -> Result<Away, Status> {
        let name = Name::new(pod).map_err(|e| invalid("pod", e.to_string()))?;
        let namespace = optional_name("namespace", namespace)?;
        let reference = ObjectRef { kind: Kind::Pod, namespace, name };
        let state = self.read(false, 0, deadline).await?;
        let Some(Object::Pod(pod)) = state.find_object(&reference) else {
            return Err(Status::not_found(format!("{reference} does not exist")));
        };
        let Some(node) = pod.node.and_then(|id| state.nodes().get(id)) else {
            let reason = format!("{reference} has no node yet: {} {}", pod.status.reason, pod.status.message);
            return Err(Status::failed_precondition(reason.trim_end().to_owned()));
        };
        let name = node.meta.name.clone();
        let channel = connect(&node.status.facts.address)
            .map_err(|e| Status::unavailable(format!("the agent of node {name} cannot be reached: {e}")))?;
        Ok(Away { node: name, client: PodIoClient::new(channel) })
    }
}

/// The first request of a stream, before the deadline: it says which pod is meant.
async fn first<T>(requests: &mut Streaming<T>, deadline: Instant) -> Result<T, Status> {
    match tokio::time::timeout_at(deadline, requests.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => Err(Status::invalid_argument("there is no request")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("the first request did not come in time")),
    }
}

/// The first request and all that follow. One that is broken ends them, as its client's end does: the answer, which the
/// client no longer reads, is what the agent is told by.
fn again<T: Send + 'static>(first: T, rest: Streaming<T>) -> impl Stream<Item = T> + Send + 'static {
    tokio_stream::once(first).chain(rest.map_while(Result::ok))
}

fn no_start() -> Status {
    Status::invalid_argument("the first request is no start")
}

#[tonic::async_trait]
impl PodIo for Api {
    type LogsStream = Answers<v1::LogChunk>;
    type ExecStream = Answers<v1::ExecResponse>;
    type PortForwardStream = Answers<v1::PortForwardResponse>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let mut away = self.agent_of(&request.namespace, &request.pod, deadline).await?;
        let answer = away.client.logs(request).await;
        away.pass_on(answer)
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let deadline = deadline(request.metadata());
        let mut requests = request.into_inner();
        let start = first(&mut requests, deadline).await?;
        let Some(v1::exec_request::Message::Start(what)) = &start.message else { return Err(no_start()) };
        let mut away = self.agent_of(&what.namespace, &what.pod, deadline).await?;
        let answer = away.client.exec(again(start, requests)).await;
        away.pass_on(answer)
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let deadline = deadline(request.metadata());
        let mut requests = request.into_inner();
        let start = first(&mut requests, deadline).await?;
        let Some(v1::port_forward_request::Message::Start(what)) = &start.message else {
            return Err(no_start());
        };
        let mut away = self.agent_of(&what.namespace, &what.pod, deadline).await?;
        let answer = away.client.port_forward(again(start, requests)).await;
        away.pass_on(answer)
    }

    async fn start_phases(
        &self,
        request: Request<v1::StartPhasesRequest>,
    ) -> Result<Response<v1::StartPhasesResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let mut away = self.agent_of(&request.namespace, &request.pod, deadline).await?;
        let answer = tokio::time::timeout_at(deadline, away.client.start_phases(request)).await;
        let answer =
            answer.map_err(|_| Status::deadline_exceeded("the pod's agent did not answer in time"))?;
        answer.map_err(|status| away.explained(status))
    }
}
