//! `Cluster`: members, leadership, status, snapshots, checks.

use std::io::{self, BufWriter, Write};
use std::pin::Pin;

use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::server::{Input, Reply, Role, ServerStatus};
use bulkhead_controlplane_disk::{CHUNK_BYTES, write_backup};
use bulkhead_proto::v1::cluster_client::ClusterClient;
use bulkhead_proto::v1::cluster_server::Cluster;
use bulkhead_proto::{Field, ProtoCodec, parse_actor, parse_request_id, v1};
use bulkhead_types::{
    Command, DIGEST_VERSION, LogRecord, MemberId, MemberRole, MembershipAction, MembershipChange, Stamped,
};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Api;
use crate::deadline::deadline;
use crate::error::{DISK_FULL, RETRY_AFTER, convert_status, invalid, rejection_status, unavailable};
use crate::past::Past;
use crate::propose::Wanted;
use crate::view::View;

/// Most chunks of a backup between the encoder and the socket.
const CHUNKS_AHEAD_MAX: usize = 4;
/// How long a transfer of leadership may take before it is asked for again.
const TRANSFER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// Marks a request that another server passed on: it is not passed on again.
const FORWARDED: &str = "bulkhead-forwarded";

#[tonic::async_trait]
impl Cluster for Api {
    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let deadline = deadline(request.metadata());
        let stale = request.into_inner().consistency == i32::from(v1::Consistency::Stale);
        let state = self.read(stale, 0, deadline).await?;
        let status = self.status_now();
        let member = |record: &std::sync::Arc<bulkhead_types::MemberRecord>| {
            let peer = status.as_ref().and_then(|s| s.peers.iter().find(|p| p.member == record.member));
            let own = record.member == self.identity.member;
            v1::Member {
                id: record.member.0,
                address: record.address.to_string(),
                role: record.role.to_wire(),
                storage_uid: if record.storage_uid.is_nil() {
                    String::new()
                } else {
                    record.storage_uid.to_string()
                },
                version: record.version.to_string(),
                feature_level_max: record.feature_level_max,
                leader: status.as_ref().is_some_and(|s| s.leader == Some(record.member)),
                reachable: peer.map(|p| p.heard).or(own.then_some(true)),
                match_index: peer.map(|p| p.matched),
            }
        };
        let present = state.members().filter(|m| m.role != MemberRole::Removed);
        Ok(Response::new(v1::MembersResponse {
            cluster_id: state.cluster_id().map_or_else(String::new, |id| id.to_string()),
            members: present.map(member).collect(),
            revision: state.revision(),
            feature_level: state.feature_level(),
        }))
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        if !request.address.contains(':') || request.address.len() > 260 {
            return Err(invalid("address", "must be host:port"));
        }
        let member = if request.member == 0 {
            // An id that was never used: one more than the highest that ever was, removed members included.
            let state = self.read(false, 0, deadline).await?;
            state.members().map(|m| m.member.0).max().unwrap_or(0) + 1
        } else {
            request.member
        };
        let address = SmolStr::new(request.address);
        let action = MembershipAction::AddLearner { member: MemberId(member), address: address.clone() };
        let mut answer = self.change(action, false, &request.request_id, &request.actor, deadline).await?;
        if request.member == 0 {
            // A repeated request gets the first answer: the id is the one that was drawn then.
            let state = self.read(true, answer.get_ref().revision, deadline).await?;
            let added = state.members().filter(|m| m.address == address && m.role != MemberRole::Removed);
            let added = added.map(|m| m.member.0).max();
            answer.get_mut().member = added.unwrap_or(member);
        }
        Ok(answer)
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let action = MembershipAction::Promote { member: MemberId(request.member) };
        self.change(action, request.force_unsafe, &request.request_id, &request.actor, deadline).await
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let action = MembershipAction::Remove { member: MemberId(request.member) };
        self.change(action, request.force_unsafe, &request.request_id, &request.actor, deadline).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let (deadline, forwarded) = (deadline(request.metadata()), is_forwarded(request.metadata()));
        let request = request.into_inner();
        let to = Some(MemberId(request.to)).filter(|m| m.0 > 0);
        let mut last = "no server leads right now".to_owned();
        while Instant::now() < deadline {
            let reply = self.handle.ask(|ticket| Input::TransferLeader { ticket, to }).await;
            match reply.map_err(|e| unavailable(e.to_string()))? {
                Reply::TransferStarted(target) => match self.await_leader(to, target, deadline).await? {
                    Some(response) => return Ok(response),
                    // Raft gives a transfer up after an election time-out: it is asked for again.
                    None => last = format!("member {target} has not taken over: it may be too far behind"),
                },
                Reply::NotLeader(Some(leader)) if !forwarded => {
                    match self.forward_transfer(leader, request, deadline).await {
                        Err(status) if status.code() == tonic::Code::Unavailable => {
                            last = status.message().to_owned();
                        }
                        answer => return answer,
                    }
                }
                Reply::NotLeader(None) => {}
                other => return Err(Self::refusal(other)),
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        Err(unavailable(last))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let status = self.status_now().ok_or_else(|| unavailable("the server is starting"))?;
        let state = self.views.state();
        let leader_address = status.leader.and_then(|l| state.member(l)).map(|m| m.address.to_string());
        let oldest_revision = Past::oldest(self).await?;
        let role = match status.role {
            Role::Leader => v1::RaftRole::Leader,
            Role::Follower | Role::Learner => v1::RaftRole::Follower,
        };
        Ok(Response::new(v1::StatusResponse {
            cluster_id: self.identity.cluster_id.to_string(),
            member: self.identity.member.0,
            version: crate::VERSION.to_owned(),
            role: role.into(),
            leader: status.leader.map_or(0, |m| m.0),
            leader_address: leader_address.unwrap_or_default(),
            term: status.term,
            last_index: status.last_index,
            committed_index: status.commit_index,
            applied_index: status.applied_index,
            first_index: status.first_index,
            snapshot_index: status.snapshot_index,
            revision: status.revision,
            oldest_revision,
            feature_level: state.feature_level(),
            feature_level_max: self.identity.feature_level_max,
            digest: format!("{:032x}", status.digest),
            digest_version: DIGEST_VERSION,
            disk: bulkhead_storage::DiskSpace::of(&self.data_dir).ok().map(|space| v1::DiskUsage {
                free_bytes: space.free_bytes,
                total_bytes: space.total_bytes,
                ..v1::DiskUsage::default()
            }),
            alarm: if self.is_disk_full() { DISK_FULL.to_owned() } else { String::new() },
            backup: self.backups.status(),
        }))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let deadline = deadline(request.metadata());
        let wanted = self.status_now().map_or(0, |s| s.applied_index);
        self.handle.tell(Input::TakeSnapshot).await.map_err(|e| unavailable(e.to_string()))?;
        let mut status = self.views.status.clone();
        let saved = |s: &Option<ServerStatus>| s.as_ref().is_some_and(|s| s.snapshot_index >= wanted);
        match timeout_at(deadline, status.wait_for(saved)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(unavailable("the server is shutting down")),
            Err(_) => return Err(Status::deadline_exceeded("the snapshot is still being written")),
        }
        let snapshots = self.snapshots.clone();
        let info = tokio::task::spawn_blocking(move || snapshots.latest()).await;
        let info = info
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| Status::data_loss(e.to_string()))?;
        let info = info.ok_or_else(|| Status::internal("the snapshot is gone"))?;
        let (index, revision) = (info.meta.index, info.meta.revision);
        Ok(Response::new(v1::TakeSnapshotResponse { index, revision, size_bytes: info.bytes }))
    }

