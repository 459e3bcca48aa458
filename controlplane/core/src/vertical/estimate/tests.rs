use bulkhead_types::ObjectId;
use proptest::prelude::*;

use super::*;
use crate::vertical::{CpuSample, HALF_LIFE_MS};

const T: u64 = 1_000 * HALF_LIFE_MS;
const MINUTE: u64 = 60_000;

/// A container that always uses the same, once a minute.
fn model(minutes: u64, cpu_millis: u64, memory_bytes: u64) -> ContainerModel {
    let mut model = ContainerModel::new(T);
    for minute in 0..minutes {
        let cpu = Some(CpuSample { used_millis: cpu_millis, request_millis: 100 });
        model.add(ObjectId(1), T + minute * MINUTE, cpu, memory_bytes);
    }
    model
}

fn check(minutes: u64, cpu_millis: u64, memory_bytes: u64, cpu: [u64; 3], memory_mib: [u64; 3]) {
    let found = estimate("app".into(), &model(minutes, cpu_millis, memory_bytes));
    let three = |one: ResourceEstimate| [one.lower, one.target, one.upper];
    assert_eq!(found.cpu_millis.map(three), Some(cpu));
    assert_eq!(found.memory_bytes.map(|one| three(one).map(|bytes| bytes >> 20)), Some(memory_mib));
    assert_eq!(found.samples, minutes);
}

#[test]
fn bounds_close_in_with_what_is_known() {
    const MIB: u64 = 1 << 20;
    // 200m lie in a bucket that ends at 215m; with 15 % these are 248m. The one of 100 MiB ends at 110 MB: 121 MiB.
    check(2, 200, 100 * MIB, [41, 248, 357_597], [32, 121, 174_374]);
    check(61, 200, 100 * MIB, [236, 248, 6201], [116, 121, 3024]);
    check(1 + 1440, 200, 100 * MIB, [246, 248, 496], [121, 121, 242]);
    check(1 + 14_400, 200, 100 * MIB, [246, 248, 273], [121, 121, 134]);
    // Never less than a guest needs at all.
    check(1 + 1440, 0, 0, [25, 25, 25], [32, 32, 32]);
}

#[test]
fn nothing_is_recommended_of_nothing() {
    let none = estimate("app".into(), &ContainerModel::new(T));
    assert_eq!((none.cpu_millis, none.memory_bytes, none.samples), (None, None, 0));
}

proptest! {
    #[test]
    fn lower_target_and_upper_are_in_order(
        uses in proptest::collection::vec((0u64..4, 0u64..200_000, 0u64..2_000_000, 0u64..1 << 40), 1..50),
    ) {
        let mut model = ContainerModel::new(T);
        for (pod, minutes, cpu_millis, memory_bytes) in uses {
            let cpu = Some(CpuSample { used_millis: cpu_millis, request_millis: 100 });
            model.add(ObjectId(pod), T + minutes * MINUTE, cpu, memory_bytes);
        }
        let found = estimate("app".into(), &model);
        for one in [found.cpu_millis, found.memory_bytes].into_iter().flatten() {
            prop_assert!(one.lower <= one.target && one.target <= one.upper, "{one:?}");
        }
    }
}
