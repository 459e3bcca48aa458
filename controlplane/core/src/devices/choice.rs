//! Which devices of a node a pod gets, and how well a node suits it.
//!
//! ```text
//!  asks, the most demanding first ─► for each place to begin at (PCIe root, NUMA node): pick for one ask after the other
//!                                    ─► the best of these: links, then NUMA nodes, then PCIe roots, then where it began
//! ```
//!
//! Whole devices of one ask are those with the most links among them, such as NVLink; a single one is that which the others
//! miss least. Shared ones go by the policy: the fullest card that has room, or the emptiest. Equals go by index.
//! Asks are taken one after the other, never back: several shapes of shares in one pod may miss a combination that exists.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bulkhead_types::{AllocatedDevice, ObjectId, SchedulerPolicy};
use smol_str::SmolStr;

use super::node::DeviceUse;
use super::{Ask, Needs, NodeDevices, Policies};

/// Sets of devices that are compared one by one; of more a good one is searched.
const SETS_MAX: u64 = 1000;
/// Devices that such a search begins at.
const STARTS_MAX: usize = 64;
/// Places to begin at that are compared.
const ANCHORS_MAX: usize = 8;
/// The best that a node's devices give.
const SCORE_MAX: u64 = 100;

/// Which of the devices that suit an ask it gets, with the links among them.
type Pick = fn(&[&DeviceUse], &Ask, Policies, Anchor<'_>) -> (Vec<SmolStr>, u64);
/// Near what all devices of a pod should be.
type Anchor<'a> = Option<(&'a str, Option<u32>)>;

/// What a pod would get on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) devices: Vec<AllocatedDevice>,
    /// Links among whole devices of one ask.
    links: u64,
    /// How many pairs of such devices there are.
    pairs: u64,
    numa_nodes: usize,
    roots: usize,
}

impl NodeDevices {
    /// The devices that a pod gets here.
    ///
    /// # Errors
    /// Of which resource there is too little.
    pub(crate) fn choose(&self, needs: &Needs, policies: Policies) -> Result<Choice, SmolStr> {
        self.choose_in(needs, policies, None)
    }

    /// The devices that a pod gets of one NUMA node; those that are near to none in particular are of each.
    pub(crate) fn choose_on(
        &self,
        needs: &Needs,
        policies: Policies,
        numa_node: u32,
    ) -> Option<Vec<AllocatedDevice>> {
        Some(self.choose_in(needs, policies, Some(numa_node)).ok()?.devices)
    }

    /// Whether a NUMA node has the devices that a pod asks for, when nobody holds any.
    pub(crate) fn could_be_on(&self, needs: &Needs, numa_node: u32) -> bool {
        self.attempt(needs, Policies::default(), (None, Some(numa_node)), first_fit).is_ok()
    }

    fn choose_in(&self, needs: &Needs, policies: Policies, on: Option<u32>) -> Result<Choice, SmolStr> {
        let mut best: Option<Choice> = None;
        for anchor in self.anchors(needs) {
            let Ok(choice) = self.attempt(needs, policies, (anchor, on), pick) else { continue };
            let key = |choice: &Choice| (Reverse(choice.links), choice.numa_nodes, choice.roots);
            if best.as_ref().is_none_or(|best| key(&choice) < key(best)) {
                best = Some(choice);
            }
        }
        best.map_or_else(|| self.attempt(needs, policies, (None, on), first_fit), Ok)
    }

    /// Whether [`Self::choose`] finds something, without the search for the best.
    ///
    /// # Errors
    /// Of which resource there is too little.
    pub(super) fn check_choice(&self, needs: &Needs) -> Result<(), SmolStr> {
        self.attempt(needs, Policies::default(), (None, None), first_fit).map(drop)
    }

    /// How well a node suits by its devices, 0 to 100: half by how full it is, where links count, else all.
    pub(crate) fn score(&self, needs: &Needs, policies: Policies) -> u32 {
        let fullness = self.fullness(needs, policies);
        let wants_links = needs.asks.iter().any(|ask| ask.share.is_none() && ask.count > 1);
        let has_links = || self.iter().any(|(_, device)| !device.device.links.is_empty());
        if !wants_links || !has_links() {
            return fullness as u32;
        }
        let Ok(Choice { links, pairs, .. }) = self.choose(needs, policies) else { return 0 };
        // One link for each pair is half of the best, more come ever closer to it.
        let quality = SCORE_MAX * links / (links + pairs).max(1);
        ((fullness + quality) / 2) as u32
    }

