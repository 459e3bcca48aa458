//! `Agents`: registration, reports, intents.

use std::pin::Pin;

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::server::{Input, Reply};
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::agents_server::Agents;
use bulkhead_proto::v1::server_message::Message as ServerMessage;
use bulkhead_proto::{Registration, v1};
use bulkhead_types::{AgentReport, Command, EventKind, Joined, Object, ObjectId, Stamped, Transaction};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::Api;
use crate::deadline::deadline;
use crate::error::{RETRY_AFTER, convert_status, unavailable};
use crate::propose::Wanted;

/// How long one report may take: a heartbeat's answer that comes later is worth nothing.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait for a slow agent.
const QUEUE_MAX: usize = 16;

#[tonic::async_trait]
impl Agents for Api {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.check_agent_cluster(&request.get_ref().cluster_id)?;
        let Registration { name, facts } =
            Registration::try_from(request.into_inner()).map_err(|e| convert_status(&e))?;
        // What servers of the cluster's level do not know they are not told; an agent that registers again tells it anew.
        let facts = facts.at_level(self.views.state().feature_level());
        let stamped = Stamped {
            request_id: Uuid::new_v4(),
            actor: SmolStr::new(format!("agent:{name}")),
            proposed_at_ms: 0,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![Command::RegisterNode { name: name.clone(), facts }],
        };
        let transaction = self.proposer.submit(stamped, Wanted::Transaction, deadline).await?;
        let (node, incarnation) = session_of(&transaction)
            .ok_or_else(|| unavailable("the registration was answered from memory; register again"))?;
        tracing::info!(node = %name, incarnation, "agent joined");
        let joined = Joined { node, incarnation, lease_ms: self.lease_ms, heartbeat_ms: self.heartbeat_ms };
        let cluster_id = self.identity.cluster_id.to_string();
        Ok(Response::new(v1::JoinResponse { cluster_id, ..(&joined).into() }))
    }

    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ServerMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages
            .next()
            .await
            .ok_or_else(|| Status::invalid_argument("the first message is a report"))??;
        let first = report_of(first)?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let session = Session { api: self.clone(), node: first.node, incarnation: first.incarnation, sender };
        tokio::spawn(session.run(first, messages));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report(&self, request: Request<v1::AgentReport>) -> Result<Response<v1::AgentAck>, Status> {
        let report = AgentReport::try_from(request.into_inner()).map_err(|e| convert_status(&e))?;
        let reply = self.handle.ask(|ticket| Input::Agent { ticket, report }).await;
        match reply.map_err(|e| unavailable(e.to_string()))? {
            Reply::Agent(ack) => Ok(Response::new((&ack).into())),
            other => Err(Self::refusal(other)),
        }
    }
}

/// Node and incarnation that a registration made.
fn session_of(transaction: &Transaction) -> Option<(ObjectId, u64)> {
    transaction.events.iter().find_map(|event| match &event.kind {
        EventKind::NodeRegistered { id, incarnation, .. } => Some((*id, *incarnation)),
        EventKind::ObjectCreated(Object::Node(node)) => Some((node.meta.id, node.status.incarnation)),
        _ => None,
    })
}

fn report_of(message: v1::AgentMessage) -> Result<AgentReport, Status> {
    let Some(v1::agent_message::Message::Report(report)) = message.message else {
        return Err(Status::invalid_argument("an agent's message is a report"));
    };
    AgentReport::try_from(report).map_err(|e| convert_status(&e))
}

/// One agent's connection.
struct Session {
    api: Api,
    node: ObjectId,
    incarnation: u64,
    sender: mpsc::Sender<Result<v1::ServerMessage, Status>>,
}

/// The session is over; the agent was told what there is to tell.
struct Over;

impl Session {
    async fn run(self, first: AgentReport, messages: Streaming<v1::AgentMessage>) {
        self.api.metrics.agents.inc();
        tokio::select! {
            // Each of the two ends by the other's end, too.
            _ = self.take_reports(first, messages) => {}
            _ = self.send_intents() => {}
        }
        self.api.metrics.agents.dec();
    }

