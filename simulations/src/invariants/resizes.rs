//! Resizes: what guests hold fits their node while they change, agents say of no pod that it has more than it was given, and after
//! the faults no resize is left that could be done.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Pod, ResizeStage, Resources, larger_sizes};

use super::{Verdict, Violation, ensure};

fn violation(text: String) -> Verdict {
    Err(Violation::new("resizes", text))
}

/// What all guests of a node hold at the moment in which one of them changes.
///
/// # Errors
/// When that is more than the node has.
pub fn held(held: Resources, allocatable: Resources) -> Verdict {
    ensure(held.fits_in(allocatable), "resizes", || {
        format!("guests hold {held:?} of a node that has {allocatable:?}")
    })
}

/// What a pod has is within what it was given.
///
/// # Errors
/// When it is not.
pub fn within(pod: &Pod) -> Verdict {
    let Some(actual) = pod.status.actual.get().filter(|_| !pod.status.phase.is_terminal()) else {
        return Ok(());
    };
    let given = pod.spec.sizes();
    ensure(larger_sizes(&given, &actual.containers) == given, "resizes", || {
        format!("pod {} was given {given:?} and has {:?}", pod.meta.name, actual.containers)
    })
}

/// After the faults: what was under way is done, and what waits has no room.
///
/// # Errors
/// When something is left to do.
pub fn over(state: &State, pod: &Pod) -> Verdict {
    within(pod)?;
    let Some(resize) = pod.resize() else { return Ok(()) };
    let name = &pod.meta.name;
    match resize.stage {
        ResizeStage::Infeasible => Ok(()),
        ResizeStage::InProgress => violation(format!("a resize of pod {name} is still in progress")),
        ResizeStage::Deferred => {
            let Some(node) = pod.node.and_then(|node| state.nodes().get(node)) else { return Ok(()) };
            // Quotas, queues and rooms that are kept are others' business.
            let others = !state.elastic_quota_trees().is_empty()
                || pod.group_key().is_some()
                || pod.own_queue().is_some()
                || state.nominated_on(node.meta.id).next().is_some();
            let wanted =
                pod.spec.resized(&larger_sizes(&pod.spec.sizes(), &resize.desired)).scheduling_request();
            let held = state.node_usage(node.meta.id).requests.checked_minus(pod.spec.scheduling_request());
            let fits = held.is_some_and(|rest| rest.plus(wanted).fits_in(node.status.facts.allocatable));
            ensure(others || !fits, "resizes", || {
                format!("a resize of pod {name} waits, although its node has room: {}", resize.message)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{
        ActualSizes, Container, ContainerSize, Name, ObjectMeta, PodResize, PodSpec, PodStatus, Rare,
        ResourceRequirements, Shared,
    };

    fn cpu(cpu_millis: u64) -> ResourceRequirements {
        ResourceRequirements { cpu_millis: Some(cpu_millis), ..ResourceRequirements::default() }
    }

    fn size(cpu_millis: u64) -> Vec<ContainerSize> {
        vec![ContainerSize { name: "c".into(), requests: cpu(cpu_millis), ..ContainerSize::default() }]
    }

    fn pod(status: PodStatus) -> Pod {
        let container = Container { name: "c".into(), requests: cpu(100), ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(None, Name::new("p").expect("a name"));
        Pod { meta, spec, node: None, status }
    }

    #[test]
    fn what_must_not_be_is_noticed() {
        let room = |cpu_millis| Resources { cpu_millis, ..Resources::ZERO };
        assert!(held(room(5), room(5)).is_ok() && held(room(6), room(5)).is_err());
        let has = |cpu_millis| {
            let actual = ActualSizes { containers: size(cpu_millis), ..ActualSizes::default() };
            pod(PodStatus { actual: Rare::some(actual), ..PodStatus::default() })
        };
        assert!(within(&has(100)).is_ok() && within(&has(101)).is_err());
        let state = State::default();
        let resizes = |stage| {
            let (message, since_ms) = (String::new(), 1);
            let resize = PodResize { desired: size(200), stage, message, since_ms };
            pod(PodStatus { resize: Rare::some(resize), ..PodStatus::default() })
        };
        assert!(over(&state, &resizes(ResizeStage::InProgress)).is_err(), "it is not done");
        assert!(over(&state, &resizes(ResizeStage::Infeasible)).is_ok());
        assert!(over(&state, &pod(PodStatus::default())).is_ok());
    }
}
