//! One server process from start to end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::server::{
    Fatal, Input, Server, ServerConfig, ServerStatus, StartError, TooOld, authorize_all,
};
use bulkhead_controlplane_disk::{DiskError, Loaded};
use bulkhead_proto::{FILE_DESCRIPTOR_SET, ProtoCodec};
use bulkhead_storage::{DiskSpace, StorageError, Stores};
use bulkhead_types::{MemberId, digest128};
use smol_str::SmolStr;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

use crate::api::Api;
use crate::backups;
use crate::bootstrap::Booted;
use crate::config::ServerOptions;
use crate::damage::guard;
use crate::handle::Handle;
use crate::history::{self, History, Job};
use crate::intents::IntentHub;
use crate::metric_source::{self, EndpointError, MetricsEndpoint};
use crate::metrics::Metrics;
use crate::no_room::boot_with_room;
use crate::node::{Node, Outlets, now_ms};
use crate::past;
use crate::persist;
use crate::propose::Proposer;
use crate::transport::{Addresses, Identity, Links};
use crate::view::{View, Views};
use crate::watch::WatchHub;

/// How long a stopping leader waits for another to take over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long open requests may take to end.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often old events are dropped.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);
/// Agents report so many times per lease: two may be lost before it runs out.
const HEARTBEATS_PER_LEASE: u64 = 3;
/// Entries kept before a snapshot, as a part of those between snapshots.
const KEEP_FRACTION: u64 = 4;

/// Why a server ends other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The disk says why.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the disk holds cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The core cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The core cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The metrics endpoint is not usable.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Neither a cluster to found nor one to join.
    #[error(
        "the data directory is empty and the initial cluster does not name member {member}; give --initial-cluster with it, or --join"
    )]
    NoCluster {
        /// This member.
        member: MemberId,
    },
    /// An empty disk under an id that the cluster knows.
    #[error(
        "member {member} is known to member {peer} with another data directory: its votes and acknowledgements were lost with it; \
         remove the member, add it under a new id, and start it with --join"
    )]
    SecondLife {
        /// This member.
        member: MemberId,
        /// Who knows it.
        peer: MemberId,
    },
    /// An empty disk under an id that the cluster to join has used before.
    #[error(
        "member {member} is known to the cluster with another data directory: its votes and acknowledgements were lost with it; \
         remove the member, add it under a new id, and start it with --join"
    )]
    RejoinWithoutData {
        /// This member.
        member: MemberId,
    },
    /// No server of the cluster to join says what it is.
    #[error("no server of the cluster to join answers: {0}")]
    Join(String),
    /// The cluster does not know this member.
    #[error(
        "the cluster does not expect member {member}; first run: bulkhead member add {address} --id {member}"
    )]
    NotExpected {
        /// This member.
        member: MemberId,
        /// Its address.
        address: SmolStr,
    },
    /// The directory was being restored or recovered.
    #[error("{}: {text}", path.display())]
    Unfinished {
        /// The directory.
        path: std::path::PathBuf,
        /// What to do.
        text: String,
    },
    /// A file of the data directory cannot be read.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// This server is too old for the cluster to join.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// Another founder belongs to another cluster.
    #[error(
        "member {peer} at {address} belongs to cluster {found} already, and this data directory is empty: if the others \
         were restored from a backup, restore this one from the same backup (bulkhead snapshot restore); otherwise \
         join them with --join"
    )]
    Founded {
        /// Who.
        peer: MemberId,
        /// Where.
        address: SmolStr,
        /// Its cluster.
        found: String,
    },
    /// A socket cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Reflection cannot be offered.
    #[error("the service description cannot be read: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A thread cannot be started, or died.
    #[error("thread {name} failed: {reason}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

