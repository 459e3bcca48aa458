//! A node that never comes back, as far as the cluster can tell: when the faults end it is lost, and the cluster must come
//! to rest without it. Only then it is found again.

use bulkhead_types::ObjectId;

use crate::network::{Cut, Host};
use crate::options::Lost;
use crate::workload::node_name;
use crate::world::World;

/// The node that is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostNode {
    agent: u32,
    how: Lost,
    /// Its place among the network's cuts.
    cut: u64,
}

impl LostNode {
    /// Whether a node's agent cannot be started.
    pub(crate) fn keeps_down(self, agent: u32) -> bool {
        self.agent == agent && self.how != Lost::CutOff
    }
}

impl World {
    /// A node is lost, if that is what the seed says.
    pub(crate) fn lose_node(&mut self) {
        let Some(how) = self.options.lost else { return };
        let agent = (self.options.seed % u64::from(self.options.agents)) as u32;
        self.note(Host::Agent(agent), "lost for good", how as u128, || format!("{how:?}"));
        let cut = self.network.cut(Cut::Isolate { host: Host::Agent(agent), mute: true, deaf: true });
        match how {
            Lost::CutOff => {}
            Lost::AgentDead => _ = self.crash_agent(agent, 0),
            Lost::Off => _ = self.reboot_node(agent, 0),
        }
        self.lost = Some(LostNode { agent, how, cut });
    }

    /// The node that was lost is found, if there is one: the cluster must come to rest once more.
    pub(crate) fn find_node(&mut self) -> bool {
        let Some(lost) = self.lost.take() else { return false };
        self.note(Host::Agent(lost.agent), "found", 0, String::new);
        self.network.heal(lost.cut);
        self.start_agent(lost.agent);
        self.calm_since_us = None;
        true
    }

    /// The key of the node that is lost, if it ever had one.
    pub(crate) fn lost_node(&self) -> Option<ObjectId> {
        let name = node_name(self.lost?.agent);
        self.chronicle.state().find(bulkhead_types::Kind::Node, None, &name)
    }
}
