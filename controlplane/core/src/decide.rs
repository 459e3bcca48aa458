//! `decide`: may a submission happen, and what happens then. Pure; dispatch only, one file per family.

mod autoscaling;
mod claims;
mod cluster;
mod cpus;
mod cron_scaling;
mod delivery;
mod descheduler;
mod devices;
mod elastic;
mod elastic_quotas;
mod emit;
mod eviction;
mod faults;
mod garbage;
mod gpu_mode;
mod group_preemption;
mod job_ends;
mod jobs;
mod managers;
mod networks;
mod node_pools;
mod nodes;
mod objects;
mod owned;
mod owned_pods;
mod persistent_volumes;
mod pod_groups;
mod pods;
mod preemption;
mod priorities;
mod quota;
mod reconcilers;
mod resize;
mod rollout;
mod scoring;
mod snapshots;
mod specs;
mod storage_classes;
mod vertical;

use bulkhead_canary::planted;
use bulkhead_types::{
    COMMANDS_MAX, Command, Event, ITEMS_MAX, Outcome, Precondition, Rejection, RejectionCode, Stamped,
    Transaction,
};

use crate::evolve::evolve_events;
use crate::{Change, State};

pub(crate) use autoscaling::size as workload_size;
pub(crate) use claims::{claim_from, is_surplus as is_surplus_claim};
pub use cluster::decide_membership;
pub(crate) use cron_scaling::last_run as last_cron_run;
pub(crate) use devices::check_report as check_device_report;
pub(crate) use emit::Emit;
pub use garbage::{Disposal, disposal};
pub(crate) use gpu_mode::check as check_gpu_mode;
pub(crate) use jobs::expires_at_ms;
pub(crate) use nodes::{
    REASON_NODE_FENCED, are_news as are_images_news, check_images, check_not_fenced, may_be_fenced,
};
pub(crate) use owned_pods::charge_stamp;
pub(crate) use pods::REASON_UNSCHEDULABLE;

/// Decides a submission against a State, which stays as it is.
///
/// # Errors
/// Why it is refused as a whole.
pub fn decide(state: &State, stamped: &Stamped) -> Result<Vec<Event>, Rejection> {
    let mut scratch = state.clone();
    let (transaction, _) = execute(&mut scratch, stamped);
    transaction.outcome.map(|_| transaction.events)
}

/// Decides a submission and, when it is accepted, evolves the State by it. The commands of a bundle see each
/// other's effects; when one is refused nothing of the bundle stays. The answer is remembered either way.
pub(crate) fn execute(state: &mut State, stamped: &Stamped) -> (Transaction, Vec<Change>) {
    // Time passes for a refused submission too, so that all replicas agree on when it was refused.
    state.now_ms = state.now_ms.max(stamped.proposed_at_ms);
    if planted!("canary_log_time_goes_back") {
        state.now_ms = stamped.proposed_at_ms;
    }
    state.requests.expire(state.now_ms);
    let result = match stamped.commands.as_slice() {
        // A single command is decided before anything changes: it needs no copy to fall back on. The copy
        // itself is O(1), but every map that is changed beside it is copied along the changed path.
        [command] => check(state, stamped).and_then(|()| step(state, stamped, command)),
        _ => {
            let mut scratch = state.clone();
            let result = run_bundle(&mut scratch, stamped);
            if result.is_ok() || planted!("canary_bundle_half_applied") {
                *state = scratch;
            }
            result
        }
    };
    let mut transaction = blank(stamped, state.now_ms, Ok(state.revision));
    let changes = match result {
        Ok((events, changes)) => {
            transaction.events = events;
            changes
        }
        Err(rejection) => {
            transaction.outcome = Err(rejection);
            Vec::new()
        }
    };
    state.requests.record(stamped.request_id, state.now_ms, &transaction.outcome);
    (transaction, changes)
}

type Done = Result<(Vec<Event>, Vec<Change>), Rejection>;

fn run_bundle(scratch: &mut State, stamped: &Stamped) -> Done {
    check(scratch, stamped)?;
    let (mut events, mut changes) = (Vec::new(), Vec::new());
    for command in &stamped.commands {
        let (step_events, step_changes) = step(scratch, stamped, command)?;
        let at = if planted!("canary_bundle_out_of_order") { 0 } else { events.len() };
        events.splice(at..at, step_events);
        changes.extend(step_changes);
    }
    Ok((events, changes))
}

