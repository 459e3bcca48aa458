//! A server's history thread: the real keeper of events and snapshots, doing its jobs in their order, later.

use std::collections::VecDeque;

use bulkhead_controlplane_core::server::{Input, Output, SaveSnapshot};
use bulkhead_controlplane_disk::{DiskError, EventHistory};
use bulkhead_storage::{EventStore, MAX_READ_RECORDS, StorageError};
use bulkhead_types::{MemberId, Revision, Transaction};

use crate::clock::Micros;
use crate::invariants::history::{Reach, Stored};
use crate::invariants::{Verdict, Violation, history};
use crate::network::Host;
use crate::world::{Event, World};

/// What the disk did not take is tried again after this time, in microseconds.
const RETRY_US: Micros = 500_000;

/// At a start so many of the newest records are held against the log; in the end all are.
const NEWEST: usize = 64;

/// What waits to be kept.
#[derive(Debug)]
enum Job {
    Append(Vec<Transaction>),
    Jump(Revision),
    Snapshot(Box<SaveSnapshot>),
}

/// The history thread of one life of a server.
#[derive(Debug)]
pub(crate) struct HistoryHost {
    keeper: EventHistory,
    jobs: VecDeque<Job>,
    is_scheduled: bool,
}

impl HistoryHost {
    pub(crate) fn new(keeper: EventHistory) -> Self {
        Self { keeper, jobs: VecDeque::new(), is_scheduled: false }
    }

    /// Whether everything is on disk.
    pub(crate) fn is_complete(&self) -> bool {
        self.jobs.is_empty() && self.keeper.is_complete()
    }
}

impl World {
    /// A server's output is to be kept.
    pub(crate) fn keep_history(&mut self, member: MemberId, life: u32, output: &mut Output) {
        let Some(up) = self.running(member, life) else { return };
        if let Some(installed) = &output.installed {
            up.history.jobs.push_back(Job::Jump(installed.revision()));
        }
        let applied = std::mem::take(&mut output.applied);
        let all = applied.into_iter().flat_map(|entry| entry.applied).map(|one| one.transaction);
        let kept: Vec<Transaction> = all.filter(|one| !one.events.is_empty()).collect();
        if !kept.is_empty() {
            up.history.jobs.push_back(Job::Append(kept));
        }
        up.history.jobs.extend(output.save_snapshot.take().map(|save| Job::Snapshot(Box::new(save))));
        self.schedule_history(member, life, 0);
    }

    fn schedule_history(&mut self, member: MemberId, life: u32, after_us: Micros) {
        let now_us = self.now_us;
        let Some(host) = self.servers.get_mut(&member) else { return };
        let Some(up) = host.up.as_mut() else { return };
        if !up.history.is_scheduled && !up.history.is_complete() {
            up.history.is_scheduled = true;
            let disk_us = host.disk.snapshot_us();
            self.queue.push(now_us + after_us + disk_us, Event::HistoryTurn { member, life });
        }
    }

    /// The history thread does what waits, up to the next snapshot.
    pub(crate) fn turn_history(&mut self, member: MemberId, life: u32) {
        let Some(up) = self.running(member, life) else { return };
        up.history.is_scheduled = false;
        let mut result = Ok(());
        while let Some(job) = up.history.jobs.pop_front() {
            match job {
                Job::Append(transactions) => result = up.history.keeper.append(&transactions),
                Job::Jump(revision) => result = up.history.keeper.jump(revision),
                Job::Snapshot(save) => {
                    self.save_snapshot(member, life, &save);
                    return self.schedule_history(member, life, 0);
                }
            }
        }
        if up.history.jobs.is_empty() && !up.history.keeper.is_complete() && result.is_ok() {
            result = up.history.keeper.append(&[]);
        }
        if let Err(error) = result {
            self.history_failed(member, life, &error);
        }
        self.schedule_history(member, life, RETRY_US);
    }

    fn save_snapshot(&mut self, member: MemberId, life: u32, save: &SaveSnapshot) {
        let index = save.point.index;
        let Some(up) = self.running(member, life) else { return };
        let result = up.history.keeper.save(&save.point, &save.state);
        self.note(Host::Server(member), "snapshot saved", u128::from(index), || {
            format!("at {index}: {}", result.as_ref().map_or_else(ToString::to_string, |()| "ok".into()))
        });
        match result {
            Ok(()) => {
                self.counts.snapshots_saved += 1;
                self.give(member, Input::SnapshotSaved { index: Some(index) });
            }
            // Refused before anything was changed: one at this index is there already, or there is no room.
            Err(DiskError::Storage(error)) if error.is_refusal() => {
                self.give(member, Input::SnapshotSaved { index: None });
                if error.is_full() {
                    self.disk_failed(member, life, &error);
                }
            }
            Err(error) => self.snapshot_failed(member, life, error),
        }
    }

    /// What the event store did not take is tried again; what it can never take is a bug.
    fn history_failed(&mut self, member: MemberId, life: u32, error: &DiskError) {
        if let DiskError::Storage(error) = error
            && self.is_damaged(member)
        {
            return self.disk_failed(member, life, error);
        }
        self.note(Host::Server(member), "history failed", 0, || error.to_string());
        let hopeless = match error {
            DiskError::Storage(error) => {
                error.is_fatal()
                    || matches!(error, StorageError::Invalid { .. } | StorageError::Conflict { .. })
            }
            _ => true,
        };
        if hopeless {
            self.fail(Violation::new("history", format!("server {member}: {error}")));
        }
    }

    fn is_damaged(&self, member: MemberId) -> bool {
        self.servers.get(&member).is_some_and(|host| host.disk.damaged)
    }

    /// Holds a server's event store against the log, when it has everything up to the revision of its State: its
    /// newest records, or all of them.
    pub(crate) fn check_history(
        &self,
        member: MemberId,
        events: &dyn EventStore,
        upto: Revision,
        all: bool,
    ) -> Verdict {
        let log = self.chronicle.marks();
        let since = self.servers.get(&member).map_or(0, |host| host.history_since);
        let newest = log.partition_point(|mark| mark.revisions.1 <= upto).saturating_sub(NEWEST);
        let mut from = if all { 0 } else { log.get(newest).map_or(0, |mark| mark.revisions.0) };
        let mut records = Vec::new();
        let refuses = |error: StorageError| match error {
            // A disk that fails on purpose, or that was damaged, and says so.
            error if !error.is_fatal() || self.is_damaged(member) => Ok(()),
            error => Err(Violation::new("history", format!("server {member}: {error}"))),
        };
        loop {
            let page = match events.read(from, MAX_READ_RECORDS) {
                Ok(page) => page,
                Err(error) => return refuses(error),
            };
            let Some(last) = page.last() else { break };
            from = last.last_revision + 1;
            records.extend(page.iter().map(history::mark));
        }
        match events.bounds() {
            Ok(bounds) => {
                let stored = Stored { bounds, records: &records };
                history::check(member, stored, log, Reach { since, upto })
            }
            Err(error) => refuses(error),
        }
    }
}