    /// The share of what the pod asks for that is used once it is there; what is free where it is to be spread.
    fn fullness(&self, needs: &Needs, policies: Policies) -> u64 {
        let Some(ask) = needs.asks.first() else { return 0 };
        let (mut total, mut used, mut policy) = (0u64, 0u64, policies.node.unwrap_or_default());
        for (_, device) in self.iter().filter(|(_, device)| device.is_offered()) {
            let Some(offer) = &device.offer else { continue };
            let sharing = offer.sharing.as_ref().filter(|_| offer.shares_as(&ask.resource));
            match (ask.share, sharing) {
                (None, _) if offer.whole == ask.resource => {
                    total += 1;
                    used += u64::from(!device.is_free());
                }
                (Some(_), Some(sharing)) => {
                    policy = policies.node.unwrap_or(sharing.node_scheduler_policy);
                    total += SCORE_MAX;
                    used += device.fullness();
                }
                _ => {}
            }
        }
        if ask.share.is_none() {
            used += u64::from(ask.count);
        }
        let used = (SCORE_MAX * used / total.max(1)).min(SCORE_MAX);
        match policy {
            SchedulerPolicy::Binpack => used,
            SchedulerPolicy::Spread => SCORE_MAX - used,
        }
    }

    /// Where a choice may begin: anywhere for a pod that asks for one kind of device, else at each place that has some.
    fn anchors(&self, needs: &Needs) -> Vec<Anchor<'_>> {
        if needs.asks.len() < 2 {
            return vec![None];
        }
        let suits = |device: &&DeviceUse| needs.asks.iter().any(|ask| device.suits(ask));
        let places: BTreeSet<_> = (self.iter().map(|(_, device)| device).filter(suits))
            .map(|device| (device.device.pcie_root.as_str(), device.device.numa_node))
            .collect();
        places.into_iter().take(ANCHORS_MAX).map(Some).chain([None]).collect()
    }

    fn attempt(
        &self,
        needs: &Needs,
        policies: Policies,
        (anchor, on): (Anchor<'_>, Option<u32>),
        pick: Pick,
    ) -> Result<Choice, SmolStr> {
        let is_there =
            |device: &DeviceUse| on.is_none() || device.device.numa_node.is_none_or(|id| Some(id) == on);
        let mut after = std::borrow::Cow::Borrowed(self);
        let mut choice = Choice { devices: Vec::new(), links: 0, pairs: 0, numa_nodes: 0, roots: 0 };
        for (at, ask) in needs.asks.iter().enumerate() {
            let suits = |device: &&DeviceUse| {
                is_there(device) && device.suits(ask) && self.is_group_free(&device.device)
            };
            let mut candidates: Vec<_> = after.iter().map(|(_, device)| device).filter(suits).collect();
            candidates.sort_by_key(|device| (device.device.index, &device.device.id));
            if candidates.len() < ask.count as usize {
                return Err(ask.resource.clone());
            }
            let (ids, links) = pick(&candidates, ask, policies, anchor);
            let given: Vec<AllocatedDevice> = ids
                .into_iter()
                .filter_map(|id| {
                    let share = after.get(&id)?.share_of(ask);
                    let (container, resource) = (ask.container.clone(), ask.resource.clone());
                    Some(AllocatedDevice { container, resource, device: id, share })
                })
                .collect();
            if ask.share.is_none() {
                choice.links += links;
                choice.pairs += u64::from(ask.count) * u64::from(ask.count - 1) / 2;
            }
            if at + 1 < needs.asks.len() {
                after.to_mut().take(ObjectId(0), &given);
            }
            choice.devices.extend(given);
        }
        let chosen = || choice.devices.iter().filter_map(|given| self.get(&given.device));
        choice.numa_nodes = chosen().map(|device| device.device.numa_node).collect::<BTreeSet<_>>().len();
        choice.roots = chosen().map(|device| device.device.pcie_root.as_str()).collect::<BTreeSet<_>>().len();
        Ok(choice)
    }
}

impl DeviceUse {
    /// How full a shared card is, 0 to 100: the mean of memory and compute.
    fn fullness(&self) -> u64 {
        let ((memory, cores), (used_memory, used_cores)) = (self.shareable(), self.shared());
        let share = |used: u64, all: u64| (u128::from(used) * 100 / u128::from(all.max(1))).min(100) as u64;
        (share(used_memory, memory) + share(used_cores, cores)) / 2
    }
}

fn memory(device: &DeviceUse) -> u64 {
    device.device.capacity.memory_bytes
}

fn first_fit(candidates: &[&DeviceUse], ask: &Ask, _: Policies, _: Anchor<'_>) -> (Vec<SmolStr>, u64) {
    (candidates.iter().take(ask.count as usize).map(|device| device.device.id.clone()).collect(), 0)
}

/// How far a device is from where the choice began: nothing on the same root, little on the same NUMA node.
fn distance(device: &DeviceUse, anchor: Anchor<'_>) -> u32 {
    let Some((root, numa_node)) = anchor else { return 0 };
    match (device.device.pcie_root == root, device.device.numa_node == numa_node) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}

