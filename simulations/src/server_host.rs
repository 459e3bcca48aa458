//! A machine with a server on it: the real server core, its disk, its clocks, and everything that dies with it.
//!
//! This is the simulation's stand-in for the shell around the core: it carries out what the core asks for, in
//! the order in which the core's documentation wants it, each thing taking its time.

mod log_disk;
mod requests;

use std::collections::BTreeMap;

use bulkhead_controlplane_core::replica::LogView;
use bulkhead_controlplane_core::server::{
    Fatal, Input, Output, PeerMessage, Server, ServerConfig, Ticket, authorize_all,
};
use bulkhead_controlplane_core::watch::WatchLog;
use bulkhead_controlplane_disk::{DiskError, EventHistory};
use bulkhead_storage::{CrashChoice, Stores};
use bulkhead_types::{
    EventKind, FEATURE_LEVEL_MAX, MemberId, MemberRole, Name, ObjectId, Revision, digest128,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::clock::{HostClock, Micros};
use crate::disk::{Loss, Requests, ServerDisk};
use crate::history_host::HistoryHost;
use crate::invariants::Violation;
use crate::invariants::membership::{self, Roles};
use crate::invariants::promises::{self, Kept, Promise};
use crate::message::Body;
use crate::network::Host;
use crate::rng::Rng;
use crate::snapshot_transfer::{Incoming, Outgoing};
use crate::watching::{AfterRead, Serving};
use crate::world::{Event, World};

/// The cluster's identity in every run.
pub(crate) const CLUSTER_ID: Uuid = Uuid::from_u128(0xb01c_4ead);
/// A server whose disk was full looks again after this time, in microseconds.
const FULL_RETRY_US: Micros = 100_000;
/// A crash is one of the whole machine so often, in thousandths: then nobody refuses connections.
const MACHINE_DIES_PERMILLE: u64 = 400;
/// A peer does not find out so often, in thousandths …
const REFUSAL_UNSEEN_PERMILLE: u64 = 200;
/// … and otherwise within this time, in microseconds.
const REFUSAL_SEEN_US_MAX: Micros = 100_000;
/// An operator who cannot replace a server now tries again after this time, in microseconds.
const OPERATOR_RETRY_US: Micros = 1_000_000;

/// A machine that holds a server, running or not.
pub(crate) struct ServerHost {
    pub(crate) member: MemberId,
    pub(crate) disk: ServerDisk,
    pub(crate) clock: HostClock,
    /// Counts starts: what was scheduled in an earlier life means nothing in a later one.
    pub(crate) life: u32,
    pub(crate) up: Option<Up>,
    /// The first voters, on the machines that found the cluster.
    founders: Option<Vec<MemberId>>,
    /// What it has told its peers so far.
    promise: Promise,
    /// The revision of the newest snapshot that a peer sent: its history may begin after it.
    pub(crate) history_since: Revision,
    /// It was removed from the cluster, or its disk is gone, and it never starts again.
    pub(crate) retired: bool,
    /// Its process stands still until then.
    pub(crate) paused_until_us: Micros,
}

/// A running server.
pub(crate) struct Up {
    pub(crate) server: Server,
    pub(crate) stores: Stores,
    pub(crate) requests: Requests,
    pub(crate) history: HistoryHost,
    pub(crate) watch_log: WatchLog,
    /// Streams to watchers, by number.
    pub(crate) watches: BTreeMap<u64, Serving>,
    pub(crate) after_read: BTreeMap<Ticket, AfterRead>,
    /// Reads that wait for a revision.
    pub(crate) late_reads: Vec<(Revision, AfterRead)>,
    tickets: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    /// Streams to agents: which session each is for.
    pub(crate) sessions: BTreeMap<u32, Session>,
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    pub(crate) incoming: Option<Incoming>,
    pumping: bool,
    full: bool,
}

impl Up {
    /// A number for somebody who waits.
    pub(crate) fn take_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }
}

/// A stream to an agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    node: ObjectId,
    incarnation: u64,
}

/// Who waits for a ticket.
struct Waiting {
    origin: Host,
    call: u64,
    via: Option<MemberId>,
    /// The node that is being registered, when that is it.
    joins: Option<Name>,
}

