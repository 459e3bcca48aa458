//! The network: which messages arrive, when, and how often.

use std::collections::BTreeSet;

use bulkhead_controlplane_core::server::PeerMessage;
use bulkhead_types::MemberId;

use crate::clock::Micros;
use crate::message::Body;
use crate::options::NetworkOptions;
use crate::rng::Rng;

/// A place that sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
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
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    options: NetworkOptions,
    rng: Rng,
    /// Directed pairs between which nothing gets through.
    blocked: BTreeSet<(Host, Host)>,
    /// What became of messages.
    pub counts: NetworkCounts,
}

impl Network {
    /// A network as the options want it.
    #[must_use]
    pub(crate) fn new(options: NetworkOptions, seed: u64) -> Self {
        Self {
            options,
            rng: Rng::child(seed, "network", 0),
            blocked: BTreeSet::new(),
            counts: NetworkCounts::default(),
        }
    }

    /// Sends a packet: when it arrives, each with its own copy.
    pub(crate) fn send(&mut self, now_us: Micros, packet: Packet) -> Vec<(Micros, Packet)> {
        if self.is_blocked(packet.from, packet.to) {
            self.counts.blocked += 1;
            return Vec::new();
        }
        let is_lost = self.rng.chance(self.options.drop_permille);
        if is_lost && !packet.body.is_in_stream() {
            self.counts.dropped += 1;
            return Vec::new();
        }
        // What a stream loses is sent again by its transport.
        let again_us = if is_lost { self.rng.range(0, self.options.delay_us_max) } else { 0 };
        let mut arrivals = Vec::with_capacity(1);
        if let Body::Peer(message) = &packet.body
            && self.rng.chance(self.options.duplicate_permille)
        {
            self.counts.duplicated += 1;
            let at_us = now_us + self.latency_us();
            arrivals.push((at_us, copy(&packet, message)));
        }
        arrivals.push((now_us + self.latency_us() + again_us, packet));
        arrivals
    }

    fn latency_us(&mut self) -> u64 {
        let usual = self.rng.range(self.options.latency_us_min, self.options.latency_us_max);
        if self.rng.chance(self.options.delay_permille) {
            self.counts.delayed += 1;
            return usual + self.rng.range(0, self.options.delay_us_max);
        }
        usual
    }

    /// Whether a message that arrives now gets through.
    #[must_use]
    pub(crate) fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// A message on its way ran into a partition.
    pub(crate) fn count_blocked(&mut self) {
        self.counts.blocked += 1;
    }

    /// Blocks directed pairs.
    pub(crate) fn block(&mut self, pairs: impl IntoIterator<Item = (Host, Host)>) {
        self.blocked.extend(pairs);
    }

    /// Lets everything through again.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    /// No message is lost, repeated or held up from now on.
    pub(crate) fn become_reliable(&mut self) {
        self.heal();
        self.options.drop_permille = 0;
        self.options.duplicate_permille = 0;
        self.options.delay_permille = 0;
    }
}

fn copy(packet: &Packet, message: &PeerMessage) -> Packet {
    Packet { from: packet.from, to: packet.to, body: Body::Peer(message.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        let (from, to) = (Host::Server(MemberId(1)), Host::Server(MemberId(2)));
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

    #[test]
    fn rates_are_kept() {
        let arrivals =
            |mut network: Network| (0..1000).map(|_| network.send(0, packet()).len()).sum::<usize>();
        assert_eq!(arrivals(network(0, 0)), 1000);
        assert_eq!(arrivals(network(1000, 0)), 0);
        assert_eq!(arrivals(network(0, 1000)), 2000);
        assert!((450..550).contains(&arrivals(network(500, 0))));
    }

    #[test]
    fn a_one_way_partition_blocks_one_way() {
        let mut network = network(0, 0);
        let there = packet();
        let back = Packet { from: there.to, to: there.from, ..packet() };
        network.block([(there.from, there.to)]);
        assert!(network.send(0, there).is_empty());
        assert_eq!(network.send(0, back).len(), 1);
        network.heal();
        assert_eq!(network.send(0, packet()).len(), 1);
    }
}
