//! Interfaces, addresses and routes by the kernel's route netlink.
//!
//! Source: `rtnetlink(7)`, `netlink(7)`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// How long the kernel may take to answer, in seconds: a driver that asks its firmware takes some.
const ANSWER_WITHIN_S: i64 = 20;
/// `NLMSG_ERROR`, also an acknowledgement.
const NLMSG_ERROR: u16 = 2;
/// Room for an acknowledgement, which carries the request, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// A socket for requests, each answered before the next.
pub(super) struct LinkSocket(OwnedFd);

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl LinkSocket {
    pub(super) fn open() -> io::Result<Self> {
        let family = nix::sys::socket::AddressFamily::Netlink;
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_S, 0))?;
        Ok(Self(socket))
    }

    /// The number of the interface of a name.
    pub(super) fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(nix::net::if_::if_nametoindex(name)?)
    }

    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        self.change(index, |link| {
            link.header.flags = LinkFlags::Up;
            link.header.change_mask = LinkFlags::Up;
        })
    }

    /// Gives an interface, which must be down, another name.
    pub(super) fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        self.change(index, |link| link.attributes.push(LinkAttribute::IfName(name.to_owned())))
    }

    pub(super) fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(index, |link| link.attributes.push(LinkAttribute::Mtu(mtu)))
    }

    pub(super) fn set_mac(&self, index: u32, mac: &[u8]) -> io::Result<()> {
        self.change(index, |link| link.attributes.push(LinkAttribute::Address(mac.to_vec())))
    }

    fn change(&self, index: u32, change: impl FnOnce(&mut LinkMessage)) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        change(&mut link);
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Adds an address. One of IPv6 can be used at once: that nobody else has it is the control plane's to see to.
    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        (message.header.family, message.header.prefix_len) = (family(address), prefix);
        message.header.index = index;
        message.attributes.extend([AddressAttribute::Local(address), AddressAttribute::Address(address)]);
        if address.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route by an interface, which must be up: to a network, or to everything; straight, or over a gateway that is on this
    /// link whatever the interface's address says.
    pub(super) fn add_route(
        &self,
        index: u32,
        destination: Option<(IpAddr, u8)>,
        gateway: Option<IpAddr>,
    ) -> io::Result<()> {
        let like = gateway.or(destination.map(|(network, _)| network));
        let like = like.ok_or_else(|| io::Error::other("a route leads somewhere"))?;
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(like);
        (header.table, header.protocol) = (RouteHeader::RT_TABLE_MAIN, RouteProtocol::Static);
        (header.scope, header.kind) = (RouteScope::Link, RouteType::Unicast);
        if gateway.is_some() {
            (header.scope, header.flags) = (RouteScope::Universe, RouteFlags::Onlink);
        }
        if let Some((network, prefix)) = destination {
            header.destination_prefix_length = prefix;
            message.attributes.push(RouteAttribute::Destination(network.into()));
        }
        message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes.push(RouteAttribute::Oif(index));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (NLM_F_REQUEST | NLM_F_ACK | flags, 1);
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(self.0.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                length => break length?,
            }
        };
        // struct nlmsghdr, and struct nlmsgerr behind it, whose first part is the negative errno.
        let kind = answer[..length].get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        let error =
            answer[..length].get(16..20).and_then(|error| error.try_into().ok()).map(i32::from_ne_bytes);
        match (kind, error) {
            (Some(NLMSG_ERROR), Some(0)) => Ok(()),
            (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            _ => Err(io::Error::other("the kernel's answer makes no sense")),
        }
    }
}
