//! The one history: every committed entry in the order of the log, replayed through `evolve` into a State of
//! its own as soon as the first replica applies it. Every replica is held against it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::server::AppliedEntry;
use bulkhead_controlplane_core::{Applied, State};
use bulkhead_controlplane_disk::{GENESIS_INDEX, event_record};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{EventKind, MemberId, MemberRole, ObjectId, Outcome, Transaction};
use uuid::Uuid;

use crate::invariants::{
    Verdict, Violation, acknowledged, autoscaling, binding, cpus, cron_jobs, daemon_set, delivery,
    descheduler, devices, digests, elastic, ensure, exactly_once, garbage, history, job_ends, jobs, ledger,
    node_pools, placement, ports, preemption, prefix, queues, rebuilt, revisions, rollout, stateful_set,
    volumes,
};
use crate::oracle::Oracle;
use crate::timeline::Timeline;

/// How many States back the rollout checker looks: a leader decides on a State that is a little older than the
/// one its command is applied to.
const RECENT_MAX: usize = 64;
/// The State is checked from scratch after so many entries.
const DEEP_CHECK_ENTRIES: u64 = 256;

/// What stands for one entry.
#[derive(Clone, Copy, Debug)]
struct Record {
    content: u128,
    digest: u128,
}

/// The history so far.
#[derive(Debug)]
pub(crate) struct Chronicle {
    state: State,
    index: u64,
    /// Entries after the genesis.
    records: Vec<Record>,
    genesis_digest: u128,
    requests: exactly_once::Requests,
    /// The States before the last entries, newest last.
    recent: VecDeque<State>,
    /// Where each pod was ever bound.
    bindings: BTreeMap<ObjectId, ObjectId>,
    /// Pods whose guests ended with success.
    well: BTreeSet<ObjectId>,
    starts: cron_jobs::Starts,
    resized: autoscaling::Changes,
    /// Transactions with events, each with its entry.
    log: Vec<(u64, Transaction)>,
    /// Their records in an event store.
    marks: Vec<history::Mark>,
    timeline: Timeline,
}

impl Default for Chronicle {
    fn default() -> Self {
        let state = State::default();
        Self {
            genesis_digest: state.digest(),
            state,
            index: GENESIS_INDEX,
            records: Vec::new(),
            requests: exactly_once::Requests::new(),
            recent: VecDeque::new(),
            bindings: BTreeMap::new(),
            well: BTreeSet::new(),
            starts: cron_jobs::Starts::new(),
            resized: autoscaling::Changes::new(),
            log: Vec::new(),
            marks: Vec::new(),
            timeline: Timeline::default(),
        }
    }
}

impl Chronicle {
    /// A guest ended with success.
    pub(crate) fn note_success(&mut self, pod: ObjectId) {
        self.well.insert(pod);
    }

    /// The last entry.
    #[must_use]
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The State after the last entry.
    #[must_use]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Every version of every object.
    #[must_use]
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What an event store must hold.
    #[must_use]
    pub(crate) fn marks(&self) -> &[history::Mark] {
        &self.marks
    }

    /// Where a pod was bound, also when it is gone.
    #[must_use]
    pub(crate) fn binding(&self, pod: ObjectId) -> Option<ObjectId> {
        self.bindings.get(&pod).copied()
    }

    /// Whether a pod has ended, or is gone: it was bound once, and its room was given away since.
    #[must_use]
    pub(crate) fn is_over(&self, pod: ObjectId) -> bool {
        self.bindings.contains_key(&pod)
            && self.state.pods().get(pod).is_none_or(|pod| pod.status.phase.is_terminal())
    }

    /// Whether a member was removed.
    #[must_use]
    pub(crate) fn is_removed(&self, member: MemberId) -> bool {
        self.state.member(member).is_some_and(|record| record.role == MemberRole::Removed)
    }

    /// The outcomes of a request: none if it did not happen, and several if it was forgotten in between.
    pub(crate) fn outcomes(&self, request_id: Uuid) -> impl Iterator<Item = &Outcome> {
        let done = self.requests.get(&request_id);
        done.into_iter().flat_map(|done| [&done.outcome].into_iter().chain(&done.earlier))
    }

    fn record(&self, index: u64) -> Option<&Record> {
        self.records.get(usize::try_from(index.checked_sub(GENESIS_INDEX + 1)?).ok()?)
    }

    fn digest_at(&self, index: u64) -> Option<u128> {
        if index == GENESIS_INDEX { Some(self.genesis_digest) } else { self.record(index).map(|r| r.digest) }
    }

    /// A replica applied an entry.
    ///
    /// # Errors
    /// When it is another one than the first replica's, or breaks an invariant.
    pub(crate) fn apply(&mut self, member: MemberId, entry: &AppliedEntry, oracle: &Oracle) -> Verdict {
        let content = prefix::content(&entry.applied);
        if let Some(record) = self.record(entry.index) {
            return prefix::check(member, entry.index, content, record.content);
        }
        if entry.index != self.index + 1 {
            let text = format!("server {member} applied entry {} after {}", entry.index, self.index);
            return Err(Violation::new("prefix", text));
        }
        self.index = entry.index;
        for one in &entry.applied {
            exactly_once::check(&mut self.requests, oracle.refused(), entry.index, one)?;
            if !one.repeated {
                self.evolve(one, oracle)?;
            }
        }
        self.records.push(Record { content, digest: self.state.digest() });
        if self.index.is_multiple_of(DEEP_CHECK_ENTRIES) {
            self.check_deep()?;
        }
        Ok(())
    }