/// One command: decided first, then evolved by; a refused one changes nothing.
fn step(state: &mut State, stamped: &Stamped, command: &Command) -> Done {
    let mut emit = Emit::new(state, stamped.trace_context.as_ref());
    decide_command(state, command, &mut emit)?;
    let transaction = Transaction { events: emit.finish(), ..blank(stamped, state.now_ms, Ok(0)) };
    let changes = evolve_events(state, &transaction);
    Ok((transaction.events, changes))
}

pub(crate) fn check(state: &State, stamped: &Stamped) -> Result<(), Rejection> {
    check_form(stamped)?;
    stamped.preconditions.iter().try_for_each(|precondition| check_precondition(state, precondition))
}

fn blank(stamped: &Stamped, at_ms: u64, outcome: Outcome) -> Transaction {
    Transaction {
        request_id: stamped.request_id,
        actor: stamped.actor.clone(),
        at_ms,
        trace_context: stamped.trace_context.clone(),
        outcome,
        events: Vec::new(),
    }
}

/// The part of `decide` that needs no State: how many commands and preconditions there may be.
pub(crate) fn check_form(stamped: &Stamped) -> Result<(), Rejection> {
    if stamped.commands.is_empty() || stamped.commands.len() > COMMANDS_MAX {
        let reason =
            format!("a submission has 1 to {COMMANDS_MAX} commands, this one has {}", stamped.commands.len());
        return Err(Rejection::new(RejectionCode::Invalid, "commands", reason).with_remedy("split it"));
    }
    if stamped.preconditions.len() > COMMANDS_MAX {
        return Err(Rejection::new(
            RejectionCode::Invalid,
            "preconditions",
            format!("at most {COMMANDS_MAX} are allowed"),
        ));
    }
    Ok(())
}

fn check_precondition(state: &State, precondition: &Precondition) -> Result<(), Rejection> {
    let found = state.find_object(&precondition.object).map(|o| o.meta().revision);
    if found == precondition.revision {
        return Ok(());
    }
    let reason = match (precondition.revision, found) {
        (Some(wanted), Some(found)) => format!("has revision {found}, not {wanted}: somebody changed it"),
        (Some(wanted), None) => format!("does not exist, but was expected at revision {wanted}"),
        (None, Some(found)) => format!("exists, at revision {found}, but was expected not to"),
        (None, None) => unreachable!("equal options were handled"),
    };
    Err(Rejection::new(RejectionCode::Conflict, precondition.object.to_string(), reason)
        .with_remedy("read it again and decide anew"))
}

fn check_items(what: &'static str, count: usize) -> Result<(), Rejection> {
    if count <= ITEMS_MAX {
        return Ok(());
    }
    Err(Rejection::new(
        RejectionCode::Invalid,
        what,
        format!("at most {ITEMS_MAX} items are allowed, there are {count}"),
    ))
}

