//! Three servers, a lossless network, instant disks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::replica::{LogView, SnapshotPoint};
use bulkhead_controlplane_core::server::{Fatal, Input, Reply, Server, ServerConfig, authorize_all};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{
    Command, FEATURE_LEVEL_MAX, MemberId, MembershipAction, MembershipChange, Name, Namespace, NodePhase,
    Object, ObjectMeta, Stamped,
};
use raft::eraftpb::{ConfState, HardState};
use uuid::Uuid;

/// See the module.
pub(crate) struct World {
    pub(crate) servers: BTreeMap<MemberId, Server>,
    pub(crate) snapshots: BTreeMap<(MemberId, u64), State>,
    pub(crate) replies: BTreeMap<u64, Reply>,
    pub(crate) fatals: BTreeMap<MemberId, Fatal>,
    pub(crate) down: Vec<MemberId>,
    pub(crate) now_ms: u64,
    pub(crate) ticket: u64,
    pub(crate) force_unsafe: bool,
    /// How far the clock of a member runs ahead, in milliseconds.
    pub(crate) ahead_ms: BTreeMap<MemberId, u64>,
    /// For each lease that was renewed: the node's phase in the server's State when it said so.
    pub(crate) phases_at_renewal: Vec<NodePhase>,
}

pub(crate) const CLUSTER: Uuid = Uuid::from_u128(77);

pub(crate) fn config(member: u64) -> ServerConfig {
    ServerConfig {
        member: MemberId(member),
        cluster_id: CLUSTER,
        storage_uid: Uuid::from_u128(u128::from(member)),
        address: format!("127.0.0.1:{member}").into(),
        version: "test".into(),
        initial_members: (1..=3).map(|m| (MemberId(m), format!("127.0.0.1:{m}").into())).collect(),
        seed: 1,
        tick_ms: 10,
        election_ticks: 10,
        heartbeat_ticks: 2,
        snapshot_entries: 50,
        snapshot_log_bytes: u64::MAX,
        snapshot_age_ms: u64::MAX,
        keep_entries: 10,
        digest_interval: 8,
        heartbeat_ms: 1000,
        reconcile: ReconcileConfig::default(),
        authorize: authorize_all,
        feature_level_max: FEATURE_LEVEL_MAX,
    }
}

pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_seed(1)
    }

    /// The same with other election time-outs.
    pub(crate) fn with_seed(seed: u64) -> Self {
        let mut world = Self {
            servers: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            replies: BTreeMap::new(),
            fatals: BTreeMap::new(),
            down: Vec::new(),
            now_ms: 1_000_000,
            ticket: 0,
            force_unsafe: false,
            ahead_ms: BTreeMap::new(),
            phases_at_renewal: Vec::new(),
        };
        for member in 1..=3 {
            let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
            let genesis = SnapshotPoint { index: 1, term: 1, conf_state };
            let log = LogView::new(genesis, HardState::default(), Vec::new());
            world.start_with(ServerConfig { seed, ..config(member) }, log);
        }
        world
    }

    pub(crate) fn start(&mut self, member: u64, log: LogView) {
        self.start_with(config(member), log);
    }

    fn start_with(&mut self, config: ServerConfig, log: LogView) {
        let member = config.member.0;
        let server = Server::new(config, Arc::new(ProtoCodec), State::default(), log, &logger());
        let server = server.expect("starts");
        self.servers.insert(MemberId(member), server);
    }

    /// One tick everywhere, and everything that follows from it.
    pub(crate) fn tick(&mut self) {
        self.now_ms += 10;
        let mut inputs: Vec<(MemberId, Input)> = self.servers.keys().map(|m| (*m, Input::Tick)).collect();
        while !inputs.is_empty() {
            let touched: Vec<MemberId> = inputs.iter().map(|(m, _)| *m).collect();
            for (member, input) in inputs.drain(..) {
                let now_ms = self.clock_ms(member);
                if let Some(server) = self.servers.get_mut(&member).filter(|_| !self.down.contains(&member)) {
                    server.handle(now_ms, input);
                }
            }
            for member in touched {
                self.run(member, &mut inputs);
            }
        }
    }

    /// A member's own clock.
    pub(crate) fn clock_ms(&self, member: MemberId) -> u64 {
        self.now_ms + self.ahead_ms.get(&member).copied().unwrap_or_default()
    }

    pub(crate) fn run(&mut self, member: MemberId, inputs: &mut Vec<(MemberId, Input)>) {
        let now_ms = self.clock_ms(member);
        let Some(server) = self.servers.get_mut(&member).filter(|_| !self.down.contains(&member)) else {
            return;
        };
        let output = server.take_output(now_ms);
        let renewed = output.replies.iter().filter(|(_, reply)| matches!(reply, Reply::Agent(_))).count();
        let phase = server.state().nodes().iter().next().map(|node| node.status.phase);
        self.phases_at_renewal.extend(phase.into_iter().cycle().take(renewed));
        for persist in output.persist.iter().filter(|p| p.number > 0) {
            inputs.push((member, Input::Persisted { number: persist.number }));
        }
        for (to, message) in output.messages {
            inputs.push((to, Input::Peer { from: member, message }));
        }
        for send in output.send_snapshots {
            let state = Box::new(self.snapshots[&(member, send.index)].clone());
            inputs.push((send.to, Input::SnapshotReceived { message: send.message, state }));
            inputs.push((member, Input::SnapshotSent { to: send.to, delivered: true }));
        }
        if let Some(save) = output.save_snapshot {
            let index = save.point.index;
            self.snapshots.insert((member, index), save.state);
            inputs.push((member, Input::SnapshotSaved { index: Some(index) }));
        }
        self.replies.extend(output.replies);
        if let Some(fatal) = output.fatal {
            self.fatals.insert(member, fatal);
            self.down.push(member);
        } else if output.unfinished {
            self.run(member, inputs);
        }
    }

    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if done(self) {
                return;
            }
            self.tick();
        }
        let statuses: Vec<_> = self.servers.values().map(Server::status).collect();
        panic!("not reached in 2000 ticks: {what}; down {:?}, {statuses:#?}", self.down);
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let up = self.servers.iter().filter(|(m, _)| !self.down.contains(m));
        up.filter(|(_, s)| s.is_leader() && s.state().cluster_id().is_some()).map(|(m, _)| *m).next()
    }

    pub(crate) fn submit(&mut self, request: u128, command: Command) -> u64 {
        self.run_until("a leader", |w| w.leader().is_some());
        let leader = self.leader().expect("there is one");
        self.ticket += 1;
        let stamped = Stamped {
            request_id: Uuid::from_u128(request),
            actor: "user:test".into(),
            proposed_at_ms: 0,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        };
        let ticket = self.ticket;
        let now_ms = self.clock_ms(leader);
        let server = self.servers.get_mut(&leader).expect("it is there");
        server.handle(now_ms, Input::Submit { ticket, stamped });
        ticket
    }

    pub(crate) fn create(&mut self, request: u128, name: &str) -> Reply {
        let ticket = self.submit(request, namespace(name));
        self.run_until("an answer", |w| w.replies.contains_key(&ticket));
        self.replies[&ticket].clone()
    }

    pub(crate) fn membership(&mut self, request: u128, action: MembershipAction) -> Reply {
        let leader = self.leader().expect("a leader");
        let ticket = self.ask_membership(leader, request, action);
        self.run_until("an answer", |w| w.replies.contains_key(&ticket));
        self.replies[&ticket].clone()
    }

    pub(crate) fn ask_membership(
        &mut self,
        leader: MemberId,
        request: u128,
        action: MembershipAction,
    ) -> u64 {
        self.ticket += 1;
        let ticket = self.ticket;
        let change = MembershipChange {
            request_id: Uuid::from_u128(request),
            actor: "user:test".into(),
            proposed_at_ms: 0,
            action,
            force_unsafe: self.force_unsafe,
        };
        let now_ms = self.now_ms;
        self.servers
            .get_mut(&leader)
            .expect("it is there")
            .handle(now_ms, Input::Membership { ticket, change });
        ticket
    }

    pub(crate) fn assert_equal(&mut self) {
        self.run_until("equal digests", |w| {
            let up: Vec<_> = w.servers.iter().filter(|(m, _)| !w.down.contains(m)).map(|(_, s)| s).collect();
            up.iter().all(|s| {
                s.applied_index() == up[0].applied_index() && s.state().digest() == up[0].state().digest()
            })
        });
    }
}

pub(crate) fn namespace(name: &str) -> Command {
    let meta = ObjectMeta::new(None, Name::new(name).expect("a name"));
    Command::Create(Object::Namespace(Arc::new(Namespace { meta })))
}

pub(crate) fn outcome(reply: Reply) -> bulkhead_types::Outcome {
    match reply {
        Reply::Applied(transaction) => transaction.outcome.clone(),
        other => panic!("not applied: {other:?}"),
    }
}
