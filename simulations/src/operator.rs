//! The operator: changes the members, one change at a time, by looking at the members as they are and doing the
//! next step.

use bulkhead_types::{MemberId, MemberRole, MembershipAction, MembershipChange};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::clock::Micros;
use crate::message::{Body, Envelope, Request};
use crate::network::Host;
use crate::world::{Event, World};

/// How often the operator looks, in microseconds.
const LOOK_US: Micros = 700_000;
/// How often a visit ends when the operator looks.
const VISIT_ENDS_PERMILLE: u64 = 150;

/// One change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// One server takes another one's place.
    Replace {
        /// Who goes.
        leaves: MemberId,
        /// Who comes.
        joins: MemberId,
    },
    /// One voter more.
    Grow {
        /// Who comes.
        joins: MemberId,
    },
    /// One voter less.
    Shrink {
        /// Who goes.
        leaves: MemberId,
    },
    /// A learner comes, and goes without having voted.
    Visit {
        /// Who.
        visitor: MemberId,
    },
}

impl Change {
    fn joins(self) -> Option<MemberId> {
        match self {
            Self::Replace { joins, .. } | Self::Grow { joins } => Some(joins),
            Self::Visit { visitor } => Some(visitor),
            Self::Shrink { .. } => None,
        }
    }

    fn leaves(self) -> Option<MemberId> {
        match self {
            Self::Replace { leaves, .. } | Self::Shrink { leaves } => Some(leaves),
            Self::Visit { visitor } => Some(visitor),
            Self::Grow { .. } => None,
        }
    }
}

impl World {
    /// Begins a change of the members; tells whether it did. One is made at a time, and only between members
    /// that are what the change takes them for.
    pub(crate) fn begin_change(&mut self, change: Change) -> bool {
        let is_voter =
            |member| self.chronicle.state().member(member).is_some_and(|r| r.role == MemberRole::Voter);
        let known = |member| self.chronicle.state().member(member).is_some();
        let sound = match change {
            Change::Replace { leaves, joins } => is_voter(leaves) && !known(joins),
            Change::Grow { joins: joining } | Change::Visit { visitor: joining } => !known(joining),
            Change::Shrink { leaves } => is_voter(leaves) && self.chronicle.state().voters().count() > 3,
        };
        if self.replacement.is_some() || !sound {
            return false;
        }
        self.replacement = Some(change);
        self.note(Host::World, "change", 0, || format!("{change:?}"));
        self.queue.push(self.now_us, Event::Operate);
        true
    }

    /// The operator looks what is to be done next.
    pub(crate) fn operate(&mut self) {
        let Some(change) = self.replacement else { return };
        let Some(request) = self.next_step(change) else {
            self.replacement = None;
            self.changed_us = self.now_us;
            return;
        };
        self.queue.push(self.now_us + LOOK_US, Event::Operate);
        if let Some(leader) = self.leader() {
            let request = Envelope { origin: Host::World, call: 0, via: None, content: request };
            self.send(Host::World, Host::Server(leader), Body::Request(request));
        }
    }

    fn role(&self, member: MemberId) -> Option<MemberRole> {
        self.chronicle.state().member(member).map(|record| record.role)
    }

    fn next_step(&mut self, change: Change) -> Option<Request> {
        if let Some(joins) = change.joins() {
            match self.role(joins) {
                None => {
                    let address = SmolStr::new(format!("server-{joins}:7400"));
                    return Some(self.member_step(MembershipAction::AddLearner { member: joins, address }));
                }
                Some(MemberRole::Learner) => {
                    let starts = !self.servers.contains_key(&joins);
                    if starts {
                        self.add_server(joins, None);
                    }
                    if !matches!(change, Change::Visit { .. }) {
                        return Some(self.member_step(MembershipAction::Promote { member: joins }));
                    }
                    // A visitor has time to be sent a snapshot.
                    if starts || !self.operator_rng.chance(VISIT_ENDS_PERMILLE) {
                        return Some(Request::Read);
                    }
                }
                Some(MemberRole::Voter | MemberRole::Removed) => {}
            }
        }
        let leaves = change.leaves()?;
        if self.role(leaves).is_none_or(|role| role == MemberRole::Removed) {
            return None;
        }
        if self.leader() == Some(leaves) {
            return Some(Request::Transfer(change.joins()));
        }
        Some(self.member_step(MembershipAction::Remove { member: leaves }))
    }

    fn member_step(&mut self, action: MembershipAction) -> Request {
        let (request_id, actor) = (self.operator_rng.uuid(), SmolStr::new_static("user:operator"));
        let force_unsafe = false;
        let change = MembershipChange { request_id, actor, proposed_at_ms: 0, action, force_unsafe };
        Request::Membership(Box::new(change))
    }
}
