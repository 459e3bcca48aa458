//! Lists of conditions, kept in type order.

use bulkhead_types::{Condition, ConditionStatus};
use smol_str::SmolStr;

/// Sets a condition, unless it has this status, reason and message already.
pub(crate) fn set_condition(
    list: &mut Vec<Condition>,
    now_ms: u64,
    (condition_type, status): (&'static str, ConditionStatus),
    reason: &str,
    message: &str,
) {
    let at = list.partition_point(|c| c.condition_type.as_str() < condition_type);
    let present = list.get(at).filter(|c| c.condition_type == condition_type);
    if present.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
        return;
    }
    let same_status = present.filter(|c| c.status == status);
    let condition = Condition {
        condition_type: SmolStr::new_static(condition_type),
        status,
        reason: SmolStr::new(reason),
        message: message.to_owned(),
        last_transition_ms: same_status.map_or(now_ms, |c| c.last_transition_ms),
        last_update_ms: now_ms,
    };
    match present {
        Some(_) => list[at] = condition,
        None => list.insert(at, condition),
    }
}