    /// Checks the State from scratch, and that the changes that watchers see lead to it.
    ///
    /// # Errors
    /// When either is not so.
    pub(crate) fn check_deep(&self) -> Verdict {
        ledger::check("history", &self.state)?;
        ensure(self.timeline.leads_to(&self.state), "watch", || {
            format!("the changes up to revision {} do not lead to its State", self.state.revision())
        })
    }

    fn evolve(&mut self, one: &Applied, oracle: &Oracle) -> Verdict {
        let transaction = &one.transaction;
        revisions::check(&self.state, transaction)?;
        garbage::check(&self.state, transaction)?;
        if let Some(submitted) = oracle.submission(transaction.request_id) {
            revisions::check_preconditions(&self.state, submitted, transaction.outcome.is_ok())?;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        let before = self.state.clone();
        self.recent.push_back(before.clone());
        let changes = evolve(&mut self.state, transaction);
        if let Some(record) = event_record(&ProtoCodec, transaction) {
            self.timeline.add(&changes, record.last_revision);
            self.marks.push(history::mark(&record));
        }
        self.log.push((self.index, transaction.clone()));
        for event in &transaction.events {
            if let EventKind::PodBound(binding) = &event.kind {
                let former = self.bindings.insert(binding.pod, binding.node);
                if let Some(former) = former {
                    let text =
                        format!("pod {} was bound to {former} and again to {}", binding.pod, binding.node);
                    return Err(Violation::new("physical", text));
                }
                binding::check(&before, &self.state, binding)?;
                devices::binding(&before, &self.state, binding)?;
            }
        }
        placement::check(&before, transaction)?;
        cpus::check(&before, &self.state, transaction)?;
        ports::check(&before, transaction)?;
        preemption::check(&before, transaction)?;
        queues::check(&before, &self.state, transaction)?;
        node_pools::check(&before, &self.state, transaction)?;
        descheduler::check(&before, transaction)?;
        elastic::check(&before, &self.state, transaction)?;
        volumes::check(&before, transaction)?;
        stateful_set::check(&before, &self.state, transaction)?;
        daemon_set::check(&before, &self.state, transaction)?;
        job_ends::check(&before, &self.state, transaction, &self.well)?;
        jobs::check(&before, &self.state, transaction)?;
        cron_jobs::check(&mut self.starts, transaction)?;
        autoscaling::check(&mut self.resized, &before, transaction)?;
        delivery::check(&self.recent, transaction)?;
        rollout::check(&self.recent, &self.state, transaction)
    }

    /// Checks the digest of a replica after an entry.
    ///
    /// # Errors
    /// When it is another one than the history's, or is ahead of it.
    pub(crate) fn check_digest(&self, member: MemberId, index: u64, found: u128) -> Verdict {
        match self.digest_at(index) {
            Some(expected) => digests::check(member, index, found, expected),
            // A new learner's disk is empty.
            None if index == 0 => Ok(()),
            None => {
                Err(Violation::new("digests", format!("server {member} has applied {index}, nobody else")))
            }
        }
    }

    /// Checks a State that was read from a snapshot.
    ///
    /// # Errors
    /// When it is not the State of the history there.
    pub(crate) fn check_restored(&self, member: MemberId, index: u64, restored: &State) -> Verdict {
        self.check_digest(member, index, restored.digest())?;
        ledger::check("snapshot", restored)?;
        let mut replayed = restored.clone();
        let tail = self.log.partition_point(|(at, _)| *at <= index);
        for (_, transaction) in &self.log[tail..] {
            evolve(&mut replayed, transaction);
        }
        rebuilt::check("snapshot and tail", &self.state, &replayed)
    }

    /// Checks a live State from scratch, and against the replayed one when it is as far.
    ///
    /// # Errors
    /// When they differ, or it is wrong in itself.
    pub(crate) fn check_live(&self, member: MemberId, applied_index: u64, live: &State) -> Verdict {
        let whose = format!("server {member}");
        ledger::check(&whose, live)?;
        if applied_index == self.index { rebuilt::check(&whose, live, &self.state) } else { Ok(()) }
    }

    /// Checks everything that was acknowledged against the log.
    ///
    /// # Errors
    /// When something was lost.
    pub(crate) fn check_acknowledged(&self, oracle: &Oracle) -> Verdict {
        oracle
            .acknowledged()
            .iter()
            .try_for_each(|(id, told)| acknowledged::check(*id, told, self.outcomes(*id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> AppliedEntry {
        AppliedEntry { index, applied: Vec::new() }
    }

    #[test]
    fn gaps_and_strange_digests_are_noticed() {
        let (mut chronicle, oracle) = (Chronicle::default(), Oracle::default());
        let member = MemberId(1);
        assert!(chronicle.apply(member, &entry(3), &oracle).is_err(), "a gap");
        assert!(chronicle.apply(member, &entry(2), &oracle).is_ok());
        assert!(chronicle.apply(MemberId(2), &entry(2), &oracle).is_ok());
        let digest = chronicle.state().digest();
        assert!(chronicle.check_digest(member, 2, digest).is_ok());
        assert!(chronicle.check_digest(member, 2, digest + 1).is_err());
        assert!(chronicle.check_digest(member, 3, digest).is_err(), "ahead of everybody");
    }
}
