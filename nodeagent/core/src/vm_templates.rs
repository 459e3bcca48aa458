//! Guests of which others are copies: which to boot for that, which to keep, and when to give up. Pure.
//!
//! ```text
//!  ask(size) ─► Make ─► making ─ made() ─► ready ─ ask() ─► Copy …
//!                          └─ failed()          └─ copy_failed(): a copy of it did not run
//! ```
//!
//! A template is of one size, since a machine's memory is part of its state.

use std::collections::BTreeMap;

use crate::GuestSize;

/// Sizes of guests that there are templates of at a time.
pub const VM_TEMPLATES_MAX: usize = 4;
/// What is set aside for each, in bytes: memory that a small guest has touched when it has booted (111 to 116 MiB were measured).
pub const VM_TEMPLATE_BYTES: u64 = 128 << 20;
/// A template that was used this long ago makes room for one of another size, in milliseconds.
const UNUSED_MS: u64 = 600_000;
/// Wait after the first failure, in milliseconds; doubled with each that follows.
const RETRY_FIRST_MS: u64 = 10_000;
/// Longest wait after a failure, in milliseconds.
const RETRY_LAST_MS: u64 = 600_000;

/// The templates of one node.
#[derive(Clone, Debug, Default)]
pub struct VmTemplates {
    known: BTreeMap<GuestSize, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    state: State,
    used_at_ms: u64,
    /// In a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Making,
    Ready,
    Failed { retry_at_ms: u64 },
}

/// What to do for a pod whose guest would be of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateAnswer {
    /// Its guest is a copy of the template of that size.
    Copy,
    /// There is none of that size: one is to be made, for those that follow. Its end, good or bad, is told by [`VmTemplates::made`] or
    /// [`VmTemplates::failed`].
    Make {
        /// The one that makes room for it.
        instead_of: Option<GuestSize>,
    },
    /// There is none, and none is to be made now; why.
    None(&'static str),
}

impl VmTemplates {
    /// A pod wants a guest of this size.
    pub fn ask(&mut self, size: GuestSize, now_ms: u64) -> TemplateAnswer {
        if let Some(known) = self.known.get_mut(&size) {
            known.used_at_ms = now_ms;
            match known.state {
                State::Ready => return TemplateAnswer::Copy,
                State::Making => return TemplateAnswer::None("the template of its size is being made"),
                State::Failed { retry_at_ms } if now_ms < retry_at_ms => {
                    return TemplateAnswer::None("the template of its size failed; the agent's log says why");
                }
                State::Failed { .. } => {}
            }
        }
        // Pods that start go first: a template costs as much as a guest.
        if self.known.values().any(|known| known.state == State::Making) {
            return TemplateAnswer::None("there is no template of its size, and another one is being made");
        }
        let mut instead_of = None;
        if !self.known.contains_key(&size) && self.known.len() >= VM_TEMPLATES_MAX {
            let oldest = self.known.iter().min_by_key(|(size, known)| (known.used_at_ms, **size));
            let Some((oldest, _)) =
                oldest.filter(|(_, known)| now_ms.saturating_sub(known.used_at_ms) >= UNUSED_MS)
            else {
                return TemplateAnswer::None(
                    "there are templates of other sizes, and all of them are in use",
                );
            };
            let oldest = *oldest;
            self.known.remove(&oldest);
            instead_of = Some(oldest);
        }
        let failures = self.known.get(&size).map_or(0, |known| known.failures);
        self.known.insert(size, Known { state: State::Making, used_at_ms: now_ms, failures });
        TemplateAnswer::Make { instead_of }
    }

    /// Whether one of this size is being made.
    #[must_use]
    pub fn is_making(&self, size: GuestSize) -> bool {
        self.known.get(&size).is_some_and(|known| known.state == State::Making)
    }

    /// A template is there; false when nobody wants it any more. It has yet to show that copies of it run: only that ends a row of
    /// failures.
    pub fn made(&mut self, size: GuestSize) -> bool {
        let making = self.known.get_mut(&size).filter(|known| known.state == State::Making);
        making.map(|known| known.state = State::Ready).is_some()
    }

    /// A copy of it runs.
    pub fn copied(&mut self, size: GuestSize) {
        if let Some(known) = self.known.get_mut(&size) {
            known.failures = 0;
        }
    }

    /// It could not be made.
    pub fn failed(&mut self, size: GuestSize, now_ms: u64) {
        self.fail(size, State::Making, now_ms);
    }

    /// A copy of it did not run: it is of no use any more. False when that was of an earlier one: copies of one fail one after the other,
    /// and the next may be made already.
    pub fn copy_failed(&mut self, size: GuestSize, now_ms: u64) -> bool {
        self.fail(size, State::Ready, now_ms)
    }

