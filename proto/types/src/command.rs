//! Commands: what somebody wants. They are what the log holds.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{
    AllocatedDevice, AutoscalerStatus, ContainerSize, DeliveryStatus, DeploymentStatus, Descheduled,
    DeviceReport, Kind, MemberId, Name, NetworkAttachment, NodeFacts, NodeGpu, NodeImages,
    NodeOperationControl, NodePhase, Object, ObjectId, ObjectRef, ObjectStatus, OwnerRef, PodCpus, PodReport,
    PodStamp, Rare, ReplicaSetStatus, Revision, SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus,
    VerticalAutoscalerStatus, VolumeResult,
};

/// Most commands of one submission.
pub const COMMANDS_MAX: usize = 1024;
/// Most items (bindings, reports, names) of one command.
pub const ITEMS_MAX: usize = 4096;
/// Most pods that end for one, or for a group: two groups of the largest size.
pub const VICTIMS_MAX: usize = ITEMS_MAX;
/// The same below [`crate::GROUP_PREEMPTION_LEVEL`].
pub const VICTIMS_MAX_BEFORE_GROUPS: usize = 128;

/// A submission, completed by its proposer with everything that a replica may not find out for itself.
/// Its commands apply as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamped {
    /// Chosen by the client: a repeated submission gets the first one's outcome. Nil for the control
    /// plane's own commands, whose outcome nobody asks for twice.
    pub request_id: Uuid,
    /// Who asks, such as `user:alice`, `agent:node-1`, `system:scheduler`.
    pub actor: SmolStr,
    /// The proposer's clock, milliseconds since the epoch.
    pub proposed_at_ms: u64,
    /// W3C `traceparent`, when the submission is traced.
    pub trace_context: Option<SmolStr>,
    /// What must hold when the commands are applied.
    pub preconditions: Vec<Precondition>,
    /// What is wanted; at least one, at most [`COMMANDS_MAX`].
    pub commands: Vec<Command>,
}

/// Where room is kept for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nomination {
    /// Which pod waits.
    pub pod: ObjectId,
    /// Where it shall be.
    pub node: ObjectId,
}

/// What must hold when a submission is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Precondition {
    /// The object.
    pub object: ObjectRef,
    /// The revision it must still have; `None` when it must not exist.
    pub revision: Option<Revision>,
}