impl ServerHost {
    pub(crate) fn new(
        member: MemberId,
        disk: ServerDisk,
        clock: HostClock,
        founders: Option<Vec<MemberId>>,
    ) -> Self {
        let promise = Promise::default();
        Self {
            member,
            disk,
            clock,
            life: 0,
            up: None,
            founders,
            promise,
            history_since: 0,
            retired: false,
            paused_until_us: 0,
        }
    }
}

fn address(member: MemberId) -> SmolStr {
    SmolStr::new(format!("server-{member}:7400"))
}

impl World {
    fn server_config(&self, host: &ServerHost) -> ServerConfig {
        let options = &self.options.server;
        ServerConfig {
            member: host.member,
            cluster_id: CLUSTER_ID,
            storage_uid: Uuid::from_bytes(host.disk.identity().storage_uid),
            address: address(host.member),
            version: SmolStr::new_static("simulated"),
            initial_members: (1..=self.options.servers)
                .map(|m| (MemberId(m), address(MemberId(m))))
                .collect(),
            seed: self.options.seed,
            tick_ms: options.tick_ms,
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            snapshot_entries: options.snapshot_entries,
            // Entries alone decide: the seed draws how many.
            snapshot_log_bytes: u64::MAX,
            snapshot_age_ms: u64::MAX,
            keep_entries: options.keep_entries,
            digest_interval: options.digest_interval,
            heartbeat_ms: options.heartbeat_ms,
            reconcile: options.reconcile_config(),
            authorize: authorize_all,
            feature_level_max: FEATURE_LEVEL_MAX,
        }
    }

