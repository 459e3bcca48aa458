//! A State rebuilt from events, or from a snapshot, equals the live one: object by object, not by digest alone.

use bulkhead_controlplane_core::State;

use super::{Verdict, Violation};

/// Compares two States.
///
/// # Errors
/// With the first difference.
pub fn check(whose: &str, live: &State, rebuilt: &State) -> Verdict {
    let violation = |text: String| Err(Violation::new("rebuilt", format!("{whose}: {text}")));
    if live.revision() != rebuilt.revision() {
        return violation(format!("revision {} live, {} rebuilt", live.revision(), rebuilt.revision()));
    }
    let (mut left, mut right) = (live.objects(), rebuilt.objects());
    loop {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => return violation(format!("{a:?} live, {b:?} rebuilt")),
        }
    }
    if !live.members().eq(rebuilt.members()) {
        return violation("the members differ".to_owned());
    }
    if live.pending_pods() != rebuilt.pending_pods() {
        return violation("the pending pods differ".to_owned());
    }
    if live.digest() != rebuilt.digest() {
        return violation("equal objects, but the digests differ".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{Command, Stamped};
    use uuid::Uuid;

    #[test]
    fn another_state_is_noticed() {
        let mut machine = Machine::default();
        let empty = State::default();
        machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:cluster".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() }],
        });
        assert!(check("s", machine.state(), machine.state()).is_ok());
        assert!(check("s", machine.state(), &empty).is_err());
    }
}
