//! What a pod asks for, as devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    CORES_PER_CARD, Container, DEVICE_MEMORY_UNIT_BYTES, DEVICES_PER_POD_MAX, DeviceChoice, DeviceShare,
    LABEL_CARD_COUNT, Pod, PodSpec, StringMap,
};
use smol_str::SmolStr;

use super::{Classes, ResourceRole, visible};

/// So many devices for one container, all on one node, none of them twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) container: SmolStr,
    /// Whole devices, or shared ones.
    pub(crate) resource: SmolStr,
    pub(crate) count: u32,
    /// Of each shared device.
    pub(crate) share: Option<Share>,
    /// Memory that each whole device has at least, in bytes.
    pub(crate) least_memory_bytes: u64,
    /// Only these, where the pod chooses.
    pub(crate) choice: Option<Arc<DeviceChoice>>,
}

/// What a pod says of its devices beside its spec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Says<'a> {
    /// See [`card_count`].
    pub(crate) cards: Option<u32>,
    /// Those that choose cards are named by the classes.
    pub(crate) annotations: &'a StringMap,
}

impl Ask {
    /// So many whole devices of any size.
    fn new(container: &SmolStr, resource: &SmolStr, count: u32) -> Self {
        let (container, resource) = (container.clone(), resource.clone());
        Self { container, resource, count, share: None, least_memory_bytes: 0, choice: None }
    }
}

/// How much memory of a shared device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ShareMemory {
    /// In bytes.
    Bytes(u64),
    /// So many units, and how many bytes one has.
    Units(u64, u64),
    /// All of it.
    All,
}

/// What is asked of each shared device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    pub(crate) memory: ShareMemory,
    /// In per cent of a card.
    pub(crate) cores: u64,
}

impl Share {
    /// What that is on a card with so much memory. Of units it is their part of all of the card's memory, in whole MiB: a T4
    /// with 15079 MiB has 14 units of a GiB, and 3 of them are 3231 MiB.
    pub(crate) fn on(self, card_bytes: u64) -> DeviceShare {
        let memory_bytes = match self.memory {
            ShareMemory::All => card_bytes,
            ShareMemory::Bytes(bytes) => bytes,
            ShareMemory::Units(units, unit_bytes) => match card_bytes / unit_bytes.max(1) {
                0 => u64::MAX,
                all => {
                    let bytes = u128::from(card_bytes) * u128::from(units) / u128::from(all);
                    let mib = bytes / u128::from(DEVICE_MEMORY_UNIT_BYTES);
                    u64::try_from(mib * u128::from(DEVICE_MEMORY_UNIT_BYTES)).unwrap_or(u64::MAX)
                }
            },
        };
        DeviceShare { memory_bytes, cores: self.cores }
    }

    /// Whether it counts among the shares of which a card has only so many: units are bounded by themselves.
    pub(crate) fn is_counted(self) -> bool {
        !matches!(self.memory, ShareMemory::Units(..))
    }
}

/// Everything that a pod asks for; the most demanding first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Needs {
    pub(crate) asks: Vec<Ask>,
}

impl Needs {
    /// The same of a pod that chooses nothing; `None` when this one does not.
    pub(super) fn without_choice(&self) -> Option<Self> {
        let chooses = self.asks.iter().any(|ask| ask.choice.is_some());
        chooses
            .then(|| Self { asks: self.asks.iter().map(|ask| Ask { choice: None, ..ask.clone() }).collect() })
    }
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
    /// As [`Self::of`].
    pub(crate) fn of_pod(pod: &Pod, classes: &Classes) -> Result<Self, BadNeed> {
        let says = Says { cards: card_count(&pod.meta.labels), annotations: &pod.meta.annotations };
        Self::of(&pod.spec, says, classes)
    }

    /// What containers ask for.
    ///
    /// # Errors
    /// What cannot be given, whatever nodes there are.
    pub(crate) fn of(spec: &PodSpec, says: Says<'_>, classes: &Classes) -> Result<Self, BadNeed> {
        let mut asks = Vec::new();
        for container in &spec.containers {
            of_container(container, says.cards, classes, &mut asks)?;
        }
        for ask in &mut asks {
            ask.choice = classes.choice(&ask.resource, says.annotations);
        }
        visible::check(spec, classes)?;
        if let Some(ask) = asks.first()
            && asks.iter().map(|ask| u64::from(ask.count)).sum::<u64>() > DEVICES_PER_POD_MAX as u64
        {
            let reason = format!("and others are more than {DEVICES_PER_POD_MAX} devices together");
            return Err(bad(&ask.container, &ask.resource, reason, "no node gives a pod more"));
        }
        // Whole devices find fewer places than shared ones, and large shares fewer than small ones.
        asks.sort_by_key(|ask: &Ask| {
            let share =
                ask.share.map(|share| (share.cores == CORES_PER_CARD, share.on(u64::MAX).memory_bytes));
            std::cmp::Reverse((share.is_none(), share, ask.least_memory_bytes, ask.count))
        });
        Ok(Self { asks })
    }
}