/// One thing that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    // --- users ---
    /// Creates an object; refused when the name is taken.
    Create(Object),
    /// Creates an object, or replaces spec, labels and annotations of the existing one.
    Apply(Object),
    /// Asks for an object to end.
    Delete {
        /// Which.
        object: ObjectRef,
        /// Grace for pods, in milliseconds; the pod's own when unset.
        grace_ms: Option<u64>,
        /// Forget a pod at once, without its agent's word that it ended; one that must be unique ends without grace, and
        /// is forgotten once its agent says so or its node is fenced. Forget a node whatever it may run.
        force: bool,
    },
    /// Sets the wanted number of replicas of a Deployment or ReplicaSet.
    Scale {
        /// Which.
        object: ObjectRef,
        /// How many, at most [`crate::REPLICAS_MAX`].
        replicas: u32,
    },
    /// Holds back, or lets go, a Deployment's rollout.
    SetPaused {
        /// Which Deployment.
        deployment: ObjectRef,
        /// Hold back or let go.
        paused: bool,
    },
    /// Stops all pods of a Deployment, whose wanted number stays, or lets them run again.
    SetStopped {
        /// Which Deployment.
        object: ObjectRef,
        /// Stop or start.
        stopped: bool,
    },
    /// Lets a delivery by steps go on.
    PromoteRollout {
        /// Which Deployment.
        deployment: ObjectRef,
        /// Past all steps that are left; else past the present pause.
        full: bool,
    },
    /// Ends a delivery by steps: all pods are of the stable template again.
    AbortRollout {
        /// Which Deployment.
        deployment: ObjectRef,
    },
    /// Begins a delivery that was ended anew, at its first step.
    RetryRollout {
        /// Which Deployment.
        deployment: ObjectRef,
    },
    /// Makes an earlier revision's template the wanted one.
    UndoRollout {
        /// Which Deployment.
        deployment: ObjectRef,
        /// Which revision; the last one before the current when unset.
        to_revision: Option<u64>,
    },
    /// Replaces all pods with new ones of the same template.
    RestartRollout {
        /// Which Deployment.
        deployment: ObjectRef,
        /// The caller's time, RFC 3339; it becomes a template annotation.
        restarted_at: SmolStr,
    },
    /// Keeps a device from new pods, or gives it back; whoever has it keeps it.
    SetDeviceCordoned {
        /// Which node.
        node: Name,
        /// Which device: its id, PCI address or index.
        device: SmolStr,
        /// Keep or give back.
        cordoned: bool,
    },
    /// Says in which mode the cards of a node shall be.
    SetGpuMode {
        /// Which node.
        node: Name,
        /// The mode; unset: none in particular.
        gpu: Option<NodeGpu>,
    },
    /// Cordons or uncordons a node.
    SetUnschedulable {
        /// Which node.
        node: Name,
        /// Cordon or uncordon.
        unschedulable: bool,
    },
    /// Pauses, resumes or cancels an operation on nodes.
    ControlNodeOperation {
        /// Which.
        operation: Name,
        /// What shall become of it.
        control: NodeOperationControl,
    },
    /// Holds back, or lets go, the pods of a Job or the runs of a CronJob.
    SetSuspended {
        /// Which.
        object: ObjectRef,
        /// Hold back or let go.
        suspended: bool,
    },
    /// Runs a CronJob's job now, whatever its schedule says.
    RunCronJob {
        /// Which CronJob.
        cron_job: ObjectRef,
        /// The job's name.
        name: Name,
    },

    /// Makes an object what was decided on the one that was looked at: an apply, or another edit, with who manages its
    /// fields then. Servers make it of what clients ask for.
    Update {
        /// What it shall be.
        object: Object,
        /// [`crate::ObjectMeta::edit_digest`] of what was looked at; `None` when there was nothing.
        seen: Option<u128>,
    },
    /// Asks for a pod to end, if the PodDisruptionBudgets that it counts for allow it when this is applied.
    Evict {
        /// Which pod.
        pod: ObjectRef,
        /// Its grace in milliseconds; the pod's own when unset.
        grace_ms: Option<u64>,
        /// The VerticalPodAutoscaler whose recommendation its replacement shall have. Then it is also refused when the
        /// pod needs no other requests, when too few others live, or when the last such eviction was a moment ago.
        autoscaler: Option<ObjectId>,
    },

    /// Gives containers of a running pod other amounts of cpu and memory, without a restart where that goes.
    ResizePod {
        /// Which pod.
        pod: ObjectRef,
        /// Which containers, each once, with what changes; what is not said stays. At most
        /// [`crate::RESIZED_CONTAINERS_MAX`].
        containers: Vec<ContainerSize>,
    },

    // --- agents ---
    /// A node's agent starts a session: creates or renews the node.
    RegisterNode {
        /// The node's name.
        name: Name,
        /// What the agent found.
        facts: NodeFacts,
    },
    /// What a node's agent saw of its pods. Items about unknown or foreign pods are passed over.
    ReportPods {
        /// Which node.
        node: ObjectId,
        /// The session's incarnation; an older one is refused.
        incarnation: u64,
        /// What it saw; at most [`ITEMS_MAX`].
        reports: Vec<PodReport>,
    },

    /// What a node's agent says of its devices.
    ReportDevices {
        /// Which node.
        node: ObjectId,
        /// The session's incarnation; an older one is refused.
        incarnation: u64,
        /// What it says.
        report: DeviceReport,
    },
    /// What a node's agent says of its images.
    ReportImages {
        /// Which node.
        node: ObjectId,
        /// The session's incarnation; an older one is refused.
        incarnation: u64,
        /// All that it tells of.
        images: NodeImages,
    },
    /// A node gets the labels that its devices mean, whatever those are then.
    SyncDeviceLabels {
        /// Which node.
        node: ObjectId,
    },
    /// What a node's NICs shall be by the policies, and what they are. Refused when a NIC would change whose VFs a pod has.
    SetSriovNodeState {
        /// Which node.
        node: ObjectId,
        /// What its NICs shall be.
        spec: SriovNetworkNodeStateSpec,
        /// What they are.
        status: SriovNetworkNodeStateStatus,
    },
    /// What a node's agent did with volumes.
    ReportVolumeTasks {
        /// Which node.
        node: ObjectId,
        /// The session's incarnation; an older one is refused.
        incarnation: u64,
        /// What came of what the node was told to do with volumes; at most [`ITEMS_MAX`]. What is not wanted any more is
        /// passed over.
        results: Vec<VolumeResult>,
    },
    /// A node's agent deleted the data of claims or snapshots that end. Items about others are passed over.
    ReportVolumes {
        /// Which node.
        node: ObjectId,
        /// The session's incarnation; an older one is refused.
        incarnation: u64,
        /// Of which claims nothing is left there; at most [`ITEMS_MAX`].
        deleted: Vec<ObjectId>,
    },

    // --- reconcilers ---
    /// Makes a Deployment's template a ReplicaSet, with no replicas yet.
    CreateReplicaSet {
        /// Which Deployment.
        deployment: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
        /// The new set's name.
        name: Name,
        /// The value of its `pod-template-hash` label.
        template_hash: SmolStr,
        /// The Deployment's revision it stands for.
        rollout_revision: u64,
    },
    /// Gives an existing ReplicaSet of a Deployment a new rollout revision (undo, or the same template again).
    SetRolloutRevision {
        /// Which ReplicaSet.
        replica_set: ObjectId,
        /// Its new revision.
        rollout_revision: u64,
    },
    /// Sets a ReplicaSet's wanted number, if it still is what was looked at.
    ScaleReplicaSet {
        /// Which ReplicaSet.
        replica_set: ObjectId,
        /// The number that was looked at.
        from: u32,
        /// The wanted one.
        to: u32,
    },
    /// Creates pods of a ReplicaSet, up to its wanted number. Names that are taken are passed over.
    CreatePods {
        /// Which ReplicaSet.
        replica_set: ObjectId,
        /// Their names; at most [`ITEMS_MAX`].
        names: Vec<Name>,
    },
    /// Asks for pods to end, with their own grace. Pods that are gone are passed over.
    DeletePods {
        /// Which; at most [`ITEMS_MAX`].
        pods: Vec<ObjectId>,
        /// When set: no more than this ReplicaSet has above its wanted number.
        surplus_of: Option<ObjectId>,
        /// One CamelCase word on why.
        reason: SmolStr,
    },
    /// Moves a delivery by steps on; refused when it is not where it was seen.
    AdvanceDelivery {
        /// Which Deployment.
        deployment: ObjectId,
        /// Where it was seen.
        from: Rare<DeliveryStatus>,
        /// Where it goes; the time of its step is set where the command is applied.
        to: Rare<DeliveryStatus>,
    },
    /// Sets a Deployment's status.
    SetDeploymentStatus {
        /// Which Deployment.
        deployment: ObjectId,
        /// Its status.
        status: DeploymentStatus,
    },
    /// Sets a ReplicaSet's status.
    SetReplicaSetStatus {
        /// Which ReplicaSet.
        replica_set: ObjectId,
        /// Its status.
        status: ReplicaSetStatus,
    },
    /// Places pods. Each is checked again; those that no longer fit are passed over.
    BindPods {
        /// Which pod where; at most [`ITEMS_MAX`].
        bindings: Vec<Binding>,
    },
    /// Records why pods cannot be placed now.
    SetPodsUnschedulable {
        /// Which, with the reason for people; at most [`ITEMS_MAX`].
        pods: Vec<(ObjectId, String)>,
    },
    /// Keeps a node's room for a pod that fits nowhere, and asks pods of lower priority there to end for it. Refused as a
    /// whole when anything about it is no longer so.
    Preempt {
        /// Which pod waits.
        pod: ObjectId,
        /// Where it shall be.
        node: ObjectId,
        /// Which pods end, at most [`VICTIMS_MAX`]; none when pods that end already make room enough.
        victims: Vec<ObjectId>,
    },
    /// Places pods of a group together. Refused as a whole when one of them no longer fits, or when they are too few.
    BindPodGroup {
        /// Which pod where; at most [`ITEMS_MAX`].
        bindings: Vec<Binding>,
    },
    /// Keeps room for pods of a group that waits and fits nowhere, and asks pods of lower priority to end for it. Refused as a
    /// whole when anything about it is no longer so.
    PreemptForGroup {
        /// All that must be placed together, and where each shall be, in an order in which each fits beside those before; at
        /// most [`ITEMS_MAX`].
        nominations: Vec<Nomination>,
        /// Which pods end, at most [`VICTIMS_MAX`]; none when pods that end already make room enough.
        victims: Vec<ObjectId>,
    },
    /// Takes the room for resizes that wait for it. Each is checked again; those that still have none are passed over.
    AdmitResizes {
        /// Of which pods; at most [`ITEMS_MAX`].
        pods: Vec<ObjectId>,
    },
    /// Gives up the room that is kept for pods that can no longer use it. Those that have none are passed over.
    ClearNominations {
        /// Which; at most [`ITEMS_MAX`].
        pods: Vec<ObjectId>,
    },
    /// Records that a node's lease runs or ran out, or that it is fenced: then pods that must be unique are over there.
    SetNodePhase {
        /// Which node.
        node: ObjectId,
        /// The incarnation that was looked at.
        incarnation: u64,
        /// Its phase.
        phase: NodePhase,
    },
    /// Removes objects whose owner is gone, or that wait for nothing any more. Others are passed over.
    CollectGarbage {
        /// Which; at most [`ITEMS_MAX`].
        objects: Vec<(Kind, ObjectId)>,
    },

    /// Creates an object for its owner, if that still is what was looked at.
    CreateOwned {
        /// The owner.
        owner: OwnerRef,
        /// Its generation that was looked at.
        generation: u64,
        /// What it shall own; its owner is set from here.
        object: Object,
    },
    /// Creates pods from their owner's template. Each is checked again; those that are not wanted are passed over.
    CreateOwnedPods {
        /// The owner: a StatefulSet, DaemonSet or Job.
        owner: OwnerRef,
        /// Its generation that was looked at.
        generation: u64,
        /// Which; at most [`ITEMS_MAX`].
        pods: Vec<PodStamp>,
    },
    /// Removes objects that their owner needs no more (old templates, old jobs). Others are passed over.
    DeleteOwned {
        /// The owner.
        owner: OwnerRef,
        /// Which; at most [`ITEMS_MAX`].
        objects: Vec<(Kind, ObjectId)>,
    },
    /// Asks for pods of a StatefulSet or DaemonSet to end, with their own grace. Each is checked again; those that
    /// are still wanted, or that the update strategy does not give up yet, are passed over.
    DeleteOwnedPods {
        /// The owner.
        owner: OwnerRef,
        /// Its generation that was looked at.
        generation: u64,
        /// Which; at most [`ITEMS_MAX`].
        pods: Vec<ObjectId>,
        /// One CamelCase word on why.
        reason: SmolStr,
    },
    /// Sets an object's status.
    SetStatus {
        /// Which object.
        id: ObjectId,
        /// Its status, and so its kind.
        status: ObjectStatus,
    },
    /// Gives a ControllerRevision a new number: its template is wanted again.
    SetControllerRevision {
        /// Which.
        id: ObjectId,
        /// Its new number, above all others of its owner.
        revision: u64,
    },

    /// What an autoscaler decided, with the figures that it decided by. Refused when the workload, the autoscaler or its
    /// last decision are others by now, or when bounds or policies do not allow it.
    Autoscale {
        /// Which autoscaler.
        autoscaler: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
        /// The size of the workload that was looked at; `None` when there is no such workload.
        from: Option<u32>,
        /// The size that it shall have; the same when it stays.
        to: u32,
        /// The autoscaler's status, without this change of the size.
        status: AutoscalerStatus,
    },

    /// What a VerticalPodAutoscaler recommends, with the figures that it was found by. Refused when its spec or its last
    /// decision are others by now.
    Recommend {
        /// Which VerticalPodAutoscaler.
        autoscaler: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
        /// Its status; what evictions made of it stays as it is.
        status: VerticalAutoscalerStatus,
    },

    /// The time of a job of a CronHorizontalPodAutoscaler has come. What follows is decided by what is true when this is
    /// applied; refused when that time, or a later one, had its run.
    ScaleBySchedule {
        /// Which CronHorizontalPodAutoscaler.
        scaler: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
        /// Which of its jobs.
        job: SmolStr,
        /// The time of the schedule, milliseconds since the epoch.
        scheduled_ms: u64,
    },

    /// Gives a node what its pool gives its nodes, and takes back what an earlier one gave. What follows is decided by what is
    /// true when this is applied; refused when nothing does.
    SyncNodePool {
        /// Which node.
        node: ObjectId,
    },
    /// Lets an operation on nodes go on by one step. What follows is decided by what is true when this is applied; refused
    /// when nothing does.
    AdvanceNodeOperation {
        /// Which.
        operation: ObjectId,
    },

    /// Evicts pods by a DeschedulerPolicy. Each is checked again; those that may not be evicted now, or that fit nowhere else,
    /// are passed over. Refused when the policy is another one, or its next run is not due.
    Deschedule {
        /// Which policy.
        policy: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
        /// Which pods, with why; at most [`crate::DESCHEDULED_PER_RUN_MAX`].
        pods: Vec<Descheduled>,
    },

    /// Brings an ElasticWorkload's source and units to the sizes and specs that it wants of them. What follows is decided by
    /// what is true when this is applied; refused when nothing does.
    SpreadReplicas {
        /// Which ElasticWorkload.
        workload: ObjectId,
        /// Its generation that was looked at.
        generation: u64,
    },

    // --- the cluster itself ---
    /// The first command of a cluster's log.
    InitCluster {
        /// The cluster's identity.
        cluster_id: Uuid,
        /// Its first voters, with their addresses, `host:port`.
        members: Vec<(MemberId, SmolStr)>,
    },
    /// Lets every replica use the rules of a newer feature level.
    RaiseFeatureLevel {
        /// The level.
        level: u32,
    },
    /// A member makes its data directory and version known.
    RegisterMember {
        /// Which member.
        member: MemberId,
        /// Made once with its data directory.
        storage_uid: Uuid,
        /// Where clients and peers reach it, `host:port`.
        address: SmolStr,
        /// Its software's version.
        version: SmolStr,
        /// The highest feature level it supports.
        feature_level_max: u32,
    },
}

