//! What a client was told is what the log says: an acknowledged command is never lost, and a request never has
//! two answers.

use bulkhead_types::Outcome;
use uuid::Uuid;

use super::{Verdict, ensure};

/// Checks an answer against the log's own record of the request: each time that it happened, which is once unless it was forgotten
/// meanwhile (`exactly_once` sees to that).
///
/// # Errors
/// When the log has no such request, or other outcomes of it.
pub fn check<'a>(request_id: Uuid, told: &Outcome, logged: impl IntoIterator<Item = &'a Outcome>) -> Verdict {
    let logged: Vec<&Outcome> = logged.into_iter().collect();
    ensure(logged.contains(&told), "acknowledged", || {
        format!("request {request_id} was answered {told:?}, the log says {logged:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_changed_answer_is_noticed() {
        let id = Uuid::from_u128(1);
        assert!(check(id, &Ok(4), Some(&Ok(4))).is_ok());
        assert!(check(id, &Ok(4), None).is_err());
        assert!(check(id, &Ok(4), Some(&Ok(5))).is_err());
        // It happened again, so much later that it was forgotten.
        assert!(check(id, &Ok(4), [&Ok(5), &Ok(4)]).is_ok());
    }
}
