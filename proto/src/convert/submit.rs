//! What clients and agents send: defaults filled in, the control plane's own fields cleared, everything
//! bounded. What gets through here can be written to the log.

use bulkhead_types::{
    COMMANDS_MAX, Command, DEVICE_TEXT_BYTES_MAX, GPU_MODE_BYTES_MAX, Kind, LABELS_MAX, NAME_LENGTH_MAX,
    Name, NodeFacts, Object, Precondition, REPLICAS_MAX, StringMap, check_label_key, check_label_value,
    validate,
};
use prost::Message;
use smol_str::SmolStr;
use uuid::Uuid;

use super::defaults::prepare;
use super::{ConvertError, Field, at_most, read, unknown_variant};
use crate::v1;
use crate::v1::{command, user_command};

/// Who asks, when a request does not say.
pub const ACTOR_DEFAULT: &str = "user:anonymous";
/// Longest actor, in bytes.
pub const ACTOR_BYTES_MAX: usize = 256;
/// Longest trace context, in bytes; a W3C `traceparent` of version 00 has 55.
pub const TRACE_CONTEXT_BYTES_MAX: usize = 256;
/// Largest submitted object on the wire, in bytes: twice what [`validate`] lets through.
pub const OBJECT_MESSAGE_BYTES_MAX: usize = 2 * bulkhead_types::OBJECT_BYTES_MAX;
/// Most errors of an object that are told beside the first.
const FURTHER_ERRORS_MAX: usize = 15;
/// Largest facts of a node on the wire, in bytes.
pub const FACTS_BYTES_MAX: usize = 256 << 10;
/// Most warnings of a node.
pub const WARNINGS_MAX: usize = 64;

/// A client's submission, checked; the proposer adds the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Chosen by the client; `None` when the server shall make one.
    pub request_id: Option<Uuid>,
    /// Who asks.
    pub actor: SmolStr,
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// What is wanted; 1 to [`COMMANDS_MAX`].
    pub commands: Vec<Command>,
    /// W3C `traceparent`, when the client gave one.
    pub trace_context: Option<SmolStr>,
}

impl TryFrom<v1::SubmitRequest> for Submission {
    type Error = ConvertError;
    fn try_from(wire: v1::SubmitRequest) -> Result<Self, ConvertError> {
        at_most(&wire.commands, COMMANDS_MAX, "commands")?;
        at_most(&wire.preconditions, COMMANDS_MAX, "preconditions")?;
        if wire.commands.is_empty() {
            return Err(ConvertError::new("is empty; a submission holds at least one").within("commands"));
        }
        if let Some(text) = &wire.trace_context {
            check_bytes(text, TRACE_CONTEXT_BYTES_MAX).map_err(|e| e.within("trace_context"))?;
        }
        Ok(Self {
            request_id: parse_request_id(&wire.request_id)?,
            actor: parse_actor(&wire.actor)?,
            preconditions: read(wire.preconditions, "preconditions")?,
            commands: read(wire.commands, "commands")?,
            trace_context: read(wire.trace_context, "trace_context")?,
        })
    }
}

/// Reads a request id: empty is `None`.
///
/// # Errors
/// When it is no UUID, or the nil one (which stands for "no request" in the log).
pub fn parse_request_id(text: &str) -> Result<Option<Uuid>, ConvertError> {
    if text.is_empty() {
        return Ok(None);
    }
    match Uuid::try_parse(text) {
        Ok(id) if !id.is_nil() => Ok(Some(id)),
        _ => Err(ConvertError::new("is not a UUID, or the nil UUID; leave it empty to have one made")
            .within("request_id")),
    }
}

/// Reads an actor: empty is [`ACTOR_DEFAULT`].
///
/// # Errors
/// When it is too long.
pub fn parse_actor(text: &str) -> Result<SmolStr, ConvertError> {
    check_bytes(text, ACTOR_BYTES_MAX).map_err(|e| e.within("actor"))?;
    Ok(SmolStr::new(if text.is_empty() { ACTOR_DEFAULT } else { text }))
}

fn check_bytes(text: &str, max: usize) -> Result<(), ConvertError> {
    if text.len() <= max {
        return Ok(());
    }
    Err(ConvertError::new(format!("has {} bytes; at most {max} are allowed", text.len())))
}

/// An agent's registration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The node's name.
    pub name: Name,
    /// What the agent found.
    pub facts: NodeFacts,
}