/// One placement decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// Which pod.
    pub pod: ObjectId,
    /// Where.
    pub node: ObjectId,
    /// How many nodes were looked at.
    pub nodes_considered: u32,
    /// The score of the winner, 0 to 100 per plugin, summed.
    pub score: i64,
    /// Which devices of that node each container gets; at most [`crate::DEVICES_PER_POD_MAX`].
    pub devices: Vec<AllocatedDevice>,
    /// Which networks it is attached to by them, with its addresses; at most [`crate::NETWORKS_PER_POD_MAX`].
    #[serde(default)]
    pub networks: Vec<NetworkAttachment>,
    /// Which CPUs of that node it has for itself. Needs [`crate::NUMA_LEVEL`].
    #[serde(default)]
    pub cpus: Rare<PodCpus>,
}

/// A change of the cluster's membership, as it travels with Raft's own configuration change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MembershipChange {
    /// The request that asked for it.
    pub request_id: Uuid,
    /// Who asks.
    pub actor: SmolStr,
    /// The proposer's clock, milliseconds since the epoch.
    pub proposed_at_ms: u64,
    /// What changes.
    pub action: MembershipAction,
    /// Whether the operator wanted it although the quorum would be lost; needs
    /// [`crate::FORCED_MEMBERSHIP_LEVEL`].
    pub force_unsafe: bool,
}

/// What changes in the cluster's membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MembershipAction {
    /// A new member that receives the log but does not vote.
    AddLearner {
        /// Its id; never one that was used before.
        member: MemberId,
        /// Where it is reached, `host:port`.
        address: SmolStr,
    },
    /// A learner becomes a voter.
    Promote {
        /// Which.
        member: MemberId,
    },
    /// A member leaves for good.
    Remove {
        /// Which.
        member: MemberId,
    },
}
