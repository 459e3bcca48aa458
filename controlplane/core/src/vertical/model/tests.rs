use super::*;
use crate::vertical::Percent;

const T: u64 = 1_000 * HALF_LIFE_MS;
const MIB: u64 = 1 << 20;
const HOUR: u64 = 3_600_000;
const A: ObjectId = ObjectId(1);
const B: ObjectId = ObjectId(2);

/// What happened to a pod's container.
enum Did {
    Used(u64),
    Killed(u64),
}

/// The least and the largest peak of memory that is known, by what happened when.
fn check(what: &[(ObjectId, u64, Did)], expected: Option<(u64, u64)>) {
    let mut model = ContainerModel::new(T);
    for (pod, at_ms, did) in what {
        match did {
            Did::Used(bytes) => model.add(*pod, *at_ms, None, *bytes),
            Did::Killed(request) => model.add_oom_kill(*pod, *at_ms, *request),
        }
    }
    let end = |share| model.memory().percentile(Percent(share));
    let bucket = |bytes| Buckets::MemoryBytes.end(Buckets::MemoryBytes.find(bytes));
    let expected = expected.map(|(least, most)| (bucket(least), bucket(most)));
    assert_eq!(end(1).zip(end(100)), expected);
}

#[test]
fn of_a_day_the_highest_use_counts() {
    use Did::{Killed, Used};
    check(&[], None);
    check(&[(A, T, Used(50 * MIB))], Some((50 * MIB, 50 * MIB)));
    check(&[(A, T, Used(50 * MIB)), (A, T + 1, Used(90 * MIB))], Some((90 * MIB, 90 * MIB)));
    check(&[(A, T, Used(90 * MIB)), (A, T + 1, Used(50 * MIB))], Some((90 * MIB, 90 * MIB)));
    // Each pod has a window of its own, and each day another one.
    check(&[(A, T, Used(50 * MIB)), (B, T, Used(90 * MIB))], Some((50 * MIB, 90 * MIB)));
    let next = [(A, T, Used(90 * MIB)), (A, T + 25 * HOUR, Used(50 * MIB))];
    check(&next, Some((50 * MIB, 90 * MIB)));
    let later =
        [(A, T, Used(90 * MIB)), (A, T + 200 * HOUR, Used(50 * MIB)), (A, T + 201 * HOUR, Used(70 * MIB))];
    // Of long ago it weighs little, but is there.
    check(&later, Some((70 * MIB, 90 * MIB)));
    // The same measurement again, and one from before it, say nothing.
    check(
        &[(A, T, Used(50 * MIB)), (A, T, Used(90 * MIB)), (A, T - 1, Used(90 * MIB))],
        Some((50 * MIB, 50 * MIB)),
    );
    // Killed: 100 MiB more than it requested or used, or a fifth.
    check(&[(A, T, Killed(64 * MIB))], Some((164 * MIB, 164 * MIB)));
    check(&[(A, T, Killed(1000 * MIB))], Some((1200 * MIB, 1200 * MIB)));
    check(&[(A, T, Used(200 * MIB)), (A, T + 1, Killed(64 * MIB))], Some((300 * MIB, 300 * MIB)));
    check(&[(A, T, Killed(64 * MIB)), (A, T, Killed(640 * MIB))], Some((164 * MIB, 164 * MIB)));
    check(&[(A, T, Killed(64 * MIB)), (A, T + 1, Killed(64 * MIB))], Some((264 * MIB, 264 * MIB)));
}

#[test]
fn confidence_grows_with_time_and_number() {
    let check = |minutes: u64, every: u64, expected: u64| {
        let mut model = ContainerModel::new(T);
        for minute in (0..minutes).step_by(usize::try_from(every).unwrap_or(1)) {
            let cpu = Some(CpuSample { used_millis: 10, request_millis: 100 });
            model.add(A, T + minute * 60_000, cpu, MIB);
        }
        assert_eq!(model.confidence_micros(), expected);
    };
    check(0, 1, 1);
    check(1, 1, 1);
    check(1 + 1440, 1, 1_000_000);
    check(1 + 2 * 1440, 1, 2_000_000);
    check(1 + 2 * 1440, 2, 1_000_694);
}

#[test]
fn a_new_leader_goes_on_from_the_checkpoint() {
    let mut model = ContainerModel::new(T);
    for minute in 0..3000 {
        let cpu = Some(CpuSample { used_millis: 10 + minute % 90, request_millis: 100 });
        model.add(A, T + minute * 60_000, cpu, (50 + minute % 30) * MIB);
    }
    let checkpoint = model.checkpoint("app".into());
    let restored = ContainerModel::restore(&checkpoint, T + 3000 * 60_000);
    assert_eq!((restored.samples(), restored.last_sample_ms()), (model.samples(), model.last_sample_ms()));
    assert_eq!(restored.confidence_micros(), model.confidence_micros());
    for share in [50, 90, 95].map(Percent) {
        assert_eq!(restored.cpu().percentile(share), model.cpu().percentile(share));
        assert_eq!(restored.memory().percentile(share), model.memory().percentile(share));
    }
}
