//! What PriorityClasses and Profiles must be together with the others of their kind.

use bulkhead_types::{Object, PROFILES_MAX, Rejection, RejectionCode};

use super::not_allowed;
use crate::State;

/// Refuses a second class for pods that name none, and more profiles than are looked at for every pod.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    match object {
        Object::PriorityClass(class) if class.global_default => {
            let mut others = state.priority_classes.iter().filter(|other| other.meta.name != class.meta.name);
            let Some(other) = others.find(|other| other.global_default) else { return Ok(()) };
            let field = format!("{}: globalDefault", object.object_ref());
            let reason = format!("PriorityClass {} is the default already: one at most is", other.meta.name);
            Err(not_allowed(field, reason).with_remedy("set globalDefault: false there first"))
        }
        Object::Profile(profile)
            if state.profiles.len() >= PROFILES_MAX
                && state.profiles.iter().all(|other| other.meta.name != profile.meta.name) =>
        {
            let reason = format!("there are {PROFILES_MAX} profiles already");
            Err(Rejection::new(RejectionCode::NotAllowed, object.object_ref().to_string(), reason)
                .with_remedy("put the rules into one of those, or delete one"))
        }
        _ => Ok(()),
    }
}
