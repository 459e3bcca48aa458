//! `Commands`: submissions, one at a time or many over one stream.

use std::pin::Pin;

use bulkhead_proto::v1::commands_server::Commands;
use bulkhead_proto::v1::submit_stream_response::Result as StreamResult;
use bulkhead_proto::{Submission, TRACE_CONTEXT_BYTES_MAX, v1};
use bulkhead_types::{Rejection, RejectionCode, Stamped};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use uuid::Uuid;

use super::Api;
use crate::deadline::{REQUEST_TIMEOUT, deadline};
use crate::error::{RETRY_AFTER, convert_status};
use crate::propose::Wanted;
use crate::telemetry::{set_parent, traceparent};

/// Most submissions of one stream that are under way: the client waits beyond it.
const STREAM_INFLIGHT_MAX: usize = 2048;

/// A submission as the log takes it; the node thread sets its time.
pub(super) fn stamp(submission: Submission) -> Stamped {
    Stamped {
        request_id: submission.request_id.unwrap_or_else(Uuid::new_v4),
        actor: submission.actor,
        proposed_at_ms: 0,
        trace_context: submission.trace_context,
        preconditions: submission.preconditions,
        commands: submission.commands,
    }
}

/// The W3C `traceparent` header of a request, as tracing libraries send it; one that is too long is no trace.
pub(super) fn header_trace(metadata: &MetadataMap) -> Option<SmolStr> {
    let text = metadata.get("traceparent")?.to_str().ok()?;
    (text.len() <= TRACE_CONTEXT_BYTES_MAX).then(|| SmolStr::new(text))
}

/// A span for a submission, below the client's; the submission carries it on.
pub(super) fn traced(stamped: &mut Stamped) -> tracing::Span {
    let span = tracing::info_span!("submit", request_id = %stamped.request_id, actor = %stamped.actor);
    if let Some(parent) = &stamped.trace_context {
        set_parent(&span, parent);
    }
    if let Some(context) = traceparent(&span) {
        stamped.trace_context = Some(SmolStr::new(context));
    }
    span
}

#[tonic::async_trait]
impl Commands for Api {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let deadline = deadline(request.metadata());
        let trace = header_trace(request.metadata());
        let submission = Submission::try_from(request.into_inner()).map_err(|e| convert_status(&e))?;
        let mut stamped = stamp(submission);
        stamped.trace_context = stamped.trace_context.or(trace);
        let span = traced(&mut stamped);
        let request_id = stamped.request_id;
        let transaction = self.proposer.submit(stamped, Wanted::Revision, deadline).instrument(span).await?;
        let revision = transaction.outcome.as_ref().copied().unwrap_or_default();
        Ok(Response::new(v1::SubmitResponse { revision, request_id: request_id.to_string() }))
    }

    type SubmitStreamStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitStreamResponse, Status>> + Send>>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(STREAM_INFLIGHT_MAX);
        let api = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                // A place in the answers is taken before the work begins: that bounds what is under way.
                let Ok(permit) = sender.clone().reserve_owned().await else { return };
                let api = api.clone();
                tokio::spawn(async move {
                    permit.send(Ok(api.submit_one(request).await));
                });
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Api {
    async fn submit_one(&self, request: v1::SubmitRequest) -> v1::SubmitStreamResponse {
        let tag = request.tag;
        let result = match Submission::try_from(request) {
            Err(error) => StreamResult::Error(
                (&Rejection::new(RejectionCode::Invalid, error.path, error.reason)).into(),
            ),
            Ok(submission) => {
                let deadline = Instant::now() + REQUEST_TIMEOUT;
                match self.proposer.submit_raw(stamp(submission), Wanted::Revision, deadline).await {
                    Ok(Ok(transaction)) => {
                        StreamResult::Revision(transaction.outcome.as_ref().copied().unwrap_or_default())
                    }
                    Ok(Err(rejection)) => StreamResult::Error((&rejection).into()),
                    Err(status) => StreamResult::Retry(v1::RetryLater {
                        reason: status.message().to_owned(),
                        after_ms: u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX),
                    }),
                }
            }
        };
        v1::SubmitStreamResponse { tag, result: Some(result) }
    }
}
