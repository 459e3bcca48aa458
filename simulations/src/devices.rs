//! The devices of simulated nodes: cards that are there, fail, vanish and come back, whatever the control plane believes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_nodeagent_core::Input;
use bulkhead_types::{
    AllocatedDevice, DEVICE_MEMORY_UNIT_BYTES, Device, DeviceCapacity, DeviceFault, DeviceHealth, DeviceLink,
    DevicePartition, DeviceShare, GpuIntent, NicFacts, ObjectId, PciFacts, PciInterface, PciLink, PciPorts,
    PciTraits, Rare, Shared, SriovLinkType, digest128,
};
use smol_str::SmolStr;

use crate::clock::Micros;
use crate::invariants::{devices, networks};
use crate::network::Host;
use crate::options::NodeOptions;
use crate::world::{Event, World};

/// What the NIC of a node is called.
pub(crate) const NIC_NAME: &str = "ens1";
/// Memory of a card, in MiB.
pub(crate) const CARD_MIB: u64 = 16_384;

/// Faults of cards that are drawn: of an application, of memory with one or all pods on the card, of the bus.
const XIDS: [u32; 5] = [13, 94, 95, 48, 79];

/// The cards that a node is built with, in such a mode: linked in pairs, two on a NUMA node; and its NIC.
pub(crate) fn built(agent: u32, options: &NodeOptions, gpu: Option<&GpuIntent>) -> BTreeMap<SmolStr, Device> {
    let count = options.devices;
    let id = |index: u32| SmolStr::new(format!("GPU-{agent}-{index}"));
    let card = |index: u32| {
        let link = DeviceLink { peer: id(index ^ 1), link_type: SmolStr::new_static("NVLink"), count: 2 };
        let device = Device {
            id: id(index),
            address: SmolStr::new(format!("0000:{:02x}:00.0", 0x10 + index)),
            index,
            vendor: 0x10de,
            device: 0x20b0,
            class_code: 0x03_0200,
            numa_node: Some(index / 2),
            pcie_root: SmolStr::new(format!("pci0000:{:02x}", index / 2)),
            links: if index ^ 1 < count { vec![link] } else { Vec::new() },
            capacity: DeviceCapacity { memory_bytes: CARD_MIB * DEVICE_MEMORY_UNIT_BYTES, cores: 100 },
            pci: Rare::some(facts(&["flr", "bus"], None)),
            ..Device::default()
        };
        (device.id.clone(), device)
    };
    let cards: BTreeMap<SmolStr, Device> = (0..count).map(card).collect();
    let layouts = gpu.into_iter().flat_map(|gpu| &gpu.cards);
    let partitions = layouts.filter_map(|layout| Some((cards.get(&layout.device)?, &layout.partitions)));
    let partitions = partitions.flat_map(|(card, all)| all.iter().map(move |one| partition(card, one)));
    let partitions: Vec<_> = partitions.map(|device| (device.id.clone(), device)).collect();
    cards.into_iter().chain(partitions).chain(nic(agent, options.functions)).collect()
}

/// A NIC with so many virtual functions; nothing when it has none.
fn nic(agent: u32, functions: u32) -> Vec<(SmolStr, Device)> {
    let function = |number: u32| {
        let id = SmolStr::new(format!("NIC-{agent}-{number}"));
        let device = Device {
            id: id.clone(),
            address: SmolStr::new(format!("0000:60:{:02x}.{}", number / 8, number % 8)),
            index: 100 + number,
            vendor: 0x15b3,
            device: 0x1017,
            class_code: 0x02_0000,
            driver: SmolStr::new_static("vfio-pci"),
            parent: (number > 0).then(|| SmolStr::new(format!("NIC-{agent}-0"))),
            pci: Rare::some(facts(&["flr"], (number == 0).then_some(true))),
            ..Device::default()
        };
        (id, device)
    };
    if functions == 0 {
        return Vec::new();
    }
    let mut all: Vec<_> = (0..=functions).map(function).collect();
    let (name, link_type) = (SmolStr::new_static(NIC_NAME), Some(SriovLinkType::Eth));
    let facts = NicFacts { name, link_type, total_vfs: functions, num_vfs: functions, ..NicFacts::default() };
    all[0].1.nic = Rare::some(facts);
    all[0].1.in_use_by = SmolStr::new_static("host driver mlx5_core");
    all
}

/// What is told of a function; of one with an interface whether that is up.
fn facts(reset_methods: &[&str], is_up: Option<bool>) -> PciFacts {
    let interface = |is_up| PciInterface {
        name: SmolStr::new_static(NIC_NAME),
        mac: SmolStr::new_static("02:00:00:00:00:01"),
        mtu: 9000,
        link_type: Some(SriovLinkType::Eth),
        link_speed_mbps: Some(25_000).filter(|_| is_up),
        is_up,
    };
    let interfaces: Vec<PciInterface> = is_up.into_iter().map(interface).collect();
    let link = Some(PciLink { lane_megatransfers: 16_000, lanes: 16 });
    let reset_methods = reset_methods.iter().map(SmolStr::new).collect();
    PciFacts {
        traits: Shared::new(PciTraits { reset_methods, link_max: link, ..PciTraits::default() }),
        serial_number: None,
        link,
        ports: Rare::unless_default(PciPorts { interfaces, infiniband: Vec::new() }),
    }
}

/// The NIC of a node, if it has one, with its link up or down.
fn set_link(agent: u32, devices: &mut BTreeMap<SmolStr, Device>, is_up: bool) {
    if let Some(nic) = devices.get_mut(&SmolStr::new(format!("NIC-{agent}-0"))) {
        nic.pci = Rare::some(facts(&["flr"], Some(is_up)));
    }
}

