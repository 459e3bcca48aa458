//! What agents tell of PCI functions beside what decides who gets them: for operators, who look for the card that is slow.
//!
//! ```text
//!  Device.pci ─► PciFacts ── traits (Shared: one in memory for all functions of a kind)
//!                   ├──────── serial number, link as it is now
//!                   └──────── ports (Rare: few functions have any): network interfaces, InfiniBand devices
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{AMOUNT_MAX, Device, DeviceReport, Rare, Shared, SriovLinkType};

/// Most ways to reset a function (Linux has 8, `PCI_NUM_RESET_METHODS`).
pub const PCI_RESET_METHODS_MAX: usize = 8;
/// Longest name of a way to reset a function, in bytes (Linux' longest is `device_specific`).
pub const PCI_RESET_METHOD_BYTES_MAX: usize = 32;
/// Most regions of a function: six base addresses and the ROM (PCI Express Base Specification 5.0, section 7.5.1).
pub const PCI_REGIONS_MAX: usize = 7;
/// Most network interfaces, and most InfiniBand devices, of a function that are told of.
pub const PCI_PORTS_MAX: usize = 8;
/// Longest name of a network interface, in bytes (Linux' `IFNAMSIZ` without its end).
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// Longest name of an InfiniBand device, in bytes (Linux' `IB_DEVICE_NAME_MAX` without its end).
pub const INFINIBAND_NAME_BYTES_MAX: usize = 63;
/// Longest hardware address, in bytes of text: 20 pairs of digits with colons between (IP over InfiniBand, RFC 4391).
pub const MAC_BYTES_MAX: usize = 59;
/// Largest MTU of a network interface of the host that is told of, in bytes.
pub const INTERFACE_MTU_MAX: u32 = 1 << 17;
/// Fastest link of a network interface that is told of, in Mbit/s.
pub const LINK_SPEED_MBPS_MAX: u32 = 100_000_000;
/// Fastest lane of PCI Express that is told of, in 10^6 transfers a second.
pub const PCIE_LANE_MEGATRANSFERS_MAX: u32 = 1_000_000;
/// Most lanes of a link of PCI Express (PCI Express Base Specification 5.0, section 7.5.3.6).
pub const PCIE_LANES_MAX: u32 = 32;

/// Access Control Services: whether what comes from a function must pass the IOMMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PciAcs {
    /// Only root may read that part of the configuration space.
    #[default]
    Unknown = 1,
    /// The function has none.
    Absent = 2,
    /// It is there, and what keeps functions apart is not all switched on.
    Off = 3,
    /// What keeps functions apart is on.
    On = 4,
}

impl PciAcs {
    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Absent => "absent",
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// A link of PCI Express.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciLink {
    /// Of each lane, in 10^6 transfers a second: 16000 is `16.0 GT/s`. 0 when unknown.
    pub lane_megatransfers: u32,
    /// Lanes; 0 when unknown.
    pub lanes: u32,
}

impl PciLink {
    /// Of each lane, as the kernel writes it without `PCIe`: `16.0 GT/s`.
    #[must_use]
    pub fn speed(self) -> String {
        let (whole, tenths) = (self.lane_megatransfers / 1000, self.lane_megatransfers % 1000 / 100);
        format!("{whole}.{tenths} GT/s")
    }
}

impl std::fmt::Display for PciLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.lane_megatransfers, self.lanes) {
            (0, lanes) => write!(f, "x{lanes}"),
            (_, 0) => f.write_str(&self.speed()),
            (_, lanes) => write!(f, "{} x{lanes}", self.speed()),
        }
    }
}

/// What functions of one kind have alike, as all virtual functions of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciTraits {
    /// Vendor id of the card that it is on.
    pub subsystem_vendor: u16,
    /// That card's own id.
    pub subsystem_device: u16,
    /// Whether what comes from it must pass the IOMMU.
    pub acs: PciAcs,
    /// How it can be reset, the kernel's first choice first (`flr`, `bus`, `pm`, …).
    pub reset_methods: Vec<SmolStr>,
    /// The best that both ends of its link can do.
    pub link_max: Option<PciLink>,
    /// What it maps into memory, in bytes.
    pub memory_bars_bytes: Vec<u64>,
}

/// A network interface of a function that a driver of the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciInterface {
    /// Its name.
    pub name: SmolStr,
    /// Its hardware address, as the kernel writes it; empty when unknown.
    pub mac: SmolStr,
    /// Largest packet, in bytes; 0 when unknown.
    pub mtu: u32,
    /// What it speaks; unset for anything but Ethernet and InfiniBand.
    pub link_type: Option<SriovLinkType>,
    /// In Mbit/s, while the link is up.
    pub link_speed_mbps: Option<u32>,
    /// Whether packets can pass.
    pub is_up: bool,
}

