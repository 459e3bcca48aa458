//! A host in memory, of which any step can be made to fail.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_nodeagent_core::network::Ipv4Network;
use rustix::io::Errno;

use super::{HostNetwork, InUse, Link};

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<String, Link>,
    routes: Vec<InUse>,
    rules: String,
    /// How often rules were to be set.
    rules_set: usize,
    /// Rules with this are not taken.
    refused: Option<String>,
    /// Whoever sets rules panics, once.
    is_deadly: bool,
    forwards: bool,
    /// Calls that are made before one fails.
    calls_left: Option<usize>,
    /// Calls that are made before nobody lives to make another.
    life: Option<usize>,
    calls: usize,
}

/// The fake.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeNetwork(Arc<Mutex<State>>);

impl FakeNetwork {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change, which is the one that fails when its turn has come; all others go on, as they would on a host.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.calls += 1;
        match state.life {
            Some(0) => return Err(io::Error::other("the agent is dead")),
            life => state.life = life.map(|left| left - 1),
        }
        match state.calls_left {
            Some(0) => {
                state.calls_left = None;
                Err(io::Error::other("injected"))
            }
            left => {
                state.calls_left = left.map(|left| left - 1);
                Ok(state)
            }
        }
    }

    /// Lets the change after so many others fail.
    pub(super) fn fail_after(&self, changes: usize) {
        self.state().calls_left = Some(changes);
    }

    /// Whoever makes so many changes makes no other one.
    pub(super) fn die_after(&self, changes: usize) {
        self.state().life = Some(changes);
    }

    /// Somebody else goes on.
    pub(super) fn live(&self) {
        self.state().life = None;
    }

    /// Whether a failure is still to come.
    pub(super) fn has_failed(&self) -> bool {
        self.state().calls_left.is_none()
    }

    /// A route that the host has.
    pub(super) fn route(&self, network: Ipv4Network, link: &str) {
        self.state().routes.push(InUse { network, link: link.to_owned() });
    }

    pub(super) fn rules(&self) -> String {
        self.state().rules.clone()
    }

    /// How often rules were to be set, since this was asked last.
    pub(super) fn rules_set(&self) -> usize {
        std::mem::take(&mut self.state().rules_set)
    }

    /// Takes no rules any more with this in them.
    pub(super) fn refuse(&self, word: &str) {
        self.state().refused = Some(word.to_owned());
    }

    /// Lets whoever sets rules next panic.
    pub(super) fn be_deadly(&self) {
        self.state().is_deadly = true;
    }

    pub(super) fn forwards(&self) -> bool {
        self.state().forwards
    }
}

fn missing() -> io::Error {
    Errno::NODEV.into()
}

impl HostNetwork for FakeNetwork {
    fn links(&self) -> io::Result<Vec<Link>> {
        Ok(self.state().links.values().cloned().collect())
    }

    fn networks(&self) -> io::Result<Vec<InUse>> {
        let state = self.state();
        let own = state.links.values().flat_map(|link| {
            let network = |(address, len): &(Ipv4Addr, u8)| Ipv4Network::around(*address, *len);
            link.addresses
                .iter()
                .filter_map(network)
                .map(|network| InUse { network, link: link.name.clone() })
        });
        Ok(own.chain(state.routes.iter().cloned()).collect())
    }

    fn add_bridge(&self, name: &str, _mac: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let link = Link { name: name.to_owned(), mtu: 1500, ..Link::default() };
        match state.links.insert(name.to_owned(), link) {
            Some(_) => Err(Errno::EXIST.into()),
            None => Ok(()),
        }
    }

    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let mut state = self.change()?;
        let link = state.links.get_mut(link).ok_or_else(missing)?;
        if link.addresses.contains(&(address, prefix_len)) {
            return Err(Errno::EXIST.into());
        }
        link.addresses.push((address, prefix_len));
        Ok(())
    }

    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let mut state = self.change()?;
        let link = state.links.get_mut(link).ok_or_else(missing)?;
        link.addresses.retain(|one| *one != (address, prefix_len));
        Ok(())
    }

    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()> {
        let mut state = self.change()?;
        let link = state.links.get_mut(link).ok_or_else(missing)?;
        (link.is_up, link.mtu) = (true, mtu);
        Ok(())
    }

    fn add_tap(&self, name: &str) -> io::Result<()> {
        let mut state = self.change()?;
        // One that is there is opened, and let go.
        let link = Link { name: name.to_owned(), mtu: 1500, ..Link::default() };
        state.links.entry(name.to_owned()).or_insert(link);
        Ok(())
    }

    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()> {
        let mut state = self.change()?;
        if !state.links.contains_key(bridge) {
            return Err(missing());
        }
        if !state.rules.contains(tap) {
            return Err(io::Error::other("a tap on the bridge that no rule knows of"));
        }
        let link = state.links.get_mut(tap).ok_or_else(missing)?;
        (link.is_up, link.mtu, link.bridge) = (true, mtu, Some(bridge.to_owned()));
        Ok(())
    }

    fn remove(&self, link: &str) -> io::Result<()> {
        let mut state = self.change()?;
        state.links.remove(link);
        for other in state.links.values_mut() {
            other.bridge.take_if(|bridge| bridge == link);
        }
        Ok(())
    }

    fn forward(&self) -> io::Result<()> {
        self.change()?.forwards = true;
        Ok(())
    }

    fn set_rules(&self, rules: &str) -> io::Result<()> {
        let mut state = self.change()?;
        state.rules_set += 1;
        let is_deadly = std::mem::take(&mut state.is_deadly);
        assert!(!is_deadly, "it was to be deadly");
        if state.refused.as_deref().is_some_and(|word| rules.contains(word)) {
            return Err(io::Error::other("the kernel knows no such rule"));
        }
        state.rules = rules.to_owned();
        Ok(())
    }

    fn check_rules(&self, _rules: &str) -> io::Result<()> {
        self.change().map(|_| ())
    }
}
