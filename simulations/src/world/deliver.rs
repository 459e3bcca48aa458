//! The way of a message: over the network, to whom it is for.

use bulkhead_controlplane_core::server::Input;
use bulkhead_types::MemberId;

use super::{Event, World};
use crate::message::Body;
use crate::network::{Host, Packet};

impl World {
    /// Sends something over the network.
    pub(crate) fn send(&mut self, from: Host, to: Host, body: Body) {
        if self.network.is_blocked(from, to) {
            self.stream_breaks(from, to, &body);
        }
        let packet = Packet { from, to, body };
        let (at_us, copy_us) = self.network.send(self.now_us, &packet);
        if let (Some(copy_us), Some(body)) = (copy_us, packet.body.copy()) {
            self.queue.push(copy_us, Event::Deliver(Box::new(Packet { from, to, body })));
        }
        if let Some(at_us) = at_us {
            self.queue.push(at_us, Event::Deliver(Box::new(packet)));
        }
    }

    pub(super) fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        if self.network.is_blocked(from, to) {
            self.stream_breaks(from, to, &body);
            return self.network.count_blocked();
        }
        let (label, digest) = body.summary();
        self.note(to, label, digest, || format!("from {from}: {}", body.text()));
        match to {
            Host::Server(member) => self.deliver_to_server(member, from, body),
            Host::Client(number) => self.deliver_to_client(number, body),
            Host::Agent(number) => self.deliver_to_agent(number, from, body),
            Host::World => {}
        }
    }

    /// Clients are numbered through: those of the workload, those with registers, watchers.
    fn deliver_to_client(&mut self, number: u32, body: Body) {
        let index = number as usize;
        let registers = self.clients.len() + self.registers.clients.len();
        match body {
            Body::Response(answer) if index < self.clients.len() => {
                self.receive_answer(number, answer.call, answer.content);
            }
            Body::Response(answer) => {
                self.answer_register(index - self.clients.len(), answer.call, answer.content);
            }
            Body::Watch(message) => self.tell_watcher(index - registers, message),
            _ => {}
        }
    }

    /// What cannot be delivered ends its stream: streams lose nothing in their middle.
    fn stream_breaks(&mut self, from: Host, to: Host, body: &Body) {
        match (from, to, body) {
            (Host::Server(member), Host::Agent(agent), Body::Intent(_)) => self.cut_stream(member, agent),
            (Host::Server(member), _, Body::Watch(message)) => self.cut_watch(member, message),
            _ => {}
        }
    }

    fn deliver_to_server(&mut self, member: MemberId, from: Host, body: Body) {
        match (body, from) {
            (Body::Peer(message), Host::Server(from)) => self.give(member, Input::Peer { from, message }),
            (Body::Request(request), _) => self.receive_request(member, request),
            // An answer on its way through the server that passed the request on.
            (Body::Response(answer), _) if self.servers.get(&member).is_some_and(|h| h.up.is_some()) => {
                let origin = answer.origin;
                self.send(Host::Server(member), origin, Body::Response(answer));
            }
            (Body::Chunk(chunk), Host::Server(from)) => self.receive_chunk(member, from, chunk),
            (Body::ChunkAnswer { transfer, next, taken }, _) => {
                self.receive_chunk_answer(member, transfer, next, taken);
            }
            (Body::Watch(message), _) => self.serve_watch(member, from, message),
            (Body::Connect { node, incarnation }, Host::Agent(agent)) => {
                self.connect_agent(member, agent, node, incarnation);
            }
            _ => {}
        }
    }
}
