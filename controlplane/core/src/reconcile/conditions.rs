//! Conditions in a status, the same way for every kind.

use bulkhead_types::{Condition, ConditionStatus};
use smol_str::SmolStr;

use crate::conditions::set_condition;

/// A list of conditions, kept in type order.
pub(super) struct Conditions<'a> {
    pub(super) list: &'a mut Vec<Condition>,
    /// The leader's clock, milliseconds since the epoch.
    pub(super) now_ms: u64,
}

impl Conditions<'_> {
    /// Sets a condition, unless it has this status and reason already.
    pub(super) fn set(
        &mut self,
        condition_type: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
    ) {
        let present = self.list.iter().find(|c| c.condition_type == condition_type);
        if !present.is_some_and(|c| c.status == status && c.reason == reason) {
            self.put(condition_type, status, reason, message);
        }
    }

    /// The same for a message that tells more than the reason does: another one is taken over.
    pub(super) fn set_text(
        &mut self,
        condition_type: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
    ) {
        set_condition(self.list, self.now_ms, (condition_type, status), reason, &message);
    }

    /// Sets a condition to true, as of now even when it was so before.
    pub(super) fn renew(&mut self, condition_type: &'static str, reason: &'static str, message: String) {
        self.put(condition_type, ConditionStatus::True, reason, message);
    }

    fn put(
        &mut self,
        condition_type: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
    ) {
        let present = self.list.iter().position(|c| c.condition_type >= condition_type);
        let at = present.unwrap_or(self.list.len());
        let former = self.list.get(at).filter(|c| c.condition_type == condition_type).cloned();
        let same_status = former.as_ref().filter(|c| c.status == status);
        let condition = Condition {
            condition_type: SmolStr::new_static(condition_type),
            status,
            reason: SmolStr::new_static(reason),
            message,
            last_transition_ms: same_status.map_or(self.now_ms, |c| c.last_transition_ms),
            last_update_ms: self.now_ms,
        };
        match former {
            Some(_) => self.list[at] = condition,
            None => self.list.insert(at, condition),
        }
    }

    /// Takes a condition out.
    pub(super) fn remove(&mut self, condition_type: &str) {
        self.list.retain(|c| c.condition_type != condition_type);
    }
}
