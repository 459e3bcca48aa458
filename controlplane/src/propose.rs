//! Getting something into the log from any server: here when it leads, through the leader otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_controlplane_core::server::{Input, Reply, ServerStatus};
use bulkhead_proto::{Field, ProtoCodec, v1};
use bulkhead_types::{LogCodec, LogRecord, MemberId, Rejection, Revision, Stamped, Transaction};
use smol_str::SmolStr;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;
use v1::propose_response::Result as Proposed;

use crate::error::{RETRY_AFTER, disk_full, exhausted, rejection_status, unavailable};
use crate::forward::Forwarders;
use crate::handle::{Handle, Stopped};
use crate::transport::{Addresses, connect};

/// Largest record that a follower forwards, encoded.
pub(crate) const FORWARD_BYTES_MAX: usize = 4 << 20;

/// How one attempt ended.
pub(crate) enum Attempt {
    /// It is in the log.
    Done(Arc<Transaction>),
    /// It never will be.
    Rejected(Rejection),
    /// It is not, or that is not known; the leader, when known.
    Retry { leader: Option<MemberId>, reason: &'static str },
}

/// What a submitter wants to know of what became of its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Only its revision: events, time and trace of the answer may be missing.
    Revision,
    /// The whole transaction.
    Transaction,
}

/// Channels to whoever leads, kept between requests.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    handle: Handle,
    pub(crate) addresses: Addresses,
    channels: Arc<Mutex<BTreeMap<SmolStr, Channel>>>,
    forwarders: Forwarders,
}

impl Proposer {
    pub(crate) fn new(handle: Handle, addresses: Addresses) -> Self {
        Self { handle, addresses, channels: Arc::default(), forwarders: Forwarders::default() }
    }