fn partition(card: &Device, partition: &DevicePartition) -> Device {
    Device {
        id: SmolStr::new(format!("{}/{}@{}", card.id, partition.profile, partition.start)),
        parent: Some(card.id.clone()),
        links: Vec::new(),
        partition: Rare::some(partition.clone()),
        pci: Rare::NONE,
        ..card.clone()
    }
}

impl World {
    /// A card of a node fails, or is gone, for a while. Tells whether there is such a card, and it was well.
    pub(crate) fn fail_device(&mut self, agent: u32, index: u32, gone: bool, for_us: Micros) -> bool {
        let count = self.options.node.devices;
        let Some(host) = self.agents.get_mut(agent as usize).filter(|_| index < count) else { return false };
        let id = SmolStr::new(format!("GPU-{agent}-{index}"));
        let Some(device) = host.devices.get_mut(&id).filter(|one| one.health == DeviceHealth::Healthy) else {
            return false;
        };
        let code = XIDS[(for_us % XIDS.len() as u64) as usize];
        if gone {
            host.devices.retain(|_, one| one.id != id && one.parent.as_ref() != Some(&id));
        } else {
            device.health = DeviceHealth::Unhealthy { code: SmolStr::new(format!("Xid{code}")), since_ms: 1 };
            // So that links go up and down as often as cards do.
            set_link(agent, &mut host.devices, false);
        }
        self.note(Host::Agent(agent), "device fails", u128::from(index), || format!("{id}, gone: {gone}"));
        self.queue.push(self.now_us + for_us, Event::DeviceBack { agent, index });
        self.tell_devices(agent);
        if !gone {
            let fault = DeviceFault { device: id, code, at_ms: 1, pod: None };
            self.tell_agent(agent, Input::DeviceFault(fault));
        }
        true
    }

    /// A card is there again, and well.
    pub(crate) fn device_back(&mut self, agent: u32, index: u32) {
        let Some(host) = self.agents.get_mut(agent as usize) else { return };
        let id = SmolStr::new(format!("GPU-{agent}-{index}"));
        let all = built(agent, &self.options.node, host.gpu.as_ref());
        host.devices
            .extend(all.into_iter().filter(|(_, one)| one.id == id || one.parent.as_ref() == Some(&id)));
        set_link(agent, &mut host.devices, true);
        self.note(Host::Agent(agent), "device back", u128::from(index), String::new);
        self.tell_devices(agent);
        self.tell_agent(agent, Input::DeviceReset { device: id });
    }

    /// Every card of every node is well again.
    pub(crate) fn mend_devices(&mut self) {
        for agent in 0..self.options.agents {
            let host = &mut self.agents[agent as usize];
            let built = built(agent, &self.options.node, host.gpu.as_ref());
            if host.devices != built {
                host.devices = built;
                self.tell_devices(agent);
            }
        }
    }

    /// An agent brings its cards into a mode: those that are there have exactly its partitions from then on.
    pub(crate) fn set_gpu_mode(&mut self, agent: u32, gpu: GpuIntent) {
        let host = &mut self.agents[agent as usize];
        let cards: BTreeMap<SmolStr, Device> =
            std::mem::take(&mut host.devices).into_iter().filter(|(_, one)| one.parent.is_none()).collect();
        let parts = built(agent, &self.options.node, Some(&gpu)).into_iter();
        let parts = parts.filter(|(_, one)| one.parent.as_ref().is_some_and(|card| cards.contains_key(card)));
        host.devices = parts.chain(cards.clone()).collect();
        let devices = host.devices.values().cloned().collect();
        let mode = gpu.mode.clone();
        host.gpu = Some(gpu);
        self.note(Host::Agent(agent), "gpu mode", digest128(&mode), || mode.to_string());
        self.tell_agent(agent, Input::GpuMode { mode, devices: Some(devices) });
    }

    /// A running agent looks at its machine.
    pub(crate) fn tell_devices(&mut self, agent: u32) {
        if self.options.node.devices + self.options.node.functions > 0 {
            let host = &self.agents[agent as usize];
            let devices: Vec<Device> = host.devices.values().cloned().collect();
            match host.gpu.as_ref().map(|gpu| gpu.mode.clone()) {
                Some(mode) => {
                    self.tell_agent(agent, Input::Devices(devices));
                    self.tell_agent(agent, Input::GpuMode { mode, devices: None });
                }
                None => self.tell_agent(agent, Input::Devices(devices)),
            }
        }
    }

    /// What the living guests of a node have of its cards, with that of one that just started.
    pub(crate) fn check_devices(&mut self, agent: u32) {
        let host = &self.agents[agent as usize];
        let guests = host.hypervisor.guests.iter();
        let held: Vec<(ObjectId, SmolStr, Option<DeviceShare>)> = guests
            .flat_map(|(pod, guest)| guest.devices.iter().map(|one| (*pod, one.device.clone(), one.share)))
            .collect();
        let verdict = devices::held(&held, CARD_MIB * DEVICE_MEMORY_UNIT_BYTES);
        self.judge(verdict);
        let guests = self.agents.iter().flat_map(|host| host.hypervisor.guests.iter());
        let held: Vec<(ObjectId, IpAddr)> =
            guests.flat_map(|(pod, guest)| guest.addresses.iter().map(|address| (*pod, *address))).collect();
        let verdict = networks::held(&held);
        self.judge(verdict);
    }
}

/// What an intent gives, as a guest has it.
pub(crate) fn of_guest(start: &bulkhead_types::PodIntent) -> Vec<AllocatedDevice> {
    let one = |given: &bulkhead_types::DeviceIntent| AllocatedDevice {
        container: given.container.clone(),
        resource: given.resource.clone(),
        device: given.device.clone(),
        share: given.share,
    };
    start.devices.iter().map(one).collect()
}
