//! Settings as values: what is wanted, what is seen, what to go back to, and which is next.

use std::collections::BTreeSet;

use bulkhead_types::{NetworkAttachment, SriovLinkType, VfLinkState};
use serde::{Deserialize, Serialize};

/// A MAC address.
pub type Mac = [u8; 6];
/// IEEE 802.1Q, the protocol of plain VLANs.
pub const VLAN_8021Q: u16 = 0x8100;
/// The GUID that stands for none when a function is given one: all zeroes are refused by drivers, and all ones let the NIC
/// choose, as ib-sriov-cni does.
const GUID_NONE: u64 = u64::MAX;

/// A VLAN tag that the NIC puts on what a function sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfVlan {
    /// VLAN id; 0 is none.
    pub id: u32,
    /// Priority, 0 to 7.
    pub qos: u32,
    /// Ethertype of the tag: [`VLAN_8021Q`], or 0x88a8.
    pub protocol: u16,
}

impl VfVlan {
    /// No tag.
    pub const NONE: Self = Self { id: 0, qos: 0, protocol: VLAN_8021Q };
}

/// Bounds of what a function may send, in Mbit/s; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfRate {
    /// What it may always send.
    pub min_mbps: u32,
    /// What it may send at most.
    pub max_mbps: u32,
}

/// Settings of a function. What is not asked for, or not told, is unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSettings {
    /// The VLAN.
    pub vlan: Option<VfVlan>,
    /// The MAC address; all zeroes let the NIC or the function's driver choose.
    pub mac: Option<Mac>,
    /// The rates.
    pub rate: Option<VfRate>,
    /// Whether packets of other MAC addresses are dropped.
    pub spoof_check: Option<bool>,
    /// Whether the function may change its MAC address and receive everything.
    pub trust: Option<bool>,
    /// Whether its link is up.
    pub link_state: Option<VfLinkState>,
    /// InfiniBand: GUID of the device.
    pub node_guid: Option<u64>,
    /// InfiniBand: GUID of the port.
    pub port_guid: Option<u64>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VfSetting {
    /// See [`VfSettings::vlan`].
    Vlan(VfVlan),
    /// See [`VfSettings::mac`].
    Mac(Mac),
    /// See [`VfSettings::rate`].
    Rate(VfRate),
    /// See [`VfSettings::spoof_check`].
    SpoofCheck(bool),
    /// See [`VfSettings::trust`].
    Trust(bool),
    /// See [`VfSettings::link_state`].
    LinkState(VfLinkState),
    /// See [`VfSettings::node_guid`].
    NodeGuid(u64),
    /// See [`VfSettings::port_guid`].
    PortGuid(u64),
}

impl VfSetting {
    /// The step's name: the words that `ip link set DEV` has for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vlan(_) => "vf vlan",
            Self::Mac(_) => "vf mac",
            Self::Rate(_) => "vf rate",
            Self::SpoofCheck(_) => "vf spoofchk",
            Self::Trust(_) => "vf trust",
            Self::LinkState(_) => "vf state",
            Self::NodeGuid(_) => "vf node_guid",
            Self::PortGuid(_) => "vf port_guid",
        }
    }

    /// Whether a function has it; `None` when that cannot be seen.
    fn is_told(&self, seen: &VfSettings) -> Option<bool> {
        match self {
            Self::Vlan(vlan) => seen.vlan.map(|is| is == *vlan),
            // Whoever is to choose may have chosen already.
            Self::Mac(mac) => seen.mac.map(|is| is == *mac).filter(|is| *is || *mac != [0; 6]),
            Self::Rate(rate) => seen.rate.map(|is| is == *rate),
            Self::SpoofCheck(on) => seen.spoof_check.map(|is| is == *on),
            Self::Trust(on) => seen.trust.map(|is| is == *on),
            Self::LinkState(state) => seen.link_state.map(|is| is == *state),
            Self::NodeGuid(guid) => is_guid_told(*guid, seen.node_guid),
            Self::PortGuid(guid) => is_guid_told(*guid, seen.port_guid),
        }
    }
}

fn is_guid_told(guid: u64, seen: Option<u64>) -> Option<bool> {
    seen.map(|is| is == guid).filter(|is| *is || guid != GUID_NONE)
}

impl std::fmt::Display for VfSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Vlan(vlan) => {
                write!(f, "{} qos {}", vlan.id, vlan.qos)?;
                if vlan.protocol == VLAN_8021Q { Ok(()) } else { write!(f, " proto {:#06x}", vlan.protocol) }
            }
            Self::Mac(mac) => f.write_str(&mac_text(mac)),
            Self::Rate(rate) => write!(f, "min {} max {} Mbit/s", rate.min_mbps, rate.max_mbps),
            Self::SpoofCheck(value) | Self::Trust(value) => f.write_str(on(*value)),
            Self::LinkState(state) => f.write_str(match state {
                VfLinkState::Auto => "auto",
                VfLinkState::Enable => "enable",
                VfLinkState::Disable => "disable",
            }),
            Self::NodeGuid(guid) | Self::PortGuid(guid) => write!(f, "{guid:016x}"),
        }
    }
}