/// An InfiniBand (or RoCE) device of a function that a driver of the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciInfiniband {
    /// Its name, such as `mlx5_0`.
    pub name: SmolStr,
    /// GUID of the device; 0 when unknown.
    pub node_guid: u64,
    /// GUID of what the device is a part of; 0 when unknown.
    pub system_guid: u64,
}

/// What drivers of the host made of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciPorts {
    /// Its network interfaces, by name; at most [`PCI_PORTS_MAX`].
    pub interfaces: Vec<PciInterface>,
    /// Its InfiniBand devices, by name; at most [`PCI_PORTS_MAX`].
    pub infiniband: Vec<PciInfiniband>,
}

/// What an agent tells of a PCI function. Needs [`crate::PCI_FACTS_LEVEL`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PciFacts {
    /// What others of its kind have alike: one in memory for all of them.
    pub traits: Shared<PciTraits>,
    /// `Device Serial Number` of its configuration space.
    pub serial_number: Option<u64>,
    /// Its link towards the root as it is now. Many cards are slower while they are idle.
    pub link: Option<PciLink>,
    /// What drivers of the host made of it; nothing of virtual functions, whose interfaces are there only between two pods.
    pub ports: Rare<PciPorts>,
}

/// What is wrong with facts that somebody tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFlaw {
    /// Where, such as `interfaces[1].mac`.
    pub field: String,
    /// What.
    pub reason: String,
}

fn flaw<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, PciFlaw> {
    Err(PciFlaw { field: field.into(), reason: reason.into() })
}

/// At most so many entries.
fn count(field: &str, count: usize, most: usize) -> Result<(), PciFlaw> {
    if count > most { flaw(field, format!("has {count} entries: at most {most} are kept")) } else { Ok(()) }
}

/// At most so large.
fn number(field: impl Into<String>, number: u64, most: u64) -> Result<(), PciFlaw> {
    if number > most { flaw(field, format!("is {number}, more than {most}")) } else { Ok(()) }
}

/// A name of so many bytes.
fn name(field: impl Into<String>, text: &str, most: usize) -> Result<(), PciFlaw> {
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return flaw(field, format!("is no text of 1 to {most} bytes without control characters"));
    }
    Ok(())
}

impl PciLink {
    fn check(self, field: &str) -> Result<(), PciFlaw> {
        let speed = u64::from(self.lane_megatransfers);
        number(format!("{field}.laneMegatransfers"), speed, PCIE_LANE_MEGATRANSFERS_MAX.into())?;
        number(format!("{field}.lanes"), self.lanes.into(), PCIE_LANES_MAX.into())
    }
}

impl PciTraits {
    fn check(&self) -> Result<(), PciFlaw> {
        count("resetMethods", self.reset_methods.len(), PCI_RESET_METHODS_MAX)?;
        count("memoryBarsBytes", self.memory_bars_bytes.len(), PCI_REGIONS_MAX)?;
        for (at, method) in self.reset_methods.iter().enumerate() {
            if !is_reset_method(method) {
                return flaw(format!("resetMethods[{at}]"), "is no name of a way to reset functions");
            }
        }
        for (at, bytes) in self.memory_bars_bytes.iter().enumerate() {
            number(format!("memoryBarsBytes[{at}]"), *bytes, AMOUNT_MAX)?;
        }
        self.link_max.map_or(Ok(()), |link| link.check("linkMax"))
    }
}

/// Whether a text can be a way to reset functions, as the kernel names them.
#[must_use]
pub fn is_reset_method(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= PCI_RESET_METHOD_BYTES_MAX && text.bytes().all(is_plain)
}

/// Whether a text is a hardware address as the kernel writes it: pairs of digits with colons between.
#[must_use]
pub fn is_mac(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.len() <= MAC_BYTES_MAX && text.split(':').all(is_pair)
}

impl PciInterface {
    /// Checks names and ranges.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, field: &str) -> Result<(), PciFlaw> {
        name(format!("{field}.name"), &self.name, INTERFACE_NAME_BYTES_MAX)?;
        if !self.mac.is_empty() && !is_mac(&self.mac) {
            return flaw(format!("{field}.mac"), "is no hardware address: at most 20 pairs of digits");
        }
        number(format!("{field}.mtu"), self.mtu.into(), INTERFACE_MTU_MAX.into())?;
        let speed = self.link_speed_mbps.unwrap_or_default();
        number(format!("{field}.linkSpeed"), speed.into(), LINK_SPEED_MBPS_MAX.into())
    }
}

impl PciInfiniband {
    /// Checks the name.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, field: &str) -> Result<(), PciFlaw> {
        name(format!("{field}.name"), &self.name, INFINIBAND_NAME_BYTES_MAX)
    }
}

