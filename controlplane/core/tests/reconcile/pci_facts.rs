//! What agents tell of PCI functions, over a real machine.

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    Command, Device, DeviceReport, INTERFACE_MTU_MAX, Kind, ObjectId, PCI_FACTS_LEVEL, PciAcs, PciFacts,
    PciInterface, PciLink, PciPorts, PciTraits, Rare, RejectionCode, Shared,
};

use crate::device_kit::{asking, card, cards};
use crate::kit::{Cluster, name, pod};

/// A card with facts: one interface, up or down.
fn told(index: u32, is_up: bool) -> Device {
    let link = Some(PciLink { lane_megatransfers: 16_000, lanes: 16 });
    let traits = PciTraits {
        acs: PciAcs::On,
        reset_methods: vec!["flr".into(), "bus".into()],
        link_max: link,
        memory_bars_bytes: vec![16 << 20, 64 << 30],
        ..PciTraits::default()
    };
    let interface =
        PciInterface { name: format!("eth{index}").into(), mtu: 9000, is_up, ..PciInterface::default() };
    let ports = PciPorts { interfaces: vec![interface], infiniband: Vec::new() };
    let pci = PciFacts {
        traits: Shared::new(traits),
        serial_number: Some(index.into()),
        link,
        ports: Rare::some(ports),
    };
    Device { pci: Rare::some(pci), ..card(index) }
}

fn report_of(node: ObjectId, sequence: u64, devices: Vec<Device>) -> Command {
    let report = DeviceReport { sequence, snapshot: true, devices, ..DeviceReport::default() };
    Command::ReportDevices { node, incarnation: 1, report }
}

/// Of each device whether its interface is up, and where its traits are in memory.
fn kept(cluster: &Cluster, node: ObjectId) -> Vec<(bool, Shared<PciTraits>)> {
    let slice = cluster.state().resource_slice_of(node).expect("devices");
    let facts = slice.devices.iter().filter_map(|device| device.pci.get());
    facts.map(|facts| (facts.interfaces()[0].is_up, facts.traits.clone())).collect()
}

#[test]
fn what_changes_of_functions_is_a_change_of_those_alone_and_their_traits_are_one_in_memory() {
    let mut cluster = Cluster::new();
    let first = cluster.device_node("node-0", vec![told(0, true), told(1, true)]);
    let second = cluster.device_node("node-1", vec![told(0, true), told(1, true)]);
    cluster.ok(Command::Create(pod("a", asking(&[("nvidia.com/gpu", 4)]))));
    cluster.rest();
    let before = cluster.state().clone();
    cluster.tell_changes(second, vec![told(1, false)], &[]);
    let up = |cluster: &Cluster, node| kept(cluster, node).iter().map(|one| one.0).collect::<Vec<_>>();
    assert_eq!((up(&cluster, first), up(&cluster, second)), (vec![true, true], vec![true, false]));
    // Nothing else is other than before: who could have what does not depend on links.
    let ids = |cluster: &Cluster| cluster.state().node_devices(second).expect("a ledger").clone();
    assert_eq!(Some(&ids(&cluster)), before.node_devices(second));
    let all: Vec<_> = [first, second].iter().flat_map(|node| kept(&cluster, *node)).collect();
    assert!(all.iter().all(|(_, traits)| traits.is_same(&all[0].1)), "each has a copy of its own");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn below_their_level_they_are_refused_and_what_is_there_goes_on() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), PCI_FACTS_LEVEL - 1);
    let node = cluster.device_node("node-0", cards(2));
    let command = report_of(node, 50, vec![told(0, true)]);
    assert_eq!(command.feature_level(), PCI_FACTS_LEVEL);
    let refused = cluster.submit(vec![command.clone()]).expect_err("below the level").to_string();
    assert!(refused.contains("needs level 15, the cluster runs at level 14"), "{refused}");
    let Command::ReportDevices { report, .. } = &command else { panic!("a report") };
    assert!(report.says_pci_facts());
    cluster.tell_devices(node, report.clone().below_pci_facts().devices);
    assert_eq!(kept(&cluster, node).len(), 0);
    cluster.ok(Command::RaiseFeatureLevel { level: PCI_FACTS_LEVEL });
    assert_eq!(kept(&cluster, node).len(), 0, "as it was");
    cluster.tell_devices(node, report.devices.clone());
    assert_eq!(kept(&cluster, node).len(), 1);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn what_no_honest_agent_says_is_refused_whole_with_place_and_remedy() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", vec![told(0, true)]);
    let mut odd = told(1, true);
    let mut facts = odd.pci.get().expect("told").clone();
    let interface = PciInterface { mtu: INTERFACE_MTU_MAX + 1, ..facts.interfaces()[0].clone() };
    facts.ports = Rare::some(PciPorts { interfaces: vec![interface], infiniband: Vec::new() });
    odd.pci = Rare::some(facts);
    let refused = cluster.submit(vec![report_of(node, 50, vec![told(0, false), odd])]).expect_err("refused");
    assert_eq!(refused.code, RejectionCode::Invalid);
    assert_eq!(
        refused.to_string(),
        "Node node-0: devices[GPU-1].pci.interfaces[0].mtu: is 131073, more than 131072; run the agent of the servers' \
         version on that node, and no other program as it"
    );
    assert!(kept(&cluster, node).iter().all(|(is_up, _)| *is_up), "nothing of it was taken");
    assert!(cluster.state().find(Kind::Node, None, &name("node-0")).is_some());
}
