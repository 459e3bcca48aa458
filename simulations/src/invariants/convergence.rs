//! After the faults everything satisfiable runs, and nothing else does.
//!
//! Satisfiable means: a pod that waits for a node fits on none, as the scheduler's own rule says for every
//! node. A workload with such a pod is excused: its rollout may have to wait for room. What is on a node that is lost
//! waits for it, but for what must be unique: that is over there, and its owner has another one.

use std::collections::BTreeSet;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::decide::disposal;
use bulkhead_controlplane_core::placement::check_fit;
use bulkhead_controlplane_core::placement::reference::group_preemption::lacks_only;
use bulkhead_controlplane_core::placement::reference::queues::may_wait;
use bulkhead_controlplane_core::placement::reference::{Scene, elastic};
use bulkhead_controlplane_core::{cpus, devices, ports};
use bulkhead_types::{
    ConditionStatus, DaemonSet, DaemonSetUpdateStrategy, Deployment, DeploymentStrategy, ElasticWorkload,
    Job, Kind, MemberId, Name, NodePhase, ObjectId, Pod, SYNCED, StatefulSet, StatefulSetUpdateStrategy,
};

use super::{Verdict, Violation, daemon_set, ensure, preemption, progress, resizes};

fn violation(text: String) -> Verdict {
    Err(Violation::new("convergence", text))
}

/// Every server runs, and all have applied the same log to the same State.
///
/// # Errors
/// With the first server that does not.
pub fn servers(positions: &[(MemberId, Option<(u64, u128)>)]) -> Verdict {
    let first = positions.first().and_then(|(_, position)| *position);
    for (member, position) in positions {
        match position {
            None => return violation(format!("server {member} does not run")),
            Some(_) if *position != first => {
                return violation(format!("server {member} is at {position:?}, the first at {first:?}"));
            }
            Some(_) => {}
        }
    }
    ensure(first.is_some(), "convergence", || "there is no server".to_owned())
}

/// The cluster exists, every node is ready but for one that `is_lost` (`lost`, if it was ever known), and nothing waits
/// for anything that could be had.
///
/// # Errors
/// With the first thing that is not as it should be.
pub fn state(state: &State, nodes: usize, is_lost: bool, lost: Option<ObjectId>) -> Verdict {
    if state.cluster_id().is_none() {
        return violation("the cluster has no identity".to_owned());
    }
    let ready = state.nodes().iter().filter(|node| node.status.phase == NodePhase::Ready).count();
    if ready != nodes - usize::from(is_lost) {
        return violation(format!("{ready} of {nodes} nodes are ready"));
    }
    if let Some(object) = state.objects().find(|object| disposal(state, object).is_some()) {
        return violation(format!("{} is garbage", object.object_ref()));
    }
    let (there, here): (Vec<_>, Vec<_>) =
        state.pods().iter().partition(|pod| lost.is_some() && pod.node == lost);
    there.into_iter().try_for_each(|pod| check_lost(pod))?;
    here.into_iter().try_for_each(|pod| check_pod(state, pod, lost.is_some()))?;
    state.deployments().iter().try_for_each(|deployment| {
        check_deployment(state, deployment, lost)?;
        // What is on a lost node may hold a rollout up.
        if lost.is_some() { Ok(()) } else { progress::check(state, deployment) }
    })?;
    if lost.is_some() {
        return Ok(());
    }
    state.elastic_workloads().iter().try_for_each(|workload| check_elastic(state, workload))?;
    state.stateful_sets().iter().try_for_each(|set| check_stateful_set(state, set))?;
    state.daemon_sets().iter().try_for_each(|set| check_daemon_set(state, set))?;
    state.jobs().iter().try_for_each(|job| check_job(state, job))
}

