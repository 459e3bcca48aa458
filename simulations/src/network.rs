//! The network: which messages arrive, when, and how often.

use std::collections::BTreeMap;

use bulkhead_types::MemberId;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::message::Body;
use crate::options::NetworkOptions;
use crate::rng::Rng;

/// A place that sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// A server.
    Server(MemberId),
    /// A node with its agent.
    Agent(u32),
    /// A client.
    Client(u32),
    /// The simulation itself: it only appears in traces.
    World,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Server(member) => format!("server-{member}"),
            Self::Agent(number) => format!("node-{number}"),
            Self::Client(number) => format!("client-{number}"),
            Self::World => "world".to_owned(),
        };
        f.pad(&text)
    }
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Who sent it.
    pub from: Host,
    /// Who should get it.
    pub to: Host,
    /// What it says.
    pub body: Body,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetworkCounts {
    /// Never arrived.
    pub dropped: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Took much longer.
    pub delayed: u64,
    /// Ran into a partition.
    pub blocked: u64,
    /// Waited until a host was reachable again.
    pub clogged: u64,
}

/// Between whom nothing gets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// One host is not heard, does not hear, or both.
    Isolate {
        /// Which.
        host: Host,
        /// Nobody hears it.
        mute: bool,
        /// It hears nobody.
        deaf: bool,
    },
    /// These on one side, everybody else on the other.
    Split {
        /// One side.
        side: Vec<Host>,
    },
    /// Two hosts do not hear each other.
    Pair {
        /// One.
        one: Host,
        /// The other.
        other: Host,
    },
    /// Servers hear only their neighbours in this order: a bridge of three, a ring of majorities of five.
    Neighbours {
        /// The order.
        order: Vec<MemberId>,
    },
    /// A server and its peers do not hear each other; agents and clients still reach it. If it leads, it goes on
    /// to take what they ask for until it notices.
    Peers {
        /// Which.
        member: MemberId,
    },
}

impl Cut {
    fn blocks(&self, from: Host, to: Host) -> bool {
        match self {
            Self::Isolate { host, mute, deaf } => {
                from != to && ((*mute && from == *host) || (*deaf && to == *host))
            }
            Self::Split { side } => side.contains(&from) != side.contains(&to),
            Self::Peers { member } => match (from, to) {
                (Host::Server(from), Host::Server(to)) => from != to && (from == *member || to == *member),
                _ => false,
            },
            Self::Pair { one, other } => (from, to) == (*one, *other) || (to, from) == (*one, *other),
            Self::Neighbours { order } => {
                let place = |host| match host {
                    Host::Server(member) => order.iter().position(|m| *m == member),
                    _ => None,
                };
                let (Some(a), Some(b)) = (place(from), place(to)) else { return false };
                let apart = a.abs_diff(b);
                apart > 1 && (order.len() < 4 || apart + 1 != order.len())
            }
        }
    }
}

/// While it lasts, what a host sends and is sent is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clog {
    host: Host,
    from_us: Micros,
    until_us: Micros,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    options: NetworkOptions,
    seed: u64,
    /// A stream for each direction of each pair: what happens on one of them changes nothing on the others.
    links: BTreeMap<(Host, Host), Rng>,
    /// Partitions, by number.
    cuts: BTreeMap<u64, Cut>,
    next_cut: u64,
    clogs: Vec<Clog>,
    /// What became of messages.
    pub counts: NetworkCounts,
}

impl Network {
    /// A network as the options want it.
    #[must_use]
    pub(crate) fn new(options: NetworkOptions, seed: u64) -> Self {
        Self {
            options,
            seed,
            links: BTreeMap::new(),
            cuts: BTreeMap::new(),
            next_cut: 0,
            clogs: Vec::new(),
            counts: NetworkCounts::default(),
        }
    }

    /// Sends a packet: when it arrives, and when a copy of it does.
    pub(crate) fn send(&mut self, now_us: Micros, packet: &Packet) -> (Option<Micros>, Option<Micros>) {
        let (from, to) = (packet.from, packet.to);
        if self.is_blocked(from, to) {
            self.counts.blocked += 1;
            return (None, None);
        }
        let Self { options, seed, links, counts, .. } = self;
        let link = links.entry((from, to)).or_insert_with(|| Rng::link(*seed, from, to));
        let is_lost = link.chance(options.drop_permille);
        if is_lost && !packet.body.is_in_stream() {
            counts.dropped += 1;
            return (None, None);
        }
        // What a stream loses is sent again by its transport.
        let again_us = if is_lost { link.range(0, options.delay_us_max) } else { 0 };
        let copy_us = (packet.body.may_be_repeated() && link.chance(options.duplicate_permille)).then(|| {
            counts.duplicated += 1;
            now_us + latency_us(options, link, counts)
        });
        let at_us = now_us + latency_us(options, link, counts) + again_us;
        (Some(self.held_back(from, to, at_us)), copy_us.map(|copy_us| self.held_back(from, to, copy_us)))
    }

    /// When a message that would arrive at `at_us` does, with both its ends reachable.
    fn held_back(&mut self, from: Host, to: Host, at_us: Micros) -> Micros {
        let mut arrives_us = at_us;
        for clog in &self.clogs {
            if (clog.host == from || clog.host == to) && (clog.from_us..clog.until_us).contains(&at_us) {
                // Their order stays: what would have come later still does.
                arrives_us = arrives_us.max(clog.until_us + (at_us - clog.from_us) / 1000);
            }
        }
        self.counts.clogged += u64::from(arrives_us > at_us);
        arrives_us
    }

