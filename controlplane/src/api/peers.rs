//! `Peers`: what other servers say.

use std::pin::Pin;

use bulkhead_controlplane_core::server::Input;
use bulkhead_proto::v1::peers_server::Peers;
use bulkhead_proto::v1::snapshot_chunk::Part;
use bulkhead_proto::{Field, ProtoCodec, v1};
use bulkhead_types::{LogCodec, MemberId, MemberRole};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::Api;
use crate::error::{convert_status, disowned};
use crate::forward::PROPOSALS_MAX;
use crate::propose::response_of;
use crate::transport::{SnapshotReceiver, from_frame};

#[tonic::async_trait]
impl Peers for Api {
    type RaftStream = Pin<Box<dyn Stream<Item = Result<v1::PeerAck, Status>> + Send>>;

    async fn raft(
        &self,
        request: Request<Streaming<v1::PeerFrame>>,
    ) -> Result<Response<Self::RaftStream>, Status> {
        let mut frames = request.into_inner();
        let first =
            frames.next().await.ok_or_else(|| Status::invalid_argument("the first frame is a hello"))??;
        let Some(v1::peer_frame::Frame::Hello(hello)) = first.frame else {
            return Err(Status::invalid_argument("the first frame is a hello"));
        };
        let from = self.admit(&hello)?;
        self.proposer.addresses.hear(from, &hello.address);
        let (sender, receiver) = mpsc::channel(1);
        let answer = v1::PeerAck { ack: Some(v1::peer_ack::Ack::Hello(self.identity.hello(from))) };
        // The receiver is still here: it is returned below.
        let _ = sender.try_send(Ok(answer));
        let handle = self.handle.clone();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                match from_frame(frame) {
                    Ok(Some(message)) => {
                        if handle.tell(Input::Peer { from, message }).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(member = %from, %error, "a malformed frame was dropped"),
                }
            }
            drop(sender);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotReceipt>, Status> {
        let mut chunks = request.into_inner();
        let first =
            chunks.next().await.ok_or_else(|| Status::invalid_argument("the first part is a header"))??;
        let Some(Part::Header(header)) = first.part else {
            return Err(Status::invalid_argument("the first part is a header"));
        };
        let hello = header.hello.clone().ok_or_else(|| Status::invalid_argument("hello: is missing"))?;
        let from = self.admit(&hello)?;
        self.proposer.addresses.hear(from, &hello.address);
        let index = header.index;
        let store = self.snapshots.clone();
        let opened = tokio::task::spawn_blocking(move || SnapshotReceiver::open(store, header)).await;
        let mut receiver = opened.map_err(|e| Status::internal(e.to_string()))??;
        if receiver.is_whole() {
            return self.finish_snapshot(from, index, receiver).await;
        }
        while let Some(chunk) = chunks.next().await {
            let Some(Part::Data(data)) = chunk?.part else {
                return Err(Status::invalid_argument("a header comes once"));
            };
            let taken = tokio::task::spawn_blocking(move || {
                let last = receiver.take(&data)?;
                Ok::<_, Status>((receiver, last))
            });
            let (next, last) = taken.await.map_err(|e| Status::internal(e.to_string()))??;
            receiver = next;
            if last {
                return self.finish_snapshot(from, index, receiver).await;
            }
        }
        Ok(Response::new(v1::SnapshotReceipt { next_chunk: receiver.next_chunk(), complete: false }))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        self.propose_one(request.into_inner()).await.map(Response::new)
    }

    async fn propose_many(
        &self,
        request: Request<v1::ProposeManyRequest>,
    ) -> Result<Response<v1::ProposeManyResponse>, Status> {
        let proposals = request.into_inner().proposals;
        if proposals.len() > PROPOSALS_MAX {
            return Err(Status::invalid_argument(format!("proposals: at most {PROPOSALS_MAX} are allowed")));
        }
        let answers = join_all(proposals.into_iter().map(|proposal| self.propose_one(proposal))).await;
        // One that fails says nothing about the others.
        let failed = |status: Status| v1::ProposeResponse {
            result: Some(v1::propose_response::Result::Failed(v1::ProposeFailed {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: status.details().to_vec().into(),
            })),
        };
        let responses = answers.into_iter().map(|answer| answer.unwrap_or_else(failed)).collect();
        Ok(Response::new(v1::ProposeManyResponse { responses }))
    }
}

impl Api {
    /// Everything of a snapshot is here: hands it to the core.
    async fn finish_snapshot(
        &self,
        from: MemberId,
        index: u64,
        receiver: SnapshotReceiver,
    ) -> Result<Response<v1::SnapshotReceipt>, Status> {
        let handle = self.handle.clone();
        let next_chunk = receiver.next_chunk();
        let finished = tokio::task::spawn_blocking(move || receiver.finish(&handle)).await;
        finished.map_err(|e| Status::internal(e.to_string()))??;
        tracing::info!(member = %from, index, "a snapshot arrived");
        Ok(Response::new(v1::SnapshotReceipt { next_chunk, complete: true }))
    }

    async fn propose_one(&self, request: v1::ProposeRequest) -> Result<v1::ProposeResponse, Status> {
        let record =
            ProtoCodec.decode_log(&request.record).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(response_of(self.proposer.attempt(record).await?, request.brief))
    }

    /// Who calls, if it may: a member of this cluster, with the data directory that the log knows.
    fn admit(&self, hello: &v1::PeerHello) -> Result<MemberId, Status> {
        let cluster_id: Uuid =
            Field::from_wire(hello.cluster_id).map_err(|e| convert_status(&e.within("cluster_id")))?;
        let storage_uid: Uuid =
            Field::from_wire(hello.storage_uid).map_err(|e| convert_status(&e.within("storage_uid")))?;
        let from = MemberId(hello.from);
        let refuse = |reason: String| Err(Status::failed_precondition(reason));
        if cluster_id != self.identity.cluster_id {
            return refuse(format!("this is cluster {}, not {cluster_id}", self.identity.cluster_id));
        }
        if hello.to != self.identity.member.0 {
            return refuse(format!("this is member {}, not {}", self.identity.member, hello.to));
        }
        let state = self.views.state();
        if hello.feature_level_max < state.feature_level() {
            return refuse(format!(
                "member {from} supports up to feature level {}, the cluster runs at level {}: it is too old; install a \
                 newer version on it",
                hello.feature_level_max,
                state.feature_level()
            ));
        }
        let Some(record) = state.member(from) else {
            // Before the log says who belongs here, the configuration is all there is.
            return if state.cluster_id().is_none() || !state.voters().any(|_| true) {
                Ok(from)
            } else {
                refuse(format!("member {from} is unknown here"))
            };
        };
        if record.role != MemberRole::Removed
            && !record.storage_uid.is_nil()
            && record.storage_uid != storage_uid
        {
            return Err(disowned(from));
        }
        Ok(from)
    }
}