    /// Gets a submission into the log, and answers once it is applied. Elections and lost leaders are waited
    /// out until the deadline: repeating is safe, because the request id makes it apply once.
    pub(crate) async fn submit(
        &self,
        stamped: Stamped,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Arc<Transaction>, Status> {
        self.submit_raw(stamped, wanted, deadline).await?.map_err(|rejection| rejection_status(&rejection))
    }

    /// The same, with a refusal as a value.
    pub(crate) async fn submit_raw(
        &self,
        stamped: Stamped,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Result<Arc<Transaction>, Rejection>, Status> {
        self.propose(LogRecord::Batch(vec![stamped]), wanted, deadline).await
    }

    /// The same for any record; a batch holds one submission.
    pub(crate) async fn propose(
        &self,
        record: LogRecord,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Result<Arc<Transaction>, Rejection>, Status> {
        let mut last_reason = "no answer yet";
        // What was published last may be old: after a failure the node thread itself is asked who leads.
        let mut known = self.other_leader();
        while Instant::now() < deadline {
            let leader = match known.take() {
                Some(leader) => Some(leader),
                None => {
                    let asked = timeout_at(deadline, self.attempt(record.clone())).await;
                    let Ok(attempt) = asked else { break };
                    match attempt? {
                        Attempt::Done(transaction) => return Ok(Ok(transaction)),
                        Attempt::Rejected(rejection) => return Ok(Err(rejection)),
                        Attempt::Retry { leader, reason } => {
                            last_reason = reason;
                            leader
                        }
                    }
                }
            };
            if let Some(leader) = leader {
                match timeout_at(deadline, self.forward(leader, &record, wanted)).await {
                    Ok(Ok(Attempt::Done(transaction))) => return Ok(Ok(transaction)),
                    Ok(Ok(Attempt::Rejected(rejection))) => return Ok(Err(rejection)),
                    Ok(Ok(Attempt::Retry { reason, .. })) => last_reason = reason,
                    Ok(Err(status)) if is_transient(&status) => last_reason = "the leader cannot be reached",
                    Ok(Err(status)) => return Err(status),
                    Err(_) => break,
                }
            }
            self.changed_leader(leader, deadline).await;
        }
        Err(unavailable(last_reason))
    }

    /// The leader, when it is known to be another server.
    fn other_leader(&self) -> Option<MemberId> {
        let status = self.addresses.views.status.borrow();
        status.as_ref().and_then(|s| s.leader.filter(|leader| *leader != s.member))
    }

    /// Waits until another leader is known, or for a moment: an election may end without a change of hands.
    async fn changed_leader(&self, known: Option<MemberId>, deadline: Instant) {
        let mut status = self.addresses.views.status.clone();
        let until = deadline.min(Instant::now() + RETRY_AFTER);
        let other = |status: &Option<ServerStatus>| {
            status.as_ref().is_some_and(|s| s.leader.is_some() && s.leader != known)
        };
        let changed = async {
            // What was published before the last answer may say less than the answer did.
            if known.is_none() {
                status.mark_unchanged();
                status.changed().await?;
            }
            status.wait_for(other).await.map(drop)
        };
        // Running out of time is one of the two ways in which this ends.
        let _ = timeout_at(until, changed).await;
    }

    /// One attempt on this server alone.
    pub(crate) async fn attempt(&self, record: LogRecord) -> Result<Attempt, Status> {
        let reply = match record {
            LogRecord::Batch(mut batch) => {
                let Some(stamped) = batch.pop().filter(|_| batch.is_empty()) else {
                    return Err(Status::invalid_argument("a forwarded batch holds one submission"));
                };
                self.handle.ask(|ticket| Input::Submit { ticket, stamped }).await
            }
            LogRecord::Membership(change) => {
                self.handle.ask(|ticket| Input::Membership { ticket, change }).await
            }
        };
        attempt_of(reply)
    }

    /// One attempt on another server.
    async fn forward(&self, leader: MemberId, record: &LogRecord, wanted: Wanted) -> Result<Attempt, Status> {
        let bytes = ProtoCodec.encode_log(record);
        if bytes.len() > FORWARD_BYTES_MAX {
            return Err(exhausted("the submission is too large; split it"));
        }
        let address =
            self.addresses.of(leader).ok_or_else(|| unavailable("the leader's address is not known"))?;
        let channel = self.channel(leader)?;
        let response = self.forwarders.send(address, channel, bytes, wanted == Wanted::Revision).await?;
        read_response(response, record)
    }

    /// A channel to a member, for whatever only the leader answers.
    pub(crate) fn channel(&self, member: MemberId) -> Result<Channel, Status> {
        let address =
            self.addresses.of(member).ok_or_else(|| unavailable("the leader's address is not known"))?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&address) {
            return Ok(channel.clone());
        }
        let channel = connect(&address).map_err(|e| unavailable(e.to_string()))?;
        channels.insert(address, channel.clone());
        Ok(channel)
    }
}

/// Whether another leader, or the same one later, may answer.
fn is_transient(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    // A connection that breaks in the middle of an answer is an unknown error to the client.
    matches!(status.code(), Unavailable | DeadlineExceeded | Cancelled | Unknown)
}

/// What the leader answered.
fn read_response(response: v1::ProposeResponse, record: &LogRecord) -> Result<Attempt, Status> {
    match response.result {
        Some(Proposed::Transaction(bytes)) => {
            let transaction =
                ProtoCodec.decode_transaction(&bytes).map_err(|e| Status::internal(e.to_string()))?;
            Ok(Attempt::Done(Arc::new(transaction)))
        }
        Some(Proposed::Revision(revision)) => Ok(Attempt::Done(Arc::new(brief(record, revision)))),
        Some(Proposed::Rejection(rejection)) => {
            let rejection = Field::from_wire(Some(rejection)).map_err(|e| Status::internal(e.to_string()))?;
            Ok(Attempt::Rejected(rejection))
        }
        Some(Proposed::Failed(failed)) => {
            Err(Status::with_details(failed.code.into(), failed.message, failed.details))
        }
        Some(Proposed::Retry(_)) | None => Ok(Attempt::Retry { leader: None, reason: "the leader changed" }),
    }
}

/// A transaction of which nothing but its revision is known.
fn brief(record: &LogRecord, revision: Revision) -> Transaction {
    let (request_id, actor) = match record {
        LogRecord::Batch(batch) => {
            batch.first().map(|stamped| (stamped.request_id, stamped.actor.clone())).unwrap_or_default()
        }
        LogRecord::Membership(change) => (change.request_id, change.actor.clone()),
    };
    Transaction {
        request_id,
        actor,
        at_ms: 0,
        trace_context: None,
        outcome: Ok(revision),
        events: Vec::new(),
    }
}

fn attempt_of(reply: Result<Reply, Stopped>) -> Result<Attempt, Status> {
    let retry = |leader, reason| Ok(Attempt::Retry { leader, reason });
    match reply.map_err(|stopped| unavailable(stopped.to_string()))? {
        Reply::Applied(transaction) => match &transaction.outcome {
            Ok(_) => Ok(Attempt::Done(transaction)),
            Err(rejection) => Ok(Attempt::Rejected(rejection.clone())),
        },
        Reply::Rejected(rejection) => Ok(Attempt::Rejected(rejection)),
        Reply::NotLeader(Some(leader)) => retry(Some(leader), "another server leads"),
        Reply::NotLeader(None) => {
            retry(None, "no server leads: an election is under way, or there is no quorum")
        }
        Reply::Lost => retry(None, "the leader changed while the request was under way"),
        Reply::Overloaded => Err(exhausted("too many requests wait already")),
        Reply::DiskFull => Err(disk_full()),
        other => Err(Status::internal(format!("a submission was answered with {other:?}"))),
    }
}

/// What a leader tells a follower that forwarded to it.
pub(crate) fn response_of(attempt: Attempt, is_brief: bool) -> v1::ProposeResponse {
    let result = match attempt {
        Attempt::Done(transaction) if is_brief => {
            Proposed::Revision(transaction.outcome.as_ref().copied().unwrap_or_default())
        }
        Attempt::Done(transaction) => {
            Proposed::Transaction(ProtoCodec.encode_transaction(&transaction).into())
        }
        Attempt::Rejected(rejection) => Proposed::Rejection((&rejection).into()),
        Attempt::Retry { leader, reason } => {
            let (leader, reason) = (leader.map_or(0, |m| m.0), reason.to_owned());
            Proposed::Retry(v1::ProposeRetry { leader, reason })
        }
    };
    v1::ProposeResponse { result: Some(result) }
}
