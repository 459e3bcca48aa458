//! Requests and answers as bytes.
//!
//! Written with `netlink-packet-route`. Read here: that crate takes "not told" (all ones) of spoof check and trust for "off", and
//! what cannot be seen has to be known as such.

use bulkhead_nodeagent_core::vf_settings::{VLAN_8021Q, VfRate, VfSetting, VfSettings, VfVlan};
use bulkhead_types::VfLinkState;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkMessage, LinkVfInfo, VfInfo, VfInfoGuid, VfInfoLinkState, VfInfoMac,
    VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan, VfVlan as VlanAttribute, VfVlanInfo,
};

/// Length of `struct nlmsghdr`, and of `struct ifinfomsg` behind it.
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
/// Attributes of `linux/if_link.h`.
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_TRUST: u16 = 9;
const IFLA_VF_IB_NODE_GUID: u16 = 10;
const IFLA_VF_IB_PORT_GUID: u16 = 11;
const IFLA_VF_VLAN_LIST: u16 = 12;

/// Asks for an interface with its functions, without their counters: those of many would not fit into one attribute.
pub(super) fn get(interface_index: u32) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = interface_index;
    link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats]));
    bytes(RouteNetlinkMessage::GetLink(link), NLM_F_REQUEST)
}

/// Tells one function of an interface one thing.
pub(super) fn set(interface_index: u32, vf: u32, setting: &VfSetting) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = interface_index;
    link.attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![attribute(vf, setting)])]));
    bytes(RouteNetlinkMessage::SetLink(link), NLM_F_REQUEST | NLM_F_ACK)
}

fn bytes(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (flags, 1);
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn attribute(vf: u32, setting: &VfSetting) -> VfInfo {
    use netlink_packet_route::link::VfLinkState as Wire;
    match *setting {
        VfSetting::Vlan(VfVlan { id, qos, protocol: VLAN_8021Q }) => {
            VfInfo::Vlan(VfInfoVlan::new(vf, id, qos))
        }
        VfSetting::Vlan(VfVlan { id, qos, protocol }) => {
            VfInfo::VlanList(vec![VlanAttribute::Info(VfVlanInfo::new(vf, id, qos, protocol.into()))])
        }
        VfSetting::Mac(mac) => VfInfo::Mac(VfInfoMac::new(vf, &mac)),
        VfSetting::Rate(VfRate { min_mbps, max_mbps }) => {
            VfInfo::Rate(VfInfoRate::new(vf, min_mbps, max_mbps))
        }
        VfSetting::SpoofCheck(on) => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, on)),
        VfSetting::Trust(on) => VfInfo::Trust(VfInfoTrust::new(vf, on)),
        VfSetting::LinkState(state) => VfInfo::LinkState(VfInfoLinkState::new(
            vf,
            match state {
                VfLinkState::Auto => Wire::Auto,
                VfLinkState::Enable => Wire::Enable,
                VfLinkState::Disable => Wire::Disable,
            },
        )),
        VfSetting::NodeGuid(guid) => VfInfo::IbNodeGuid(VfInfoGuid::new(vf, guid)),
        VfSetting::PortGuid(guid) => VfInfo::IbPortGuid(VfInfoGuid::new(vf, guid)),
    }
}

type Attribute<'a> = NlaBuffer<&'a [u8]>;

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, String>> {
    NlasIterator::new(bytes)
        .map(|one| one.map_err(|error| format!("the kernel's answer makes no sense: {error}")))
}

/// A number of 32 bits in a value, by its place.
fn word(value: &[u8], at: usize) -> Option<u32> {
    let bytes = value.get(at * 4..at * 4 + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// What an answer to [`get`] says of a function; `None` when it says nothing of it.
pub(super) fn settings_of(answer: &[u8], vf: u32) -> Result<Option<VfSettings>, String> {
    let link = answer.get(HEADER_BYTES + LINK_BYTES..).unwrap_or_default();
    for list in attributes(link) {
        let list = list?;
        if list.kind() != IFLA_VFINFO_LIST {
            continue;
        }
        for function in attributes(list.value()) {
            let function = function?;
            // Each attribute begins with the function's number.
            let mut first = attributes(function.value());
            let number = first.next().transpose()?.and_then(|one| word(one.value(), 0));
            if number == Some(vf) {
                return read(function.value()).map(Some);
            }
        }
    }
    Ok(None)
}

fn read(function: &[u8]) -> Result<VfSettings, String> {
    let mut settings = VfSettings::default();
    for one in attributes(function) {
        let one = one?;
        let value = one.value();
        let (first, second) = (word(value, 1), word(value, 2));
        // All ones: the driver does not say.
        let switch = first.filter(|on| *on != u32::MAX).map(|on| on != 0);
        let guid = value.get(8..16).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
        match one.kind() {
            IFLA_VF_MAC => settings.mac = value.get(4..10).and_then(|mac| mac.try_into().ok()),
            // The list says more.
            IFLA_VF_VLAN if settings.vlan.is_none() => {
                settings.vlan = first.zip(second).map(|(id, qos)| VfVlan { id, qos, protocol: VLAN_8021Q });
            }
            IFLA_VF_VLAN_LIST => settings.vlan = vlan(value)?.or(settings.vlan),
            IFLA_VF_RATE => {
                settings.rate = first.zip(second).map(|(min_mbps, max_mbps)| VfRate { min_mbps, max_mbps });
            }
            IFLA_VF_SPOOFCHK => settings.spoof_check = switch,
            IFLA_VF_TRUST => settings.trust = switch,
            IFLA_VF_LINK_STATE => {
                settings.link_state = match first {
                    Some(0) => Some(VfLinkState::Auto),
                    Some(1) => Some(VfLinkState::Enable),
                    Some(2) => Some(VfLinkState::Disable),
                    _ => None,
                };
            }
            IFLA_VF_IB_NODE_GUID => settings.node_guid = guid,
            IFLA_VF_IB_PORT_GUID => settings.port_guid = guid,
            _ => {}
        }
    }
    Ok(settings)
}

/// The first tag of a list: `struct ifla_vf_vlan_info`, whose last part is in network byte order.
fn vlan(list: &[u8]) -> Result<Option<VfVlan>, String> {
    let Some(info) = attributes(list).next().transpose()? else { return Ok(None) };
    let value = info.value();
    let protocol = value.get(12..14).and_then(|bytes| Some(u16::from_be_bytes(bytes.try_into().ok()?)));
    let vlan = word(value, 1).zip(word(value, 2)).zip(protocol);
    // Some drivers (ice) tell protocol 0 where there is no tag, which none of them would take.
    let protocol_of = |id, protocol| if id == 0 { VLAN_8021Q } else { protocol };
    Ok(vlan.map(|((id, qos), protocol)| VfVlan { id, qos, protocol: protocol_of(id, protocol) }))
}
