//! Events: what happened. Applying them to a State cannot fail.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{
    Binding, ContainerSize, Deletion, DeliveryStatus, DeploymentSpec, DeploymentStatus, DeviceLabels,
    DeviceReport, HandledFault, Kind, Managers, MemberId, Name, NodeFacts, NodeImages, NodePhase,
    NodePoolRecord, NodeSpec, Object, ObjectId, ObjectStatus, OwnerRef, PodEnd, PodResize, PodStamp,
    PodStatus, Rare, Rejection, ReplicaSetSpec, ReplicaSetStatus, Revision, StringMap,
};

/// Everything that one submission did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The submission's id; nil for the control plane's own.
    pub request_id: Uuid,
    /// Who asked.
    pub actor: SmolStr,
    /// Log time, milliseconds since the epoch: never before an earlier transaction's.
    pub at_ms: u64,
    /// W3C `traceparent`, when traced.
    pub trace_context: Option<SmolStr>,
    /// The answer: the last revision that it made (or found), or why it was refused.
    pub outcome: Outcome,
    /// What happened, in order; empty when refused.
    pub events: Vec<Event>,
}

/// The answer to a submission.
pub type Outcome = Result<Revision, Rejection>;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Its place in history: one more than the event's before.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    // --- the cluster ---
    /// The cluster has an identity.
    ClusterInitialized {
        /// It.
        cluster_id: Uuid,
        /// Its first voters, with their addresses, `host:port`.
        members: Vec<(MemberId, SmolStr)>,
    },
    /// Newer rules hold.
    FeatureLevelRaised {
        /// The level.
        level: u32,
    },
    /// A member made itself known.
    MemberRegistered {
        /// Which.
        member: MemberId,
        /// Its data directory's id.
        storage_uid: Uuid,
        /// Where it is reached.
        address: SmolStr,
        /// Its version.
        version: SmolStr,
        /// The highest level it supports.
        feature_level_max: u32,
    },
    /// A learner joined.
    LearnerAdded {
        /// Which.
        member: MemberId,
        /// Where it is reached.
        address: SmolStr,
    },
    /// A learner became a voter.
    MemberPromoted {
        /// Which.
        member: MemberId,
    },
    /// A member left for good.
    MemberRemoved {
        /// Which.
        member: MemberId,
    },

    // --- any object ---
    /// An object came to be; its id is the event's revision.
    ObjectCreated(Object),
    /// Labels or annotations changed.
    MetaChanged {
        /// The object's kind.
        kind: Kind,
        /// The object.
        id: ObjectId,
        /// All labels.
        labels: StringMap,
        /// All annotations.
        annotations: StringMap,
    },
    /// Other fields are managed, or by others.
    ManagersChanged {
        /// The object's kind.
        kind: Kind,
        /// The object.
        id: ObjectId,
        /// All of them.
        managers: Managers,
    },
    /// Somebody asked for an object's end.
    DeletionRequested {
        /// The object's kind.
        kind: Kind,
        /// The object.
        id: ObjectId,
        /// When, and with what grace.
        deletion: Deletion,
        /// One CamelCase word on why.
        reason: SmolStr,
    },
    /// An object is gone.
    ObjectDeleted {
        /// The object's kind.
        kind: Kind,
        /// The object.
        id: ObjectId,
    },

    /// The spec of an object changed; of a kind that has no event of its own for that.
    SpecChanged(Object),
    /// The status of an object changed; of a kind that has no event of its own for that.
    StatusChanged {
        /// Which object.
        id: ObjectId,
        /// All of it.
        status: ObjectStatus,
    },

    // --- workloads ---
    /// A Deployment's spec changed.
    DeploymentSpecChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        spec: DeploymentSpec,
    },
    /// A Deployment's status changed.
    DeploymentStatusChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        status: DeploymentStatus,
    },
    /// A Deployment's delivery by steps moved.
    DeliveryChanged {
        /// Which Deployment.
        id: ObjectId,
        /// All of it.
        delivery: Rare<DeliveryStatus>,
    },
    /// A ReplicaSet's spec changed.
    ReplicaSetSpecChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        spec: ReplicaSetSpec,
    },
    /// A ReplicaSet's wanted number changed.
    ReplicaSetScaled {
        /// Which.
        id: ObjectId,
        /// The number.
        replicas: u32,
    },
    /// A ReplicaSet stands for another revision of its Deployment.
    RolloutRevisionChanged {
        /// Which ReplicaSet.
        id: ObjectId,
        /// The revision.
        rollout_revision: u64,
    },
    /// A ReplicaSet's status changed.
    ReplicaSetStatusChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        status: ReplicaSetStatus,
    },

    /// A ControllerRevision's template is wanted again.
    ControllerRevisionChanged {
        /// Which ControllerRevision.
        id: ObjectId,
        /// Its new number.
        revision: u64,
    },
    /// A pod of a Job ended and was counted, once.
    JobPodEnded {
        /// The Job.
        job: ObjectId,
        /// How the pod ended.
        end: PodEnd,
        /// The index that it stood for.
        index: Option<u32>,
        /// With [`PodEnd::FailedJob`]: which pod and rule, for people; else empty.
        message: String,
    },

    // --- pods ---
    /// A pod came to be from the template of a StatefulSet, DaemonSet or Job; its id is the event's revision.
    OwnedPodCreated {
        /// The owner.
        owner: OwnerRef,
        /// What distinguishes the pod from its siblings.
        stamp: PodStamp,
    },
    /// A pod came to be from its ReplicaSet's template; its id is the event's revision.
    PodCreated {
        /// The set.
        replica_set: ObjectId,
        /// The pod's name.
        name: Name,
    },
    /// A pod has its node.
    PodBound(Binding),
    /// A pod's containers have other sizes, or shall have.
    PodResized {
        /// Which.
        id: ObjectId,
        /// What the pod counts for from now on; of containers that are not named, what they counted for.
        sizes: Vec<ContainerSize>,
        /// What is still to be done.
        resize: Rare<PodResize>,
    },
    /// A pod's status changed.
    PodStatusChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        status: PodStatus,
    },

    // --- nodes ---
    /// A node's spec changed.
    NodeSpecChanged {
        /// Which.
        id: ObjectId,
        /// All of it.
        spec: NodeSpec,
    },
    /// A node's agent started a session.
    NodeRegistered {
        /// Which.
        id: ObjectId,
        /// The session's incarnation.
        incarnation: u64,
        /// What the agent found.
        facts: NodeFacts,
    },
    /// A node's devices are others than before: what is known of them now, and which are forgotten.
    DevicesReported {
        /// Which ResourceSlice.
        id: ObjectId,
        /// The agent's session.
        incarnation: u64,
        /// What changed. A device that is gone while a pod has it is among the devices, as lost.
        report: DeviceReport,
    },
    /// A device is kept from pods, or given back.
    DeviceCordoned {
        /// Which ResourceSlice.
        id: ObjectId,
        /// The device's id.
        device: SmolStr,
        /// Kept or given back.
        cordoned: bool,
    },
    /// A device had a fault.
    DeviceFaulted {
        /// Which ResourceSlice.
        id: ObjectId,
        /// The fault, and what follows.
        handled: HandledFault,
    },
    /// A node has other images than before.
    ImagesReported {
        /// Which node.
        id: ObjectId,
        /// All that its agent tells of.
        images: NodeImages,
    },
    /// A node has other labels by its devices.
    DeviceLabelsSynced {
        /// Which node.
        id: ObjectId,
        /// All its labels.
        labels: StringMap,
        /// Those of them that it has by its devices.
        record: Rare<DeviceLabels>,
    },
    /// A node has other things from its pool.
    NodePoolSynced {
        /// Which node.
        id: ObjectId,
        /// All its labels.
        labels: StringMap,
        /// All of its spec.
        spec: NodeSpec,
        /// What of that is from its pool.
        record: Rare<NodePoolRecord>,
    },
    /// A node became Ready, Unreachable or Fenced.
    NodePhaseChanged {
        /// Which.
        id: ObjectId,
        /// Its phase.
        phase: NodePhase,
    },
}
