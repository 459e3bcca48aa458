//! What a server is asked, and what it answers: requests of clients and agents, and the streams to agents.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_controlplane_core::intent::{intent_of, nodes_touched};
use bulkhead_controlplane_core::server::{Input, Output, Reply, Server, Ticket};
use bulkhead_types::{
    Command, EventKind, Joined, Kind, MemberId, Name, Object, ObjectId, Stamped, Transaction,
};
use smol_str::SmolStr;

use super::{Session, Waiting};
use crate::message::{Body, Envelope, Request, Response};
use crate::network::Host;
use crate::watching::AfterRead;
use crate::world::World;

impl World {
    /// A request arrives at a server, which passes it on when another one leads.
    pub(crate) fn receive_request(&mut self, member: MemberId, request: Envelope<Request>) {
        let Some(up) = self.servers.get(&member).and_then(|h| h.up.as_ref()) else { return };
        let leader = up.server.leader().filter(|leader| *leader != member);
        let read = matches!(request.content, Request::Read | Request::Get { .. });
        if let Request::Report(report) = &request.content
            && request.via.is_none()
            && let Host::Agent(agent) = request.origin
            && up.sessions.get(&agent).is_none_or(|s| s.incarnation != report.incarnation)
        {
            let incarnation = report.incarnation;
            return self.send(Host::Server(member), request.origin, Body::Disconnected { incarnation });
        }
        if let Some(leader) = leader.filter(|_| request.via.is_none() && !read && !up.server.is_leader()) {
            let request = Envelope { via: Some(member), ..request };
            return self.send(Host::Server(member), Host::Server(leader), Body::Request(request));
        }
        self.serve(member, request);
    }

