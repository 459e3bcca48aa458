//! The session with a server: registered, then reports up, intents and answers down.
//!
//! ```text
//!  driver ─ Join ───► next server: Agents.Join ─► Joined ─► Agents.Connect ═══ stream ═══
//!         ─ Report ─►                                          │ intent, ack ─► driver
//!         ◄─ Disconnected ◄── broken, refused, replaced ───────┘
//! ```
//! The core asks for the next session; the attempts never end, their pauses are bounded.

use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_proto::v1;
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_types::{AgentReport, NodeFacts};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::belonging::Belonging;
use crate::error::{AgentError, chain};

/// First and longest pause between attempts to register.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a registration may take: it is a command and waits for a leader.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Dead connections are noticed by pings.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a session is begun anew that somebody else's ended: two agents of one name must not race.
const REPLACED_PAUSE: Duration = Duration::from_secs(30);
/// Most reports that wait to be sent; the core repeats what gets lost.
const REPORTS_MAX: usize = 16;
/// Largest message from a server: an intent of 4096 pods.
const MESSAGE_LENGTH_MAX: usize = 64 << 20;

/// What the driver asks for.
#[derive(Debug)]
pub(crate) enum Order {
    /// A new session.
    Join,
    /// A report in the session that there is.
    Report(Box<AgentReport>),
}

/// How a session ended.
enum End {
    /// The driver wants another one.
    Wanted,
    /// It broke.
    Broken,
    /// Another agent of this name registered.
    Replaced,
    /// The agent ends.
    Over,
}

/// The agent's side of the sessions.
#[derive(Debug)]
pub(crate) struct Session {
    name: String,
    /// Others than before: the node is registered anew.
    facts: watch::Receiver<NodeFacts>,
    belonging: Belonging,
    servers: Vec<Endpoint>,
    next: usize,
    orders: mpsc::Receiver<Order>,
    inputs: mpsc::Sender<Input>,
}