/// Runs one server until `shutdown` resolves, or it cannot go on. A stopping leader hands over first.
///
/// # Errors
/// Why it could not start or go on.
pub async fn run(options: ServerOptions, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    // The socket comes after the boot: founders ask each other before they serve, and a socket that nobody
    // serves yet would let them wait instead of refusing them.
    tokio::pin!(shutdown);
    let booted = tokio::select! {
        booted = boot_with_room(&options) => booted?,
        () = &mut shutdown => return Ok(()),
    };
    let listen = |source| RunError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let running = Running::start(&options, booted)?;
    tracing::info!(member = %options.member, cluster = %running.api.identity.cluster_id, listen = %options.listen, "server started");
    let result = running.serve(&options, listener, shutdown).await;
    tracing::info!(member = %options.member, "server stopped");
    result
}

/// A server's threads and tasks.
struct Running {
    api: Api,
    node: oneshot::Receiver<Result<(), Fatal>>,
    log: oneshot::Receiver<Result<(), StorageError>>,
    /// Damage that somebody met on the disk.
    damage: mpsc::Receiver<StorageError>,
    threads: Vec<std::thread::JoinHandle<()>>,
    expire: std::sync::mpsc::SyncSender<Job>,
}

impl Running {
    fn start(options: &ServerOptions, booted: Booted) -> Result<Self, RunError> {
        let Booted { stores, loaded, cluster_id, storage_uid } = booted;
        let Stores { mut log, events, snapshots, .. } = stores;
        let (events, snapshots, damage) = guard(events, snapshots);
        let identity = identity_of(options, cluster_id, storage_uid);
        let (handle, mut inbox) = Handle::new();
        let revision = loaded.state.revision();
        let metrics = Arc::new(Metrics::new());
        let watches = Arc::new(WatchHub::new(revision, options.watch_changes));
        let intents = Arc::new(IntentHub::default());
        let view = watch::Sender::new(view_of(&loaded));
        let status = watch::Sender::new(None);
        let views = Views { view: view.subscribe(), status: status.subscribe() };
        let configured = Arc::new(options.initial_cluster.iter().cloned().collect());
        let addresses = Addresses { views: views.clone(), configured, heard: Arc::default() };
        let config = server_config(options, &identity);
        let heartbeat_ms = config.heartbeat_ms;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let server = Server::new(config, Arc::new(ProtoCodec), loaded.state, loaded.log, &logger)?;

        let (persist, requests) = std::sync::mpsc::channel();
        let (history, jobs) = history::channel();
        let links = Links::new(
            identity.clone(),
            addresses.clone(),
            handle.clone(),
            snapshots.clone(),
            metrics.clone(),
        );
        let outlets = Outlets {
            persist,
            history: history.clone(),
            links,
            view,
            status,
            watches: watches.clone(),
            intents: intents.clone(),
            metrics: metrics.clone(),
        };
        let mut threads = Vec::new();
        let (log_done, log_end) = oneshot::channel();
        let (log_handle, log_metrics) = (handle.clone(), metrics.clone());
        threads.push(spawn("log", move || {
            // Nobody listens any more when the process ends first.
            let _ = log_done.send(persist::run(&mut *log, &requests, &log_handle, &log_metrics));
        })?);
        let kept = watch::Sender::new(revision);
        let history_kept = kept.subscribe();
        let keeper = History::new(events.clone(), snapshots.clone(), handle.clone(), kept);
        threads.push(spawn("history", move || keeper.run(&jobs))?);
        let (node_done, node_end) = oneshot::channel();
        threads.push(spawn("node", move || {
            let mut node = Node::new(server, outlets);
            // Before the node is dropped: the log thread ends with it, and its end is not the reason.
            let _ = node_done.send(node.run(&mut inbox));
        })?);
        let api = Api {
            identity,
            proposer: Proposer::new(handle.clone(), addresses),
            handle,
            views,
            watches,
            intents,
            metrics,
            events,
            history_kept,
            snapshots,
            backups: Arc::default(),
            turns: past::Turns::default(),
            data_dir: options.data_dir.as_path().into(),
            lease_ms: options.lease_ms,
            heartbeat_ms,
        };
        Ok(Self { api, node: node_end, log: log_end, damage, threads, expire: history })
    }

