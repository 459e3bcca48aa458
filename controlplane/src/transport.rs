//! Links to the other members: one stream each for messages, one call at a time for snapshots.

mod channel;
mod link;
mod message;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_controlplane_core::server::{Input, PeerMessage, SendSnapshot};
use bulkhead_proto::v1;
use bulkhead_storage::SnapshotStore;
use bulkhead_types::MemberId;
use smol_str::SmolStr;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::view::Views;

pub(crate) use channel::connect;
pub(crate) use message::from_frame;
pub(crate) use snapshot::Receiver as SnapshotReceiver;

/// Most messages that wait for one peer. Raft sends again what is lost, so more are dropped.
const QUEUE_MAX: usize = 4096;

/// Who this server is towards its peers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster_id: Uuid,
    pub(crate) storage_uid: Uuid,
    pub(crate) address: SmolStr,
    pub(crate) feature_level_max: u32,
}

impl Identity {
    /// The first thing that is said on every stream.
    pub(crate) fn hello(&self, to: MemberId) -> v1::PeerHello {
        use bulkhead_proto::Field;
        v1::PeerHello {
            cluster_id: self.cluster_id.to_wire(),
            from: self.member.0,
            to: to.0,
            storage_uid: self.storage_uid.to_wire(),
            version: crate::VERSION.to_owned(),
            feature_level_max: self.feature_level_max,
            address: self.address.to_string(),
        }
    }
}

/// Most callers whose addresses are remembered while the log does not say them.
const HEARD_MAX: usize = 64;

/// Where the members are: as the log says, or while it does not yet, as the configuration says or as they said
/// themselves. The last is all that a member has which joins: the leader calls it before it has any of the log.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) views: Views,
    pub(crate) configured: Arc<BTreeMap<MemberId, SmolStr>>,
    pub(crate) heard: Arc<Mutex<BTreeMap<MemberId, SmolStr>>>,
}

impl Addresses {
    /// A member's address, `host:port`.
    pub(crate) fn of(&self, member: MemberId) -> Option<SmolStr> {
        let known = self.views.view.borrow().state.member(member).map(|m| m.address.clone());
        known.or_else(|| self.configured.get(&member).cloned()).or_else(|| {
            // Nothing panics while it holds the map.
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&member).cloned()
        })
    }

    /// Remembers what a member of this cluster said of itself.
    pub(crate) fn hear(&self, member: MemberId, address: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < HEARD_MAX || heard.contains_key(&member) {
            heard.insert(member, SmolStr::new(address));
        }
    }
}

/// The links to all other members.
pub(crate) struct Links {
    links: BTreeMap<MemberId, mpsc::Sender<v1::PeerFrame>>,
    context: link::Context,
    snapshots: Arc<dyn SnapshotStore>,
    metrics: Arc<Metrics>,
    runtime: Runtime,
}

impl Links {
    pub(crate) fn new(
        identity: Identity,
        addresses: Addresses,
        handle: Handle,
        snapshots: Arc<dyn SnapshotStore>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let context = link::Context { identity, addresses, handle };
        Self { links: BTreeMap::new(), context, snapshots, metrics, runtime: Runtime::current() }
    }

    /// Sends a message, or drops it when too many wait.
    pub(crate) fn send(&mut self, to: MemberId, message: PeerMessage) {
        let link = self.links.entry(to).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            self.runtime.spawn(link::run(self.context.clone(), to, receiver));
            sender
        });
        match link.try_send(message::to_frame(message)) {
            Ok(()) => self.metrics.messages_sent.inc(),
            Err(_) => self.metrics.messages_dropped.inc(),
        };
    }

    /// Sends a snapshot in the background; how it ended comes back as an input.
    pub(crate) fn send_snapshot(&self, send: SendSnapshot) {
        let (context, snapshots) = (self.context.clone(), self.snapshots.clone());
        self.runtime.spawn(async move {
            let to = send.to;
            let result = snapshot::send(&context, snapshots, send).await;
            if let Err(error) = &result {
                tracing::warn!(member = %to, %error, "a snapshot could not be sent; raft will ask again");
            }
            // When the node thread has ended there is nobody to tell.
            let _ = context.handle.tell(Input::SnapshotSent { to, delivered: result.is_ok() }).await;
        });
    }
}
