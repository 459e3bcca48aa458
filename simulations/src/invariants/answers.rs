//! The same request id gets the same answer, whoever is asked, for as long as requests are remembered.

use bulkhead_types::Outcome;
use uuid::Uuid;

use super::{Verdict, ensure};

/// Checks the answer to a request that was answered before.
///
/// # Errors
/// When it is another one.
pub fn check(request_id: Uuid, first: &Outcome, again: &Outcome) -> Verdict {
    ensure(first == again, "answers", || {
        format!("request {request_id} was answered {first:?}, and asked again {again:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{Rejection, RejectionCode};

    #[test]
    fn another_answer_is_noticed() {
        let refused = || Err(Rejection::new(RejectionCode::Invalid, "field", "reason"));
        let id = Uuid::from_u128(1);
        assert!(check(id, &Ok(4), &Ok(4)).is_ok());
        assert!(check(id, &refused(), &refused()).is_ok());
        assert!(check(id, &Ok(4), &Ok(5)).is_err());
        assert!(check(id, &Ok(4), &refused()).is_err());
    }
}
