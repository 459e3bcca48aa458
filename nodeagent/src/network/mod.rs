//! The guests' network on this host: one bridge for the agent, one tap for each guest, one ruleset for all of them.
//!
//! ```text
//!  open ─► bridge with the gateway's address        attach ─► tap ─► rules ─► on the bridge, up
//!  recover ─► taps of no guest go, rules as they    release ─► tap goes ─► rules
//!             shall be                              what waits for its turn is done together, with one telling of the rules
//! ```
//! What is there is found by name ([`LinkNames`]) and compared with what should be: nothing is remembered. A tap that no rule
//! knows of can send nothing, so whatever fails in between lets nobody out. What is called what and which rules there are is in
//! the core; what the host does is behind [`HostNetwork`].

mod batch;
mod changes;
#[cfg(test)]
mod fake;
mod host;
mod kernel;
pub(crate) mod netlink;
mod nft;
mod options;
mod stepped;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_nodeagent_core::TAP_FD;
use bulkhead_nodeagent_core::network::{LinkNames, PodRange, Resolver, Ruleset, TapAddress, mac_of};
use bulkhead_types::{ObjectId, PodBandwidth};
use thiserror::Error;

use crate::vm::session::reserve;

pub(crate) use batch::Change;
pub use host::{HostNetwork, InUse, Link};
pub(crate) use kernel::KernelNetwork;
pub use options::{NetworkChoice, NetworkOptions};

/// MTU of the bridge where the host's default route has none (Ethernet's), in bytes.
const MTU_DEFAULT: u32 = 1500;

/// A step that the host did not do.
#[derive(Debug, Error)]
#[error("cannot {step}: {source}{remedy}")]
pub(crate) struct StepError {
    step: String,
    source: io::Error,
    remedy: &'static str,
}

impl StepError {
    fn new(step: impl Into<String>, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "; run the agent as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
            }
            _ => "",
        };
        Self { step: step.into(), source, remedy }
    }

    fn refused(step: impl Into<String>, why: String) -> Self {
        Self::new(step, io::Error::other(why))
    }
}

/// Names the step that failed.
trait At<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|source| StepError::new(step(), source))
    }
}

/// What connects a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The tap, which is the guest's alone.
    pub(crate) tap: String,
    /// Of the guest's card.
    pub(crate) mac: String,
    /// The guest's address with its prefix length, as `10.128.7.2/24`.
    pub(crate) cidr: String,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// The network of one agent's guests. Calls block.
#[derive(Debug)]
pub(crate) struct Network {
    host: Arc<dyn HostNetwork>,
    names: LinkNames,
    range: PodRange,
    mtu: u32,
    egress: bool,
    /// What guests are told of names.
    pub(crate) resolver: Resolver,
    /// The guests that there are. Held while links and rules change: one at a time.
    guests: Mutex<Guests>,
    /// What waits to be changed.
    queue: batch::Queue,
    /// The limits that the packet filter was told of last, by this life of the agent.
    rates: Mutex<Option<String>>,
}

/// What the network knows of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestCard {
    /// The guest's address.
    pub(crate) address: Ipv4Addr,
    /// How fast it may send and receive.
    pub(crate) bandwidth: PodBandwidth,
}

/// The cards of guests, by pod and instance.
type Guests = BTreeMap<(ObjectId, u32), GuestCard>;

impl Network {
    /// That of a host, and what an operator should know of it; nothing when there is to be none.
    pub(crate) fn of_host(
        host: Arc<dyn HostNetwork>,
        options: &NetworkOptions,
        key: u32,
    ) -> Result<Option<(Self, Vec<String>)>, StepError> {
        if options.choice == NetworkChoice::None {
            return Ok(None);
        }
        reserve(TAP_FD).at(|| format!("keep descriptor {TAP_FD} free (ulimit -n must be larger)"))?;
        let resolver = options.resolver();
        let mut problems = Vec::new();
        if resolver.nameservers.is_empty() {
            problems.push(format!(
                "guests have no name servers: {} has none that they can reach; say with --cluster-dns whom they ask",
                options.resolv_conf.display()
            ));
        }
        let network =
            Self::open(Arc::new(stepped::Stepped::new(host)), LinkNames::new(key), options, resolver)?;
        Ok(Some((network, problems)))
    }

