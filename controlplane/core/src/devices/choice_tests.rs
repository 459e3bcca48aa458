//! Which devices are chosen, on nodes as real machines are.

use std::sync::Arc;

use bulkhead_types::{
    DEVICE_MEMORY_UNIT_BYTES, Device, DeviceCapacity, DeviceClass, DeviceLink, DevicePartition, Name,
    ObjectMeta, Rare, ResourceSlice, builtin_device_classes,
};

use super::super::Classes;
use super::super::needs::{Share, ShareMemory};
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
        state: Rare::NONE,
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
    NodeDevices::new(slice, &Classes::of(classes.iter(), std::iter::empty()), None, None)
}

fn whole(count: u32) -> Needs {
    asks(&[("nvidia.com/gpu", count, None)])
}

fn shared(count: u32, memory_mib: u64, cores: u64) -> Needs {
    let share = Share { memory: ShareMemory::Bytes(memory_mib * DEVICE_MEMORY_UNIT_BYTES), cores };
    asks(&[("nvidia.com/vgpu", count, Some(share))])
}

fn asks(asks: &[(&str, u32, Option<Share>)]) -> Needs {
    let ask = |(resource, count, share): &(&str, u32, Option<Share>)| Ask {
        container: "main".into(),
        resource: (*resource).into(),
        count: *count,
        share: *share,
        least_memory_bytes: 0,
        choice: None,
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

const SPREAD: Policies = Policies { node: None, device: Some(SchedulerPolicy::Spread), cards: None };

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
    let score = |ledger: &NodeDevices, policy| {
        ledger.score(&whole(1), Policies { node: policy, ..Policies::default() })
    };
    assert!(score(&half, None) > score(&empty, None));
    let spread = Some(SchedulerPolicy::Spread);
    assert!(score(&half, spread) < score(&empty, spread));
    let plain = ledger(&machine(8, 16_384, |_| (0, "pci0".to_owned())));
    let pair = |ledger: &NodeDevices| ledger.score(&whole(2), Policies::default());
    assert!(pair(&empty) > pair(&plain), "{} {}", pair(&empty), pair(&plain));
}

fn units(cards: u32, each: u64) -> Needs {
    let share = Share { memory: ShareMemory::Units(each, 1 << 30), cores: 0 };
    asks(&[("aliyun.com/gpu-mem", cards, Some(share))])
}

#[test]
fn units_are_parts_of_all_of_a_cards_memory() {
    // Samples of the manual (alibaba-ack §2.4): memory in MiB that a container sees.
    for (card_mib, units_of_card, asked, visible) in
        [(15_079, 14, 3, 3231), (16_130, 15, 3, 3226), (16_130, 15, 4, 4301), (16_130, 15, 2, 2150)]
    {
        let mut one = ledger(&machine(1, card_mib, |_| (0, "pci0".to_owned())));
        let choice = one.choose(&units(1, asked), Policies::default()).expect("room");
        let memory = choice.devices[0].share.expect("a share").memory_bytes;
        assert_eq!(memory / DEVICE_MEMORY_UNIT_BYTES, visible);
        one.take(ObjectId(9), &choice.devices);
        let count = one.counts()["aliyun.com/gpu-mem"];
        assert_eq!(
            (count.capacity, count.allocatable, count.allocated),
            (units_of_card, units_of_card, asked)
        );
    }
}

#[test]
fn units_fill_a_card_to_the_last_and_lie_on_several_cards_alike() {
    let v100s = |cards| ledger(&machine(cards, 16_130, |_| (0, "pci0".to_owned())));
    let default = Policies::default();
    // Binpack and spread (alibaba-ack §2.3): 2 cards of 15 GiB, 2 GiB and 3 GiB.
    check(&mut v100s(2), default, &[units(1, 2), units(1, 3)], "0 0");
    check(&mut v100s(2), SPREAD, &[units(1, 2), units(1, 3)], "0 1");
    // As many pods as there are units, and none more.
    check(&mut v100s(1), default, &vec![units(1, 1); 16], &format!("{}-", "0 ".repeat(15)));
    check(&mut v100s(1), default, &[units(1, 8), units(1, 7), units(1, 1)], "0 0 -");
    check(&mut v100s(1), default, &[units(1, 16)], "-");
    // Eight units over four cards are two of each (NVIDIA_VISIBLE_DEVICES names four); all of them on one node.
    check(&mut v100s(4), default, &[units(4, 2), units(4, 13), units(1, 1)], "0+1+2+3 0+1+2+3 -");
    check(&mut v100s(3), default, &[units(4, 2)], "-");
    // Beside shares by MiB, never on a card that somebody has as a whole.
    check(&mut v100s(1), default, &[shared(1, 8065, 0), units(1, 7), units(1, 1)], "0 0 -");
    check(&mut v100s(2), default, &[whole(1), units(1, 1), units(2, 1)], "0 1 -");
}

/// An A100 with partitions at these places.
fn carved(partitions: &[(&str, u32)]) -> ResourceSlice {
    let mut slice = machine(1, 40_960, |_| (0, "pci0".to_owned()));
    slice.devices[0].device = 0x20b0;
    let card = slice.devices[0].clone();
    let partition = |(at, (profile, start)): (usize, &(&str, u32))| Device {
        id: format!("GPU-0/{at}").into(),
        parent: Some(card.id.clone()),
        iommu_group: Some(3),
        partition: Rare::some(DevicePartition { profile: (*profile).into(), start: *start }),
        ..card.clone()
    };
    slice.devices.extend(partitions.iter().enumerate().map(partition));
    slice
}

fn slices(profile: &str, count: u32) -> Needs {
    asks(&[(&format!("nvidia.com/mig-{profile}"), count, None)])
}

#[test]
fn a_card_with_partitions_is_given_in_them_alone() {
    let both = || ledger(&carved(&[("3g.20gb", 0), ("3g.20gb", 4)]));
    let default = Policies::default();
    check(&mut both(), default, &[whole(1), slices("3g.20gb", 2), slices("3g.20gb", 1)], "- 0/0+0/1 -");
    check(&mut both(), default, &[shared(1, 100, 0), slices("1g.5gb", 1), slices("3g.20gb", 1)], "- - 0/0");
    let counts = both().counts();
    let of = |name: &str| (counts[name].capacity, counts[name].allocatable);
    assert_eq!((of("nvidia.com/gpu"), of("nvidia.com/mig-3g.20gb")), ((1, 0), (2, 2)));
    // What cannot be on one card is given to nobody, and what is on a sick or kept card is not either.
    check(&mut ledger(&carved(&[("3g.20gb", 0), ("4g.20gb", 0)])), default, &[slices("3g.20gb", 1)], "-");
    let mut kept = carved(&[("3g.20gb", 0)]);
    kept.cordoned = vec!["GPU-0".into()];
    check(&mut ledger(&kept), default, &[slices("3g.20gb", 1)], "-");
}

#[test]
fn a_card_that_somebody_has_is_not_given_in_parts_nor_the_other_way_round() {
    let default = Policies::default();
    let mut held = ledger(&carved(&[("3g.20gb", 0)]));
    let of_card = |id: &str| AllocatedDevice {
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        device: id.into(),
        share: None,
    };
    held.take(ObjectId(1), &[of_card("GPU-0")]);
    check(&mut held, default, &[slices("3g.20gb", 1)], "-");
    held.release(ObjectId(1), &[of_card("GPU-0")]);
    check(&mut held, default, &[slices("3g.20gb", 1)], "0/0");
    // A partition that is gone and still held keeps its card.
    let mut gone = carved(&[("3g.20gb", 0)]);
    gone.devices[1].health = bulkhead_types::DeviceHealth::Lost { since_ms: 1 };
    let mut ledger = ledger(&gone);
    ledger.take(ObjectId(1), &[of_card("GPU-0/0")]);
    check(&mut ledger, default, &[whole(1)], "-");
    ledger.release(ObjectId(1), &[of_card("GPU-0/0")]);
    check(&mut ledger, default, &[whole(1)], "0");
}

#[test]
fn of_unequal_functions_the_least_that_is_enough_is_chosen() {
    // Two virtual functions of MetaX cards with unequal memory (DCE §4.5).
    let mut slice = machine(3, 0, |_| (0, "pci0".to_owned()));
    for (device, mib) in slice.devices.iter_mut().zip([65_536, 32_768, 32_512]) {
        (device.vendor, device.parent) = (0x9999, Some("pf".into()));
        device.capacity.memory_bytes = mib * DEVICE_MEMORY_UNIT_BYTES;
    }
    let function = |mib: u64| {
        let mut needs = asks(&[("metax-tech.com/vgpu", 1, None)]);
        needs.asks[0].least_memory_bytes = mib * DEVICE_MEMORY_UNIT_BYTES;
        needs
    };
    let default = Policies::default();
    check(&mut ledger(&slice), default, &[function(32_600), function(32_000), function(32_600)], "1 2 0");
    check(&mut ledger(&slice), default, &[function(32_600), function(32_600), function(32_600)], "1 0 -");
    check(&mut ledger(&slice), default, &[function(70_000)], "-");
}