    async fn check(&self, _: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let state = self.views.state();
        let check = move || {
            let violations = invariant::check(&state);
            (violations, state.revision(), state.objects().count() as u64)
        };
        let (violations, revision, objects_checked) =
            tokio::task::spawn_blocking(check).await.map_err(|e| Status::internal(e.to_string()))?;
        let wire = |violation: &invariant::Violation| {
            let message = violation.to_string();
            let invariant = message.split(['(', ' ']).next().unwrap_or_default().to_owned();
            v1::Violation { invariant, message, object: None }
        };
        let violations = violations.iter().map(wire).collect();
        Ok(Response::new(v1::CheckResponse { violations, revision, objects_checked }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupChunk, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let view = self.linearizable_view(deadline(request.metadata())).await?;
        let header = view
            .backup_header(self.identity.member)
            .ok_or_else(|| unavailable("the cluster has no identity yet"))?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK_BYTES, ChunkSender(sender));
            // A receiver that is gone is the only way in which this fails: nobody to tell.
            let _ = write_backup(&view.state, &header, &ProtoCodec, &mut out).and_then(|()| out.flush());
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn set_feature_level(
        &self,
        request: Request<v1::SetFeatureLevelRequest>,
    ) -> Result<Response<v1::SetFeatureLevelResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        if request.level == 0 {
            return Err(invalid("level", "must be at least 1"));
        }
        let request_id = parse_request_id(&request.request_id).map_err(|e| convert_status(&e))?;
        let stamped = Stamped {
            request_id: request_id.unwrap_or_else(Uuid::new_v4),
            actor: parse_actor(&request.actor).map_err(|e| convert_status(&e))?,
            proposed_at_ms: 0,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![Command::RaiseFeatureLevel { level: request.level }],
        };
        let transaction = self.proposer.submit(stamped, Wanted::Revision, deadline).await?;
        let revision = transaction.outcome.as_ref().copied().unwrap_or_default();
        let state = self.read(true, revision, deadline).await?;
        Ok(Response::new(v1::SetFeatureLevelResponse { level: state.feature_level(), revision }))
    }
}

/// Bytes of a backup on their way to a client.
struct ChunkSender(mpsc::Sender<Result<v1::BackupChunk, Status>>);

impl Write for ChunkSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let chunk = v1::BackupChunk { data: bytes.to_vec().into() };
        self.0.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

impl Api {
    fn status_now(&self) -> Option<ServerStatus> {
        self.views.status.borrow().clone()
    }

