//! The host's kernel: route netlink for links and addresses, `/dev/net/tun` for taps, the program `nft` for the packet filter.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_nodeagent_core::network::{Ipv4Network, switch_forwarding_on};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rustix::io::Errno;

use super::netlink::Netlink;
use super::nft::Nft;
use super::{HostNetwork, InUse, Link};
use crate::machine::MachineTree;
use crate::vm::session::{open_tap, persist_tap};

/// The network namespace of the calling thread.
#[derive(Debug, Default)]
pub(crate) struct KernelNetwork {
    netlink: Netlink,
    nft: Nft,
}

impl KernelNetwork {
    fn all_links(&self) -> io::Result<Vec<LinkMessage>> {
        let told = self.netlink.list(&Message::GetLink(LinkMessage::default()))?;
        let link = |message| match message {
            Message::NewLink(link) => Some(link),
            _ => None,
        };
        Ok(told.into_iter().filter_map(link).collect())
    }

    fn all_addresses(&self) -> io::Result<Vec<AddressMessage>> {
        let told = self.netlink.list(&Message::GetAddress(AddressMessage::default()))?;
        let address = |message| match message {
            Message::NewAddress(address) => Some(address),
            _ => None,
        };
        let all = told.into_iter().filter_map(address);
        Ok(all.filter(|one| one.header.family == AddressFamily::Inet).collect())
    }

    fn all_routes(&self) -> io::Result<Vec<RouteMessage>> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet;
        let told = self.netlink.list(&Message::GetRoute(wanted))?;
        let route = |message| match message {
            Message::NewRoute(route) => Some(route),
            _ => None,
        };
        Ok(told.into_iter().filter_map(route).collect())
    }

    fn index_of(&self, name: &str) -> io::Result<u32> {
        let told = self.netlink.request(&Message::GetLink(named(name)), 0)?;
        let index = told.iter().find_map(|message| match message {
            Message::NewLink(link) => Some(link.header.index),
            _ => None,
        });
        // The kernel says so itself when there is none.
        index.ok_or_else(|| Errno::NODEV.into())
    }

    /// Switches a link on, with these properties.
    fn set_up(&self, link: &str, attributes: impl IntoIterator<Item = LinkAttribute>) -> io::Result<()> {
        let mut message = switched_on(link);
        message.attributes.extend(attributes);
        self.netlink.request(&Message::SetLink(message), 0).map(drop)
    }
}

impl HostNetwork for KernelNetwork {
    fn links(&self) -> io::Result<Vec<Link>> {
        let (messages, addresses) = (self.all_links()?, self.all_addresses()?);
        let link = |message: &LinkMessage| {
            let mut link = described(message);
            let bridge = attribute(message, |one| match one {
                LinkAttribute::Controller(index) => Some(*index),
                _ => None,
            });
            let bridge = messages.iter().find(|other| Some(other.header.index) == bridge);
            link.bridge = bridge.map(|bridge| described(bridge).name);
            let own = addresses.iter().filter(|one| one.header.index == message.header.index);
            link.addresses = own.filter_map(local).collect();
            link
        };
        Ok(messages.iter().map(link).collect())
    }

    fn networks(&self) -> io::Result<Vec<InUse>> {
        let links = self.all_links()?;
        let name = |index: u32| {
            let link = links.iter().find(|link| link.header.index == index);
            link.map(|link| described(link).name).unwrap_or_default()
        };
        let routes = self.all_routes()?;
        let routes = routes.iter().filter_map(destination);
        let addresses = self.all_addresses()?;
        let own = addresses.iter().filter_map(|message| {
            let (address, len) = local(message)?;
            Some((Ipv4Network::around(address, len)?, message.header.index))
        });
        Ok(routes.chain(own).map(|(network, index)| InUse { network, link: name(index) }).collect())
    }

    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()> {
        let mac = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let mac: Vec<u8> = mac.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let mut message = switched_on(name);
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
        message.attributes.extend([LinkAttribute::Address(mac), kind]);
        self.netlink.request(&Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        let header = &mut message.header;
        (header.family, header.prefix_len) = (AddressFamily::Inet, prefix_len);
        header.index = self.index_of(link)?;
        let both = [AddressAttribute::Address(address.into()), AddressAttribute::Local(address.into())];
        message.attributes.extend(both);
        // RFC 3021: links of two have none.
        if let Some(hosts) = u32::MAX.checked_shr(prefix_len.into()).filter(|hosts| *hosts > 1) {
            let all = Ipv4Addr::from(u32::from(address) | hosts);
            message.attributes.push(AddressAttribute::Broadcast(all));
        }
        self.netlink.request(&Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let index = self.index_of(link)?;
        let is_it =
            |one: &AddressMessage| one.header.index == index && local(one) == Some((address, prefix_len));
        match self.all_addresses()?.into_iter().find(is_it) {
            Some(message) => self.netlink.request(&Message::DelAddress(message), 0).map(drop),
            None => Ok(()),
        }
    }

    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()> {
        self.set_up(link, [LinkAttribute::Mtu(mtu)])
    }

    fn add_tap(&self, name: &str) -> io::Result<()> {
        let name = CString::new(name).map_err(io::Error::other)?;
        Ok(persist_tap(&open_tap(&name)?)?)
    }

    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()> {
        let bridge = LinkAttribute::Controller(self.index_of(bridge)?);
        self.set_up(tap, [LinkAttribute::Mtu(mtu), bridge])
    }

    fn remove(&self, link: &str) -> io::Result<()> {
        match self.netlink.request(&Message::DelLink(named(link)), 0) {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
            result => result.map(drop),
        }
    }

    fn forward(&self) -> io::Result<()> {
        switch_forwarding_on(&mut MachineTree::new("/")).map_err(Into::into)
    }

    fn set_rules(&self, rules: &str) -> io::Result<()> {
        self.nft.run(&["-f", "-"], rules)
    }

    fn check_rules(&self, rules: &str) -> io::Result<()> {
        self.nft.run(&["-c", "-f", "-"], rules)
    }
}

/// A link of this name.
fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn switched_on(name: &str) -> LinkMessage {
    let mut link = named(name);
    (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    link
}

fn local(message: &AddressMessage) -> Option<(Ipv4Addr, u8)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some((*address, message.header.prefix_len)),
        _ => None,
    })
}

/// Where a route leads, and by which link. Those of single addresses (this host's own, and broadcasts) are told with the addresses.
fn destination(route: &RouteMessage) -> Option<(Ipv4Network, u32)> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut to, mut link) = (Ipv4Addr::UNSPECIFIED, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Oif(index) => link = *index,
            _ => {}
        }
    }
    Some((Ipv4Network::around(to, route.header.destination_prefix_length)?, link))
}

fn attribute<T>(message: &LinkMessage, find: impl FnMut(&LinkAttribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(find)
}

fn described(message: &LinkMessage) -> Link {
    let mut link = Link { is_up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}