    /// Makes the bridge, or finds it as an earlier life of the agent left it. What it cannot make whole it takes away again.
    pub(crate) fn open(
        host: Arc<dyn HostNetwork>,
        names: LinkNames,
        options: &NetworkOptions,
        resolver: Resolver,
    ) -> Result<Self, StepError> {
        let bridge = names.bridge();
        let links = host.links().at(|| "list the host's links".to_owned())?;
        let found = links.iter().find(|link| link.name == bridge);
        let in_use = host.networks().at(|| "list the host's addresses and routes".to_owned())?;
        let range = choose_range(names, options.pod_cidr, found, &links, &in_use)?;
        let network = Self {
            mtu: options.mtu.unwrap_or_else(|| mtu_of_default_route(&links, &in_use)),
            egress: options.egress,
            guests: Mutex::default(),
            queue: batch::Queue::default(),
            rates: Mutex::default(),
            host,
            names,
            range,
            resolver,
        };
        let was_there = found.is_some();
        network.make_bridge(found).inspect_err(|_| {
            if !was_there {
                let _ = network.host.remove(&bridge);
            }
        })?;
        Ok(network)
    }

    fn make_bridge(&self, found: Option<&Link>) -> Result<(), StepError> {
        let bridge = self.names.bridge();
        let (gateway, prefix_len) = (self.range.gateway(), self.range.prefix_len());
        // Rules that the kernel does not take must not be found out with the first guest.
        let rules = self.ruleset(&Guests::new()).replace();
        self.host.check_rules(&rules).at(|| "check the rules of the packet filter".to_owned())?;
        if found.is_none() {
            self.host.add_bridge(&bridge, &mac_of(gateway)).at(|| format!("add the bridge {bridge}"))?;
        }
        for (address, len) in found.iter().flat_map(|link| &link.addresses) {
            if (*address, *len) != (gateway, prefix_len) {
                self.host
                    .remove_address(&bridge, *address, *len)
                    .at(|| format!("take {address}/{len} from {bridge}"))?;
            }
        }
        if !found.is_some_and(|link| link.addresses.contains(&(gateway, prefix_len))) {
            self.host
                .add_address(&bridge, gateway, prefix_len)
                .at(|| format!("give {gateway}/{prefix_len} to {bridge}"))?;
        }
        self.host.bring_up(&bridge, self.mtu).at(|| format!("bring up {bridge}"))?;
        if self.egress {
            self.host.forward().at(|| "let the host forward packets (net.ipv4.ip_forward)".to_owned())?;
        }
        if found.is_none() {
            self.host.set_rules(&rules).at(|| "set the rules of the packet filter".to_owned())?;
        }
        Ok(())
    }

    /// The addresses of guests.
    pub(crate) fn range(&self) -> PodRange {
        self.range
    }

    /// Takes over the guests that live, each with its card: taps of no guest go, those of guests are brought where they shall
    /// be. A tap that is gone cannot be made again under its guest: those are the answer, for the log.
    pub(crate) fn recover(&self, live: &[(ObjectId, u32, GuestCard)]) -> Result<Vec<String>, StepError> {
        let mut guests = self.guests();
        *guests = live.iter().map(|(pod, instance, card)| ((*pod, *instance), *card)).collect();
        let taps: Vec<String> = guests.keys().map(|guest| self.tap(*guest)).collect();
        let links = self.host.links().at(|| "list the host's links".to_owned())?;
        let own = links.iter().filter(|link| link.name.starts_with(&self.names.tap_prefix()));
        for link in own.filter(|link| !taps.contains(&link.name)) {
            self.host.remove(&link.name).at(|| format!("remove the tap {}", link.name))?;
        }
        self.set_rules(&guests).at(|| "set the rules of the packet filter".to_owned())?;
        let mut lost = Vec::new();
        let bridge = self.names.bridge();
        for tap in taps {
            match links.iter().find(|link| link.name == tap) {
                None => lost.push(tap),
                Some(link) if link.is_up && link.bridge.as_deref() == Some(&bridge) => {}
                Some(_) => {
                    self.host.attach(&tap, &bridge, self.mtu).at(|| format!("attach {tap} to {bridge}"))?;
                }
            }
        }
        Ok(lost)
    }

    /// What a guest's process opens to be connected by its tap.
    pub(crate) fn to_open(&self, tap: String) -> Option<String> {
        self.host.to_open(tap)
    }