    async fn serve(
        mut self,
        options: &ServerOptions,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError> {
        let ticker = tokio::spawn(tick(self.api.handle.clone(), options.tick_ms));
        let expirer = tokio::spawn(expire(self.expire.clone(), options.history_ms, options.history_bytes));
        let backups = options.backup.clone().map(|b| tokio::spawn(backups::run(self.api.clone(), b)));
        let endpoint = options.metrics_endpoint.as_deref().map(MetricsEndpoint::new).transpose()?;
        let asker = tokio::spawn(metric_source::run(self.api.clone(), endpoint));
        let http = serve_metrics(options, &self.api).await?;
        let (stop_grpc, stopped) = oneshot::channel::<()>();
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let routes = self.api.routes().add_service(health_service).add_service(reflection);
        // Small answers must not wait for the delayed acknowledgement of the last one.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let grpc = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async {
                // The sender's end is the signal, too.
                let _ = stopped.await;
            });
        let mut grpc = tokio::spawn(grpc);
        let result = tokio::select! {
            // The node says why it ended before the log thread ends for want of work.
            biased;
            () = shutdown => { self.hand_over(options.member).await; Ok(()) }
            ended = &mut self.node => Err(fatal_of(ended)),
            Some(error) = self.damage.recv() => {
                tracing::error!(%error, "what this server keeps is damaged; it ends");
                self.hand_over(options.member).await;
                Err(error.into())
            }
            ended = &mut self.log => Err(log_error(ended)),
            ended = &mut grpc => return Err(grpc_error(ended)),
        };
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        drop(stop_grpc);
        self.api.handle.stop().await;
        // Streams of watchers and peers do not end by themselves.
        if timeout(DRAIN_TIMEOUT, &mut grpc).await.is_err() {
            grpc.abort();
        }
        ticker.abort();
        asker.abort();
        expirer.abort();
        if let Some(backups) = backups {
            // One that is being written is finished or stays a partial file; nothing waits for it.
            backups.abort();
        }
        if let Some(http) = http {
            http.abort();
        }
        let Self { threads, expire, api, .. } = self;
        drop((expire, api));
        // Threads end when their senders are gone; they flush what they hold.
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().map(|t| t.join()).collect::<Vec<_>>());
        if let Ok(Ok(ends)) = timeout(Duration::from_secs(10), joined).await
            && ends.iter().any(Result::is_err)
        {
            tracing::error!("a thread of the server panicked");
        }
        result
    }

    /// A leader lets another take over before it goes, so that nobody waits for an election.
    async fn hand_over(&self, member: MemberId) {
        let mut status = self.api.views.status.clone();
        let leads = status.borrow().as_ref().is_some_and(|s| s.leader == Some(member));
        if !leads {
            return;
        }
        let asked = self.api.handle.ask(|ticket| Input::TransferLeader { ticket, to: None });
        let handed = async {
            let started = asked.await;
            let other =
                |s: &Option<ServerStatus>| s.as_ref().is_some_and(|s| s.leader.is_some_and(|l| l != member));
            (started, status.wait_for(other).await.is_ok())
        };
        match timeout(HANDOVER_TIMEOUT, handed).await {
            Ok((_, true)) => tracing::info!("leadership was handed over"),
            _ => tracing::warn!("nobody took over the leadership in time; the others will elect a leader"),
        }
    }
}

fn identity_of(options: &ServerOptions, cluster_id: Uuid, storage_uid: Uuid) -> Identity {
    Identity {
        member: options.member,
        cluster_id,
        storage_uid,
        address: options.advertise.clone(),
        feature_level_max: options.feature_level_max,
    }
}

/// What readers see until the first entry is applied.
fn view_of(loaded: &Loaded) -> View {
    let point = loaded.log.snapshot_point();
    View { state: loaded.state.clone(), index: point.index, term: point.term }
}