fn pick(candidates: &[&DeviceUse], ask: &Ask, policies: Policies, anchor: Anchor<'_>) -> (Vec<SmolStr>, u64) {
    let count = ask.count as usize;
    let id = |device: &DeviceUse| device.device.id.clone();
    if ask.share.is_some() {
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|device| {
            let sharing = device.offer.as_ref().and_then(|offer| offer.sharing.as_ref());
            let policy =
                policies.device.or(sharing.map(|one| one.device_scheduler_policy)).unwrap_or_default();
            let fullness = match policy {
                SchedulerPolicy::Binpack => 100 - device.fullness().min(100),
                SchedulerPolicy::Spread => device.fullness(),
            };
            // Of cards that nothing is held of, and of those of shares without memory, the number of pods decides.
            let pods = match policy {
                SchedulerPolicy::Binpack => usize::MAX - device.holders.len(),
                SchedulerPolicy::Spread => device.holders.len(),
            };
            (distance(device, anchor), fullness, pods)
        });
        return (sorted.into_iter().take(count).map(id).collect(), 0);
    }
    let table = Links::of(candidates);
    let best = match count {
        1 => {
            let missed =
                |at: &usize| (0..candidates.len()).map(|other| table.between(*at, other)).sum::<u64>();
            // Of unequal ones the least that is enough: the large ones are for who needs them.
            let size = |at: &usize| if ask.least_memory_bytes > 0 { memory(candidates[*at]) } else { 0 };
            let key = |at: &usize| (distance(candidates[*at], anchor), size(at), missed(at));
            (0..candidates.len()).min_by_key(key).into_iter().collect()
        }
        _ => best_set(candidates, &table, ask, anchor),
    };
    let links = table.within(&best);
    (best.into_iter().map(|at| id(candidates[at])).collect(), links)
}

/// Links between devices, by their places in a list.
struct Links(Vec<Vec<u64>>);

impl Links {
    fn of(devices: &[&DeviceUse]) -> Self {
        let between = |a: &DeviceUse, b: &DeviceUse| {
            let links = a.device.links.iter().filter(|link| link.peer == b.device.id);
            links.map(|link| u64::from(link.count)).sum()
        };
        let row = |a: &&DeviceUse| match a.device.links.is_empty() {
            true => Vec::new(),
            false => devices.iter().map(|b| between(a, b)).collect(),
        };
        Self(devices.iter().map(row).collect())
    }

    fn between(&self, a: usize, b: usize) -> u64 {
        self.0[a].get(b).copied().unwrap_or(0)
    }

    fn within(&self, set: &[usize]) -> u64 {
        set.iter().enumerate().flat_map(|(at, a)| set[at + 1..].iter().map(|b| self.between(*a, *b))).sum()
    }
}

/// The set with the most links, then the nearest to where the choice began, then on the fewest NUMA nodes and roots; the
/// first of equals.
fn best_set(candidates: &[&DeviceUse], links: &Links, ask: &Ask, anchor: Anchor<'_>) -> Vec<usize> {
    let count = ask.count as usize;
    let cost = |set: &[usize]| {
        let devices = || set.iter().map(|at| candidates[*at]);
        let numa_nodes: BTreeSet<_> = devices().map(|device| device.device.numa_node).collect();
        let roots: BTreeSet<_> = devices().map(|device| device.device.pcie_root.as_str()).collect();
        let far: u32 = devices().map(|device| distance(device, anchor)).sum();
        let size = if ask.least_memory_bytes > 0 { devices().map(memory).sum() } else { 0u64 };
        (Reverse(links.within(set)), far, numa_nodes.len(), roots.len(), size)
    };
    let mut best: Option<(_, Vec<usize>)> = None;
    let mut offer = |set: &[usize]| {
        let cost = cost(set);
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, set.to_vec()));
        }
    };
    if sets(candidates.len(), count) <= SETS_MAX {
        let mut set: Vec<usize> = (0..count).collect();
        offer(&set);
        while next_set(&mut set, candidates.len()) {
            offer(&set);
        }
    } else {
        for start in 0..candidates.len().min(STARTS_MAX) {
            let mut set = vec![start];
            while set.len() < count {
                let more = |at: &usize| {
                    let mut with: Vec<usize> = set.clone();
                    with.push(*at);
                    cost(&with)
                };
                let Some(next) = (0..candidates.len()).filter(|at| !set.contains(at)).min_by_key(more) else {
                    break;
                };
                set.push(next);
            }
            set.sort_unstable();
            offer(&set);
        }
    }
    best.map(|(_, set)| set).unwrap_or_default()
}

/// How many sets of `k` there are in `n`, as far as it matters.
fn sets(n: usize, k: usize) -> u64 {
    let (n, k) = (n as u64, k.min(n - k) as u64);
    let mut count = 1u64;
    for i in 0..k {
        count = count.saturating_mul(n - i) / (i + 1);
        if count > SETS_MAX {
            break;
        }
    }
    count
}

/// The next set of numbers below `n` in lexicographic order.
fn next_set(set: &mut [usize], n: usize) -> bool {
    let k = set.len();
    let Some(at) = (0..k).rev().find(|at| set[*at] < n - k + at) else { return false };
    set[at] += 1;
    for next in at + 1..k {
        set[next] = set[next - 1] + 1;
    }
    true
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
