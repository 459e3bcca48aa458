//! Which devices are chosen, on nodes as real machines are.

use std::sync::Arc;

use bulkhead_types::{
    DEVICE_MEMORY_UNIT_BYTES, Device, DeviceCapacity, DeviceClass, DeviceLink, Name, ObjectMeta,
    ResourceSlice, builtin_device_classes,
};

use super::super::Classes;
use super::super::needs::Share;
use super::*;

/// Links of the eight V100 of one machine (alibaba, "GPU topology-aware scheduling"): six each, two at most to another one.
const NVLINK: [&str; 8] =
    ["01122000", "10210200", "12020010", "21200001", "20000112", "02001021", "00101202", "00012120"];

/// Cards by their index, of such a memory in MiB, on the NUMA node and root that the function says.
fn machine(cards: u32, memory_mib: u64, place: impl Fn(u32) -> (u32, String)) -> ResourceSlice {
    let card = |index: u32| {
        let (numa_node, root) = place(index);
        Device {
            id: format!("GPU-{index}").into(),
            index,
            vendor: 0x10de,
            device: 0x1db1,
            class_code: 0x03_0200,
            numa_node: Some(numa_node),
            pcie_root: root.into(),
            capacity: DeviceCapacity { memory_bytes: memory_mib * DEVICE_MEMORY_UNIT_BYTES, cores: 100 },
            ..Device::default()
        }
    };
    ResourceSlice {
        meta: ObjectMeta::new(None, Name::new("n").expect("a name")),
        node: ObjectId(1),
        incarnation: 1,
        sequence: 1,
        devices: (0..cards).map(card).collect(),
        cordoned: Vec::new(),
    }
}

fn v100() -> ResourceSlice {
    let mut slice = machine(8, 16_384, |index| (index / 4, format!("pci{index}")));
    for (device, row) in slice.devices.iter_mut().zip(NVLINK) {
        let links = row.bytes().enumerate().filter(|(_, count)| *count > b'0');
        let link = |(peer, count): (usize, u8)| DeviceLink {
            peer: format!("GPU-{peer}").into(),
            link_type: "NVLink".into(),
            count: u32::from(count - b'0'),
        };
        device.links = links.map(link).collect();
    }
    slice
}

fn ledger(slice: &ResourceSlice) -> NodeDevices {
    let class = |one: bulkhead_types::NamedDeviceClass| {
        let meta = ObjectMeta::new(None, Name::new(one.name).expect("a name"));
        Arc::new(DeviceClass { meta, spec: one.spec })
    };
    let classes: Vec<_> = builtin_device_classes().into_iter().map(class).collect();
    NodeDevices::new(slice, &Classes::of(classes.iter(), std::iter::empty()), None)
}

fn whole(count: u32) -> Needs {
    asks(&[("nvidia.com/gpu", count, None)])
}

fn shared(count: u32, memory_mib: u64, cores: u64) -> Needs {
    let share = Share { memory_bytes: Some(memory_mib * DEVICE_MEMORY_UNIT_BYTES), cores };
    asks(&[("nvidia.com/vgpu", count, Some(share))])
}

fn asks(asks: &[(&str, u32, Option<Share>)]) -> Needs {
    let ask = |(resource, count, share): &(&str, u32, Option<Share>)| Ask {
        container: "main".into(),
        resource: (*resource).into(),
        count: *count,
        share: *share,
    };
    Needs { asks: asks.iter().map(ask).collect() }
}

/// One after the other asks; what each gets by index, or `-`.
#[track_caller]
fn check(ledger: &mut NodeDevices, policies: Policies, needs: &[Needs], expected: &str) {
    let mut pod = 100;
    let mut take = |needs: &Needs| {
        let Ok(choice) = ledger.choose(needs, policies) else { return "-".to_owned() };
        assert!(ledger.may_take(needs, &choice.devices), "what is chosen may be taken: {choice:?}");
        pod += 1;
        ledger.take(ObjectId(pod), &choice.devices);
        let index = |given: &AllocatedDevice| given.device.trim_start_matches("GPU-").to_owned();
        choice.devices.iter().map(index).collect::<Vec<_>>().join("+")
    };
    let taken: Vec<String> = needs.iter().map(&mut take).collect();
    assert_eq!(taken.join(" "), expected);
}

const SPREAD: Policies = Policies { node: None, device: Some(SchedulerPolicy::Spread) };

#[test]
fn several_cards_are_those_with_the_most_links_among_them() {
    let fresh = || ledger(&v100());
    let default = Policies::default();
    check(&mut fresh(), default, &[whole(2)], "0+3");
    check(&mut fresh(), default, &[whole(4)], "0+1+2+3");
    check(&mut fresh(), default, &[whole(8), whole(1)], "0+1+2+3+4+5+6+7 -");
    check(&mut fresh(), default, &[whole(2), whole(2), whole(2), whole(2)], "0+3 1+2 4+7 5+6");
    // A single card is that which the free ones have the fewest links to.
    check(&mut fresh(), default, &[whole(2), whole(1), whole(2)], "0+3 2 4+7");
}