impl PciFacts {
    /// Its network interfaces.
    #[must_use]
    pub fn interfaces(&self) -> &[PciInterface] {
        self.ports.get().map_or(&[], |ports| &ports.interfaces)
    }

    /// Its InfiniBand devices.
    #[must_use]
    pub fn infiniband(&self) -> &[PciInfiniband] {
        self.ports.get().map_or(&[], |ports| &ports.infiniband)
    }

    /// Checks what an agent says: lengths of lists and texts, and ranges of numbers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PciFlaw> {
        self.traits.check()?;
        self.link.map_or(Ok(()), |link| link.check("link"))?;
        count("interfaces", self.interfaces().len(), PCI_PORTS_MAX)?;
        count("infiniband", self.infiniband().len(), PCI_PORTS_MAX)?;
        for (at, one) in self.interfaces().iter().enumerate() {
            one.check(&format!("interfaces[{at}]"))?;
        }
        for (at, one) in self.infiniband().iter().enumerate() {
            one.check(&format!("infiniband[{at}]"))?;
        }
        Ok(())
    }
}

/// A serial number as `lspci -v` writes it.
#[must_use]
pub fn format_serial_number(number: u64) -> String {
    number.to_be_bytes().map(|byte| format!("{byte:02x}")).join("-")
}

/// A GUID as the kernel writes it: `b859:9f03:0000:0001`.
#[must_use]
pub fn format_guid(guid: u64) -> String {
    [48, 32, 16, 0].map(|shift| format!("{:04x}", (guid >> shift) & 0xffff)).join(":")
}

/// Reads what [`format_guid`] writes.
#[must_use]
pub fn parse_guid(text: &str) -> Option<u64> {
    let is_group = |group: &str| group.len() == 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let groups: Vec<&str> = text.split(':').collect();
    let is_guid = groups.len() == 4 && groups.iter().all(|group| is_group(group));
    is_guid.then(|| u64::from_str_radix(&groups.concat(), 16).ok()).flatten()
}

/// Makes what functions have alike one in memory, with what was seen before. Nothing of what they say changes.
pub fn share_pci_traits(devices: &mut [Device], seen: &mut BTreeMap<u128, Shared<PciTraits>>) {
    for device in devices {
        let Some(facts) = device.pci.get() else { continue };
        let known = seen.entry(facts.traits.digest()).or_insert_with(|| facts.traits.clone());
        // Agents choose what is hashed here: equal digests are believed only with equal content.
        if *known == facts.traits && !known.is_same(&facts.traits) {
            device.pci = Rare::some(PciFacts { traits: known.clone(), ..facts.clone() });
        }
    }
}

impl DeviceReport {
    /// Whether it says anything of PCI functions that servers below [`crate::PCI_FACTS_LEVEL`] do not know.
    #[must_use]
    pub fn says_pci_facts(&self) -> bool {
        self.devices.iter().any(|device| device.pci.get().is_some())
    }