    async fn take_reports(
        &self,
        first: AgentReport,
        mut messages: Streaming<v1::AgentMessage>,
    ) -> Result<(), Over> {
        let mut next = Ok(first);
        loop {
            match next {
                Ok(report) if (report.node, report.incarnation) == (self.node, self.incarnation) => {
                    self.take_report(report).await?;
                }
                Ok(_) => {
                    return self
                        .fail(Status::invalid_argument("a session is of one node and incarnation"))
                        .await;
                }
                Err(status) => return self.fail(status).await,
            }
            next = match messages.next().await {
                Some(Ok(message)) => report_of(message),
                Some(Err(_)) | None => return Err(Over),
            };
        }
    }

    /// Hands a report to the leader and its answer to the agent. A report that gets no answer is not answered:
    /// the agent sends it again, and counts its lease from what was answered.
    async fn take_report(&self, report: AgentReport) -> Result<(), Over> {
        match self.api.report_to_leader(report, Instant::now() + REPORT_TIMEOUT).await {
            Ok(ack) => self.send(ServerMessage::Ack(ack)).await,
            Err(status) if status.code() == tonic::Code::Unavailable => Ok(()),
            Err(status) => self.fail(status).await,
        }
    }

    async fn send_intents(&self) -> Result<(), Over> {
        let mut wake = self.api.intents.subscribe(self.node);
        loop {
            wake.mark_unchanged();
            let state = self.api.views.state();
            match intent_of(&state, self.node) {
                // This replica lags behind the registration: the intent comes with it.
                Some(intent) if intent.incarnation < self.incarnation => {}
                Some(intent) if intent.incarnation > self.incarnation => {
                    let replaced = v1::SessionReplaced { incarnation: intent.incarnation };
                    self.send(ServerMessage::SessionReplaced(replaced)).await?;
                    return Err(Over);
                }
                Some(intent) => self.send(ServerMessage::Intent((&intent).into())).await?,
                None => {}
            }
            if wake.changed().await.is_err() {
                return Err(Over);
            }
        }
    }

    async fn send(&self, message: ServerMessage) -> Result<(), Over> {
        self.sender.send(Ok(v1::ServerMessage { message: Some(message) })).await.map_err(|_| Over)
    }

    async fn fail(&self, status: Status) -> Result<(), Over> {
        // The agent may have gone already.
        let _ = self.sender.send(Err(status)).await;
        Err(Over)
    }
}

impl Api {
    /// What an agent of another cluster runs is not this one's business, and must not be touched by it.
    fn check_agent_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        let own = self.identity.cluster_id.to_string();
        if cluster_id.is_empty() || cluster_id == own {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "this agent belongs to cluster {cluster_id}, this server to cluster {own}; if this cluster was restored or \
             recovered from that one, start the agent with --adopt-cluster"
        )))
    }

    /// A report's answer: from here when this server leads, through the leader otherwise.
    async fn report_to_leader(&self, report: AgentReport, deadline: Instant) -> Result<v1::AgentAck, Status> {
        while Instant::now() < deadline {
            let asked = {
                let report = report.clone();
                timeout_at(deadline, self.handle.ask(|ticket| Input::Agent { ticket, report })).await
            };
            match asked {
                Ok(Ok(Reply::Agent(ack))) => return Ok((&ack).into()),
                Ok(Ok(Reply::NotLeader(Some(leader)))) => {
                    let mut client = AgentsClient::new(self.proposer.channel(leader)?);
                    match timeout_at(deadline, client.report(v1::AgentReport::from(&report))).await {
                        Ok(Ok(ack)) => return Ok(ack.into_inner()),
                        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {}
                        Ok(Err(status)) => return Err(status),
                        Err(_) => break,
                    }
                }
                Ok(Ok(Reply::NotLeader(None) | Reply::Lost)) => {}
                Ok(Ok(other)) => return Err(Self::refusal(other)),
                Ok(Err(stopped)) => return Err(unavailable(stopped.to_string())),
                Err(_) => break,
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        Err(unavailable("no server leads right now"))
    }
}