fn server_config(options: &ServerOptions, identity: &Identity) -> ServerConfig {
    ServerConfig {
        member: options.member,
        cluster_id: identity.cluster_id,
        storage_uid: identity.storage_uid,
        address: options.advertise.clone(),
        version: SmolStr::new_static(crate::VERSION),
        initial_members: options.initial_cluster.clone(),
        // Real servers need no repeatable draws, only different ones.
        seed: digest128(&(identity.storage_uid, now_ms())) as u64,
        tick_ms: options.tick_ms,
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        snapshot_entries: options.snapshot_entries,
        snapshot_log_bytes: options.snapshot_log_bytes,
        snapshot_age_ms: options.snapshot_age_ms,
        keep_entries: options.snapshot_entries / KEEP_FRACTION,
        digest_interval: options.digest_interval.max(1),
        heartbeat_ms: options.lease_ms / HEARTBEATS_PER_LEASE,
        reconcile: ReconcileConfig {
            lease_ms: options.lease_ms,
            eviction_ms: options.eviction_ms,
            fence_kill_ms: options.fence_kill_ms,
            ..ReconcileConfig::default()
        },
        authorize: authorize_all,
        feature_level_max: options.feature_level_max,
    }
}

fn spawn(
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, RunError> {
    let builder = std::thread::Builder::new().name(format!("bulkhead-{name}"));
    builder.spawn(body).map_err(|e| RunError::Thread { name, reason: e.to_string() })
}

async fn tick(handle: Handle, tick_ms: u64) {
    let mut ticks = interval(Duration::from_millis(tick_ms));
    // A process that was stopped for a while must not make up for it: that would call elections at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if handle.tell(Input::Tick).await.is_err() {
            return;
        }
    }
}

async fn expire(jobs: std::sync::mpsc::SyncSender<Job>, history_ms: u64, max_bytes: u64) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    loop {
        ticks.tick().await;
        // A full queue means that the thread is busy: the next turn comes.
        let before_ms = now_ms().saturating_sub(history_ms);
        let _ = jobs.try_send(Job::Expire { before_ms, max_bytes });
    }
}

/// Serves metrics, and whether the server is ready, over HTTP.
async fn serve_metrics(
    options: &ServerOptions,
    api: &Api,
) -> Result<Option<tokio::task::JoinHandle<()>>, RunError> {
    let Some(address) = options.metrics_listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let (metrics, status) = (api.metrics.clone(), api.views.status.clone());
    let (data_dir, cards) = (api.data_dir.clone(), api.clone());
    let ready = move || {
        let ready = status.borrow().as_ref().is_some_and(|s| s.leader.is_some() && !s.disk_full);
        async move {
            if ready {
                (axum::http::StatusCode::OK, "ready\n")
            } else {
                (axum::http::StatusCode::SERVICE_UNAVAILABLE, "no leader\n")
            }
        }
    };
    let app = axum::Router::new()
        .route(
            "/metrics",
            axum::routing::get(move || async move {
                if let Ok(space) = DiskSpace::of(&data_dir) {
                    metrics.disk_space(space);
                }
                // The counters' text says at its end that nothing follows.
                cards.card_metrics().await + &metrics.text()
            }),
        )
        .route("/healthz", axum::routing::get(|| async { "ok\n" }))
        .route("/readyz", axum::routing::get(ready));
    let serve = async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    };
    Ok(Some(tokio::spawn(serve)))
}

fn fatal_of(ended: Result<Result<(), Fatal>, oneshot::error::RecvError>) -> RunError {
    match ended {
        Ok(Err(fatal)) => fatal.into(),
        Ok(Ok(())) => RunError::Thread { name: "node", reason: "ended unasked".to_owned() },
        Err(_) => RunError::Thread { name: "node", reason: "panicked".to_owned() },
    }
}

fn log_error(ended: Result<Result<(), StorageError>, oneshot::error::RecvError>) -> RunError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => RunError::Thread { name: "log", reason: "ended unasked".to_owned() },
        Err(_) => RunError::Thread { name: "log", reason: "panicked".to_owned() },
    }
}

fn grpc_error(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> RunError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => RunError::Thread { name: "grpc", reason: "ended unasked".to_owned() },
        Err(error) => RunError::Thread { name: "grpc", reason: error.to_string() },
    }
}
