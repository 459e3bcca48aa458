//! Revisions grow by one, log time never goes back, and a stale precondition never holds.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Revision, Stamped, Transaction};

use super::{Verdict, Violation};

/// Checks a transaction against the State just before it.
///
/// # Errors
/// When its revisions or its time do not follow, or its outcome is not its last revision.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    let violation = |text: String| Err(Violation::new("revisions", text));
    if transaction.at_ms < before.now_ms() {
        return violation(format!("log time goes back from {} to {}", before.now_ms(), transaction.at_ms));
    }
    let mut last: Revision = before.revision();
    for event in &transaction.events {
        if event.revision != last + 1 {
            return violation(format!("revision {} follows {last}", event.revision));
        }
        last = event.revision;
    }
    match &transaction.outcome {
        Ok(revision) if *revision != last => {
            violation(format!("the answer is revision {revision}, the last event has {last}"))
        }
        Err(rejection) if !transaction.events.is_empty() => {
            violation(format!("refused ({rejection}), and yet {} events", transaction.events.len()))
        }
        _ => Ok(()),
    }
}

/// Checks that a submission that was accepted found what it was decided on.
///
/// # Errors
/// When a precondition did not hold.
pub fn check_preconditions(before: &State, submitted: &Stamped, accepted: bool) -> Verdict {
    for precondition in submitted.preconditions.iter().filter(|_| accepted) {
        let found = before.find_object(&precondition.object).map(|object| object.meta().revision);
        if found != precondition.revision {
            let text = format!(
                "request {} was accepted although {} is at {found:?}, not {:?}",
                submitted.request_id, precondition.object, precondition.revision
            );
            return Err(Violation::new("revisions", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{Event, EventKind, Kind, Name, ObjectRef, Precondition, Rejection, RejectionCode};
    use uuid::Uuid;

    fn transaction(revisions: &[Revision], outcome: bulkhead_types::Outcome) -> Transaction {
        let event = |revision: &Revision| Event {
            revision: *revision,
            kind: EventKind::FeatureLevelRaised { level: 1 },
        };
        Transaction {
            request_id: Uuid::nil(),
            actor: "user:a".into(),
            at_ms: 0,
            trace_context: None,
            outcome,
            events: revisions.iter().map(event).collect(),
        }
    }

    #[test]
    fn gaps_and_wrong_answers_are_noticed() {
        let state = State::default();
        let refusal = || Err(Rejection::new(RejectionCode::Invalid, "f", "r"));
        assert!(check(&state, &transaction(&[1, 2], Ok(2))).is_ok());
        assert!(check(&state, &transaction(&[], refusal())).is_ok());
        assert!(check(&state, &transaction(&[2], Ok(2))).is_err());
        assert!(check(&state, &transaction(&[1, 1], Ok(1))).is_err());
        assert!(check(&state, &transaction(&[1], Ok(2))).is_err());
        assert!(check(&state, &transaction(&[1], refusal())).is_err());
    }

    #[test]
    fn a_stale_precondition_that_was_accepted_is_noticed() {
        let object = ObjectRef { kind: Kind::Node, namespace: None, name: Name::new("a").expect("a name") };
        let stamped = |revision| Stamped {
            request_id: Uuid::from_u128(1),
            actor: "user:a".into(),
            proposed_at_ms: 0,
            trace_context: None,
            preconditions: vec![Precondition { object: object.clone(), revision }],
            commands: Vec::new(),
        };
        let state = State::default();
        assert!(check_preconditions(&state, &stamped(None), true).is_ok());
        assert!(check_preconditions(&state, &stamped(Some(3)), false).is_ok());
        assert!(check_preconditions(&state, &stamped(Some(3)), true).is_err());
    }
}
