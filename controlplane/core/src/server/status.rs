//! What a server tells about itself.

use bulkhead_types::{MemberId, MemberRole};

use super::Server;

/// What a server is in Raft's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows, and votes.
    Follower,
    /// It follows only.
    Learner,
}

/// How far a peer is, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Who.
    pub member: MemberId,
    /// The last entry that its log is known to have.
    pub matched: u64,
    /// Whether it was heard lately.
    pub heard: bool,
}

/// What a server tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Who it is.
    pub member: MemberId,
    /// What it is.
    pub role: Role,
    /// The present term.
    pub term: u64,
    /// The leader, when known.
    pub leader: Option<MemberId>,
    /// The first index that its log still has.
    pub first_index: u64,
    /// The last index of its log.
    pub last_index: u64,
    /// The last index that a quorum is known to have.
    pub commit_index: u64,
    /// The last index applied.
    pub applied_index: u64,
    /// The index of its newest durable snapshot.
    pub snapshot_index: u64,
    /// The last revision.
    pub revision: u64,
    /// The State's digest.
    pub digest: u128,
    /// Submissions that wait to be proposed.
    pub queued: usize,
    /// Whether the disk is full.
    pub disk_full: bool,
    /// The other members, on a leader.
    pub peers: Vec<PeerProgress>,
}

impl Server {
    /// What this server tells about itself.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        let role = match (self.replica.is_leader(), self.replica.is_voter()) {
            (true, _) => Role::Leader,
            (false, true) => Role::Follower,
            (false, false) => Role::Learner,
        };
        ServerStatus {
            member: self.config.member,
            role,
            term: self.replica.term(),
            leader: self.replica.leader(),
            first_index: self.replica.log().first(),
            last_index: self.replica.last_index(),
            commit_index: self.replica.commit_index(),
            applied_index: self.applied_index,
            snapshot_index: self.replica.log().snapshot_point().index,
            revision: self.state().revision(),
            digest: self.state().digest(),
            queued: self.proposals.queued(),
            disk_full: self.disk_full,
            peers: self.peers(),
        }
    }

    /// The configuration that its Raft goes by: those whose votes count, and those who only learn.
    #[must_use]
    pub fn configuration(&self) -> (Vec<MemberId>, Vec<MemberId>) {
        let conf = self.replica.conf_state();
        let learners = conf.get_learners().iter().chain(conf.get_learners_next());
        let voters = conf.get_voters().iter().copied().map(MemberId).collect();
        (voters, learners.copied().map(MemberId).collect())
    }

    /// Whether this server leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.replica.is_leader()
    }

    /// The leader, when known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.replica.leader()
    }

    fn peers(&self) -> Vec<PeerProgress> {
        let present = self
            .state()
            .members()
            .filter(|m| m.role != MemberRole::Removed && m.member != self.config.member);
        let progress = |member: MemberId| {
            Some(PeerProgress {
                member,
                matched: self.replica.matched(member)?,
                heard: self.is_heard(member),
            })
        };
        present.filter_map(|m| progress(m.member)).collect()
    }
}
