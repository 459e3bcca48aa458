//! Interfaces, addresses and routes by the kernel's route netlink.
//!
//! Requests are put together from the kernel's structures: the crate that knows all of route netlink (`netlink-packet-route`) makes
//! this program, which every guest reads, unpacks and keeps, larger by an eighth.
//!
//! Source: `rtnetlink(7)`, `netlink(7)`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use netlink_packet_core::{DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// How long the kernel may take to answer, in seconds: a driver that asks its firmware takes some.
const ANSWER_WITHIN_S: i64 = 20;
/// `NLMSG_ERROR`, also an acknowledgement.
const NLMSG_ERROR: u16 = 2;
/// The gateway is on the link, whatever the interface's address says.
const RTNH_F_ONLINK: u32 = 4;
/// Length of `struct nlmsghdr`.
const HEADER_BYTES: u32 = 16;
/// Room for an acknowledgement, which carries the request, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// A socket for requests, each answered before the next.
pub(super) struct LinkSocket(OwnedFd);

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).expect("families are small")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl LinkSocket {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_S, 0))?;
        Ok(Self(socket))
    }

    /// The number of the interface of a name.
    pub(super) fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(nix::net::if_::if_nametoindex(name)?)
    }

    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        let up = u32::try_from(libc::IFF_UP).expect("the lowest bit");
        self.change(index, up, None)
    }

    /// Gives an interface, which must be down, another name.
    pub(super) fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        self.change(index, 0, Some((libc::IFLA_IFNAME, [name.as_bytes(), b"\0"].concat())))
    }

    pub(super) fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(index, 0, Some((libc::IFLA_MTU, mtu.to_ne_bytes().to_vec())))
    }

    pub(super) fn set_mac(&self, index: u32, mac: &[u8]) -> io::Result<()> {
        self.change(index, 0, Some((libc::IFLA_ADDRESS, mac.to_vec())))
    }

    /// Switches flags on, and sets an attribute.
    fn change(&self, index: u32, flags: u32, attribute: Option<(u16, Vec<u8>)>) -> io::Result<()> {
        // struct ifinfomsg: family and type are any; the flags, and which of them are meant.
        let message = [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat();
        self.request(libc::RTM_SETLINK, 0, message, attribute)
    }

    /// Adds an address. One of IPv6 can be used at once: that nobody else has it is the control plane's to see to.
    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope (everywhere), interface.
        let mut message = vec![family(address), prefix, 0, libc::RT_SCOPE_UNIVERSE];
        if address.is_ipv6() {
            message[2] = u8::try_from(libc::IFA_F_NODAD).expect("a low bit");
        }
        message.extend(index.to_ne_bytes());
        let attributes = [libc::IFA_LOCAL, libc::IFA_ADDRESS].map(|kind| (kind, octets(address)));
        self.request(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, message, attributes)
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
        let (scope, flags) = match gateway {
            Some(_) => (libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
            None => (libc::RT_SCOPE_LINK, 0),
        };
        let prefix = destination.map_or(0, |(_, prefix)| prefix);
        // struct rtmsg: family, prefix lengths of destination and source, type of service, table, protocol, scope, type, flags.
        let mut message = vec![family(like), prefix, 0, 0];
        message.extend([libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
        message.extend(flags.to_ne_bytes());
        let attributes = [
            destination.map(|(network, _)| (libc::RTA_DST, octets(network))),
            gateway.map(|gateway| (libc::RTA_GATEWAY, octets(gateway))),
            Some((libc::RTA_OIF, index.to_ne_bytes().to_vec())),
        ];
        self.request(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, message, attributes.into_iter().flatten())
    }

    fn request(
        &self,
        kind: u16,
        flags: u16,
        mut message: Vec<u8>,
        attributes: impl IntoIterator<Item = (u16, Vec<u8>)>,
    ) -> io::Result<()> {
        let attributes: Vec<DefaultNla> =
            attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect();
        let at = message.len();
        message.resize(at + attributes.as_slice().buffer_len(), 0);
        attributes.as_slice().emit(&mut message[at..]);
        let length = HEADER_BYTES + u32::try_from(message.len()).expect("a short request");
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        // Number and sender: there is one request at a time, and the kernel knows who asks.
        bytes.extend([1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat());
        bytes.extend(message);
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