pub(super) fn bad(
    container: &str,
    resource: &str,
    reason: impl Into<String>,
    remedy: &'static str,
) -> BadNeed {
    let (container, resource) = (container.into(), resource.into());
    BadNeed { container, resource, reason: reason.into(), remedy, is_unknown: false }
}

/// Over how many cards the memory units of each container are divided, as a pod's labels say; 0 when that is no such number.
pub(crate) fn card_count(labels: &StringMap) -> Option<u32> {
    let text = labels.get(LABEL_CARD_COUNT)?;
    Some(text.parse().ok().filter(|count| *count as usize <= DEVICES_PER_POD_MAX).unwrap_or(0))
}

fn of_container(
    container: &Container,
    cards: Option<u32>,
    classes: &Classes,
    asks: &mut Vec<Ask>,
) -> Result<(), BadNeed> {
    let name = &container.name;
    let mut shares = BTreeMap::<&SmolStr, Share>::new();
    let mut least = BTreeMap::<&SmolStr, u64>::new();
    let blank = Share { memory: ShareMemory::All, cores: 0 };
    let all: Vec<(&SmolStr, u64)> = container.extended_resources().collect();
    for (resource, amount) in &all {
        let bytes = amount.saturating_mul(DEVICE_MEMORY_UNIT_BYTES);
        match classes.role(resource) {
            None => {
                let remedy = "apply a DeviceClass that has it, or ask for another resource";
                let unknown = bad(name, resource, "is a resource of no DeviceClass", remedy);
                return Err(BadNeed { is_unknown: true, ..unknown });
            }
            Some(
                ResourceRole::Whole | ResourceRole::Count | ResourceRole::Slots | ResourceRole::Units(_),
            ) => {}
            Some(ResourceRole::LeastMemory(whole)) => _ = least.insert(whole, bytes),
            Some(ResourceRole::Memory(count)) => {
                shares.entry(count).or_insert(blank).memory = ShareMemory::Bytes(bytes);
            }
            Some(ResourceRole::Cores(count)) => {
                if *amount > CORES_PER_CARD {
                    let remedy = "0 is not isolated, 100 is the whole card, more there is not";
                    return Err(bad(name, resource, format!("is {amount}"), remedy));
                }
                shares.entry(count).or_insert(blank).cores = *amount;
            }
        }
    }
    for (resource, amount) in all {
        if let Some(count) = classes.counted_by(resource) {
            if container.extended_resources().any(|(other, _)| other == count) {
                continue;
            }
            let Some(cards) = classes.default_count(count) else {
                let reason = format!("is asked for without {count}");
                return Err(bad(name, resource, reason, "it is of each card: say how many cards as well"));
            };
            // Memory and compute are of the same cards.
            if !asks.iter().any(|ask| ask.container == *name && ask.resource == *count) {
                let share = Some(shares.get(count).copied().unwrap_or(blank));
                asks.push(Ask { share, ..Ask::new(name, count, cards) });
            }
            continue;
        }
        let mut least_memory_bytes = 0;
        let (amount, share) = match classes.role(resource) {
            Some(ResourceRole::Units(unit_bytes)) => {
                let (cards, units) = divided(name, resource, amount, cards)?;
                (cards, Some(Share { memory: ShareMemory::Units(units, *unit_bytes), cores: 0 }))
            }
            // A place among those that share a card, and nothing in particular of it.
            Some(ResourceRole::Slots) => (amount, Some(Share { memory: ShareMemory::Bytes(0), cores: 0 })),
            Some(ResourceRole::Count) => (amount, Some(shares.get(resource).copied().unwrap_or(blank))),
            _ => {
                least_memory_bytes = least.get(resource).copied().unwrap_or(0);
                (amount, None)
            }
        };
        let count = u32::try_from(amount).ok().filter(|count| *count as usize <= DEVICES_PER_POD_MAX);
        let Some(count) = count else {
            let reason = format!("is {amount}");
            return Err(bad(name, resource, reason, "no node gives a pod more than 64 devices"));
        };
        asks.push(Ask { share, least_memory_bytes, ..Ask::new(name, resource, count) });
    }
    Ok(())
}

/// So many units over the cards that a pod wants them on: how many cards, and the units of each.
fn divided(container: &str, resource: &str, units: u64, cards: Option<u32>) -> Result<(u64, u64), BadNeed> {
    let cards = u64::from(cards.unwrap_or(1));
    if cards == 0 {
        let reason = format!("is divided by the label {LABEL_CARD_COUNT}, which is no number from 1 to 64");
        return Err(bad(container, resource, reason, "say there over how many cards"));
    }
    if !units.is_multiple_of(cards) {
        let reason = format!("is {units}, which {cards} cards cannot share alike");
        return Err(bad(container, resource, reason, "ask for a multiple of the number of cards"));
    }
    // Nothing at all is on no card.
    Ok((if units == 0 { 0 } else { cards }, units / cards))
}