    fn serve(&mut self, member: MemberId, request: Envelope<Request>) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let ticket = up.take_ticket();
        let Envelope { origin, call, via, content } = request;
        let mut waiting = Waiting { origin, call, via, joins: None };
        let input = match content {
            Request::Submit(stamped) => Input::Submit { ticket, stamped: *stamped },
            Request::Read => Input::Read { ticket },
            Request::Get { object, at_least } => {
                let then = AfterRead::Get { origin, call, object };
                return match at_least {
                    Some(revision) => self.read_at_least(member, revision, then),
                    None => self.read_then(member, then),
                };
            }
            Request::Join { request_id, name, facts } => {
                waiting.joins = Some(name.clone());
                let stamped = Stamped {
                    request_id,
                    actor: SmolStr::new(format!("agent:{name}")),
                    proposed_at_ms: 0,
                    trace_context: None,
                    preconditions: Vec::new(),
                    commands: vec![Command::RegisterNode {
                        name,
                        facts: facts.at_level(up.server.state().feature_level()),
                    }],
                };
                Input::Submit { ticket, stamped }
            }
            Request::Report(report) => Input::Agent { ticket, report: *report },
            Request::Membership(change) => Input::Membership { ticket, change: *change },
            Request::Transfer(to) => Input::TransferLeader { ticket, to },
        };
        up.tickets.insert(ticket, waiting);
        self.give(member, input);
    }

    pub(super) fn reply(&mut self, member: MemberId, ticket: Ticket, reply: Reply) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        if let Some(then) = up.after_read.remove(&ticket) {
            return self.answer_read(member, then, &reply);
        }
        let Some(waiting) = up.tickets.remove(&ticket) else { return };
        let Waiting { origin, call, via, joins } = waiting;
        let content = match reply {
            Reply::Applied(transaction) => match joins {
                Some(name) => joined(&up.server, &name, &transaction),
                None => {
                    let Transaction { request_id, outcome, .. } = Arc::unwrap_or_clone(transaction);
                    Response::Done { request_id, outcome }
                }
            },
            Reply::ReadReady => Response::Read {
                revision: up.server.state().revision(),
                applied_index: up.server.applied_index(),
                digest: up.server.state().digest(),
            },
            Reply::Agent(ack) => {
                if let Host::Agent(agent) = origin {
                    self.agents[agent as usize].reports.acknowledge(ack);
                }
                Response::Ack(ack)
            }
            Reply::Rejected(rejection) => Response::Refused(rejection),
            Reply::NotLeader(leader) => Response::NotLeader(leader),
            Reply::Lost => Response::Lost,
            Reply::Overloaded | Reply::DiskFull => Response::Busy,
            Reply::TransferStarted(_) => Response::TransferStarted,
            Reply::Usage(_) => unreachable!("nobody in a simulation asks for it"),
        };
        let to = via.map_or(origin, Host::Server);
        self.send(Host::Server(member), to, Body::Response(Envelope { origin, call, via: None, content }));
    }

    /// An agent opens its stream: it gets the intent as soon as this server knows the session.
    pub(crate) fn connect_agent(&mut self, member: MemberId, agent: u32, node: ObjectId, incarnation: u64) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        up.sessions.insert(agent, Session { node, incarnation });
        self.send_intent(member, agent);
    }

    /// Ends a stream to an agent, as a broken connection does.
    pub(crate) fn cut_stream(&mut self, member: MemberId, agent: u32) {
        if let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) {
            up.sessions.remove(&agent);
        }
    }

    /// Sends intents to those agents whose node an entry touched.
    pub(super) fn push_intents(&mut self, member: MemberId, output: &Output) {
        let Some(up) = self.servers.get(&member).and_then(|h| h.up.as_ref()) else { return };
        if up.sessions.is_empty() {
            return;
        }
        let changes = output.applied.iter().flat_map(|e| &e.applied).flat_map(|a| &a.changes);
        let state = up.server.state();
        let touched: BTreeSet<ObjectId> = changes.flat_map(|change| nodes_touched(state, change)).collect();
        let all = output.installed.is_some();
        let agents: Vec<u32> = up
            .sessions
            .iter()
            .filter(|(_, session)| all || touched.contains(&session.node))
            .map(|(agent, _)| *agent)
            .collect();
        for agent in agents {
            self.send_intent(member, agent);
        }
    }

    fn send_intent(&mut self, member: MemberId, agent: u32) {
        let Some(up) = self.servers.get(&member).and_then(|h| h.up.as_ref()) else { return };
        let Some(session) = up.sessions.get(&agent) else { return };
        let intent = intent_of(up.server.state(), session.node);
        // A follower that lags does not know the session yet: its next entry about the node brings the intent.
        let Some(intent) = intent.filter(|i| i.incarnation >= session.incarnation) else { return };
        if intent.incarnation > session.incarnation {
            let incarnation = session.incarnation;
            self.cut_stream(member, agent);
            return self.send(Host::Server(member), Host::Agent(agent), Body::Disconnected { incarnation });
        }
        self.send(Host::Server(member), Host::Agent(agent), Body::Intent(Box::new(intent)));
    }
}

/// What a registration gave the agent. A repeated request has its answer without events: then the State tells.
fn joined(server: &Server, name: &Name, transaction: &Transaction) -> Response {
    if let Err(rejection) = &transaction.outcome {
        return Response::Refused(rejection.clone());
    }
    let found = transaction.events.iter().find_map(|event| match &event.kind {
        EventKind::NodeRegistered { id, incarnation, .. } => Some((*id, *incarnation)),
        EventKind::ObjectCreated(Object::Node(node)) => Some((node.meta.id, node.status.incarnation)),
        _ => None,
    });
    let known = || {
        let state = server.state();
        let node = state.nodes().get(state.find(Kind::Node, None, name)?)?;
        Some((node.meta.id, node.status.incarnation))
    };
    let Some((node, incarnation)) = found.or_else(known) else { return Response::Lost };
    let config = server.config();
    let (lease_ms, heartbeat_ms) = (config.reconcile.lease_ms, config.heartbeat_ms);
    Response::Joined(Joined { node, incarnation, lease_ms, heartbeat_ms })
}