    fn fail(&mut self, size: GuestSize, state: State, now_ms: u64) -> bool {
        let known = self.known.get_mut(&size).filter(|known| known.state == state);
        if let Some(known) = known {
            let wait_ms = RETRY_FIRST_MS.saturating_mul(1 << known.failures.min(16)).min(RETRY_LAST_MS);
            known.failures = known.failures.saturating_add(1);
            known.state = State::Failed { retry_at_ms: now_ms.saturating_add(wait_ms) };
            return true;
        }
        false
    }

    /// What it was made of is not what guests are made of now: the next who asks has another one made. False as with
    /// [`Self::copy_failed`].
    pub fn outdated(&mut self, size: GuestSize) -> bool {
        let is_ready = self.known.get(&size).is_some_and(|known| known.state == State::Ready);
        is_ready && self.known.remove(&size).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(cpus: u32) -> GuestSize {
        GuestSize { cpus, memory_bytes: 160 << 20 }
    }

    const MAKE: TemplateAnswer = TemplateAnswer::Make { instead_of: None };

    fn why(answer: TemplateAnswer) -> &'static str {
        let TemplateAnswer::None(why) = answer else { panic!("{answer:?}") };
        why
    }

    #[test]
    fn the_first_pod_of_a_size_has_a_template_made_and_those_that_follow_are_copies() {
        let mut templates = VmTemplates::default();
        assert_eq!(templates.ask(size(1), 0), MAKE);
        assert!(why(templates.ask(size(1), 1)).contains("being made"));
        assert!(templates.is_making(size(1)) && !templates.is_making(size(2)));
        assert!(why(templates.ask(size(2), 1)).contains("another one"), "one at a time");
        templates.made(size(1));
        assert_eq!(templates.ask(size(1), 2), TemplateAnswer::Copy);
        assert!(!templates.is_making(size(1)));
        assert_eq!(templates.ask(size(2), 2), MAKE);
        templates.outdated(size(1));
        templates.made(size(2));
        assert_eq!(templates.ask(size(1), 3), MAKE, "a new kernel, guest or QEMU");
    }

    #[test]
    fn few_are_kept_and_the_one_that_nobody_uses_goes() {
        let mut templates = VmTemplates::default();
        for cpus in 1..=4 {
            assert_eq!(templates.ask(size(cpus), 0), MAKE);
            templates.made(size(cpus));
        }
        assert_eq!(templates.ask(size(1), UNUSED_MS - 1), TemplateAnswer::Copy);
        assert!(why(templates.ask(size(5), UNUSED_MS - 1)).contains("in use"));
        assert_eq!(templates.ask(size(5), UNUSED_MS), TemplateAnswer::Make { instead_of: Some(size(2)) });
        templates.made(size(2));
        assert!(why(templates.ask(size(2), UNUSED_MS)).contains("another one"), "it is not there any more");
        assert_eq!(templates.ask(size(1), UNUSED_MS), TemplateAnswer::Copy);
    }

    #[test]
    fn what_fails_is_made_again_ever_later_until_a_copy_runs() {
        let mut templates = VmTemplates::default();
        let (mut now_ms, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            assert_eq!(templates.ask(size(1), now_ms), MAKE);
            if waits.len() % 2 == 0 {
                templates.failed(size(1), now_ms);
            } else {
                assert!(templates.made(size(1)) && templates.copy_failed(size(1), now_ms));
            }
            let begun_ms = now_ms;
            while why_not(templates.clone().ask(size(1), now_ms)) {
                now_ms += 1_000;
            }
            waits.push((now_ms - begun_ms) / 1_000);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(templates.ask(size(1), now_ms), MAKE);
        templates.made(size(1));
        templates.copied(size(1));
        assert!(templates.copy_failed(size(1), now_ms));
        assert_eq!(templates.ask(size(1), now_ms + 10_000), MAKE, "a copy that ran ends the row");
        templates.failed(size(3), 0);
        assert_eq!(templates.known.len(), 1, "nobody asked for it");
    }

    #[test]
    fn copies_of_one_fail_one_after_the_other_and_the_next_is_made_once() {
        let mut templates = VmTemplates::default();
        templates.ask(size(1), 0);
        assert!(templates.made(size(1)));
        assert!(templates.outdated(size(1)));
        assert_eq!(templates.ask(size(1), 1), MAKE);
        // Two more copies of the first.
        assert!(!templates.outdated(size(1)) && !templates.copy_failed(size(1), 2));
        assert!(why(templates.ask(size(1), 3)).contains("being made"), "once");
        assert!(templates.made(size(1)) && templates.copy_failed(size(1), 4));
        assert!(!templates.copy_failed(size(1), 5), "one failure in the row");
        assert_eq!(templates.ask(size(1), 4 + RETRY_FIRST_MS), MAKE);
        templates.failed(size(1), 20_000);
        assert!(!templates.made(size(1)), "nobody waits for it");
    }

    fn why_not(answer: TemplateAnswer) -> bool {
        matches!(answer, TemplateAnswer::None(_))
    }
}
