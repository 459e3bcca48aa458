//! Replicas compare digests of their States at fixed places of the log.
//!
//! Every replica tells all others. One that differs from a majority of the voters stops at once: it is the one
//! that is wrong. One that differs from the leader alone waits a little for the others' word, because the leader
//! may be the one that is wrong; when no majority agrees with it by then, it stops.

use std::collections::BTreeMap;

use bulkhead_types::{DIGEST_VERSION, MemberId, MemberRole};

use super::{Fatal, PeerMessage, Server};

/// How many places are kept to be compared.
const KEPT_MAX: usize = 8;
/// Election time-outs for which a replica that differs from the leader waits for the others' word.
const DOUBT_ELECTIONS: u64 = 2;

/// A difference from the leader that no majority has judged yet.
#[derive(Clone, Debug)]
struct Doubt {
    since_ticks: u64,
    fatal: Fatal,
}

/// Digests by entry.
#[derive(Debug, Default)]
pub(super) struct Digests {
    own: BTreeMap<u64, u128>,
    heard: BTreeMap<u64, BTreeMap<MemberId, u128>>,
    /// The first one that is not lifted.
    doubt: Option<Doubt>,
}

impl Digests {
    /// Forgets own digests: the State was replaced.
    pub(super) fn reset(&mut self) {
        self.own.clear();
        self.doubt = None;
    }

    fn bound(&mut self) {
        while self.own.len() > KEPT_MAX {
            self.own.pop_first();
        }
        // What was heard about entries far ahead is kept least long: this replica may never apply them itself.
        while self.heard.len() > KEPT_MAX {
            self.heard.pop_first();
        }
    }
}

/// What the digests at one entry say about this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A majority of the voters agrees with this one.
    Sound,
    /// Nothing speaks against it so far.
    Unknown,
    /// It differs from the leader's, and who is right is not known yet.
    Doubtful {
        /// The leader's digest.
        expected: u128,
    },
    /// A majority of the voters has another digest.
    Outvoted {
        /// One of them.
        by: MemberId,
        /// Theirs.
        expected: u128,
    },
}

/// Judges `own` by what the others said. `voters` are all voters, this replica too if it is one.
fn judge(
    own: (MemberId, u128),
    heard: &BTreeMap<MemberId, u128>,
    voters: &[MemberId],
    leader: Option<MemberId>,
) -> Verdict {
    let (member, digest) = own;
    let of = |m: MemberId| if m == member { Some(digest) } else { heard.get(&m).copied() };
    let count = |wanted: u128| voters.iter().filter(|m| of(**m) == Some(wanted)).count();
    let majority = voters.len() / 2 + 1;
    if count(digest) >= majority {
        return Verdict::Sound;
    }
    let outvoted = heard.iter().find(|(_, other)| **other != digest && count(**other) >= majority);
    if let Some((by, expected)) = outvoted {
        return Verdict::Outvoted { by: *by, expected: *expected };
    }
    match leader.filter(|l| *l != member).and_then(of).filter(|expected| *expected != digest) {
        Some(expected) => Verdict::Doubtful { expected },
        None => Verdict::Unknown,
    }
}

impl Server {
    /// Notes this replica's digest where one is due, and tells the others.
    pub(super) fn note_digest(&mut self, index: u64) {
        if !index.is_multiple_of(self.config.digest_interval) {
            return;
        }
        let digest = self.machine.state().digest();
        self.digests.own.insert(index, digest);
        self.digests.bound();
        let own = self.config.member;
        let present = self.machine.state().members().filter(|m| m.role != MemberRole::Removed);
        let others: Vec<MemberId> = present.map(|m| m.member).filter(|m| *m != own).collect();
        for to in others {
            let message = PeerMessage::Digest { index, digest_version: DIGEST_VERSION, digest };
            self.output.messages.push((to, message));
        }
        self.compare_digest(index);
    }

    pub(super) fn handle_digest(&mut self, from: MemberId, index: u64, digest_version: u32, digest: u128) {
        // Another version hashes other things: there is nothing to compare.
        if digest_version != DIGEST_VERSION || self.machine.state().member(from).is_none() {
            return;
        }
        // A member's first word about an entry stands: a second one cannot hide a difference.
        self.digests.heard.entry(index).or_default().entry(from).or_insert(digest);
        self.digests.bound();
        self.compare_digest(index);
    }

    fn compare_digest(&mut self, index: u64) {
        let Some(found) = self.digests.own.get(&index).copied() else { return };
        let Some(heard) = self.digests.heard.get(&index) else { return };
        let voters: Vec<MemberId> = self.machine.state().voters().map(|m| m.member).collect();
        let leader = self.replica.leader();
        let fatal = |other, expected| Fatal::Diverged { index, other, found, expected };
        match judge((self.config.member, found), heard, &voters, leader) {
            // Who agrees with a majority here did so at every place before.
            Verdict::Sound => self.digests.doubt = None,
            Verdict::Unknown => {}
            Verdict::Doubtful { expected } => {
                let fatal = fatal(leader.unwrap_or(self.config.member), expected);
                let doubt = Doubt { since_ticks: self.ticks, fatal };
                self.digests.doubt.get_or_insert(doubt);
            }
            Verdict::Outvoted { by, expected } => {
                self.output.fatal.get_or_insert(fatal(by, expected));
            }
        }
    }

    /// A doubt that nobody lifted in time is taken for the truth: the leader is right.
    pub(super) fn settle_doubts(&mut self) {
        let limit = DOUBT_ELECTIONS * self.config.election_ticks as u64;
        let ticks = self.ticks;
        let Some(doubt) = self.digests.doubt.as_ref().filter(|d| ticks - d.since_ticks >= limit) else {
            return;
        };
        // A leader tells the others, and one that leads now is in nobody's doubt but a majority's.
        if !self.replica.is_leader() {
            self.output.fatal.get_or_insert(doubt.fatal.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_differs_from_the_majority_is_wrong_leader_or_not() {
        const A: u128 = 10;
        const B: u128 = 20;
        let check = |own: (u64, u128), heard: &[(u64, u128)], voters: u64, leader: u64, expected: Verdict| {
            let heard = heard.iter().map(|(m, d)| (MemberId(*m), *d)).collect();
            let voters: Vec<MemberId> = (1..=voters).map(MemberId).collect();
            let found = judge((MemberId(own.0), own.1), &heard, &voters, Some(MemberId(leader)));
            assert_eq!(found, expected, "{own:?} {heard:?}");
        };
        let outvoted = |by| Verdict::Outvoted { by: MemberId(by), expected: A };
        check((1, A), &[(2, A)], 3, 2, Verdict::Sound);
        check((1, B), &[(2, A), (3, A)], 3, 2, outvoted(2));
        check((2, B), &[(1, A), (3, A)], 3, 2, outvoted(1));
        check((1, A), &[(2, B)], 3, 2, Verdict::Doubtful { expected: B });
        check((1, A), &[(2, B), (3, A)], 3, 2, Verdict::Sound);
        check((1, A), &[(3, B)], 3, 2, Verdict::Unknown);
        check((2, A), &[(1, B)], 3, 2, Verdict::Unknown);
        check((4, B), &[(1, A), (2, A)], 3, 3, outvoted(1));
        check((4, B), &[(3, A)], 3, 3, Verdict::Doubtful { expected: A });
        check((1, B), &[(2, A)], 2, 2, Verdict::Doubtful { expected: A });
    }
}
