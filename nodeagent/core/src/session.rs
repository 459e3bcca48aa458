//! The session with the control plane: incarnation, lease, reports under way.
//!
//! ```text
//!  Away ── Join asked ──► Joining ── Joined ──► Connected ── silence for a lease, or Disconnected ──► Joining …
//!  lease: from the *send* time of a report, once that report is acknowledged, for lease_ms on this clock
//! ```

use std::collections::BTreeMap;

use bulkhead_canary::planted;
use bulkhead_types::{AgentAck, Joined, ObjectId};

/// Most reports whose acknowledgement is awaited; older ones are forgotten, which only delays.
const REPORTS_UNDER_WAY_MAX: usize = 32;
/// Least heartbeat that is accepted from a server, in milliseconds.
const HEARTBEAT_MS_MIN: u64 = 10;

/// Where the agent stands with the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The inventory is not known yet.
    Away,
    /// A server was asked for.
    Joining,
    /// Registered.
    Connected(Joined),
}

/// What the agent knows of its session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    link: Link,
    /// Reports sent and not acknowledged: pod and sequence, by send time.
    under_way: BTreeMap<u64, Vec<(ObjectId, u64)>>,
    /// The report that must be answered before changes are sent again.
    changes_in: Option<u64>,
    last_sent_ms: Option<u64>,
    /// Since when nothing was acknowledged.
    silent_since_ms: u64,
    lease_until_ms: Option<u64>,
    /// Reports of pods in this session.
    counter: u32,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            link: Link::Away,
            under_way: BTreeMap::new(),
            changes_in: None,
            last_sent_ms: None,
            silent_since_ms: 0,
            lease_until_ms: None,
            counter: 0,
        }
    }

    pub(crate) fn recover_lease(&mut self, until_ms: Option<u64>) {
        self.lease_until_ms = until_ms;
    }

    pub(crate) fn is_away(&self) -> bool {
        self.link == Link::Away
    }

    pub(crate) fn joined(&self) -> Option<Joined> {
        match self.link {
            Link::Connected(joined) => Some(joined),
            Link::Away | Link::Joining => None,
        }
    }

    /// A server was asked for: whatever was under way is lost. The lease runs on.
    pub(crate) fn rejoin(&mut self) {
        self.link = Link::Joining;
        self.under_way.clear();
        self.changes_in = None;
    }

    pub(crate) fn connect(&mut self, joined: Joined, now_ms: u64) {
        self.rejoin();
        self.link =
            Link::Connected(Joined { heartbeat_ms: joined.heartbeat_ms.max(HEARTBEAT_MS_MIN), ..joined });
        if planted!("canary_lease_from_registration") {
            self.lease_until_ms = self.lease_until_ms.max(Some(now_ms.saturating_add(joined.lease_ms)));
        }
        self.last_sent_ms = None;
        self.silent_since_ms = now_ms;
        self.counter = 0;
    }

    /// Takes an acknowledgement; the reports that it covers, if it answers one of this session.
    pub(crate) fn acknowledge(&mut self, ack: AgentAck, now_ms: u64) -> Option<Vec<(ObjectId, u64)>> {
        self.joined()?;
        let reports = self.under_way.remove(&ack.sent_at_ms)?;
        let from_ms = if planted!("canary_lease_from_receipt") { now_ms } else { ack.sent_at_ms };
        let until_ms = from_ms.saturating_add(ack.lease_ms);
        self.lease_until_ms = self.lease_until_ms.max(Some(until_ms));
        self.silent_since_ms = now_ms;
        if self.changes_in.is_some_and(|at| at <= ack.sent_at_ms) {
            self.changes_in = None;
        }
        Some(reports)
    }

    pub(crate) fn lease_until_ms(&self) -> Option<u64> {
        self.lease_until_ms
    }

    pub(crate) fn lease_valid(&self, now_ms: u64) -> bool {
        self.lease_until_ms.is_some_and(|until| now_ms < until)
    }

    /// When the servers have been silent for so long that another one is asked, in milliseconds.
    pub(crate) fn give_up_ms(&self) -> Option<u64> {
        self.joined()
            .map(|joined| self.silent_since_ms.saturating_add(joined.lease_ms.max(joined.heartbeat_ms)))
    }

    /// When the next heartbeat is due, in milliseconds.
    pub(crate) fn heartbeat_due_ms(&self) -> Option<u64> {
        let joined = self.joined()?;
        Some(self.last_sent_ms.map_or(0, |sent| sent.saturating_add(joined.heartbeat_ms)))
    }

    /// The earliest moment at which changes may be sent, in milliseconds: one report with changes is under way at a
    /// time, and no two reports have the same send time.
    pub(crate) fn changes_due_ms(&self) -> Option<u64> {
        self.joined()?;
        match (self.changes_in, self.last_sent_ms) {
            (Some(_), _) => None,
            (None, sent) => Some(sent.map_or(0, |sent| sent.saturating_add(1))),
        }
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        let incarnation = self.joined().map_or(0, |joined| joined.incarnation);
        self.counter = self.counter.checked_add(1).expect("fewer than 2^32 reports in a session");
        (incarnation << 32) | u64::from(self.counter)
    }

    pub(crate) fn sent(&mut self, now_ms: u64, reports: Vec<(ObjectId, u64)>, has_changes: bool) {
        self.last_sent_ms = Some(now_ms);
        if has_changes {
            self.changes_in = Some(now_ms);
        }
        self.under_way.insert(now_ms, reports);
        while self.under_way.len() > REPORTS_UNDER_WAY_MAX {
            self.under_way.pop_first();
        }
    }
}