impl Session {
    pub(crate) fn new(
        name: &str,
        servers: &[String],
        facts: watch::Receiver<NodeFacts>,
        belonging: Belonging,
        orders: mpsc::Receiver<Order>,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, AgentError> {
        if servers.is_empty() {
            return Err(AgentError::NoServers);
        }
        let endpoint = |server: &String| {
            let url = if server.contains("://") { server.clone() } else { format!("http://{server}") };
            Endpoint::from_shared(url)
                .map(|endpoint| {
                    endpoint
                        .connect_timeout(CONNECT_TIMEOUT)
                        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                        .tcp_nodelay(true)
                })
                .map_err(|source| AgentError::InvalidServer { server: server.clone(), source })
        };
        let servers = servers.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        // Agents spread over the servers without a word between them.
        let next = name.bytes().map(usize::from).sum::<usize>() % servers.len();
        Ok(Self { name: name.to_owned(), facts, belonging, servers, next, orders, inputs })
    }

    /// Runs until the driver is gone.
    pub(crate) async fn run(mut self) {
        let mut wanted = false;
        loop {
            if !wanted {
                match self.orders.recv().await {
                    Some(Order::Join) => {}
                    // Of a session that is gone.
                    Some(Order::Report(_)) => continue,
                    None => return,
                }
            }
            let Some((client, joined)) = self.join().await else { return };
            if self.inputs.send(Input::Joined(joined)).await.is_err() {
                return;
            }
            let end = self.connected(client, joined.incarnation).await;
            wanted = matches!(end, End::Wanted);
            // The core must know before any pause: its lease runs.
            if matches!(end, End::Over) || (!wanted && self.inputs.send(Input::Disconnected).await.is_err()) {
                return;
            }
            if matches!(end, End::Replaced) {
                tracing::error!(
                    node = self.name,
                    "another agent registered under this node's name; stop one of the two"
                );
                tokio::time::sleep(REPLACED_PAUSE).await;
            }
        }
    }

    /// Registers with one server after the other until one takes it; `None` when the agent ends.
    async fn join(&mut self) -> Option<(AgentsClient<Channel>, bulkhead_types::Joined)> {
        let mut pause = RETRY_FIRST;
        let mut attempts: u64 = 0;
        loop {
            self.facts.mark_unchanged();
            let endpoint = self.servers[self.next].clone();
            self.next = (self.next + 1) % self.servers.len();
            let attempt = self.try_join(&endpoint).await;
            let attempt = attempt.and_then(|(client, joined, cluster_id)| {
                self.belonging.learn(&cluster_id).map(|()| (client, joined))
            });
            match attempt {
                Ok(joined) => {
                    tracing::info!(server = %endpoint.uri(), incarnation = joined.1.incarnation, "joined");
                    return Some(joined);
                }
                Err(error) if attempts == 0 => tracing::warn!(server = %endpoint.uri(), error, "cannot join"),
                Err(error) => tracing::debug!(server = %endpoint.uri(), error, "cannot join"),
            }
            attempts += 1;
            // All servers are asked before the first pause.
            if attempts.is_multiple_of(self.servers.len() as u64) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LAST),
                    () = self.inputs.closed() => return None,
                }
            }
        }
    }

    async fn try_join(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(AgentsClient<Channel>, bulkhead_types::Joined, String), String> {
        let work = async {
            let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
            let mut client = AgentsClient::new(channel).max_decoding_message_size(MESSAGE_LENGTH_MAX);
            let request = v1::JoinRequest {
                node: self.name.clone(),
                facts: Some((&*self.facts.borrow()).into()),
                cluster_id: self.belonging.cluster_id().to_owned(),
            };
            let response = client.join(request).await.map_err(|status| chain(&status))?;
            let mut response = response.into_inner();
            let cluster_id = std::mem::take(&mut response.cluster_id);
            let joined = response.try_into().map_err(|error| chain(&error as _))?;
            Ok((client, joined, cluster_id))
        };
        match tokio::time::timeout(JOIN_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", JOIN_TIMEOUT.as_secs())),
        }
    }

    async fn connected(&mut self, mut client: AgentsClient<Channel>, incarnation: u64) -> End {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let call = client.connect(ReceiverStream::new(receiver));
        tokio::pin!(call);
        let mut stream = None;
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return End::Over,
                    Some(Order::Join) => return End::Wanted,
                    // Of the session before.
                    Some(Order::Report(report)) if report.incarnation != incarnation => {}
                    Some(Order::Report(report)) => {
                        let report = v1::agent_message::Message::Report(v1::AgentReport::from(&*report));
                        let message = v1::AgentMessage { message: Some(report) };
                        if reports.try_send(message).is_err() {
                            tracing::debug!("a report is left out: the server does not take them");
                        }
                    }
                },
                Ok(()) = self.facts.changed() => {
                    tracing::info!(node = self.name, "the machine is other than before: the node is registered anew");
                    return End::Broken;
                }
                // A server may answer only once it has seen the first report.
                response = &mut call, if stream.is_none() => match response {
                    Ok(response) => stream = Some(response.into_inner()),
                    Err(status) => {
                        tracing::warn!(%status, "the session was refused");
                        return End::Broken;
                    }
                },
                message = next(&mut stream), if stream.is_some() => match message {
                    Ok(Some(message)) => {
                        if let Some(end) = self.take(message).await {
                            return end;
                        }
                    }
                    Ok(None) => return End::Broken,
                    Err(status) => {
                        tracing::warn!(%status, "the session broke");
                        return End::Broken;
                    }
                },
            }
        }
    }

    async fn take(&self, message: v1::ServerMessage) -> Option<End> {
        use v1::server_message::Message;
        let input = match message.message? {
            Message::Intent(intent) => intent.try_into().map(Input::Intent),
            Message::Ack(ack) => ack.try_into().map(Input::Ack),
            Message::SessionReplaced(_) => return Some(End::Replaced),
        };
        match input {
            Ok(input) => self.inputs.send(input).await.is_err().then_some(End::Over),
            Err(error) => {
                tracing::error!(%error, "the server sent something that cannot be understood");
                Some(End::Broken)
            }
        }
    }
}

async fn next(
    stream: &mut Option<tonic::Streaming<v1::ServerMessage>>,
) -> Result<Option<v1::ServerMessage>, tonic::Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => Ok(None),
    }
}