    /// The same without that.
    #[must_use]
    pub fn below_pci_facts(mut self) -> Self {
        self.devices.iter_mut().for_each(|device| device.pci = Rare::NONE);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(traits: PciTraits, ports: PciPorts) -> PciFacts {
        let link = Some(PciLink { lane_megatransfers: 16_000, lanes: 16 });
        PciFacts { traits: Shared::new(traits), serial_number: Some(1), link, ports: Rare::some(ports) }
    }

    /// What is said of facts, with one thing changed of some that are fine.
    #[track_caller]
    fn check(change: impl FnOnce(&mut PciTraits, &mut PciPorts), expected: &str) {
        let mut traits = PciTraits {
            reset_methods: vec!["flr".into(), "device_specific".into()],
            link_max: Some(PciLink { lane_megatransfers: 64_000, lanes: 32 }),
            memory_bars_bytes: vec![16 << 20, 64 << 30],
            ..PciTraits::default()
        };
        let mac = "b8:59:9f:00:00:01".into();
        let interface = PciInterface { name: "eth0".into(), mac, mtu: 9000, ..PciInterface::default() };
        let infiniband = PciInfiniband { name: "mlx5_0".into(), ..PciInfiniband::default() };
        let mut ports = PciPorts { interfaces: vec![interface], infiniband: vec![infiniband] };
        change(&mut traits, &mut ports);
        let said = match facts(traits, ports).check() {
            Ok(()) => "fine".to_owned(),
            Err(PciFlaw { field, reason }) => format!("{field}: {reason}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn what_no_honest_agent_says_is_refused_with_its_place() {
        check(|_, _| (), "fine");
        check(|_, ports| ports.interfaces[0].mac = ["80"; 20].join(":").into(), "fine");
        check(|_, ports| ports.interfaces[0].mac = "".into(), "fine");
        check(
            |traits, _| traits.reset_methods = vec!["bus".into(); 9],
            "resetMethods: has 9 entries: at most 8 are kept",
        );
        let method = "resetMethods[1]: is no name of a way to reset functions";
        check(|traits, _| traits.reset_methods[1] = "x".repeat(33).into(), method);
        check(|traits, _| traits.reset_methods[1] = "\u{1b}[31m".into(), method);
        check(
            |traits, _| traits.memory_bars_bytes = vec![1; 8],
            "memoryBarsBytes: has 8 entries: at most 7 are kept",
        );
        check(
            |traits, _| traits.memory_bars_bytes[1] = u64::MAX,
            "memoryBarsBytes[1]: is 18446744073709551615, more than 9007199254740992",
        );
        let link = |lane_megatransfers, lanes| Some(PciLink { lane_megatransfers, lanes });
        check(|traits, _| traits.link_max = link(1, 33), "linkMax.lanes: is 33, more than 32");
        check(
            |traits, _| traits.link_max = link(1_000_001, 1),
            "linkMax.laneMegatransfers: is 1000001, more than 1000000",
        );
        let many = PciPorts {
            interfaces: vec![PciInterface::default(); 9],
            infiniband: vec![PciInfiniband::default(); 9],
        };
        check(|_, ports| *ports = many.clone(), "interfaces: has 9 entries: at most 8 are kept");
        check(
            |_, ports| ports.infiniband = many.infiniband.clone(),
            "infiniband: has 9 entries: at most 8 are kept",
        );
        let name = "interfaces[0].name: is no text of 1 to 15 bytes without control characters";
        check(|_, ports| ports.interfaces[0].name = "x".repeat(16).into(), name);
        check(|_, ports| ports.interfaces[0].name = "eth\n0".into(), name);
        check(|_, ports| ports.interfaces[0].name = "".into(), name);
        let mac = "interfaces[0].mac: is no hardware address: at most 20 pairs of digits";
        for wrong in ["b8:59:9", "b8::9f", "zz:00", "b8 59", &["80"; 21].join(":")] {
            check(|_, ports| ports.interfaces[0].mac = wrong.into(), mac);
        }
        check(
            |_, ports| ports.interfaces[0].mtu = u32::MAX,
            "interfaces[0].mtu: is 4294967295, more than 131072",
        );
        check(
            |_, ports| ports.interfaces[0].link_speed_mbps = Some(u32::MAX),
            "interfaces[0].linkSpeed: is 4294967295, more than 100000000",
        );
        check(
            |_, ports| ports.infiniband[0].name = "x".repeat(64).into(),
            "infiniband[0].name: is no text of 1 to 63 bytes without control characters",
        );
    }

    #[test]
    fn guids_and_links_are_written_as_the_kernel_writes_them() {
        for (guid, text) in [(0xb859_9f03_0000_0001, "b859:9f03:0000:0001"), (0, "0000:0000:0000:0000")] {
            assert_eq!((format_guid(guid).as_str(), parse_guid(text)), (text, Some(guid)));
        }
        for wrong in ["", "b859:9f03:0000", "b859:9f03:0000:00001", "+859:9f03:0000:0001", "b8599f0300000001"]
        {
            assert_eq!(parse_guid(wrong), None, "{wrong:?}");
        }
        assert_eq!(format_serial_number(0xb8ce_f603_00aa_bbcc), "b8-ce-f6-03-00-aa-bb-cc");
        assert_eq!(PciLink { lane_megatransfers: 2500, lanes: 1 }.to_string(), "2.5 GT/s x1");
    }

    #[test]
    fn functions_of_a_kind_have_one_in_memory_for_all_and_little_of_their_own() {
        let device = |acs| {
            let pci = facts(PciTraits { acs, ..PciTraits::default() }, PciPorts::default());
            Device { pci: Rare::some(pci), ..Device::default() }
        };
        let mut devices = [device(PciAcs::On), device(PciAcs::Off), device(PciAcs::On), Device::default()];
        let before = devices.clone();
        share_pci_traits(&mut devices, &mut BTreeMap::new());
        assert_eq!(devices, before);
        let traits = |at: usize| devices[at].pci.get().expect("told").traits.clone();
        assert!(traits(0).is_same(&traits(2)) && !traits(0).is_same(&traits(1)));
        // 10,000 nodes with 16 functions have 9 MB of them.
        assert!(size_of::<PciFacts>() <= 48, "{}", size_of::<PciFacts>());
        assert_eq!(size_of::<Rare<PciFacts>>(), size_of::<usize>());
    }
}
