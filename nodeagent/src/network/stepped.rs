//! A host whose changes are steps: see [`crate::steps`].

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{HostNetwork, InUse, Link};
use crate::steps::{Step, passed};

/// A host of which every change that it makes is a step.
#[derive(Debug)]
pub(super) struct Stepped(Arc<dyn HostNetwork>);

impl Stepped {
    pub(super) fn new(host: Arc<dyn HostNetwork>) -> Self {
        Self(host)
    }
}

/// A change that was made, or not.
fn done(step: Step, outcome: io::Result<()>) -> io::Result<()> {
    passed(step);
    outcome
}

impl HostNetwork for Stepped {
    fn links(&self) -> io::Result<Vec<Link>> {
        self.0.links()
    }

    fn networks(&self) -> io::Result<Vec<InUse>> {
        self.0.networks()
    }

    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()> {
        done(Step::BridgeAdded, self.0.add_bridge(name, mac))
    }

    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        done(Step::AddressAdded, self.0.add_address(link, address, prefix_len))
    }

    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        done(Step::AddressRemoved, self.0.remove_address(link, address, prefix_len))
    }

    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()> {
        done(Step::BridgeUp, self.0.bring_up(link, mtu))
    }

    fn add_tap(&self, name: &str) -> io::Result<()> {
        done(Step::TapAdded, self.0.add_tap(name))
    }

    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()> {
        done(Step::TapAttached, self.0.attach(tap, bridge, mtu))
    }

    fn remove(&self, link: &str) -> io::Result<()> {
        done(Step::LinkRemoved, self.0.remove(link))
    }

    fn forward(&self) -> io::Result<()> {
        done(Step::HostForwards, self.0.forward())
    }

    fn set_rules(&self, rules: &str) -> io::Result<()> {
        done(Step::RulesSet, self.0.set_rules(rules))
    }

    fn check_rules(&self, rules: &str) -> io::Result<()> {
        self.0.check_rules(rules)
    }

    fn to_open(&self, tap: String) -> Option<String> {
        self.0.to_open(tap)
    }
}