    /// What connects a guest, whether it is there or not.
    pub(crate) fn connection(&self, pod: ObjectId, instance: u32, address: Ipv4Addr) -> Connection {
        Connection {
            tap: self.tap((pod, instance)),
            mac: mac_of(address),
            cidr: format!("{address}/{}", self.range.prefix_len()),
            gateway: self.range.gateway(),
            mtu: self.mtu,
        }
    }

    fn tap(&self, (pod, instance): (ObjectId, u32)) -> String {
        self.names.tap(pod, instance)
    }

    /// Takes away the bridge when no guest is on it: the agent ends, and guests that live stay connected.
    pub(crate) fn close(&self) -> Result<(), StepError> {
        let guests = self.guests();
        if guests.is_empty() {
            let bridge = self.names.bridge();
            self.host.remove(&bridge).at(|| format!("remove the bridge {bridge}"))?;
            let rules = Ruleset::remove(self.names);
            self.host.set_rules(&rules).at(|| "remove the rules of the packet filter".to_owned())?;
        }
        Ok(())
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ruleset(&self, guests: &Guests) -> Ruleset {
        let guest = |(guest, card): (&(ObjectId, u32), &GuestCard)| TapAddress {
            tap: self.tap(*guest),
            address: card.address,
            bandwidth: card.bandwidth,
        };
        Ruleset {
            names: self.names,
            range: self.range,
            egress: self.egress,
            nameservers: self.resolver.nameservers.clone(),
            guests: guests.iter().map(guest).collect(),
        }
    }

    fn set_rules(&self, guests: &Guests) -> io::Result<()> {
        let ruleset = self.ruleset(guests);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rules, wanted) = (ruleset.replace(), ruleset.replace_rates());
        // Limits that stay are left alone, or whoever is limited had another burst with every guest that comes and goes.
        if rates.as_deref() != Some(&wanted) {
            rules.push_str(&wanted);
        }
        self.host.set_rules(&rules).inspect_err(|error| {
            // Nobody knows which there are.
            if error.kind() == io::ErrorKind::TimedOut {
                *rates = None;
            }
        })?;
        *rates = Some(wanted);
        Ok(())
    }
}

/// The range that was asked for, or the one that the bridge has, or one that nobody uses.
fn choose_range(
    names: LinkNames,
    wanted: Option<PodRange>,
    found: Option<&Link>,
    links: &[Link],
    in_use: &[InUse],
) -> Result<PodRange, StepError> {
    let bridge = names.bridge();
    let others: Vec<_> = in_use.iter().filter(|one| one.link != bridge).collect();
    let networks: Vec<_> = others.iter().map(|one| one.network).collect();
    let present = found.into_iter().flat_map(|link| &link.addresses).find_map(|(address, len)| {
        let block = bulkhead_nodeagent_core::network::Ipv4Network::around(*address, *len)?;
        block.to_string().parse::<PodRange>().ok()
    });
    let range = match wanted.or(present) {
        Some(range) => range,
        None => PodRange::choose(names.key(), &networks).ok_or_else(|| {
            let why = "the host uses some of each: say with --pod-cidr which one is free".to_owned();
            StepError::refused("find a range of addresses for guests below 10.128.0.0/9", why)
        })?,
    };
    let step = || format!("give guests addresses of {range}");
    if let Some(conflict) = range.conflict(&networks) {
        let whose = others.iter().find(|one| one.network == conflict).map_or("", |one| one.link.as_str());
        let why = format!("{conflict} of {whose} overlaps it: choose another --pod-cidr");
        return Err(StepError::refused(step(), why));
    }
    let is_busy = links.iter().any(|link| link.bridge.as_deref() == Some(&bridge));
    match present.filter(|present| *present != range && is_busy) {
        Some(present) => {
            let why =
                format!("guests have addresses of {present}: end them first, or keep --pod-cidr {present}");
            Err(StepError::refused(step(), why))
        }
        None => Ok(range),
    }
}

/// The address of `host:port`, for the node's own; of a name the first that it has.
pub(crate) fn ip_of(address: &str) -> Option<IpAddr> {
    let found = address.to_socket_addrs().ok()?.next()?;
    Some(found.ip()).filter(|ip| !ip.is_unspecified())
}

fn mtu_of_default_route(links: &[Link], in_use: &[InUse]) -> u32 {
    let default = in_use.iter().find(|one| one.network.is_everything());
    let link = default.and_then(|one| links.iter().find(|link| link.name == one.link));
    link.map_or(MTU_DEFAULT, |link| link.mtu).clamp(options::MTU_MIN, options::MTU_MAX)
}
