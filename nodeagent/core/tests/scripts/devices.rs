//! Devices of pods that vanish, and what is told of the machine's devices.

use bulkhead_types::{Device, DeviceIntent, PodIntent};

use super::*;

/// A pod with a card, which is there or lost; it is unique, as every pod with devices.
fn with_card(id: u64, lost: bool) -> PodIntent {
    let device = DeviceIntent {
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        device: "GPU-0".into(),
        address: "0000:3b:00.0".into(),
        share: None,
        lost,
    };
    PodIntent { devices: vec![device], ..unique(pod(id)) }
}

#[test]
fn a_pod_whose_device_is_gone_is_killed_and_has_failed() {
    let steps = then(
        running(with_card(7, false)),
        vec![(400, In(intent(1, 101, vec![with_card(7, true)]))), (450, In(exited(7, 1))), (900, Tick)],
    );
    check(steps, expect![[r#""#]]);
}

#[test]
fn a_pod_whose_device_is_gone_before_it_starts_has_failed() {
    check(then(begin(vec![with_card(7, true)]), vec![(900, Tick)]), expect![[r#""#]]);
}

#[test]
fn devices_are_told_at_the_beginning_of_a_session_and_when_they_change() {
    let device = |index| Device { id: format!("GPU-{index}").into(), index, ..Device::default() };
    let found = |indexes: &[u32]| In(Input::Devices(indexes.iter().map(|index| device(*index)).collect()));
    let steps = vec![
        (0, In(recovered())),
        (1, found(&[0, 1])),
        (5, In(joined(1))),
        (50, found(&[0, 1])),
        (60, found(&[1, 2])),
        (70, Acks(false)),
        (80, found(&[2])),
        (90, Acks(true)),
        (4000, Tick),
        (4100, In(Input::Disconnected)),
        (4200, In(joined(2))),
    ];
    check(steps, expect![[r#""#]]);
}
