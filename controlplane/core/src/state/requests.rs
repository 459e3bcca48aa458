//! Answers to recent requests, so that a repeated one gets the first one's answer.

use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{Outcome, PLACEMENT_LEVEL, Rejection, Revision, digest128};
use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

/// How long an answer is remembered, in milliseconds of log time.
pub const REQUEST_RETENTION_MS: u64 = 600_000;
/// Most answers remembered. Above it the oldest go early: a bound on memory (about 100 bytes each) that is
/// reached only above 1,700 requests per second sustained for the whole retention.
pub const REQUESTS_MAX: usize = 1 << 20;

/// One remembered answer. Copies of the State copy the answers around a new one, so the usual answer holds
/// nothing that is counted.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    at_ms: u64,
    outcome: Kept,
}

/// An outcome as it is kept.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Accepted(Revision),
    Refused(Arc<Rejection>),
}

impl Kept {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted(revision) => Ok(*revision),
            Self::Refused(rejection) => Err((**rejection).clone()),
        }
    }
}

/// Remembered answers by request, and their order in time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    answers: OrdMap<Uuid, Answer>,
    by_time: OrdSet<(u64, Uuid)>,
    digest: u128,
    /// A refusal counts by its code in the digest, not by its words.
    by_code: bool,
}

/// What one answer adds to the digest. A new version may refuse in better words: beside an older one that must not look
/// like divergence.
fn digest_of(request_id: Uuid, at_ms: u64, outcome: &Outcome, by_code: bool) -> u128 {
    match outcome {
        Err(rejection) if by_code => digest128(&(request_id, at_ms, rejection.code)),
        _ => digest128(&(request_id, at_ms, outcome)),
    }
}

impl Requests {
    pub(super) fn get(&self, request_id: Uuid) -> Option<Outcome> {
        self.answers.get(&request_id).map(|a| a.outcome.outcome())
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    pub(super) fn digest_from_scratch(&self) -> u128 {
        let digest = |(id, at_ms, outcome)| digest_of(id, at_ms, &outcome, self.by_code);
        self.iter().map(digest).fold(0, u128::wrapping_add)
    }

    /// From [`PLACEMENT_LEVEL`] on refusals count by their code. The digest of what is there is made anew when that begins.
    pub(super) fn follow_level(&mut self, level: u32) {
        let by_code = level >= PLACEMENT_LEVEL;
        if by_code != self.by_code {
            self.by_code = by_code;
            self.digest = self.digest_from_scratch();
        }
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Uuid, u64, Outcome)> {
        self.by_time
            .iter()
            .filter_map(|(at_ms, id)| self.answers.get(id).map(|a| (*id, *at_ms, a.outcome.outcome())))
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Remembers an answer. Nil requests are the control plane's own and are not remembered.
    pub(crate) fn record(&mut self, request_id: Uuid, at_ms: u64, outcome: &Outcome) {
        if request_id.is_nil() {
            return;
        }
        self.digest = self.digest.wrapping_add(digest_of(request_id, at_ms, outcome, self.by_code));
        self.by_time.insert((at_ms, request_id));
        let outcome = match outcome {
            Ok(revision) => Kept::Accepted(*revision),
            Err(rejection) => Kept::Refused(Arc::new(rejection.clone())),
        };
        let answer = Answer { at_ms, outcome };
        let former = self.answers.insert(request_id, answer);
        assert!(former.is_none(), "request {request_id} was answered twice");
        if self.answers.len() > REQUESTS_MAX {
            self.forget_oldest();
        }
    }

    /// Forgets what is older than the retention.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let horizon_ms = now_ms.saturating_sub(if planted!("canary_dedup_window_short") {
            1000
        } else {
            REQUEST_RETENTION_MS
        });
        while self.by_time.get_min().is_some_and(|(at_ms, _)| *at_ms < horizon_ms) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at_ms, id)) = self.by_time.get_min().copied() else { return };
        self.by_time.remove(&(at_ms, id));
        let answer = self.answers.remove(&id).expect("an answer in time order is remembered");
        let digest = digest_of(id, answer.at_ms, &answer.outcome.outcome(), self.by_code);
        self.digest = self.digest.wrapping_sub(digest);
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::RejectionCode;

    use super::*;

    #[test]
    fn answers_expire_and_the_digest_follows() {
        let mut requests = Requests::default();
        let id = Uuid::from_u128;
        requests.record(id(1), 1000, &Ok(5));
        requests.record(Uuid::nil(), 1000, &Ok(6));
        requests.record(id(2), 2000, &Ok(7));
        assert_eq!(requests.get(id(1)), Some(Ok(5)));
        assert_eq!(requests.len(), 2, "nil requests are not remembered");
        requests.expire(1001 + REQUEST_RETENTION_MS);
        assert_eq!(requests.get(id(1)), None);
        assert_eq!(requests.digest(), requests.digest_from_scratch());
        requests.expire(u64::MAX);
        assert_eq!(requests.digest(), 0);
    }

    #[test]
    fn the_words_of_a_refusal_are_no_divergence_from_their_level_on() {
        let answered = |reason: &str, code, level| {
            let mut requests = Requests::default();
            requests.record(Uuid::from_u128(1), 1000, &Err(Rejection::new(code, "a", reason)));
            requests.follow_level(level);
            requests.record(Uuid::from_u128(2), 1000, &Err(Rejection::new(code, "b", reason)));
            assert_eq!(requests.digest(), requests.digest_from_scratch());
            requests
        };
        let digest = |reason, code, level| answered(reason, code, level).digest();
        let (invalid, conflict) = (RejectionCode::Invalid, RejectionCode::Conflict);
        assert_eq!(digest("no", invalid, PLACEMENT_LEVEL), digest("never", invalid, PLACEMENT_LEVEL));
        assert_ne!(digest("no", invalid, PLACEMENT_LEVEL), digest("no", conflict, PLACEMENT_LEVEL));
        assert_ne!(digest("no", invalid, PLACEMENT_LEVEL - 1), digest("never", invalid, PLACEMENT_LEVEL - 1));
        let mut requests = answered("no", invalid, PLACEMENT_LEVEL);
        requests.expire(u64::MAX);
        assert_eq!(requests.digest(), 0);
    }
}