impl VfSettings {
    /// Those that are set, in the order in which they are made.
    pub fn each(&self) -> impl Iterator<Item = VfSetting> {
        [
            self.vlan.map(VfSetting::Vlan),
            self.mac.map(VfSetting::Mac),
            self.rate.map(VfSetting::Rate),
            self.spoof_check.map(VfSetting::SpoofCheck),
            self.trust.map(VfSetting::Trust),
            self.link_state.map(VfSetting::LinkState),
            self.node_guid.map(VfSetting::NodeGuid),
            self.port_guid.map(VfSetting::PortGuid),
        ]
        .into_iter()
        .flatten()
    }

    /// The same with one of them in place of what it was.
    #[must_use]
    pub fn with(mut self, setting: &VfSetting) -> Self {
        match *setting {
            VfSetting::Vlan(vlan) => self.vlan = Some(vlan),
            VfSetting::Mac(mac) => self.mac = Some(mac),
            VfSetting::Rate(rate) => self.rate = Some(rate),
            VfSetting::SpoofCheck(on) => self.spoof_check = Some(on),
            VfSetting::Trust(on) => self.trust = Some(on),
            VfSetting::LinkState(state) => self.link_state = Some(state),
            VfSetting::NodeGuid(guid) => self.node_guid = Some(guid),
            VfSetting::PortGuid(guid) => self.port_guid = Some(guid),
        }
        self
    }

    /// What an attachment wants of a function that is like this. What it does not say stays as it is.
    ///
    /// # Errors
    /// What it says that is no setting.
    pub fn wanted(network: &NetworkAttachment, seen: &Self) -> Result<Self, String> {
        let mac = parse_mac(&network.mac).ok_or_else(|| format!("{:?} is no MAC address", network.mac))?;
        let link_state = Some(network.link_state);
        if network.link_type == SriovLinkType::Ib {
            let guid = Some(guid_of(mac));
            return Ok(Self { link_state, node_guid: guid, port_guid: guid, ..Self::default() });
        }
        let is = seen.rate.unwrap_or_default();
        let rate = VfRate {
            min_mbps: network.min_tx_rate.unwrap_or(is.min_mbps),
            max_mbps: network.max_tx_rate.unwrap_or(is.max_mbps),
        };
        let says_rate = network.min_tx_rate.is_some() || network.max_tx_rate.is_some();
        Ok(Self {
            vlan: Some(VfVlan { id: network.vlan, qos: network.vlan_qos, protocol: VLAN_8021Q }),
            mac: Some(mac),
            rate: says_rate.then_some(rate),
            spoof_check: network.spoof_chk,
            trust: network.trust,
            link_state,
            node_guid: None,
            port_guid: None,
        })
    }

    /// What was there of all that is wanted: where this goes back to. What the driver does not tell is taken for its default.
    #[must_use]
    pub fn before(wanted: &Self, seen: &Self) -> Self {
        let guid = |guid: u64| if guid == 0 { GUID_NONE } else { guid };
        Self {
            vlan: wanted.vlan.and(seen.vlan.or(Some(VfVlan::NONE))),
            mac: wanted.mac.and(seen.mac.or(Some([0; 6]))),
            rate: wanted.rate.and(seen.rate.or(Some(VfRate::default()))),
            spoof_check: wanted.spoof_check.and(seen.spoof_check.or(Some(true))),
            trust: wanted.trust.and(seen.trust.or(Some(false))),
            link_state: wanted.link_state.and(seen.link_state.or(Some(VfLinkState::Auto))),
            node_guid: wanted.node_guid.and(seen.node_guid.map(guid).or(Some(GUID_NONE))),
            port_guid: wanted.port_guid.and(seen.port_guid.map(guid).or(Some(GUID_NONE))),
        }
    }

    /// What a function goes back to after a guest had it: its own MAC address, GUIDs and spoof check, and nothing of a network.
    #[must_use]
    pub fn neutral(self) -> Self {
        Self {
            vlan: self.vlan.map(|_| VfVlan::NONE),
            rate: self.rate.map(|_| VfRate::default()),
            trust: self.trust.map(|_| false),
            link_state: self.link_state.map(|_| VfLinkState::Auto),
            ..self
        }
    }

    /// The same, and what another has beside.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            vlan: self.vlan.or(other.vlan),
            mac: self.mac.or(other.mac),
            rate: self.rate.or(other.rate),
            spoof_check: self.spoof_check.or(other.spoof_check),
            trust: self.trust.or(other.trust),
            link_state: self.link_state.or(other.link_state),
            node_guid: self.node_guid.or(other.node_guid),
            port_guid: self.port_guid.or(other.port_guid),
        }
    }
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextSetting {
    /// This is set.
    Set(VfSetting),
    /// The kernel took this one, and tells another value.
    NoEffect(VfSetting),
    /// Everything is as wanted.
    Done,
}

/// The next setting; `done` names those that were set since the function was looked at first.
#[must_use]
pub fn next_setting(wanted: &VfSettings, seen: &VfSettings, done: &BTreeSet<&'static str>) -> NextSetting {
    for setting in wanted.each() {
        match (setting.is_told(seen), done.contains(setting.name())) {
            (Some(true), _) | (None, true) => {}
            (Some(false), true) => return NextSetting::NoEffect(setting),
            (_, false) => return NextSetting::Set(setting),
        }
    }
    NextSetting::Done
}

/// Reads `02:00:00:00:00:01`.
#[must_use]
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Writes it.
#[must_use]
pub fn mac_text(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The GUID of a MAC address: `ff:fe` in its middle (IEEE, "Guidelines for EUI-64").
#[must_use]
pub fn guid_of([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from_be_bytes([a, b, c, 0xff, 0xfe, d, e, f])
}
