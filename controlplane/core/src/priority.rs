//! What PriorityClasses say of pods. A class is looked up when it is asked for, never kept in a pod: one that is made anew
//! with another value counts with that.

use std::collections::BTreeMap;

use bulkhead_types::{Kind, Name, PodSpec, PreemptionPolicy, PriorityClass, system_priority};
use smol_str::SmolStr;

use crate::State;

/// What a class says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Priority {
    /// Pods with a higher value go first.
    pub(crate) value: i32,
    /// Whether they make others end that have a lower one.
    pub(crate) preempts: bool,
}

impl Priority {
    /// Of pods that name no class, when none is for those.
    const NONE: Self = Self { value: 0, preempts: true };

    fn of_class(class: &PriorityClass) -> Self {
        let preempts = class.preemption_policy != Some(PreemptionPolicy::Never);
        Self { value: class.value, preempts }
    }
}

/// The priority of pods with such a spec: their class' value, else that of the class for pods that name none, else 0.
/// `None` when the class that they name is not there.
pub(crate) fn of(state: &State, spec: &PodSpec) -> Option<Priority> {
    let Some(class) = spec.priority_class() else { return Some(of_default(state)) };
    if let Some(value) = system_priority(class) {
        return Some(Priority { value, preempts: true });
    }
    let id = state.find(Kind::PriorityClass, None, &Name::new(class).ok()?)?;
    state.priority_classes().get(id).map(|class| Priority::of_class(class))
}

/// The value of a class; `None` when it is not there.
pub(crate) fn of_class(state: &State, class: &Name) -> Option<i32> {
    let found = || state.priority_classes().get(state.find(Kind::PriorityClass, None, class)?);
    system_priority(class.as_str()).or_else(|| found().map(|class| class.value))
}

fn of_default(state: &State) -> Priority {
    let default = state.priority_classes().iter().find(|class| class.global_default);
    default.map_or(Priority::NONE, |class| Priority::of_class(class))
}

/// The same of every class at once, for who asks about many pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Priorities {
    default: Priority,
    classes: BTreeMap<SmolStr, Priority>,
}

impl Priorities {
    pub(crate) fn read(state: &State) -> Self {
        let classes = state.priority_classes().iter();
        let named = |class: &std::sync::Arc<PriorityClass>| {
            (SmolStr::new(class.meta.name.as_str()), Priority::of_class(class))
        };
        Self { default: of_default(state), classes: classes.map(named).collect() }
    }

    /// What a class says, or what holds for pods that name none; `None` when it is not there.
    pub(crate) fn of(&self, class: Option<&SmolStr>) -> Option<Priority> {
        let Some(class) = class else { return Some(self.default) };
        match system_priority(class) {
            Some(value) => Some(Priority { value, preempts: true }),
            None => self.classes.get(class).copied(),
        }
    }
}