    /// Starts a server from what its disk holds.
    pub(crate) fn start_server(&mut self, member: MemberId) {
        let Some(host) = self.servers.get(&member).filter(|h| h.up.is_none() && !h.retired) else { return };
        let config = self.server_config(host);
        let opened = host.disk.open(&*self.codec, host.founders.as_deref());
        let (stores, loaded) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.start_failed(member, &error),
        };
        let index = loaded.log.snapshot_point().index;
        self.note(Host::Server(member), "start", u128::from(index), || {
            format!("snapshot {index}, log to {}, cut {:?}", loaded.log.last(), loaded.cut)
        });
        let verdict = self.chronicle.check_restored(member, index, &loaded.state);
        self.judge(verdict);
        let kept = kept(&loaded.log);
        let verdict =
            self.servers.get(&member).map_or(Ok(()), |h| promises::check(member, &h.promise, &kept));
        self.judge(verdict);
        let verdict = self.check_history(member, &*stores.events, loaded.state.revision(), false);
        self.judge(verdict);
        let watch_log =
            WatchLog::new(loaded.state.revision(), self.options.observers.watch_changes_max as usize);
        let keeper = EventHistory::new(stores.events.clone(), stores.snapshots.clone(), self.codec.clone());
        let history = HistoryHost::new(keeper);
        let server = match Server::new(config, self.codec.clone(), loaded.state, loaded.log, &self.logger) {
            Ok(server) => server,
            Err(error) => {
                return self.fail(Violation::new("start", format!("server {member}: {error}")));
            }
        };
        let up = Up {
            server,
            stores,
            requests: Requests::default(),
            history,
            watch_log,
            watches: BTreeMap::new(),
            after_read: BTreeMap::new(),
            late_reads: Vec::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            sessions: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            incoming: None,
            pumping: false,
            full: false,
        };
        let host = self.servers.get_mut(&member).expect("it was just there");
        host.life += 1;
        host.up = Some(up);
        let life = host.life;
        self.queue.push(self.now_us + 1, Event::Tick { member, life });
    }

    /// A disk that fails while it is opened is tried again; one that was damaged is given up, and its server
    /// replaced; any other one that cannot be used is a lost acknowledgement.
    fn start_failed(&mut self, member: MemberId, error: &DiskError) {
        let again = matches!(error, DiskError::Storage(e) if !e.is_fatal());
        self.note(Host::Server(member), "start failed", u128::from(again), || error.to_string());
        if again {
            if let Some(host) = self.servers.get_mut(&member) {
                host.disk.crash();
            }
            self.queue.push(self.now_us + FULL_RETRY_US, Event::Restart { member });
        } else if self.servers.get(&member).is_some_and(|h| h.disk.damaged) {
            self.give_disk_up(member);
        } else {
            self.fail(Violation::new("start", format!("server {member} cannot use its disk: {error}")));
        }
    }

    /// The server has said that its disk is damaged: the operator does what the message says. One that has left the
    /// cluster already needs no successor.
    fn give_disk_up(&mut self, member: MemberId) {
        let role = self.chronicle.state().member(member).map(|record| record.role);
        if let Some(host) = self.servers.get_mut(&member).filter(|_| role == Some(MemberRole::Removed)) {
            (host.up, host.retired) = (None, true);
            return;
        }
        let joins = self.next_member();
        if joins.is_none_or(|joins| !self.lose_disk(member, joins)) {
            if let Some(host) = self.servers.get_mut(&member) {
                host.up = None;
                host.disk.lose(Loss::Nothing);
            }
            self.queue.push(self.now_us + OPERATOR_RETRY_US, Event::Restart { member });
        }
    }

    /// Power fails at a server.
    pub(crate) fn crash_server(&mut self, member: MemberId, restart_after_us: Micros) {
        let Some(host) = self.servers.get_mut(&member) else { return };
        if host.up.take().is_none() {
            return;
        }
        let choice = host.disk.crash();
        self.after_crash(member, choice, restart_after_us);
    }

    /// A server is down, and starts again later.
    pub(crate) fn after_crash(&mut self, member: MemberId, choice: CrashChoice, restart_after_us: Micros) {
        if let Some(host) = self.servers.get_mut(&member) {
            host.paused_until_us = 0;
        }
        self.note(Host::Server(member), "crash", digest128(&format!("{choice:?}")), || format!("{choice:?}"));
        self.queue.push(self.now_us + restart_after_us, Event::Restart { member });
        self.refuse_peers(member);
    }

    /// When only the process died, its machine refuses connections, and each peer finds out in its own time, if at
    /// all. One that is slow says so when the server is there again.
    fn refuse_peers(&mut self, peer: MemberId) {
        let mut rng = Rng::child(self.options.seed, "death", self.now_us);
        if rng.chance(MACHINE_DIES_PERMILLE) {
            return;
        }
        let running = self.servers.values().filter(|host| host.up.is_some() && host.member != peer);
        for (member, life) in running.map(|host| (host.member, host.life)) {
            if !rng.chance(REFUSAL_UNSEEN_PERMILLE) {
                let after_us = rng.range(0, REFUSAL_SEEN_US_MAX);
                self.queue.push(self.now_us + after_us, Event::Refused { member, life, peer });
            }
        }
    }

    /// A server finds that nobody listens at a peer's address.
    pub(crate) fn find_refused(&mut self, member: MemberId, life: u32, peer: MemberId) {
        let is_cut = self.network.is_blocked(Host::Server(member), Host::Server(peer));
        if !is_cut && self.running(member, life).is_some() {
            self.note(Host::Server(member), "refused", u128::from(peer.0), || format!("by {peer}"));
            self.give(member, Input::PeerDown { member: peer });
        }
    }

    pub(crate) fn running(&mut self, member: MemberId, life: u32) -> Option<&mut Up> {
        let host = self.servers.get_mut(&member)?;
        if host.life == life { host.up.as_mut() } else { None }
    }

    /// Lets a server tick, and sees to the next tick.
    pub(crate) fn tick_server(&mut self, member: MemberId, life: u32) {
        if self.running(member, life).is_none() {
            return;
        }
        let clock = self.servers[&member].clock;
        let next_ms = clock.monotonic_ms(self.now_us) + self.options.server.tick_ms;
        self.queue.push(clock.true_us(next_ms).max(self.now_us + 1), Event::Tick { member, life });
        self.give(member, Input::Tick);
    }

    /// Hands an input to a running server, and sees to it that its output is taken.
    pub(crate) fn give(&mut self, member: MemberId, input: Input) {
        let (now_us, pump_us_max) = (self.now_us, self.options.server.pump_us_max);
        let Some(host) = self.servers.get_mut(&member) else { return };
        let (wall_ms, life) = (host.clock.wall_ms(now_us), host.life);
        let Some(up) = host.up.as_mut() else { return };
        up.server.handle(wall_ms, input);
        if pump_us_max == 0 {
            self.pump(member, life);
        } else if !up.pumping {
            up.pumping = true;
            let at_us = now_us + self.rng.range(0, pump_us_max);
            self.queue.push(at_us, Event::Pump { member, life });
        }
    }

    /// Takes a server's output and does what it asks for.
    pub(crate) fn pump(&mut self, member: MemberId, life: u32) {
        let now_us = self.now_us;
        let Some(host) = self.servers.get_mut(&member).filter(|h| h.life == life) else { return };
        let wall_ms = host.clock.wall_ms(now_us);
        let Some(up) = host.up.as_mut() else { return };
        up.pumping = false;
        let mut output = up.server.take_output(wall_ms);
        let persists = std::mem::take(&mut output.persist);
        let has_persists = !persists.is_empty();
        persists.into_iter().for_each(|p| up.requests.push(p));
        self.observe_output(member, &output);
        self.follow_state(member, &output);
        for (to, message) in std::mem::take(&mut output.messages) {
            if let (PeerMessage::Raft(bytes), Some(host)) = (&message, self.servers.get_mut(&member)) {
                host.promise.sends(member, bytes);
            }
            self.send(Host::Server(member), Host::Server(to), Body::Peer(message));
        }
        for (ticket, reply) in std::mem::take(&mut output.replies) {
            self.reply(member, ticket, reply);
        }
        self.push_intents(member, &output);
        self.keep_history(member, life, &mut output);
        for send in std::mem::take(&mut output.send_snapshots) {
            self.begin_sending(member, life, send);
        }
        if let Some(fatal) = output.fatal.take() {
            return self.stop_server(member, &fatal);
        }
        if has_persists {
            self.write_log(member, life);
        }
        if let Some(up) =
            self.servers.get_mut(&member).and_then(|h| h.up.as_mut()).filter(|_| output.unfinished)
        {
            up.pumping = true;
            self.queue.push(now_us, Event::Pump { member, life });
        }
    }

    /// Tells the checkers what a server did.
    fn observe_output(&mut self, member: MemberId, output: &Output) {
        let Some(up) = self.servers.get(&member).and_then(|h| h.up.as_ref()) else { return };
        let (applied_index, digest) = (up.server.applied_index(), up.server.state().digest());
        if output.applied.is_empty() && output.installed.is_none() {
            return;
        }
        let roles = changes_members(output).then(|| roles(&up.server));
        for entry in &output.applied {
            let fresh = entry.index > self.chronicle.index();
            let verdict = self.chronicle.apply(member, entry, &self.oracle);
            self.judge(verdict);
            if fresh {
                self.counts.entries += 1;
                self.observe_entry(entry);
            }
        }
        let verdict = self.chronicle.check_digest(member, applied_index, digest);
        self.judge(verdict);
        if let Some((raft, state)) = roles {
            self.judge(membership::check(member, &raft, &state));
        }
        let installed = output.installed.is_some();
        self.note(Host::Server(member), "applied", digest, || {
            format!("to {applied_index}{}", if installed { " after a snapshot" } else { "" })
        });
    }

    /// A server stops for good, by its own will.
    fn stop_server(&mut self, member: MemberId, fatal: &Fatal) {
        self.note(Host::Server(member), "stop", 0, || fatal.to_string());
        let expected = *fatal == Fatal::Removed(member) && self.chronicle.is_removed(member);
        if !expected {
            return self.fail(Violation::new("fatal", format!("server {member}: {fatal}")));
        }
        let host = self.servers.get_mut(&member).expect("it just ran");
        host.up = None;
        host.retired = true;
        host.disk.crash();
    }
}

