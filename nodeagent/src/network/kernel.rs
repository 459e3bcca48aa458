//! The host's kernel: rtnetlink for links and addresses, `/dev/net/tun` for taps, the program `nft` for the packet filter.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use bulkhead_nodeagent_core::network::Ipv4Network;
use futures::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Error, Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::{HostNetwork, InUse, Link};
use crate::vm::session::{open_tap, persist_tap};

/// The packet filter's program.
const NFT: &str = "nft";
/// Whether the host forwards packets.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The network namespace of the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelNetwork;

impl HostNetwork for KernelNetwork {
    fn links(&self) -> io::Result<Vec<Link>> {
        talk(async |handle| {
            let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
            let addresses = addresses(&handle).await?;
            let links = messages.iter().map(|message| {
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
            });
            Ok(links.collect())
        })
    }

    fn networks(&self) -> io::Result<Vec<InUse>> {
        talk(async |handle| {
            let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
            let name = |index: u32| {
                let link = links.iter().find(|link| link.header.index == index);
                link.map(|link| described(link).name).unwrap_or_default()
            };
            let route = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let routes: Vec<RouteMessage> = handle.route().get(route).execute().try_collect().await?;
            let mut found: Vec<InUse> = routes
                .iter()
                .filter_map(|route| {
                    let (network, index) = destination(route)?;
                    Some(InUse { network, link: name(index) })
                })
                .collect();
            for message in addresses(&handle).await? {
                let network = local(&message).and_then(|(address, len)| Ipv4Network::around(address, len));
                found.extend(network.map(|network| InUse { network, link: name(message.header.index) }));
            }
            Ok(found)
        })
    }

    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()> {
        let mac = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let mac: Vec<u8> = mac.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let message = LinkBridge::new(name).address(mac).build();
        talk(async |handle| handle.link().add(message.clone()).execute().await)
    }

    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        talk(async |handle| {
            let index = index_of(&handle, link).await?;
            handle.address().add(index, IpAddr::V4(address), prefix_len).execute().await
        })
    }

    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        talk(async |handle| {
            let index = index_of(&handle, link).await?;
            let is_it =
                |one: &AddressMessage| one.header.index == index && local(one) == Some((address, prefix_len));
            match addresses(&handle).await?.into_iter().find(is_it) {
                Some(message) => handle.address().del(message).execute().await,
                None => Ok(()),
            }
        })
    }

    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_name(link).mtu(mtu).up().build();
        talk(async |handle| handle.link().set(message.clone()).execute().await)
    }

    fn add_tap(&self, name: &str) -> io::Result<()> {
        let name = CString::new(name).map_err(io::Error::other)?;
        Ok(persist_tap(&open_tap(&name)?)?)
    }

    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()> {
        talk(async |handle| {
            let index = index_of(&handle, bridge).await?;
            let message = LinkUnspec::new_with_name(tap).mtu(mtu).controller(index).up().build();
            handle.link().set(message).execute().await
        })
    }

    fn remove(&self, link: &str) -> io::Result<()> {
        let removed = talk(async |handle| {
            let index = index_of(&handle, link).await?;
            handle.link().del(index).execute().await
        });
        match removed {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    fn forward(&self) -> io::Result<()> {
        // Where the file system is read-only somebody else may have said so already.
        if fs::read_to_string(IP_FORWARD)?.trim() == "1" {
            return Ok(());
        }
        fs::write(IP_FORWARD, "1")
    }

    fn set_rules(&self, rules: &str) -> io::Result<()> {
        nft(&["-f", "-"], rules)
    }

    fn check_rules(&self, rules: &str) -> io::Result<()> {
        nft(&["-c", "-f", "-"], rules)
    }
}

/// Has a conversation with the kernel, from the network namespace of this thread.
fn talk<T>(work: impl AsyncFnOnce(Handle) -> Result<T, Error>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result.map_err(|error| match error {
            Error::NetlinkError(error) => error.to_io(),
            other => io::Error::other(other),
        })
    })
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, Error> {
    let link = handle.link().get().match_name(name.to_owned()).execute().try_next().await?;
    // The kernel says so itself when there is none.
    link.map(|link| link.header.index).ok_or(Error::RequestFailed)
}

async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>, Error> {
    let all: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    Ok(all.into_iter().filter(|one| one.header.family == AddressFamily::Inet).collect())
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

fn nft(args: &[&str], rules: &str) -> io::Result<()> {
    let mut command = Command::new(NFT);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "nft is missing; run: apt-get install nftables")
        }
        _ => error,
    })?;
    // One that does not read it says why.
    let _ = child.stdin.take().expect("it is piped").write_all(rules.as_bytes());
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    let said = format!("nft ended with {}: {}", output.status, said.join(" "));
    match said.contains("Operation not permitted") {
        true => Err(io::Error::new(io::ErrorKind::PermissionDenied, said)),
        false => Err(io::Error::other(said)),
    }
}