    /// A moment of this replica that has everything that was acknowledged before the call.
    async fn linearizable_view(&self, deadline: Instant) -> Result<View, Status> {
        self.read(false, 0, deadline).await?;
        Ok(self.views.view.borrow().clone())
    }

    async fn change(
        &self,
        action: MembershipAction,
        force_unsafe: bool,
        request_id: &str,
        actor: &str,
        deadline: Instant,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        let (MembershipAction::AddLearner { member, .. }
        | MembershipAction::Promote { member }
        | MembershipAction::Remove { member }) = &action;
        let member = member.0;
        let request_id =
            parse_request_id(request_id).map_err(|e| convert_status(&e))?.unwrap_or_else(Uuid::new_v4);
        let actor = parse_actor(actor).map_err(|e| convert_status(&e))?;
        let change = MembershipChange { request_id, actor, proposed_at_ms: 0, action, force_unsafe };
        let outcome =
            self.proposer.propose(LogRecord::Membership(change), Wanted::Revision, deadline).await?;
        let transaction = outcome.map_err(|rejection| rejection_status(&rejection))?;
        let revision = transaction.outcome.as_ref().copied().unwrap_or_default();
        let cluster_id = self.identity.cluster_id.to_string();
        Ok(Response::new(v1::MembershipResponse { member, revision, cluster_id }))
    }

    /// Lets the leader do it.
    async fn forward_transfer(
        &self,
        leader: MemberId,
        request: v1::TransferLeaderRequest,
        deadline: Instant,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let mut passed_on = Request::new(request);
        passed_on.set_timeout(deadline.saturating_duration_since(Instant::now()));
        passed_on.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        let mut leader = ClusterClient::new(self.proposer.channel(leader)?);
        let answer = timeout_at(deadline, leader.transfer_leader(passed_on)).await;
        answer.unwrap_or_else(|_| Err(unavailable("the leader does not answer")))
    }

    /// Waits a while until a member leads: the one that was asked for, or any other than this one.
    async fn await_leader(
        &self,
        asked: Option<MemberId>,
        target: MemberId,
        deadline: Instant,
    ) -> Result<Option<Response<v1::TransferLeaderResponse>>, Status> {
        let own = self.identity.member;
        let done = |leader: MemberId| leader == target || (asked.is_none() && leader != own);
        let leads = |s: &Option<ServerStatus>| s.as_ref().and_then(|s| s.leader).is_some_and(done);
        let mut status = self.views.status.clone();
        let until = deadline.min(Instant::now() + TRANSFER_PATIENCE);
        match timeout_at(until, status.wait_for(leads)).await {
            Ok(Ok(status)) => {
                let (leader, term) =
                    status.as_ref().map_or((target, 0), |s| (s.leader.unwrap_or(target), s.term));
                Ok(Some(Response::new(v1::TransferLeaderResponse { leader: leader.0, term })))
            }
            Ok(Err(_)) => Err(unavailable("the server is shutting down")),
            Err(_) => Ok(None),
        }
    }
}
