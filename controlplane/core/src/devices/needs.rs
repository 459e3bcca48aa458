//! What a pod asks for, as devices.

use std::collections::BTreeMap;

use bulkhead_types::{
    CORES_PER_CARD, Container, DEVICE_MEMORY_UNIT_BYTES, DEVICES_PER_POD_MAX, DeviceShare, PodSpec,
};
use smol_str::SmolStr;

use super::{Classes, ResourceRole};

/// So many devices for one container, all on one node, none of them twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) container: SmolStr,
    /// Whole devices, or shared ones.
    pub(crate) resource: SmolStr,
    pub(crate) count: u32,
    /// Of each shared device.
    pub(crate) share: Option<Share>,
}

/// What is asked of each shared device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    /// In bytes; all of its memory when unset.
    pub(crate) memory_bytes: Option<u64>,
    /// In per cent of a card.
    pub(crate) cores: u64,
}

impl Share {
    /// What that is on a card with so much memory.
    pub(crate) fn on(self, card_bytes: u64) -> DeviceShare {
        DeviceShare { memory_bytes: self.memory_bytes.unwrap_or(card_bytes), cores: self.cores }
    }
}

/// Everything that a pod asks for; the most demanding first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Needs {
    pub(crate) asks: Vec<Ask>,
}

/// Which container asks for what wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadNeed {
    pub(crate) container: SmolStr,
    pub(crate) resource: SmolStr,
    pub(crate) reason: String,
    pub(crate) remedy: &'static str,
    /// No class has such a resource: one may come.
    pub(crate) is_unknown: bool,
}

impl std::fmt::Display for BadNeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { container, resource, reason, remedy, .. } = self;
        write!(f, "container {container}: {resource} {reason}: {remedy}")
    }
}

impl Needs {
    /// What the containers of a pod ask for.
    ///
    /// # Errors
    /// What cannot be given, whatever nodes there are.
    pub(crate) fn of(spec: &PodSpec, classes: &Classes) -> Result<Self, BadNeed> {
        let mut asks = Vec::new();
        for container in &spec.containers {
            of_container(container, classes, &mut asks)?;
        }
        if let Some(ask) = asks.first()
            && asks.iter().map(|ask| u64::from(ask.count)).sum::<u64>() > DEVICES_PER_POD_MAX as u64
        {
            let reason = format!("and others are more than {DEVICES_PER_POD_MAX} devices together");
            return Err(bad(&ask.container, &ask.resource, reason, "no node gives a pod more"));
        }
        // Whole devices find fewer places than shared ones, and large shares fewer than small ones.
        asks.sort_by_key(|ask: &Ask| {
            let share = ask
                .share
                .map(|share| (share.cores == CORES_PER_CARD, share.memory_bytes.unwrap_or(u64::MAX)));
            std::cmp::Reverse((share.is_none(), share, ask.count))
        });
        Ok(Self { asks })
    }
}

fn bad(container: &str, resource: &str, reason: impl Into<String>, remedy: &'static str) -> BadNeed {
    let (container, resource) = (container.into(), resource.into());
    BadNeed { container, resource, reason: reason.into(), remedy, is_unknown: false }
}

fn of_container(container: &Container, classes: &Classes, asks: &mut Vec<Ask>) -> Result<(), BadNeed> {
    let name = &container.name;
    let mut shares = BTreeMap::<&SmolStr, Share>::new();
    let blank = Share { memory_bytes: None, cores: 0 };
    let all: Vec<(&SmolStr, u64)> = container.extended_resources().collect();
    for (resource, amount) in &all {
        match classes.role(resource) {
            None => {
                let remedy = "apply a DeviceClass that has it, or ask for another resource";
                let unknown = bad(name, resource, "is a resource of no DeviceClass", remedy);
                return Err(BadNeed { is_unknown: true, ..unknown });
            }
            Some(ResourceRole::Whole | ResourceRole::Count) => {}
            Some(ResourceRole::Memory(count)) => {
                let bytes = amount.saturating_mul(DEVICE_MEMORY_UNIT_BYTES);
                shares.entry(count).or_insert(blank).memory_bytes = Some(bytes);
            }
            Some(ResourceRole::Cores(count)) => {
                if *amount > CORES_PER_CARD {
                    let reason = format!("is {amount}");
                    return Err(bad(
                        name,
                        resource,
                        reason,
                        "0 is not isolated, 100 is the whole card, more there is not",
                    ));
                }
                shares.entry(count).or_insert(blank).cores = *amount;
            }
        }
    }
    for (resource, amount) in all {
        let Some(role) = classes.role(resource) else { continue };
        if let ResourceRole::Memory(count) | ResourceRole::Cores(count) = role {
            if !container.extended_resources().any(|(other, _)| other == count) {
                let reason = format!("is asked for without {count}");
                return Err(bad(name, resource, reason, "it is of each card: say how many cards as well"));
            }
            continue;
        }
        let count = u32::try_from(amount).ok().filter(|count| *count as usize <= DEVICES_PER_POD_MAX);
        let Some(count) = count else {
            let reason = format!("is {amount}");
            return Err(bad(name, resource, reason, "no node gives a pod more than 64 devices"));
        };
        let share = (*role == ResourceRole::Count).then(|| shares.get(resource).copied().unwrap_or(blank));
        asks.push(Ask { container: name.clone(), resource: resource.clone(), count, share });
    }
    Ok(())
}