impl TryFrom<v1::JoinRequest> for Registration {
    type Error = ConvertError;
    fn try_from(wire: v1::JoinRequest) -> Result<Self, ConvertError> {
        if let Some(facts) = &wire.facts {
            let checked = at_most(&facts.warnings, WARNINGS_MAX, "warnings")
                .and_then(|()| check_size(facts.encoded_len(), FACTS_BYTES_MAX));
            checked.map_err(|e| e.within("facts"))?;
        }
        let facts: NodeFacts = read(wire.facts, "facts")?;
        check_labels(&facts.labels).map_err(|e| e.within("facts.labels"))?;
        Ok(Self { name: read(wire.node, "node")?, facts })
    }
}

pub(super) fn check_size(bytes: usize, max: usize) -> Result<(), ConvertError> {
    if bytes <= max {
        return Ok(());
    }
    Err(ConvertError::new(format!("has {bytes} bytes; at most {max} are allowed")))
}

impl TryFrom<v1::UserCommand> for Command {
    type Error = ConvertError;
    fn try_from(wire: v1::UserCommand) -> Result<Self, ConvertError> {
        use command::Variant as Log;
        use user_command::Variant as User;
        let variant = match wire.variant.ok_or_else(unknown_variant)? {
            User::Create(object) => Log::Create(prepare(object).map_err(|e| e.within("create"))?),
            User::Apply(object) => Log::Apply(prepare(object).map_err(|e| e.within("apply"))?),
            User::Delete(c) => Log::Delete(c),
            User::Scale(c) => Log::Scale(c),
            User::SetPaused(c) => Log::SetPaused(c),
            User::UndoRollout(c) => Log::UndoRollout(c),
            User::RestartRollout(c) => {
                check_bytes(&c.restarted_at, TRACE_CONTEXT_BYTES_MAX)
                    .map_err(|e| e.within("restart_rollout.restarted_at"))?;
                Log::RestartRollout(c)
            }
            User::SetUnschedulable(c) => Log::SetUnschedulable(c),
            User::SetSuspended(c) => Log::SetSuspended(c),
            User::RunCronJob(c) => Log::RunCronJob(c),
            User::SetStopped(c) => Log::SetStopped(c),
            User::Evict(c) => Log::Evict(c),
            User::PromoteRollout(c) => Log::PromoteRollout(c),
            User::AbortRollout(c) => Log::AbortRollout(c),
            User::RetryRollout(c) => Log::RetryRollout(c),
            User::SetDeviceCordoned(c) => {
                check_bytes(&c.device, DEVICE_TEXT_BYTES_MAX)
                    .map_err(|e| e.within("set_device_cordoned.device"))?;
                Log::SetDeviceCordoned(c)
            }
            User::SetGpuMode(mut c) => {
                if let Some(gpu) = &mut c.gpu {
                    check_bytes(&gpu.mode, GPU_MODE_BYTES_MAX)
                        .map_err(|e| e.within("set_gpu_mode.gpu.mode"))?;
                    super::defaults::node_gpu(gpu);
                }
                Log::SetGpuMode(c)
            }
            User::ControlNodeOperation(c) => Log::ControlNodeOperation(c),
            User::ResizePod(c) => {
                for size in &c.containers {
                    check_bytes(&size.name, NAME_LENGTH_MAX)
                        .map_err(|e| e.within("resize_pod.containers.name"))?;
                }
                Log::ResizePod(c)
            }
        };
        let command = Self::from_wire(Some(variant))?;
        match &command {
            Self::Create(object) => check_object(object).map_err(|e| e.within("create"))?,
            Self::Apply(object) => check_object(object).map_err(|e| e.within("apply"))?,
            Self::Scale { replicas, .. } => {
                check_replicas(*replicas).map_err(|e| e.within("scale"))?;
            }
            Self::Evict { autoscaler: Some(_), .. } => {
                let error = ConvertError::new("is the control plane's own: no client sets it");
                return Err(error.within("evict.autoscaler"));
            }
            _ => {}
        }
        Ok(command)
    }
}

impl Field<v1::UserCommand> for Command {
    /// # Panics
    /// When the command is not a user's: no client has one.
    fn to_wire(&self) -> v1::UserCommand {
        v1::UserCommand::try_from(self).expect("only users' commands are put into a submission")
    }
    fn from_wire(wire: v1::UserCommand) -> Result<Self, ConvertError> {
        wire.try_into()
    }
}

