//! What agents tell of PCI functions: taken from its level on, and asked for again where it was left out before.

use bulkhead_controlplane_core::server::{Input, Reply};
use bulkhead_types::{
    AgentReport, Command, Device, DeviceReport, Name, Node, NodeFacts, PCI_FACTS_LEVEL, PciFacts, PciTraits,
    Rare, Shared,
};

use crate::world::*;
use crate::{level_everywhere, world_of_levels};

/// A cluster at some level with one node that has just registered.
fn world_at(level: u32) -> World {
    let mut world = world_of_levels([level; 3]);
    level_everywhere(&mut world, level);
    let register =
        Command::RegisterNode { name: Name::new("node-1").expect("a name"), facts: NodeFacts::default() };
    let ticket = world.submit(1, register);
    world.run_until("the node", |w| w.replies.contains_key(&ticket));
    world
}

fn node(world: &World) -> Node {
    let leader = world.leader().expect("a leader");
    world.servers[&leader].state().nodes().iter().next().expect("registered").as_ref().clone()
}

/// The agent reports, perhaps devices: of each whether its facts are told. Returns whether it is asked for all of them.
fn report(world: &mut World, ticket: u64, has_pci_facts: bool, told: Option<&[bool]>) -> bool {
    let node = node(world);
    let device = |(index, told): (u32, &bool)| {
        let traits = Shared::new(PciTraits::default());
        let facts = PciFacts { traits, serial_number: Some(7), link: None, ports: Rare::NONE };
        let pci = if *told { Rare::some(facts) } else { Rare::NONE };
        Device { id: format!("0000:61:00.{index}").into(), index, pci, ..Device::default() }
    };
    let devices = told.map(|told| DeviceReport {
        sequence: ticket,
        snapshot: true,
        devices: (0..).zip(told).map(device).collect(),
        ..DeviceReport::default()
    });
    let report = AgentReport {
        node: node.meta.id,
        incarnation: node.status.incarnation,
        sent_at_ms: ticket,
        observed_generation: 0,
        pods: Vec::new(),
        usage: Vec::new(),
        deleted_volumes: Vec::new(),
        devices: devices.into(),
        images: Rare::NONE,
        volume_results: Vec::new(),
        device_usage: Vec::new(),
        has_pci_facts,
    };
    let leader = world.leader().expect("a leader");
    let now_ms = world.clock_ms(leader);
    world.servers.get_mut(&leader).expect("it is there").handle(now_ms, Input::Agent { ticket, report });
    world.run_until("an answer", |w| w.replies.contains_key(&ticket));
    match &world.replies[&ticket] {
        Reply::Agent(ack) => ack.devices_unknown,
        other => panic!("{other:?}"),
    }
}

/// Of each device that is kept whether its facts are.
fn kept(world: &World) -> Vec<bool> {
    let leader = world.leader().expect("a leader");
    let slice = world.servers[&leader].state().resource_slice_of(node(world).meta.id);
    slice.expect("devices").devices.iter().map(|device| device.pci.get().is_some()).collect()
}

#[test]
fn below_their_level_devices_are_kept_without_them_and_nobody_is_asked_again() {
    let mut world = world_at(PCI_FACTS_LEVEL - 1);
    assert!(report(&mut world, 100, true, None), "nothing is known");
    assert!(!report(&mut world, 101, true, Some(&[true, true])));
    assert_eq!(kept(&world), [false, false]);
    assert!(!report(&mut world, 102, true, None));
    world.assert_equal();
}

#[test]
fn from_their_level_on_what_was_left_out_is_asked_for_again_of_agents_that_have_it() {
    let mut world = world_at(PCI_FACTS_LEVEL);
    // As it is kept of the time before the level.
    assert!(!report(&mut world, 101, true, Some(&[false, false])));
    assert!(!report(&mut world, 102, false, None), "an older agent has none");
    assert!(report(&mut world, 103, true, None));
    assert!(!report(&mut world, 104, true, Some(&[true, false])));
    assert_eq!(kept(&world), [true, false]);
    assert!(!report(&mut world, 105, true, None));
    world.assert_equal();
}
