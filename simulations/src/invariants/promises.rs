//! What a server has told its peers survives its crash: its term, whom it voted for in it, and how much of the log
//! it said to have.
//!
//! Raft's safety rests on exactly this. Two leaders of one term, or a lost entry, would come of it sooner or later;
//! here it is seen at the first start after the promise was forgotten.

use bulkhead_controlplane_core::replica::decode_message;
use bulkhead_types::MemberId;

use super::{Verdict, Violation};

/// Raft's numbers of the messages that promise something: an answer to an append, a candidate's call, a vote.
const APPEND_RESPONSE: u8 = 4;
const VOTE: u8 = 5;
const VOTE_RESPONSE: u8 = 6;
/// Field 1 as a number: the first byte of every message that has a type.
const TYPE_TAG: u8 = 0x08;

/// What one server has promised last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// It will never act in an earlier term.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<MemberId>,
    /// How far it said its log reaches, in that term.
    pub log_to: u64,
}

impl Promise {
    /// Takes in a message that the server sends.
    pub fn sends(&mut self, own: MemberId, bytes: &[u8]) {
        let promises = match bytes {
            [TYPE_TAG, kind, ..] => [APPEND_RESPONSE, VOTE, VOTE_RESPONSE].contains(kind),
            _ => false,
        };
        let Some(message) = promises.then(|| decode_message(bytes).ok()).flatten() else { return };
        if message.get_reject() || message.get_term() < self.term {
            return;
        }
        if message.get_term() > self.term {
            *self = Self { term: message.get_term(), ..Self::default() };
        }
        match bytes[1] {
            APPEND_RESPONSE => self.log_to = self.log_to.max(message.get_index()),
            VOTE => self.vote = Some(own),
            _ => self.vote = Some(MemberId(message.get_to())),
        }
    }
}

/// What a server's disk holds when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its term.
    pub term: u64,
    /// Whom it voted for in it.
    pub vote: Option<MemberId>,
    /// The last entry of its log.
    pub log_to: u64,
}

/// Compares what a disk holds with what its server promised before it went down.
///
/// # Errors
/// When a promise was forgotten.
pub fn check(member: MemberId, promise: &Promise, kept: &Kept) -> Verdict {
    let violation = |text: String| Err(Violation::new("promises", format!("server {member} {text}")));
    if kept.term < promise.term {
        return violation(format!("starts in term {}, it was in term {} already", kept.term, promise.term));
    }
    if kept.term > promise.term {
        // A later leader may have had other entries, and there was no vote yet.
        return Ok(());
    }
    if promise.vote.is_some() && kept.vote != promise.vote {
        let text =
            format!("voted for {:?} in term {}, its disk says {:?}", promise.vote, kept.term, kept.vote);
        return violation(text);
    }
    if kept.log_to < promise.log_to {
        let text = format!("said that it has the log to {}, it has it to {}", promise.log_to, kept.log_to);
        return violation(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_promises_are_noticed() {
        let own = MemberId(1);
        let promise = Promise { term: 5, vote: Some(MemberId(2)), log_to: 9 };
        let kept = Kept { term: 5, vote: Some(MemberId(2)), log_to: 9 };
        assert!(check(own, &promise, &kept).is_ok());
        assert!(check(own, &promise, &Kept { term: 4, ..kept }).is_err());
        assert!(check(own, &promise, &Kept { vote: None, ..kept }).is_err());
        assert!(check(own, &promise, &Kept { vote: Some(own), ..kept }).is_err());
        assert!(check(own, &promise, &Kept { log_to: 8, ..kept }).is_err());
        assert!(check(own, &promise, &Kept { term: 6, vote: None, log_to: 3 }).is_ok());
        assert!(check(own, &Promise { vote: None, ..promise }, &kept).is_ok());
    }

    #[test]
    fn messages_promise_what_they_say() {
        let own = MemberId(1);
        let mut promise = Promise::default();
        // A vote for member 2 in term 7: type 6, to 2, from 1, term 7.
        promise.sends(own, &[8, VOTE_RESPONSE, 16, 2, 24, 1, 32, 7]);
        assert_eq!(promise, Promise { term: 7, vote: Some(MemberId(2)), log_to: 0 });
        // An answer to an append in the same term, for entry 12.
        promise.sends(own, &[8, APPEND_RESPONSE, 16, 3, 24, 1, 32, 7, 48, 12]);
        assert_eq!(promise.log_to, 12);
        // A heartbeat promises nothing, nor does an older term.
        let before = promise;
        promise.sends(own, &[8, 8, 16, 3, 24, 1, 32, 9]);
        promise.sends(own, &[8, VOTE, 16, 3, 24, 1, 32, 6]);
        assert_eq!(promise, before);
        promise.sends(own, &[8, VOTE, 16, 3, 24, 1, 32, 8]);
        assert_eq!(promise, Promise { term: 8, vote: Some(own), log_to: 0 });
    }
}
