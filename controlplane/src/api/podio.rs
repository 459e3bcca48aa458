//! `PodIo`: passed on to the agent on whose node the pod is.

use std::pin::Pin;

use bulkhead_proto::v1;
use bulkhead_proto::v1::pod_io_client::PodIoClient;
use bulkhead_proto::v1::pod_io_server::PodIo;
use bulkhead_types::{Kind, Name, Object, ObjectRef};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Api, optional_name};
use crate::deadline::deadline;
use crate::error::invalid;
use crate::transport::connect;

#[tonic::async_trait]
impl PodIo for Api {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<v1::LogChunk, Status>> + Send>>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let name = Name::new(&request.pod).map_err(|e| invalid("pod", e.to_string()))?;
        let namespace = optional_name("namespace", &request.namespace)?;
        let reference = ObjectRef { kind: Kind::Pod, namespace, name };
        let state = self.read(false, 0, deadline).await?;
        let Some(Object::Pod(pod)) = state.find_object(&reference) else {
            return Err(Status::not_found(format!("{reference} does not exist")));
        };
        let Some(node) = pod.node.and_then(|id| state.nodes().get(id)) else {
            let reason = format!("{reference} has no node yet: {} {}", pod.status.reason, pod.status.message);
            return Err(Status::failed_precondition(reason.trim_end().to_owned()));
        };
        let away = |error: String| {
            Status::unavailable(format!("the agent of node {} cannot be reached: {error}", node.meta.name))
        };
        let channel = connect(&node.status.facts.address).map_err(|e| away(e.to_string()))?;
        let answer = PodIoClient::new(channel).logs(request).await;
        let stream = answer.map_err(|status| match status.code() {
            tonic::Code::Unavailable => away(status.message().to_owned()),
            _ => status,
        })?;
        Ok(Response::new(Box::pin(stream.into_inner())))
    }
}
