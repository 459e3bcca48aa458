//! What a pod's PriorityClass says.

use bulkhead_types::{Kind, Name, PodSpec, system_priority};

use crate::State;

/// The priority of pods with such a spec: their class' value, else that of the class for pods that name none, else 0.
/// `None` when the class that they name is not there.
pub(super) fn of(state: &State, spec: &PodSpec) -> Option<i32> {
    let Some(class) = spec.priority_class() else {
        let default = state.priority_classes().iter().find(|class| class.global_default);
        return Some(default.map_or(0, |class| class.value));
    };
    if let Some(value) = system_priority(class) {
        return Some(value);
    }
    let id = state.find(Kind::PriorityClass, None, &Name::new(class).ok()?)?;
    state.priority_classes().get(id).map(|class| class.value)
}
