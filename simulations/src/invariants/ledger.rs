//! The ledger: no node is oversubscribed, and no index drifts from the objects it is made of.

use bulkhead_controlplane_core::{State, invariant};

use super::{Verdict, Violation};

/// Checks a State from scratch.
///
/// # Errors
/// With everything that is wrong.
pub fn check(whose: &str, state: &State) -> Verdict {
    check_found(whose, &invariant::check(state))
}

fn check_found(whose: &str, found: &[invariant::Violation]) -> Verdict {
    if found.is_empty() {
        return Ok(());
    }
    Err(Violation::new("ledger", format!("{whose}: {found:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::ObjectId;

    #[test]
    fn what_the_core_finds_is_a_violation() {
        assert!(check("s", &State::default()).is_ok());
        assert!(check_found("s", &[invariant::Violation::Oversubscribed(ObjectId(3))]).is_err());
    }
}
