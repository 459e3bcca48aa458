//! Replicas compare digests of their States at fixed places of the log.

use std::collections::BTreeMap;

use bulkhead_types::{DIGEST_VERSION, MemberId};

use super::{Fatal, PeerMessage, Server};

/// How many digests, own ones and heard ones, are kept to be compared.
const KEPT_MAX: usize = 8;

/// Digests by entry.
#[derive(Debug, Default)]
pub(super) struct Digests {
    own: BTreeMap<u64, u128>,
    heard: BTreeMap<u64, (MemberId, u128)>,
}

impl Digests {
    /// Forgets own digests: the State was replaced.
    pub(super) fn reset(&mut self) {
        self.own.clear();
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

    fn divergence(&self, index: u64) -> Option<Fatal> {
        let (found, (leader, expected)) = (*self.own.get(&index)?, *self.heard.get(&index)?);
        (found != expected).then_some(Fatal::Diverged { index, leader, found, expected })
    }
}

impl Server {
    /// Notes this replica's digest where one is due, and tells the others when it leads.
    pub(super) fn note_digest(&mut self, index: u64) {
        if !index.is_multiple_of(self.config.digest_interval) {
            return;
        }
        let digest = self.machine.state().digest();
        self.digests.own.insert(index, digest);
        self.digests.bound();
        if self.replica.is_leader() {
            let own = self.config.member;
            let others: Vec<MemberId> =
                self.machine.state().members().map(|m| m.member).filter(|m| *m != own).collect();
            for to in others {
                let message = PeerMessage::Digest { index, digest_version: DIGEST_VERSION, digest };
                self.output.messages.push((to, message));
            }
        }
        self.compare_digest(index);
    }

    pub(super) fn handle_digest(&mut self, from: MemberId, index: u64, digest_version: u32, digest: u128) {
        // Another version hashes other things: there is nothing to compare.
        if digest_version != DIGEST_VERSION {
            return;
        }
        // The first word about an entry stands: a second one about the same cannot hide a difference.
        self.digests.heard.entry(index).or_insert((from, digest));
        self.digests.bound();
        self.compare_digest(index);
    }

    fn compare_digest(&mut self, index: u64) {
        if let Some(fatal) = self.digests.divergence(index) {
            self.output.fatal.get_or_insert(fatal);
        }
    }
}