/// A pod on the lost node: what must be unique has not to wait for anybody there.
fn check_lost(pod: &Pod) -> Verdict {
    let waits = pod.is_unique() && !pod.status.phase.is_terminal();
    let may_wait = pod.meta.owner.is_none() && !pod.meta.is_deleting() && !pod.status.ready;
    ensure(!waits || may_wait, "convergence", || {
        format!("pod {} must be unique and waits for a node that is lost", pod.meta.name)
    })
}

/// Whether a pod of an owner waits for room.
fn waits(state: &State, owner: ObjectId) -> bool {
    state.pods_of(owner).any(|pod| state.pending_pods().contains(&pod.meta.id))
}

fn check_stateful_set(state: &State, set: &StatefulSet) -> Verdict {
    let (spec, status) = (&set.spec, &set.status);
    let wanted = spec.wanted_replicas();
    let rolls = matches!(spec.update_strategy, StatefulSetUpdateStrategy::RollingUpdate { partition: 0, .. });
    let complete = status.observed_generation == set.meta.generation
        && [status.replicas, status.ready_replicas, status.available_replicas] == [wanted; 3]
        && (!rolls || status.updated_replicas == wanted)
        && (!rolls || status.current_revision == status.update_revision);
    ensure(waits(state, set.meta.id) || complete, "convergence", || {
        format!("StatefulSet {} wants {wanted} and is at {status:?}", set.meta.name)
    })
}

fn check_daemon_set(state: &State, set: &DaemonSet) -> Verdict {
    let status = &set.status;
    let wanted = state.nodes().iter().filter(|node| !daemon_set::repels(set, node, false)).count() as u32;
    let rolls = set.spec.update_strategy != DaemonSetUpdateStrategy::OnDelete;
    let complete = status.observed_generation == set.meta.generation
        && [status.desired_number_scheduled, status.number_available] == [wanted; 2]
        && (!rolls || status.updated_number_scheduled == wanted);
    ensure(waits(state, set.meta.id) || complete, "convergence", || {
        format!("DaemonSet {} wants {wanted} nodes and is at {status:?}", set.meta.name)
    })
}

/// Whether the PriorityClass that a pod names is there.
fn has_class(state: &State, pod: &Pod) -> bool {
    bulkhead_controlplane_core::placement::reference::preemption::priority(state, pod).is_some()
}

fn check_pod(state: &State, pod: &Pod, is_any_lost: bool) -> Verdict {
    let name = &pod.meta.name;
    if pod.meta.is_deleting() {
        return violation(format!("pod {name} is still ending"));
    }
    if pod.status.phase.is_terminal() {
        return Ok(());
    }
    resizes::over(state, pod)?;
    match pod.node {
        // It waits for its claim, or for what that is to be made of.
        None if pod.spec.claims().next().is_some() => Ok(()),
        // Another guest of its node has its volume, or that is still to be made.
        Some(_) if pod.status.reason == "WaitingForVolume" => Ok(()),
        // It waits for its class, whatever room there is.
        None if !has_class(state, pod) => Ok(()),
        // Or for others of its group, for its queue, or for a group for which room is kept.
        None if may_wait(state, pod) => {
            ensure(is_any_lost || pod.status.nominated_node.get().is_none(), "convergence", || {
                format!("room is still kept for pod {name}, whose group waits")
            })?;
            match lacks_only(state, pod) && !is_any_lost {
                true => preemption::check_waiting(state, pod),
                false => Ok(()),
            }
        }
        // Or for room in the elastic quota tree; what is kept for it comes, unless that is held by what may live on a lost node.
        None if elastic::may_wait(state, pod)
            && (is_any_lost || pod.status.nominated_node.get().is_none()) =>
        {
            Ok(())
        }
        None => {
            let request = pod.spec.scheduling_request();
            let scene = Scene::of(state, &[]);
            let fits = |id: ObjectId| {
                let node = state.nodes().get(id)?;
                check_fit(&pod.spec, request, node, state.node_usage(id)).ok()?;
                devices::fits(state, pod, node).then_some(())?;
                cpus::fits(state, pod, node).then_some(())?;
                ports::fits(state, pod, node).then_some(())?;
                scene.check(pod, node).ok()
            };
            match state.nodes().iter().find(|node| fits(node.meta.id).is_some()) {
                Some(node) => violation(format!("pod {name} waits, although it fits on {}", node.meta.name)),
                None => preemption::check_waiting(state, pod),
            }
        }
        Some(_) => ensure(pod.status.ready, "convergence", || {
            format!("pod {name} is not ready: {:?} {}", pod.status.phase, pod.status.reason)
        }),
    }
}

