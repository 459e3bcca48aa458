//! Prefers nodes that measurably do less, for pods that ask for it: what is reserved may say little of that.
//!
//! Source: ACK's load-aware scheduling (a preference by the history of real load, never a filter) and Koordinator's plugin
//! `LoadAwareScheduling` (pods that were not measured yet count with 85 % of the processor time and 70 % of the memory that they request).

use bulkhead_types::Resources;

use super::{WHOLE, share};
use crate::schedule::index::NodeEntry;

/// How much of what an unmeasured pod requests it is taken to use, in per cent.
const CPU_PERCENT: u64 = 85;
const MEMORY_PERCENT: u64 = 70;
/// What was measured before counts so much beside what is measured now.
const HISTORY_WEIGHT: u64 = 3;
/// A change below this part of a node is none.
const CHANGE_PART: u64 = 50;

/// What the pods of a node use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Measured, or taken to be used by those not measured; smoothed over the looks before.
    pub(crate) used: Resources,
    /// What was reserved then.
    pub(crate) reserved: Resources,
}

/// What a pod that was not measured is taken to use.
pub(crate) fn estimate(request: Resources) -> Resources {
    let of = |amount: u64, percent: u64| amount / 100 * percent + amount % 100 * percent / 100;
    Resources {
        cpu_millis: of(request.cpu_millis, CPU_PERCENT),
        memory_bytes: of(request.memory_bytes, MEMORY_PERCENT),
        ..Resources::ZERO
    }
}

impl Load {
    /// The load after another look; `None` when that is as good as the same.
    pub(crate) fn follow(
        former: Option<Self>,
        used: Resources,
        reserved: Resources,
        has: Resources,
    ) -> Option<Self> {
        let Some(former) = former else { return Some(Self { used, reserved }) };
        let smooth = |was: u64, is: u64| {
            let sum = u128::from(was) * u128::from(HISTORY_WEIGHT) + u128::from(is);
            (sum / u128::from(HISTORY_WEIGHT + 1)) as u64
        };
        let used = Resources {
            cpu_millis: smooth(former.used.cpu_millis, used.cpu_millis),
            memory_bytes: smooth(former.used.memory_bytes, used.memory_bytes),
            ..Resources::ZERO
        };
        let is_near = |a: u64, b: u64, has: u64| a.abs_diff(b) <= has / CHANGE_PART;
        let is_same = former.reserved == reserved
            && is_near(former.used.cpu_millis, used.cpu_millis, has.cpu_millis)
            && is_near(former.used.memory_bytes, used.memory_bytes, has.memory_bytes);
        (!is_same).then_some(Self { used, reserved })
    }
}

/// In ten thousandths: all of them for an idle node.
pub(super) fn score(request: Resources, entry: &NodeEntry) -> u64 {
    let load = entry.load.unwrap_or_default();
    let more = |is: u64, was: u64| is.saturating_sub(was);
    let (now, then) = (entry.usage.requests.plus(request), load.reserved);
    let unmeasured = estimate(Resources {
        cpu_millis: more(now.cpu_millis, then.cpu_millis),
        memory_bytes: more(now.memory_bytes, then.memory_bytes),
        ..Resources::ZERO
    });
    let used = load.used.plus(unmeasured);
    let has = entry.allocatable;
    (2 * WHOLE - share(used.cpu_millis, has.cpu_millis) - share(used.memory_bytes, has.memory_bytes)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(cpu_millis: u64, memory_bytes: u64) -> Resources {
        Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes: 0, ..Resources::ZERO }
    }

    #[test]
    fn what_is_not_measured_is_estimated() {
        assert_eq!(estimate(resources(1000, 1000)), resources(850, 700));
        assert_eq!(estimate(resources(1, 3)), resources(0, 2));
        assert_eq!(estimate(resources(u64::MAX, 0)).cpu_millis, u64::MAX / 100 * 85 + 12);
    }

    #[test]
    fn history_counts_and_small_changes_do_not() {
        let has = resources(10_000, 10_000);
        let check = |former: Option<u64>, used: u64, expected: Option<u64>| {
            let load = |cpu| Load { used: resources(cpu, 0), reserved: Resources::ZERO };
            let found = Load::follow(former.map(load), resources(used, 0), Resources::ZERO, has);
            assert_eq!(found, expected.map(load));
        };
        check(None, 4000, Some(4000));
        check(Some(4000), 8000, Some(5000));
        check(Some(4000), 4800, None);
        check(Some(4000), 4804, Some(4201));
    }
}