fn decide_command(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_level(state, command.feature_level())?;
    match command {
        Command::Create(object) => objects::create(state, object, emit),
        Command::Apply(object) => objects::apply(state, object, emit),
        Command::Update { object, seen } => objects::update(state, object, *seen, emit),
        Command::Delete { object, grace_ms, force } => {
            objects::delete(state, object, *grace_ms, *force, emit)
        }
        Command::SetPaused { deployment, paused } => rollout::set_paused(state, deployment, *paused, emit),
        Command::SetStopped { object, stopped } => rollout::set_stopped(state, object, *stopped, emit),
        Command::UndoRollout { deployment, to_revision } => {
            rollout::undo(state, deployment, *to_revision, emit)
        }
        Command::DeletePods { pods, surplus_of, reason } => {
            pods::delete_many(state, pods, *surplus_of, reason, emit)
        }
        Command::BindPods { .. }
        | Command::BindPodGroup { .. }
        | Command::SetPodsUnschedulable { .. }
        | Command::Preempt { .. }
        | Command::PreemptForGroup { .. }
        | Command::ClearNominations { .. } => decide_placement(state, command, emit),
        Command::CreateOwned { owner, generation, object } => {
            owned::create(state, *owner, *generation, object, emit)
        }
        Command::CreateOwnedPods { owner, generation, pods } => {
            owned_pods::create(state, *owner, *generation, pods, emit)
        }
        Command::DeleteOwned { owner, objects } => owned::delete(state, *owner, objects, emit),
        Command::DeleteOwnedPods { owner, generation, pods, reason } => {
            owned_pods::delete(state, *owner, *generation, pods, reason, emit)
        }
        Command::SetStatus { id, status } => owned::set_status(state, *id, status, emit),
        Command::SetControllerRevision { id, revision } => {
            owned::set_controller_revision(state, *id, *revision, emit)
        }
        Command::SetSuspended { object, suspended } => jobs::set_suspended(state, object, *suspended, emit),
        Command::RunCronJob { cron_job, name } => jobs::run_now(state, cron_job, name, emit),
        Command::CreateReplicaSet { .. }
        | Command::SetRolloutRevision { .. }
        | Command::ScaleReplicaSet { .. }
        | Command::CreatePods { .. }
        | Command::SetDeploymentStatus { .. }
        | Command::SetReplicaSetStatus { .. }
        | Command::PromoteRollout { .. }
        | Command::AbortRollout { .. }
        | Command::RetryRollout { .. }
        | Command::AdvanceDelivery { .. } => decide_rollouts(state, command, emit),
        Command::Scale { .. }
        | Command::RestartRollout { .. }
        | Command::Evict { .. }
        | Command::ScaleBySchedule { .. }
        | Command::SpreadReplicas { .. }
        | Command::Deschedule { .. }
        | Command::Recommend { .. }
        | Command::Autoscale { .. } => decide_pods_of_workloads(state, command, emit),
        Command::SetUnschedulable { .. }
        | Command::SetNodePhase { .. }
        | Command::RegisterNode { .. }
        | Command::ReportPods { .. }
        | Command::ReportVolumes { .. }
        | Command::ReportVolumeTasks { .. }
        | Command::ReportDevices { .. }
        | Command::ReportImages { .. }
        | Command::SetSriovNodeState { .. }
        | Command::SetDeviceCordoned { .. }
        | Command::SetGpuMode { .. } => decide_nodes(state, command, emit),
        other => decide_fleet(state, other, emit),
    }
}

/// The part of [`decide_command`] that is about many nodes together, the cluster itself, and sizes of pods that run.
fn decide_fleet(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::InitCluster { cluster_id, members } => cluster::init(state, *cluster_id, members, emit),
        Command::RaiseFeatureLevel { level } => cluster::raise_feature_level(state, *level, emit),
        Command::RegisterMember { .. } => cluster::register_member(state, command, emit),
        Command::CollectGarbage { objects } => garbage::collect(state, objects, emit),
        Command::SyncDeviceLabels { node } => devices::sync_labels(state, *node, emit),
        Command::ResizePod { pod, containers } => resize::resize(state, pod, containers, emit),
        Command::AdmitResizes { pods } => resize::admit(state, pods, emit),
        other => node_pools::decide(state, other, emit),
    }
}

/// The part of [`decide_command`] that is about nodes: what their agents say, and what operators want of them.
fn decide_nodes(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::SetNodePhase { node, incarnation, phase } => {
            nodes::set_phase(state, *node, *incarnation, *phase, emit)
        }
        Command::SetUnschedulable { node, unschedulable } => {
            nodes::set_unschedulable(state, node, *unschedulable, emit)
        }
        Command::RegisterNode { name, facts } => nodes::register(state, name, facts, emit),
        Command::ReportPods { node, incarnation, reports } => {
            pods::report(state, *node, *incarnation, reports, emit)
        }
        Command::ReportVolumes { node, incarnation, deleted } => {
            claims::report(state, *node, *incarnation, deleted, emit)
        }
        Command::ReportVolumeTasks { node, incarnation, results } => {
            snapshots::report(state, *node, *incarnation, results, emit)
        }
        Command::ReportDevices { node, incarnation, report } => {
            devices::report(state, *node, *incarnation, report, emit)
        }
        Command::ReportImages { node, incarnation, images } => {
            nodes::report_images(state, *node, *incarnation, images, emit)
        }
        Command::SetSriovNodeState { node, spec, status } => {
            networks::set_node_state(state, *node, spec, status, emit)
        }
        Command::SetGpuMode { node, gpu } => gpu_mode::set(state, node, gpu.as_ref(), emit),
        Command::SetDeviceCordoned { node, device, cordoned } => {
            devices::set_cordoned(state, node, device, *cordoned, emit)
        }
        other => unreachable!("{other:?} is decided elsewhere"),
    }
}