fn check_deployment(state: &State, deployment: &Deployment, lost: Option<ObjectId>) -> Verdict {
    let (spec, status) = (&deployment.spec, &deployment.status);
    let sets = state.owned(deployment.meta.id, Kind::ReplicaSet);
    // Recreate waits until nothing of the old is left, and nobody knows that of a node that is lost.
    let is_held = |pod: &Pod| {
        let recreates = spec.strategy == DeploymentStrategy::Recreate;
        recreates && lost.is_some() && pod.node == lost && !pod.is_unique()
    };
    let waits = sets
        .flat_map(|set| state.pods_of(set))
        .any(|pod| state.pending_pods().contains(&pod.meta.id) || is_held(pod));
    // A unit of an ElasticWorkload whose source is gone stays as it was, paused if it was.
    if spec.paused && deployment.meta.owner.is_some() {
        return Ok(());
    }
    let wanted = spec.wanted_replicas();
    let is_seen = status.observed_generation == deployment.meta.generation;
    let complete = match spec.delivery.get() {
        None => {
            [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
                == [wanted; 4]
        }
        // It may rest at any step, with pods of two templates, and with two whole sets.
        Some(_) => status.available_replicas >= wanted && status.replicas == status.available_replicas,
    };
    ensure(waits || (is_seen && complete), "convergence", || {
        format!("Deployment {} wants {wanted} and is at {status:?}", deployment.meta.name)
    })
}

/// Source and units have their sizes, unless the workload says what is in the way.
fn check_elastic(state: &State, workload: &ElasticWorkload) -> Verdict {
    let (meta, spec, status) = (&workload.meta, &workload.spec, &workload.status);
    let is_synced =
        status.conditions.iter().any(|c| c.condition_type == SYNCED && c.status == ConditionStatus::True);
    let units = spec.units.iter().filter_map(|unit| unit.deployment_name(&spec.source.name).ok());
    let size = |name: Name| {
        let id = state.find(Kind::Deployment, meta.namespace.as_ref(), &name)?;
        state.deployments().get(id).map(|deployment| (deployment.spec.stopped, deployment.spec.replicas))
    };
    let found: Vec<_> = std::iter::once(spec.source.name.clone()).chain(units).map(size).collect();
    let is_stopped = found.iter().any(|size| size.is_some_and(|(stopped, _)| stopped));
    let sizes: Vec<_> = spec.sizes().into_iter().map(|size| Some((false, size))).collect();
    let is_said = status.observed_generation == meta.generation && !is_synced;
    let is_well = status.observed_generation == meta.generation && (is_stopped || found == sizes);
    ensure(is_said || is_well, "convergence", || {
        format!("ElasticWorkload {} wants {sizes:?}, has {found:?}, and says {status:?}", meta.name)
    })
}

fn check_job(state: &State, job: &Job) -> Verdict {
    ensure(waits(state, job.meta.id) || job.spec.suspend || job.end().is_some(), "convergence", || {
        format!("Job {} has not ended: {:?}", job.meta.name, job.status)
    })
}

/// Guests, by node, are exactly those of the pods that are bound and have not ended. Nobody knows of those of a node that
/// is `lost`.
///
/// # Errors
/// With the first guest that is missing or not wanted.
pub fn guests(state: &State, found: &[(Option<ObjectId>, ObjectId)], lost: Option<ObjectId>) -> Verdict {
    let wanted: BTreeSet<(Option<ObjectId>, ObjectId)> = state
        .pods()
        .iter()
        .filter(|pod| pod.node.is_some() && pod.node != lost && !pod.status.phase.is_terminal())
        .map(|pod| (pod.node, pod.meta.id))
        .collect();
    let found: BTreeSet<_> =
        found.iter().copied().filter(|(node, _)| lost.is_none() || *node != lost).collect();
    if let Some((node, pod)) = found.difference(&wanted).next() {
        return violation(format!("node {node:?} runs a guest of pod {pod}, which nobody wants"));
    }
    let waits = |(_, pod): &&(Option<ObjectId>, ObjectId)| waits_for_volume(state, *pod, &found);
    match wanted.difference(&found).find(|one| !waits(one)) {
        Some((node, pod)) => violation(format!("node {node:?} runs no guest of pod {pod}")),
        None => Ok(()),
    }
}

/// Whether a pod has a claim that the guest of another one on its node has, and one of them may write: then never both have
/// it.
fn waits_for_volume(state: &State, pod: ObjectId, guests: &BTreeSet<(Option<ObjectId>, ObjectId)>) -> bool {
    let Some(pod) = state.pods().get(pod) else { return false };
    let both_read = |other: &Pod, name: &str| {
        let mode = state.claim(pod.meta.namespace.as_ref(), name).map(|claim| claim.spec.access_mode);
        let reads = |one: &Pod| one.spec.written_claims().all(|written| written != name);
        mode.is_some_and(|mode| mode.may_share() && (!mode.may_write() || (reads(pod) && reads(other))))
    };
    let shares = |other: &Pod| {
        let is_other = other.meta.id != pod.meta.id && other.meta.namespace == pod.meta.namespace;
        is_other
            && other
                .spec
                .claims()
                .any(|name| pod.spec.claims().any(|own| own == name && !both_read(other, own)))
    };
    let on_node = guests.iter().filter(|(node, _)| *node == pod.node);
    on_node.filter_map(|(_, other)| state.pods().get(*other)).any(|other| shares(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Binding, Command, Container, Name, NodeFacts, Object, ObjectMeta, ObjectRef, PodSpec, PodStatus,
        Resources, Shared, Stamped,
    };
    use std::sync::Arc;
    use uuid::Uuid;

    fn machine(commands: Vec<Command>) -> Machine {
        let mut machine = Machine::default();
        let init = Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() };
        for command in std::iter::once(init).chain(commands) {
            let applied = machine.apply_stamped(&Stamped {
                request_id: Uuid::nil(),
                actor: "system:test".into(),
                proposed_at_ms: 5,
                trace_context: None,
                preconditions: Vec::new(),
                commands: vec![command],
            });
            assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
        }
        machine
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn node() -> Command {
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        Command::RegisterNode { name: name("n"), facts }
    }

    fn pod() -> Command {
        let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
        let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        let meta = ObjectMeta::new(Some(name("default")), name("p"));
        let (spec, status) = (Shared::new(spec), PodStatus::default());
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status })))
    }

    #[test]
    fn a_server_that_lags_or_is_down_is_noticed() {
        let at = |member, index| (MemberId(member), Some((index, 7)));
        assert!(servers(&[at(1, 5), at(2, 5)]).is_ok());
        assert!(servers(&[at(1, 5), at(2, 6)]).is_err());
        assert!(servers(&[at(1, 5), (MemberId(2), None)]).is_err());
        assert!(servers(&[]).is_err());
    }

    #[test]
    fn what_waits_without_need_is_noticed() {
        assert!(state(&State::default(), 0, false, None).is_err(), "no cluster");
        assert!(state(machine(vec![node()]).state(), 1, false, None).is_ok());
        assert!(state(machine(vec![node()]).state(), 2, false, None).is_err(), "a node is missing");
        assert!(state(machine(vec![pod()]).state(), 0, false, None).is_ok(), "it fits nowhere");
        assert!(state(machine(vec![node(), pod()]).state(), 1, false, None).is_err(), "it fits");
    }

    #[test]
    fn a_unique_pod_that_waits_for_a_lost_node_is_noticed() {
        let placed = machine(vec![pod()]);
        let mut pod = placed.state().pods().iter().next().expect("it is there").as_ref().clone();
        assert!(check_lost(&pod).is_ok(), "it need not be unique");
        pod.meta.annotations.insert(bulkhead_types::ANNOTATION_UNIQUE.into(), "true".into());
        assert!(check_lost(&pod).is_ok(), "it is a pod of its own, and waits");
        pod.meta.owner = Some(bulkhead_types::OwnerRef { kind: Kind::ReplicaSet, id: ObjectId(7) });
        assert!(check_lost(&pod).is_err(), "its owner waits for it");
        pod.status.phase = bulkhead_types::PodPhase::Failed;
        assert!(check_lost(&pod).is_ok(), "its owner has another one");
    }

    #[test]
    fn sets_that_are_not_done_are_noticed() {
        use crate::invariants::sets::World;
        use bulkhead_types::{DaemonSetSpec, LabelSelector, PodManagementPolicy, StatefulSetSpec};
        let meta = || ObjectMeta::new(Some(name("default")), name("x"));
        let (selector, template) = (LabelSelector::from_labels(World::labels()), World::template(1));
        let stateful_set = |replicas| StatefulSet {
            meta: meta(),
            spec: StatefulSetSpec {
                replicas,
                ordinals_start: 0,
                selector: selector.clone(),
                template: template.clone(),
                service_name: "".into(),
                claims: Default::default(),
                pod_management_policy: PodManagementPolicy::OrderedReady,
                update_strategy: StatefulSetUpdateStrategy::default(),
                min_ready_ms: 0,
                revision_history_limit: 1,
                stopped: false,
            },
            status: Default::default(),
        };
        let mut world = World::new();
        world.create(Object::StatefulSet(Arc::new(stateful_set(1))));
        let verdict = state(world.state(), 0, false, None);
        assert!(verdict.is_err_and(|violation| violation.detail.contains("StatefulSet x wants 1")));
        let daemon_set = DaemonSet {
            meta: meta(),
            spec: DaemonSetSpec {
                selector: selector.clone(),
                template: template.clone(),
                update_strategy: DaemonSetUpdateStrategy::default(),
                min_ready_ms: 0,
                revision_history_limit: 1,
            },
            status: Default::default(),
        };
        let mut world = World::new();
        world.node("n");
        world.create(Object::DaemonSet(Arc::new(daemon_set)));
        let verdict = state(world.state(), 1, false, None);
        assert!(verdict.is_err_and(|violation| violation.detail.contains("DaemonSet x wants 1 nodes")));
    }

    #[test]
    fn guests_that_are_missing_or_unwanted_are_noticed() {
        let placed = machine(vec![node(), pod()]);
        let find = |kind, namespace: Option<&str>, text: &str| {
            let reference = ObjectRef { kind, namespace: namespace.map(name), name: name(text) };
            placed.state().find_object(&reference).expect("it is there").meta().id
        };
        let (node_id, pod_id) = (find(Kind::Node, None, "n"), find(Kind::Pod, Some("default"), "p"));
        let binding = Binding {
            pod: pod_id,
            node: node_id,
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        };
        let placed = machine(vec![node(), pod(), Command::BindPods { bindings: vec![binding] }]);
        assert!(guests(placed.state(), &[(Some(node_id), pod_id)], None).is_ok());
        assert!(guests(placed.state(), &[], None).is_err());
        assert!(
            guests(placed.state(), &[(Some(node_id), pod_id), (Some(node_id), ObjectId(99))], None).is_err()
        );
        assert!(state(placed.state(), 1, false, None).is_err(), "it is not ready");
    }
}