fn kept(log: &LogView) -> Kept {
    let (term, vote) = log.term_and_vote();
    Kept { term, vote, log_to: log.last() }
}

/// Whether the members may be others after this: what an entry without commands does is Raft's.
fn changes_members(output: &Output) -> bool {
    let about_members = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::ClusterInitialized { .. }
                | EventKind::MemberRegistered { .. }
                | EventKind::LearnerAdded { .. }
                | EventKind::MemberPromoted { .. }
                | EventKind::MemberRemoved { .. }
        )
    };
    let mut applied = output.applied.iter().flat_map(|entry| &entry.applied);
    output.installed.is_some()
        || output.applied.iter().any(|entry| entry.applied.is_empty())
        || applied.any(|one| one.transaction.events.iter().any(|event| about_members(&event.kind)))
}

/// Who votes and who learns, as a server's Raft and its State have it.
pub(crate) fn roles(server: &Server) -> (Roles, Roles) {
    let (voters, learners) = server.configuration();
    let raft = Roles { voters: voters.into_iter().collect(), learners: learners.into_iter().collect() };
    let with = |role| server.state().members().filter(move |m| m.role == role).map(|m| m.member).collect();
    (raft, Roles { voters: with(MemberRole::Voter), learners: with(MemberRole::Learner) })
}
