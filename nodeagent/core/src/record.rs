//! What must be on disk before a guest starts, so that an agent that restarts can adopt it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bulkhead_types::{
    ContainerSize, Name, ObjectId, PodBandwidth, PodSpec, PodStatus, Resources, RestartPolicy, Revision,
};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::pod::{Container, Role};
use crate::reason;

/// What the agent needs of a pod's spec to look after its guest without an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// Whether the guest is started again when it dies.
    pub restart_policy: RestartPolicy,
    /// Grace between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// What it counts for in the node's admission.
    pub request: Resources,
    /// Whether at most one instance may ever live.
    pub unique: bool,
    /// Names of the init containers, in order.
    pub init_containers: Vec<SmolStr>,
    /// Names of the containers, in order.
    pub containers: Vec<SmolStr>,
    /// Names of the init containers that run beside the others; earlier versions had none.
    #[serde(default)]
    pub sidecars: Vec<SmolStr>,
    /// The volumes of claims that its guest has for itself; earlier versions had none.
    #[serde(default)]
    pub volumes: Vec<Uuid>,
    /// Those that it only reads, beside others; earlier versions had none.
    #[serde(default)]
    pub volumes_read: Vec<Uuid>,
}

impl PodPlan {
    /// The init containers, before anything happened.
    pub(crate) fn fresh_init_containers(&self) -> Vec<Container> {
        let role = |name| if self.sidecars.contains(name) { Role::Sidecar } else { Role::Init };
        self.init_containers
            .iter()
            .map(|name| Container::new(name.clone(), role(name), reason::CONTAINER_CREATING))
            .collect()
    }

    /// The containers, before anything happened.
    pub(crate) fn fresh_containers(&self) -> Vec<Container> {
        let waits_for_init = !self.init_containers.is_empty();
        let why = if waits_for_init { reason::POD_INITIALIZING } else { reason::CONTAINER_CREATING };
        self.containers.iter().map(|name| Container::new(name.clone(), Role::Main, why)).collect()
    }

    /// The plan of a spec, without the volumes of its claims.
    #[must_use]
    pub fn new(spec: &PodSpec, unique: bool) -> Self {
        let names = |list: &[bulkhead_types::Container]| list.iter().map(|c| c.name.clone()).collect();
        Self {
            restart_policy: spec.restart_policy,
            grace_ms: spec.termination_grace_ms,
            request: spec.scheduling_request(),
            unique,
            init_containers: names(&spec.init_containers),
            containers: names(&spec.containers),
            sidecars: spec.sidecars().map(|c| c.name.clone()).collect(),
            volumes: Vec::new(),
            volumes_read: Vec::new(),
        }
    }
}

/// One guest of this node, as the agent remembers it over its own restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Which pod.
    pub pod: ObjectId,
    /// The pod's UUID; names its folder.
    pub uid: Uuid,
    /// The pod's namespace.
    pub namespace: Name,
    /// The pod's name.
    pub name: Name,
    /// Counts the guests of this pod on this node, from 1.
    pub instance: u32,
    /// Generation of the intent that it was started for.
    pub generation: Revision,
    /// Digest of the spec that it runs, as 32 hexadecimal digits.
    pub spec_digest: SmolStr,
    /// What is needed of the spec.
    pub plan: PodPlan,
    /// Digest of each container's image.
    pub images: BTreeMap<SmolStr, SmolStr>,
    /// How often each container was started again in earlier guests.
    pub restart_counts: BTreeMap<SmolStr, u32>,
    /// Times the whole guest was started again.
    pub sandbox_restarts: u32,
    /// Whether a container of this or an earlier guest ever started.
    pub started: bool,
    /// Whether it was started under a guard; records of earlier versions say nothing, and their guests have none.
    #[serde(default)]
    pub guarded: bool,
    /// The guest's address; records of earlier versions say nothing, and their guests have no network.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// How fast the guest may send and receive; records of earlier versions say nothing, and their guests go as fast as they can.
    #[serde(default)]
    pub bandwidth: Option<PodBandwidth>,
    /// What its containers have; records of earlier versions say nothing.
    #[serde(default)]
    pub sizes: Vec<ContainerSize>,
    /// A resize was begun and is not known to be done.
    #[serde(default)]
    pub resize_begun: bool,
    /// The most that its containers may have by that; empty when nothing was begun.
    #[serde(default)]
    pub resize_most: Vec<ContainerSize>,
    /// The least, by the same; records of earlier versions say nothing.
    #[serde(default)]
    pub resize_least: Vec<ContainerSize>,
    /// The control plane is told of the sizes.
    #[serde(default)]
    pub resized: bool,
    /// W3C `traceparent` of the command that led here.
    pub trace_context: Option<SmolStr>,
    /// Set once it ended for good.
    pub ended: Option<PodStatus>,
}

/// The form of a spec digest in a record.
#[must_use]
pub fn spec_digest_text(digest: u128) -> SmolStr {
    SmolStr::new(format!("{digest:032x}"))
}
