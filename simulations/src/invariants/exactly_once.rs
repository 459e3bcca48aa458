//! A request happens at most once, and never when its client was told that nothing was done.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_controlplane_core::{Applied, REQUEST_RETENTION_MS};
use bulkhead_types::Outcome;
use uuid::Uuid;

use super::{Verdict, Violation};

/// A request that happened.
#[derive(Clone, Debug)]
pub struct Done {
    /// At which entry.
    pub index: u64,
    /// At which log time, milliseconds since the epoch.
    pub at_ms: u64,
    /// With which outcome.
    pub outcome: Outcome,
    /// With which outcomes it happened before that, so long ago that it was forgotten.
    pub earlier: Vec<Outcome>,
}

/// Every request that happened.
pub type Requests = BTreeMap<Uuid, Done>;

/// Checks one submission of the entry that is applied for the first time now, and notes it.
///
/// A request is remembered for ten minutes of log time: only within them it must not happen again.
///
/// # Errors
/// When it happened before, is answered differently now, or was refused.
pub fn check(requests: &mut Requests, refused: &BTreeSet<Uuid>, index: u64, one: &Applied) -> Verdict {
    let transaction = &one.transaction;
    let id = transaction.request_id;
    if id.is_nil() {
        return Ok(());
    }
    let violation = |text: String| Err(Violation::new("exactly_once", format!("request {id}: {text}")));
    if refused.contains(&id) {
        return violation(format!("its client was told that nothing was done, entry {index} does it"));
    }
    match (requests.get(&id), one.repeated) {
        (None, true) => violation(format!("entry {index} repeats it, but it never happened")),
        (Some(first), true) if first.outcome != transaction.outcome => violation(format!(
            "answered {:?} at entry {index}, {:?} at entry {}",
            transaction.outcome, first.outcome, first.index
        )),
        (Some(first), false) if transaction.at_ms <= first.at_ms + REQUEST_RETENTION_MS => {
            violation(format!("happens at entry {} and again at entry {index}", first.index))
        }
        (_, true) => Ok(()),
        (_, false) => {
            let former = requests.remove(&id);
            let earlier = former.map(|former| [former.earlier, vec![former.outcome]].concat());
            let (at_ms, outcome) = (transaction.at_ms, transaction.outcome.clone());
            requests.insert(id, Done { index, at_ms, outcome, earlier: earlier.unwrap_or_default() });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::Transaction;

    fn applied(id: u128, outcome: Outcome, repeated: bool) -> Applied {
        let transaction = Transaction {
            request_id: Uuid::from_u128(id),
            actor: "user:a".into(),
            at_ms: 1000,
            trace_context: None,
            outcome,
            events: Vec::new(),
        };
        Applied { transaction, changes: Vec::new(), repeated }
    }

    #[test]
    fn repetitions_are_judged() {
        let check_all = |refused: &[u128], steps: &[(u128, u64, bool)], expected: bool| {
            let refused = refused.iter().map(|id| Uuid::from_u128(*id)).collect();
            let mut requests = Requests::new();
            let verdict = steps.iter().enumerate().try_for_each(|(n, (id, revision, repeated))| {
                check(&mut requests, &refused, n as u64, &applied(*id, Ok(*revision), *repeated))
            });
            assert_eq!(verdict.is_ok(), expected, "{steps:?}: {verdict:?}");
        };
        check_all(&[], &[(1, 5, false), (1, 5, true), (2, 6, false)], true);
        check_all(&[], &[(0, 5, false), (0, 6, false)], true);
        check_all(&[], &[(1, 5, false), (1, 6, false)], false);
        check_all(&[], &[(1, 5, false), (1, 6, true)], false);
        check_all(&[], &[(1, 5, true)], false);
        check_all(&[1], &[(1, 5, false)], false);
    }
}