#[test]
fn without_links_cards_of_one_numa_node_go_together() {
    let plain = machine(4, 16_384, |index| (index % 2, format!("pci{index}")));
    check(&mut ledger(&plain), Policies::default(), &[whole(2), whole(2)], "0+2 1+3");
}

#[test]
fn shares_fill_a_card_before_the_next_or_spread_over_cards() {
    let fresh = || ledger(&machine(2, 15 * 1024, |_| (0, "pci0".to_owned())));
    let (first, second) = (shared(1, 2048, 0), shared(1, 3072, 0));
    let both = [first, second];
    check(&mut fresh(), Policies::default(), &both, "0 0");
    check(&mut fresh(), SPREAD, &both, "0 1");
    // Each card of a pod is another one, with the same share.
    let (wide, default) = (shared(2, 8192, 40), Policies::default());
    check(&mut fresh(), default, &[wide.clone(), wide, shared(1, 4096, 20)], "0+1 - 0");
    // All of a card is nobody else's, and one that is shared is nobody's as a whole.
    check(&mut fresh(), default, &[shared(1, 1024, 100), shared(1, 1024, 0), whole(1)], "0 1 -");
    check(&mut fresh(), default, &[whole(1), shared(1, 1024, 100), shared(1, 1024, 0)], "0 1 -");
}

#[test]
fn a_card_has_so_many_shares_and_no_more() {
    let mut one = ledger(&machine(1, 16_384, |_| (0, "pci0".to_owned())));
    let many = vec![shared(1, 1, 0); 11];
    check(&mut one, Policies::default(), &many, "0 0 0 0 0 0 0 0 0 0 -");
}

#[test]
fn a_card_and_a_virtual_function_of_one_pod_are_near_each_other() {
    let mut slice = machine(4, 16_384, |index| (index / 2, format!("pci{index}")));
    let vf = |index: u32, root: &str, numa_node| Device {
        id: format!("GPU-{index}").into(),
        index,
        vendor: 0x15b3,
        device: 0x101c,
        class_code: 0x02_0000,
        parent: Some("pf".into()),
        numa_node: Some(numa_node),
        pcie_root: root.into(),
        ..Device::default()
    };
    slice.devices.extend([vf(4, "pci9", 1), vf(5, "pci3", 1)]);
    let pair = asks(&[("nvidia.com/gpu", 1, None), ("ecnf.io/sriov", 1, None)]);
    let default = Policies::default();
    // On one root where there is such a pair, on one NUMA node next, anywhere at last.
    check(&mut ledger(&slice), default, &[pair.clone(), pair], "3+5 2+4");
}

#[test]
fn what_is_not_offered_is_not_chosen() {
    let mut slice = machine(5, 16_384, |_| (0, "pci0".to_owned()));
    slice.devices[0].health = bulkhead_types::DeviceHealth::Unhealthy { code: "Xid48".into(), since_ms: 1 };
    slice.devices[1].health = bulkhead_types::DeviceHealth::Lost { since_ms: 1 };
    slice.devices[2].in_use_by = "host driver nvidia".into();
    slice.cordoned = vec!["GPU-3".into()];
    check(&mut ledger(&slice), Policies::default(), &[whole(1), whole(1)], "4 -");
    let counts = ledger(&slice).counts();
    let gpu = counts["nvidia.com/gpu"];
    assert_eq!((gpu.capacity, gpu.allocatable, gpu.allocated), (5, 1, 0));
}

#[test]
fn functions_of_one_iommu_group_are_one_pods() {
    let mut slice = machine(3, 16_384, |_| (0, "pci0".to_owned()));
    slice.devices[0].iommu_group = Some(7);
    slice.devices[1].iommu_group = Some(7);
    check(&mut ledger(&slice), Policies::default(), &[whole(1), whole(1), whole(1)], "0 2 -");
}

#[test]
fn the_fullest_node_is_preferred_and_links_count() {
    let mut half = ledger(&v100());
    let taken = half.choose(&whole(4), Policies::default()).expect("room").devices;
    let empty = ledger(&v100());
    half.take(ObjectId(9), &taken);
    let score =
        |ledger: &NodeDevices, policy| ledger.score(&whole(1), Policies { node: policy, device: None });
    assert!(score(&half, None) > score(&empty, None));
    let spread = Some(SchedulerPolicy::Spread);
    assert!(score(&half, spread) < score(&empty, spread));
    let plain = ledger(&machine(8, 16_384, |_| (0, "pci0".to_owned())));
    let pair = |ledger: &NodeDevices| ledger.score(&whole(2), Policies::default());
    assert!(pair(&empty) > pair(&plain), "{} {}", pair(&empty), pair(&plain));
}
