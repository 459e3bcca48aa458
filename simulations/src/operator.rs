//! The operator: replaces servers, one at a time, by looking at the members as they are and doing the next step.

use bulkhead_types::{MemberId, MemberRole, MembershipAction, MembershipChange};
use smol_str::SmolStr;

use crate::clock::Micros;
use crate::message::{Body, Envelope, Request};
use crate::network::Host;
use crate::world::{Event, World};

/// How often the operator looks, in microseconds.
const LOOK_US: Micros = 700_000;

/// One server that takes another one's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacement {
    leaves: MemberId,
    joins: MemberId,
}

impl World {
    /// Begins to replace a server, unless one is being replaced already.
    pub(crate) fn fault_member_change(&mut self) {
        if self.replacement.is_some() {
            return;
        }
        let state = self.chronicle.state();
        let voters: Vec<MemberId> = state.voters().map(|record| record.member).collect();
        let Some(last) = self.servers.keys().next_back().copied().filter(|_| !voters.is_empty()) else {
            return;
        };
        let replacement =
            Replacement { leaves: *self.nemesis.rng.pick(&voters), joins: MemberId(last.0 + 1) };
        self.replacement = Some(replacement);
        self.nemesis.count("member change");
        self.note(Host::World, "replace", u128::from(replacement.leaves.0), || format!("{replacement:?}"));
        self.queue.push(self.now_us, Event::Operate);
    }

    /// The operator looks what is to be done next.
    pub(crate) fn operate(&mut self) {
        let Some(Replacement { leaves, joins }) = self.replacement else { return };
        let role = |member| self.chronicle.state().member(member).map(|record| record.role);
        let (joining, leaving) = (role(joins), role(leaves));
        let leader = self.leader();
        let request = match (joining, leaving) {
            (None, _) => change(
                &mut self.nemesis.rng,
                MembershipAction::AddLearner {
                    member: joins,
                    address: SmolStr::new(format!("server-{joins}:7400")),
                },
            ),
            (Some(MemberRole::Learner), _) => {
                if !self.servers.contains_key(&joins) {
                    self.add_server(joins, None);
                }
                change(&mut self.nemesis.rng, MembershipAction::Promote { member: joins })
            }
            (Some(MemberRole::Voter), Some(MemberRole::Voter)) if leader == Some(leaves) => {
                Request::Transfer(Some(joins))
            }
            (Some(MemberRole::Voter), Some(MemberRole::Voter)) => {
                change(&mut self.nemesis.rng, MembershipAction::Remove { member: leaves })
            }
            _ => {
                self.replacement = None;
                return;
            }
        };
        self.queue.push(self.now_us + LOOK_US, Event::Operate);
        if let Some(leader) = leader {
            let request = Envelope { origin: Host::World, call: 0, via: None, content: request };
            self.send(Host::World, Host::Server(leader), Body::Request(request));
        }
    }
}

fn change(rng: &mut crate::rng::Rng, action: MembershipAction) -> Request {
    let (request_id, actor) = (rng.uuid(), SmolStr::new_static("user:operator"));
    Request::Membership(Box::new(MembershipChange { request_id, actor, proposed_at_ms: 0, action }))
}
