//! A cluster of one server core over a real data directory, driven by one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::server::{Input, SaveSnapshot, Server, ServerConfig, authorize_all};
use bulkhead_controlplane_disk::{bootstrap, load, to_batch};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{Identity, Stores, open};
use bulkhead_types::{Command, FEATURE_LEVEL_MAX, MemberId, Name, Namespace, Object, ObjectMeta, Stamped};
use smol_str::SmolStr;
use uuid::Uuid;

use super::Snapshots;

pub(super) const MEMBER: MemberId = MemberId(1);
pub(super) const CLUSTER: Uuid = Uuid::from_u128(1);
/// Keys, and bytes of the values, as in the benchmarks of the log.
const KEYS: u64 = 64;
const VALUE_BYTES: usize = 256;
/// Ticks after which a cluster of one must have elected its server.
const ELECTION_TICKS_MAX: usize = 1000;

/// One server and its disk.
pub(super) struct Single {
    server: Server,
    stores: Stores,
    submitted: u64,
    save: Option<SaveSnapshot>,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn config(stores: &Stores) -> ServerConfig {
    let address = SmolStr::new_static("127.0.0.1:1");
    ServerConfig {
        member: MEMBER,
        cluster_id: CLUSTER,
        storage_uid: Uuid::from_bytes(stores.identity.storage_uid),
        address: address.clone(),
        version: SmolStr::new_static(env!("CARGO_PKG_VERSION")),
        initial_members: vec![(MEMBER, address)],
        seed: 1,
        tick_ms: 100,
        election_ticks: 10,
        heartbeat_ticks: 1,
        // Snapshots are taken when they are asked for.
        snapshot_entries: u64::MAX,
        snapshot_log_bytes: u64::MAX,
        snapshot_age_ms: u64::MAX,
        keep_entries: 0,
        digest_interval: 1024,
        heartbeat_ms: 5000,
        reconcile: ReconcileConfig::default(),
        authorize: authorize_all,
        feature_level_max: FEATURE_LEVEL_MAX,
    }
}

/// Makes a data directory of a cluster of one, with its first snapshot.
pub(super) fn create(dir: &Path) -> anyhow::Result<Stores> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let identity = Identity {
        cluster_id: CLUSTER.into_bytes(),
        member_id: MEMBER.0,
        storage_uid: Uuid::new_v4().into_bytes(),
    };
    let stores = open(dir, Some(identity))?;
    bootstrap(&stores, &ProtoCodec, &[MEMBER])?;
    Ok(stores)
}

impl Single {
    /// Opens a data directory as a starting server does.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        Self::start(open(dir, None)?)
    }

    fn start(mut stores: Stores) -> anyhow::Result<Self> {
        let loaded = load(&mut stores, &ProtoCodec)?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = config(&stores);
        let server = Server::new(config, Arc::new(ProtoCodec), loaded.state, loaded.log, &logger)?;
        Ok(Self { server, stores, submitted: 0, save: None })
    }

    /// Makes a data directory whose log holds `commands` submissions, so many in each entry.
    pub(super) fn fill(dir: &Path, commands: u64, per_entry: u64) -> anyhow::Result<()> {
        let mut single = Self::start(create(dir)?)?;
        single.lead();
        while single.submitted < commands {
            single.submit(per_entry.min(commands - single.submitted));
        }
        Ok(())
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn snapshots(&self) -> Snapshots {
        self.stores.snapshots.clone()
    }

    /// Lets time pass until the server leads and has applied everything.
    ///
    /// # Panics
    /// When it never does: the election of one has no way to fail.
    pub(super) fn lead(&mut self) {
        for _ in 0..ELECTION_TICKS_MAX {
            let applied = self.server.applied_index();
            self.pump();
            if self.server.is_leader() && self.server.applied_index() == applied {
                return;
            }
            if !self.server.is_leader() {
                self.server.handle(now_ms(), Input::Tick);
            }
        }
        panic!("a cluster of one elected nobody within {ELECTION_TICKS_MAX} ticks");
    }

    /// Submits so many writes as one entry, and waits until they are applied. Returns the longest time that
    /// the core was at it without a break: writing to the disk is left out.
    pub(super) fn submit(&mut self, count: u64) -> Duration {
        for _ in 0..count {
            self.submitted += 1;
            let stamped = submission(self.submitted);
            self.server.handle(now_ms(), Input::Submit { ticket: self.submitted, stamped });
        }
        self.pump()
    }

    /// Asks for a snapshot; the State to save is what is true now.
    pub(super) fn take_snapshot(&mut self) -> anyhow::Result<SaveSnapshot> {
        self.server.handle(now_ms(), Input::TakeSnapshot);
        self.pump();
        self.save.take().context("the server asked for no snapshot")
    }

    /// Does what the server asks for until it asks for nothing more.
    ///
    /// # Panics
    /// When the disk fails, or the server cannot go on: there is nothing to measure then.
    fn pump(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        loop {
            let started = Instant::now();
            let output = self.server.take_output(now_ms());
            longest = longest.max(started.elapsed());
            assert!(output.fatal.is_none(), "the server cannot go on: {:?}", output.fatal);
            self.save = output.save_snapshot.or(self.save.take());
            let mut number = 0;
            for persist in &output.persist {
                self.stores.log.write(&to_batch(persist)).expect("the log takes what it is given");
                number = number.max(persist.number);
            }
            if output.persist.iter().any(|persist| persist.must_sync) {
                self.stores.log.sync().expect("the log is flushed");
            }
            if number == 0 && !output.unfinished {
                return longest;
            }
            if number > 0 {
                self.server.handle(now_ms(), Input::Persisted { number });
            }
        }
    }
}

/// A write as the benchmarks of the log send it.
fn submission(number: u64) -> Stamped {
    let name = Name::new(format!("bench-{}", number % KEYS)).expect("it is a DNS label");
    let mut meta = ObjectMeta::new(None, name);
    let value = format!("{number:x<VALUE_BYTES$}");
    meta.annotations.insert(SmolStr::new_static("bulkhead.io/bench"), SmolStr::new(value));
    Stamped {
        request_id: Uuid::new_v4(),
        actor: SmolStr::new_static("user:bench"),
        proposed_at_ms: 0,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![Command::Apply(Object::Namespace(Arc::new(Namespace { meta })))],
    }
}