/// The part of [`decide_command`] that is about where pods are.
fn decide_placement(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::BindPods { bindings } => pods::bind(state, bindings, emit),
        Command::BindPodGroup { bindings } => pod_groups::bind(state, bindings, emit),
        Command::SetPodsUnschedulable { pods } => pods::set_unschedulable(state, pods, emit),
        Command::Preempt { pod, node, victims } => preemption::preempt(state, (*pod, *node), victims, emit),
        Command::PreemptForGroup { nominations, victims } => {
            group_preemption::preempt(state, nominations, victims, emit)
        }
        Command::ClearNominations { pods } => preemption::clear(state, pods, emit),
        other => unreachable!("{other:?} says nothing about where pods are"),
    }
}

/// The part of [`decide_command`] that is about Deployments' ways from one template to the next.
fn decide_rollouts(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::CreateReplicaSet { .. } => reconcilers::create_replica_set(state, command, emit),
        Command::SetRolloutRevision { replica_set, rollout_revision } => {
            reconcilers::set_rollout_revision(state, *replica_set, *rollout_revision, emit)
        }
        Command::ScaleReplicaSet { replica_set, from, to } => {
            reconcilers::scale_replica_set(state, *replica_set, *from, *to, emit)
        }
        Command::CreatePods { replica_set, names } => {
            reconcilers::create_pods(state, *replica_set, names, emit)
        }
        Command::SetDeploymentStatus { deployment, status } => {
            reconcilers::set_deployment_status(state, *deployment, status, emit)
        }
        Command::SetReplicaSetStatus { replica_set, status } => {
            reconcilers::set_replica_set_status(state, *replica_set, status, emit)
        }
        other => delivery::decide(state, other, emit),
    }
}

/// The part of [`decide_command`] that is about how many pods workloads have, and which of them go.
fn decide_pods_of_workloads(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::Scale { object, replicas } => rollout::scale(state, object, *replicas, emit),
        Command::RestartRollout { deployment, restarted_at } => {
            rollout::restart(state, deployment, restarted_at, emit)
        }
        Command::Evict { pod, grace_ms, autoscaler } => {
            eviction::evict(state, pod, *grace_ms, *autoscaler, emit)
        }
        Command::Recommend { autoscaler, generation, status } => {
            vertical::recommend(state, *autoscaler, *generation, status, emit)
        }
        Command::ScaleBySchedule { scaler, generation, job, scheduled_ms } => {
            cron_scaling::run(state, (*scaler, *generation), job, *scheduled_ms, emit)
        }
        Command::Deschedule { policy, generation, pods } => {
            descheduler::deschedule(state, *policy, *generation, pods, emit)
        }
        Command::SpreadReplicas { workload, generation } => {
            elastic::spread(state, *workload, *generation, emit)
        }
        other => autoscaling::autoscale(state, other, emit),
    }
}

/// Whether records of a feature level may be in the log. A cluster that has no level yet is as good as one of the
/// first: everything since the log's first format is of level 1.
pub(crate) fn check_level(state: &State, needed: u32) -> Result<(), Rejection> {
    let level = state.feature_level().max(1);
    if needed <= level {
        return Ok(());
    }
    let reason = format!("needs level {needed}, the cluster runs at level {level}");
    Err(not_allowed("featureLevel", reason)
        .with_remedy(format!("upgrade every server, then run `bulkhead cluster feature-level set {needed}`")))
}

fn not_found(what: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectionCode::NotFound, what.to_string(), "does not exist")
}

fn not_allowed(field: impl std::fmt::Display, reason: impl Into<String>) -> Rejection {
    Rejection::new(RejectionCode::NotAllowed, field.to_string(), reason)
}
