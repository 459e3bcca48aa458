//! What clients and agents send: defaults filled in, the control plane's own fields cleared, everything
//! bounded. What gets through here can be written to the log.

use bulkhead_types::{
    COMMANDS_MAX, Command, IntOrPercent, Kind, LABELS_MAX, Name, NodeFacts, Object,
    PROGRESS_DEADLINE_MS_DEFAULT, Precondition, REPLICAS_MAX, REVISION_HISTORY_LIMIT_DEFAULT, StringMap,
    TERMINATION_GRACE_MS_DEFAULT, check_label_key, check_label_value, validate,
};
use prost::Message;
use smol_str::SmolStr;
use uuid::Uuid;

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

fn check_size(bytes: usize, max: usize) -> Result<(), ConvertError> {
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
        };
        let command = Self::from_wire(Some(variant))?;
        match &command {
            Self::Create(object) => check_object(object).map_err(|e| e.within("create"))?,
            Self::Apply(object) => check_object(object).map_err(|e| e.within("apply"))?,
            Self::Scale { replicas, .. } => {
                check_replicas(*replicas).map_err(|e| e.within("scale"))?;
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
            _ => return Err(ConvertError::new("the command is the control plane's own: no client sends it")),
        };
        Ok(Self { variant: Some(variant) })
    }
}

/// Bounds a submitted object, clears what is the control plane's and fills in defaults.
fn prepare(mut wire: v1::Object) -> Result<v1::Object, ConvertError> {
    use v1::object::Object as Wire;
    check_size(wire.encoded_len(), OBJECT_MESSAGE_BYTES_MAX)?;
    let meta = match wire.object.as_mut().ok_or_else(unknown_variant)? {
        Wire::Namespace(o) => &mut o.meta,
        Wire::Node(o) => {
            o.spec.get_or_insert_default();
            o.status = Some(v1::NodeStatus {
                phase: v1::NodePhase::Unreachable.into(),
                facts: Some(v1::NodeFacts::default()),
                ..v1::NodeStatus::default()
            });
            &mut o.meta
        }
        Wire::Pod(o) => {
            (o.node, o.status) = (None, None);
            o.spec.iter_mut().for_each(default_pod_spec);
            &mut o.meta
        }
        Wire::ReplicaSet(o) => {
            o.status = None;
            if let Some(spec) = &mut o.spec {
                spec.replicas.get_or_insert(1);
                default_template(&mut spec.template);
            }
            &mut o.meta
        }
        Wire::Deployment(o) => {
            o.status = None;
            o.spec.iter_mut().for_each(default_deployment_spec);
            &mut o.meta
        }
    };
    if let Some(meta) = meta {
        let old = std::mem::take(meta);
        *meta = v1::ObjectMeta {
            name: old.name,
            namespace: old.namespace,
            labels: old.labels,
            annotations: old.annotations,
            ..v1::ObjectMeta::default()
        };
    }
    Ok(wire)
}

fn default_deployment_spec(spec: &mut v1::DeploymentSpec) {
    use v1::deployment_strategy::{RollingUpdate, Variant};
    spec.replicas.get_or_insert(1);
    spec.progress_deadline_ms.get_or_insert(PROGRESS_DEADLINE_MS_DEFAULT);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT_DEFAULT);
    let strategy = spec.strategy.get_or_insert_with(|| v1::DeploymentStrategy {
        variant: Some(Variant::RollingUpdate(RollingUpdate::default())),
    });
    if let Some(Variant::RollingUpdate(rolling)) = &mut strategy.variant {
        let quarter = || v1::IntOrPercent::from(&IntOrPercent::Percent(25));
        rolling.max_surge.get_or_insert_with(quarter);
        rolling.max_unavailable.get_or_insert_with(quarter);
    }
    default_template(&mut spec.template);
}

fn default_template(template: &mut Option<v1::PodTemplate>) {
    template.iter_mut().filter_map(|t| t.spec.as_mut()).for_each(default_pod_spec);
}

fn default_pod_spec(spec: &mut v1::PodSpec) {
    let default = |field: &mut i32, value: i32| {
        if *field == 0 {
            *field = value;
        }
    };
    default(&mut spec.runtime_class, v1::RuntimeClass::Rune.into());
    default(&mut spec.restart_policy, v1::RestartPolicy::Always.into());
    spec.termination_grace_ms.get_or_insert(TERMINATION_GRACE_MS_DEFAULT);
    for toleration in &mut spec.tolerations {
        default(&mut toleration.operator, v1::TolerationOperator::Equal.into());
    }
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        default(&mut container.image_pull_policy, v1::ImagePullPolicy::IfNotPresent.into());
        for port in &mut container.ports {
            default(&mut port.protocol, v1::Protocol::Tcp.into());
        }
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