    /// Whether a message that arrives now gets through.
    #[must_use]
    pub(crate) fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.cuts.values().any(|cut| cut.blocks(from, to))
    }

    /// A message on its way ran into a partition.
    pub(crate) fn count_blocked(&mut self) {
        self.counts.blocked += 1;
    }

    /// Begins a partition, and returns its number.
    pub(crate) fn cut(&mut self, cut: Cut) -> u64 {
        self.next_cut += 1;
        self.cuts.insert(self.next_cut, cut);
        self.next_cut
    }

    /// Ends a partition.
    pub(crate) fn heal(&mut self, number: u64) {
        self.cuts.remove(&number);
    }

    /// Holds back everything from and to a host for a while.
    pub(crate) fn clog(&mut self, now_us: Micros, host: Host, from_us: Micros, until_us: Micros) {
        self.clogs.retain(|clog| clog.until_us > now_us);
        self.clogs.push(Clog { host, from_us, until_us });
    }

    /// No message is lost, repeated or held up from now on.
    pub(crate) fn become_reliable(&mut self) {
        self.cuts.clear();
        self.clogs.clear();
        self.options.drop_permille = 0;
        self.options.duplicate_permille = 0;
        self.options.delay_permille = 0;
    }
}

fn latency_us(options: &NetworkOptions, link: &mut Rng, counts: &mut NetworkCounts) -> u64 {
    let usual = link.range(options.latency_us_min, options.latency_us_max);
    if link.chance(options.delay_permille) {
        counts.delayed += 1;
        return usual + link.range(0, options.delay_us_max);
    }
    usual
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::server::PeerMessage;

    fn packet(from: u64, to: u64) -> Packet {
        let (from, to) = (Host::Server(MemberId(from)), Host::Server(MemberId(to)));
        Packet { from, to, body: Body::Peer(PeerMessage::Removed) }
    }

    fn network(drop_permille: u64, duplicate_permille: u64) -> Network {
        let options = NetworkOptions {
            latency_us_min: 10,
            latency_us_max: 20,
            drop_permille,
            duplicate_permille,
            delay_permille: 0,
            delay_us_max: 0,
        };
        Network::new(options, 1)
    }

    fn arrivals(network: &mut Network, packet: &Packet) -> usize {
        let (first, second) = network.send(0, packet);
        usize::from(first.is_some()) + usize::from(second.is_some())
    }

    #[test]
    fn rates_are_kept() {
        let all =
            |mut network: Network| (0..1000).map(|_| arrivals(&mut network, &packet(1, 2))).sum::<usize>();
        assert_eq!(all(network(0, 0)), 1000);
        assert_eq!(all(network(1000, 0)), 0);
        assert_eq!(all(network(0, 1000)), 2000);
        assert!((450..550).contains(&all(network(500, 0))));
    }

    #[test]
    fn a_one_way_partition_blocks_one_way_and_ends() {
        let mut network = network(0, 0);
        let host = Host::Server(MemberId(1));
        let number = network.cut(Cut::Isolate { host, mute: true, deaf: false });
        assert_eq!(arrivals(&mut network, &packet(1, 2)), 0);
        assert_eq!(arrivals(&mut network, &packet(2, 1)), 1);
        network.heal(number);
        assert_eq!(arrivals(&mut network, &packet(1, 2)), 1);
    }

    #[test]
    fn in_a_ring_everybody_hears_two_and_on_a_bridge_only_the_middle_does() {
        let hears = |count: u64, to: u64| {
            let mut network = network(0, 0);
            network.cut(Cut::Neighbours { order: (1..=count).map(MemberId).collect() });
            (1..=count).filter(|m| *m != to && arrivals(&mut network, &packet(*m, to)) == 1).count()
        };
        assert_eq!([1, 2, 3].map(|to| hears(3, to)), [1, 2, 1]);
        assert_eq!([1, 2, 3, 4, 5].map(|to| hears(5, to)), [2; 5]);
    }

    #[test]
    fn a_server_without_its_peers_is_still_reached_from_outside() {
        let mut network = network(0, 0);
        network.cut(Cut::Peers { member: MemberId(2) });
        let hears = [packet(1, 2), packet(2, 3), packet(1, 3)].map(|p| arrivals(&mut network, &p));
        assert_eq!(hears, [0, 0, 1]);
        let (agent, server) = (Host::Agent(0), Host::Server(MemberId(2)));
        assert!(!network.is_blocked(agent, server) && !network.is_blocked(server, agent));
    }

    #[test]
    fn a_clog_holds_back_and_keeps_the_order() {
        let mut network = network(0, 0);
        network.clog(0, Host::Server(MemberId(2)), 5, 5000);
        let (first, _) = network.send(0, &packet(1, 2));
        let (second, _) = network.send(4000, &packet(2, 3));
        let (elsewhere, _) = network.send(0, &packet(1, 3));
        assert!(first.is_some_and(|at| at >= 5000) && first < second, "{first:?} {second:?}");
        assert!(elsewhere.is_some_and(|at| at <= 20));
    }
}