impl TryFrom<&Command> for v1::UserCommand {
    type Error = ConvertError;
    fn try_from(value: &Command) -> Result<Self, ConvertError> {
        use command::Variant as Log;
        use user_command::Variant as User;
        let variant = match value.to_wire() {
            Some(Log::Create(c)) => User::Create(c),
            Some(Log::Apply(c)) => User::Apply(c),
            Some(Log::Delete(c)) => User::Delete(c),
            Some(Log::Scale(c)) => User::Scale(c),
            Some(Log::SetPaused(c)) => User::SetPaused(c),
            Some(Log::UndoRollout(c)) => User::UndoRollout(c),
            Some(Log::RestartRollout(c)) => User::RestartRollout(c),
            Some(Log::SetUnschedulable(c)) => User::SetUnschedulable(c),
            Some(Log::SetSuspended(c)) => User::SetSuspended(c),
            Some(Log::RunCronJob(c)) => User::RunCronJob(c),
            Some(Log::SetStopped(c)) => User::SetStopped(c),
            Some(Log::Evict(c)) => User::Evict(c),
            Some(Log::PromoteRollout(c)) => User::PromoteRollout(c),
            Some(Log::AbortRollout(c)) => User::AbortRollout(c),
            Some(Log::RetryRollout(c)) => User::RetryRollout(c),
            Some(Log::SetDeviceCordoned(c)) => User::SetDeviceCordoned(c),
            Some(Log::SetGpuMode(c)) => User::SetGpuMode(c),
            Some(Log::ControlNodeOperation(c)) => User::ControlNodeOperation(c),
            Some(Log::ResizePod(c)) => User::ResizePod(c),
            _ => return Err(ConvertError::new("the command is the control plane's own: no client sends it")),
        };
        Ok(Self { variant: Some(variant) })
    }
}

/// Checks what the types alone do not. What an object means together with others is for `decide`.
fn check_object(object: &Object) -> Result<(), ConvertError> {
    let errors = validate(object);
    let Some((first, others)) = errors.split_first() else { return Ok(()) };
    let mut reason = first.reason.clone();
    for error in others.iter().take(FURTHER_ERRORS_MAX) {
        reason.push_str(&format!("; {error}"));
    }
    let kind = match object.kind() {
        Kind::Namespace => "namespace",
        Kind::Node => "node",
        Kind::Pod => "pod",
        Kind::ReplicaSet => "replica_set",
        Kind::Deployment => "deployment",
        Kind::StatefulSet => "stateful_set",
        Kind::DaemonSet => "daemon_set",
        Kind::Job => "job",
        Kind::CronJob => "cron_job",
        Kind::ConfigMap => "config_map",
        Kind::Secret => "secret",
        Kind::ControllerRevision => "controller_revision",
        Kind::HorizontalPodAutoscaler => "horizontal_pod_autoscaler",
        Kind::CronHorizontalPodAutoscaler => "cron_horizontal_pod_autoscaler",
        Kind::PodDisruptionBudget => "pod_disruption_budget",
        Kind::ElasticWorkload => "elastic_workload",
        Kind::VerticalPodAutoscaler => "vertical_pod_autoscaler",
        Kind::PriorityClass => "priority_class",
        Kind::Profile => "profile",
        Kind::PersistentVolumeClaim => "persistent_volume_claim",
        Kind::ResourceQuota => "resource_quota",
        Kind::LimitRange => "limit_range",
        Kind::Department => "department",
        Kind::Project => "project",
        Kind::PodGroup => "pod_group",
        Kind::Queue => "queue",
        Kind::DeviceClass => "device_class",
        Kind::ResourceSlice => "resource_slice",
        Kind::SriovNetworkNodePolicy => "sriov_network_node_policy",
        Kind::SriovNetwork => "sriov_network",
        Kind::SriovIBNetwork => "sriov_ib_network",
        Kind::SriovNetworkNodeState => "sriov_network_node_state",
        Kind::NodePool => "node_pool",
        Kind::NodeOperation => "node_operation",
        Kind::DeschedulerPolicy => "descheduler_policy",
        Kind::ElasticQuotaTree => "elastic_quota_tree",
        Kind::StorageClass => "storage_class",
        Kind::PersistentVolume => "persistent_volume",
        Kind::VolumeSnapshot => "volume_snapshot",
    };
    Err(ConvertError { path: first.path.clone(), reason }.within(kind))
}

fn check_replicas(replicas: u32) -> Result<(), ConvertError> {
    if replicas <= REPLICAS_MAX {
        return Ok(());
    }
    Err(ConvertError::new(format!("{replicas} is above {REPLICAS_MAX}")).within("replicas"))
}

fn check_labels(labels: &StringMap) -> Result<(), ConvertError> {
    if labels.len() > LABELS_MAX {
        let reason = format!("has {} items; at most {LABELS_MAX} are allowed", labels.len());
        return Err(ConvertError::new(reason));
    }
    labels.iter().try_for_each(|(key, value)| {
        check_label_key(key)
            .and_then(|()| check_label_value(value))
            .map_err(|e| ConvertError::new(e.to_string()))
    })
}
