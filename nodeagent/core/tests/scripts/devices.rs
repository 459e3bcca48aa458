//! Devices of pods that vanish, and what is told of the machine's devices.

use bulkhead_types::{
    CpuPools, CpuSet, Device, DeviceIntent, Intent, PciFacts, PciInterface, PciPorts, PciTraits, PodIntent,
    Rare, Shared, SriovInterface,
};

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
        visible_env: "NVIDIA_VISIBLE_DEVICES".into(),
        visible_as: "GPU-0".into(),
    };
    PodIntent { devices: vec![device], ..unique(pod(id)) }
}

#[test]
fn a_pod_whose_device_is_gone_is_killed_and_has_failed() {
    let steps = then(
        running(with_card(7, false)),
        vec![(400, In(intent(1, 101, vec![with_card(7, true)]))), (450, In(exited(7, 1))), (900, Tick)],
    );
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1 guarded until 10010
        20 lease 10010
        210 report [#7 100000002 Running ready running x0]
        210 lease 10210
        400 kill #7/1
        450 persist #7 instance 1 ended Failed
        450 clean #7 keep_logs true
        450 report [#7 100000003 Failed DeviceLost exit:137:DeviceLost x0]
    "#]],
    );
}

#[test]
fn a_pod_whose_device_is_gone_before_it_starts_has_failed() {
    check(
        then(begin(vec![with_card(7, true)]), vec![(900, Tick)]),
        expect![[r#"
        0 join
        10 persist #7 instance 0 ended Failed
        10 clean #7 keep_logs true
        10 report [#7 100000001 Failed DeviceLost waiting:ContainerCreating x0]
    "#]],
    );
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
    check(
        steps,
        expect![[r#"
        0 join
        5 report devices all ["GPU-0", "GPU-1"] gone []
        60 report devices new ["GPU-2"] gone ["GPU-0"]
        80 report devices new [] gone ["GPU-1"]
        3081 report devices all ["GPU-2"] gone []
        4100 join
        4200 report devices all ["GPU-2"] gone []
    "#]],
    );
}

#[test]
fn an_interface_that_goes_up_and_down_is_told_at_once_and_then_less_and_less_often() {
    let card = |is_up| {
        let interface = PciInterface { name: "eth0".into(), is_up, ..PciInterface::default() };
        let ports = PciPorts { interfaces: vec![interface], infiniband: Vec::new() };
        let traits = Shared::new(PciTraits::default());
        let pci = PciFacts { traits, serial_number: None, link: None, ports: Rare::some(ports) };
        In(Input::Devices(vec![Device { id: "NIC-0".into(), pci: Rare::some(pci), ..Device::default() }]))
    };
    let steps = vec![
        (0, In(recovered())),
        (1, card(true)),
        (5, In(joined(1))),
        (100, card(false)),
        (200, card(true)),
        (300, card(false)),
        (400, card(true)),
        (20_000, Tick),
        (20_000, card(false)),
        (60_000, Tick),
    ];
    check(
        steps,
        expect![[r#"
        0 join
        5 report devices all ["NIC-0"] gone []
        100 report devices new ["NIC-0"] gone []
        10100 report devices new ["NIC-0"] gone []
        30100 report devices new ["NIC-0"] gone []
    "#]],
    );
}

#[test]
fn pain_16_a_replaced_or_sick_card_is_told_and_only_the_pod_that_had_it_ends() {
    let card = |id: &str| Device { id: id.into(), address: "0000:3b:00.0".into(), ..Device::default() };
    let other = Device { id: "GPU-9".into(), address: "0000:3c:00.0".into(), ..Device::default() };
    let found = |devices: &[Device]| In(Input::Devices(devices.to_vec()));
    let unhealthy = bulkhead_types::DeviceHealth::Unhealthy { code: "NotAnswering".into(), since_ms: 1 };
    let sick = Device { health: unhealthy, ..card("GPU-0") };
    let steps = then(
        running(with_card(7, false)),
        vec![
            (300, found(&[card("GPU-0"), other.clone()])),
            (310, Acks(true)),
            (320, found(&[sick, other.clone()])),
            // The machine was mended: another card is in its place, and the control plane says what that means.
            (400, found(&[card("GPU-1"), other])),
            (500, In(intent(1, 101, vec![with_card(7, true), pod(8)]))),
            (550, In(exited(7, 1))),
        ],
    );
    check(
        steps,
        expect![[r#"
        0 join
        10 prepare #7
        10 report [#7 100000001 Pending waiting:ContainerCreating x0]
        20 persist #7 instance 1
        20 start #7 instance 1 guarded until 10010
        20 lease 10010
        210 report [#7 100000002 Running ready running x0]
        210 lease 10210
        300 report devices all ["GPU-0", "GPU-9"] gone []
        300 lease 10300
        320 report devices new ["GPU-0"] gone []
        320 lease 10320
        400 report devices new ["GPU-1"] gone ["GPU-0"]
        400 lease 10400
        500 kill #7/1
        500 prepare #8
        500 report [#7 100000003 Running DeviceLost running x0] [#8 100000004 Pending waiting:ContainerCreating x0]
        500 lease 10500
        550 persist #7 instance 1 ended Failed
        550 clean #7 keep_logs true
        550 report [#7 100000005 Failed DeviceLost exit:137:DeviceLost x0]
    "#]],
    );
}

fn set(text: &str) -> CpuSet {
    text.parse().expect("a set")
}

/// An intent in which pods without CPUs of their own run on these.
fn pooled(generation: u64, pods: Vec<PodIntent>, shared: &str, batch: &str) -> Step {
    let Input::Intent(intent) = intent(1, generation, pods) else { panic!("an intent") };
    let pools = CpuPools { shared: set(shared), batch: set(batch) };
    In(Input::Intent(Intent { cpu_pools: Some(pools), ..intent }))
}

#[test]
fn guests_run_on_their_own_cpus_or_on_those_of_their_pool() {
    let own = || PodIntent { cpus: Some(set("0-1")), ..pod(7) };
    let batch = || PodIntent { batch: true, ..pod(7) };
    check(
        then(
            running(pod(7)),
            vec![
                (400, pooled(101, vec![pod(7)], "2-7", "0-7")),
                (500, pooled(102, vec![pod(7)], "2-7", "0-7")),
                (600, pooled(103, vec![pod(7)], "4-7", "0-7")),
                (700, pooled(104, vec![batch()], "4-7", "0-7")),
                (800, pooled(105, vec![own()], "4-7", "2-7")),
                // Those of the shared pool may be there as well.
                (850, pooled(108, vec![own()], "0-7", "0-7")),
                // Nobody says anything of it any more, or a pool is empty: it stays where it is.
                (900, pooled(109, vec![pod(7)], "", "2-7")),
                (1000, pooled(110, vec![deleting(pod(7), 5000)], "3", "2-7")),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            400 cpus #7/1 2-7
            600 cpus #7/1 4-7
            700 cpus #7/1 0-7
            800 cpus #7/1 0-1 one by one
            850 cpus #7/1 0-1
            1000 stop #7/1 grace 5000
            1000 cpus #7/1 3
            1000 report [#7 100000003 Running running x0]
        "#]],
    );
}

#[test]
fn nics_are_asked_for_when_what_they_shall_be_changes() {
    let nic = |num_vfs| SriovInterface {
        pci_address: "0000:86:00.0".into(),
        name: "eth7".into(),
        num_vfs,
        mtu: None,
        link_type: None,
        vf_groups: vec![],
    };
    let wants = |incarnation, generation, num_vfs| {
        let Input::Intent(intent) = intent(incarnation, generation, vec![]) else { panic!("an intent") };
        In(Input::Intent(Intent { nics: vec![nic(num_vfs)], ..intent }))
    };
    check(
        vec![
            (0, In(recovered())),
            (5, In(joined(1))),
            (10, wants(1, 100, 2)),
            (20, wants(1, 101, 2)),
            // Older than what was accepted.
            (30, wants(1, 99, 8)),
            (40, wants(1, 102, 4)),
            (50, wants(1, 103, 0)),
        ],
        expect![[r#"
            0 join
            10 nics 0000:86:00.0=2
            30 note: intent of generation 99 refused, 101 was accepted before
            40 nics 0000:86:00.0=4
            50 nics 0000:86:00.0=0
        "#]],
    );
}
