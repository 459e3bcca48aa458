//! Partitions of cards: which kinds there are for a model, which fit on one card together, and where.
//!
//! MIG slices of NVIDIA, vNPUs of Ascend and others are the same table: a card has so much of several things, a profile
//! uses some of each. Where the hardware puts partitions at fixed places (MIG: memory slices), a profile says where it may
//! begin, and no two overlap.
//!
//! ```text
//!  mode of a node ─► PartitionModel::layout ─► wanted places ─► agent carves ─► Device.partition ─► check_placed
//! ```
//!
//! Source: NVIDIA's Multi-Instance GPU user guide (profiles and placements), Ascend's static virtualisation templates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{DeviceCount, DeviceTraits, Hex16, Rare};

/// Most models, profiles of a model, layouts, and things that a card has of.
pub const PARTITION_ENTRIES_MAX: usize = 64;
/// Most partitions of one card.
pub const PARTITIONS_PER_CARD_MAX: usize = 64;
/// Places that are tried before a set of partitions counts as one that does not fit. Real cards need some hundreds.
const TRIES_MAX: u32 = 20_000;
/// Begins the name of a layout of as many partitions of one profile as a card holds.
const ALL_OF: &str = "all-";

/// One kind of partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionProfile {
    /// Its name, such as `1g.10gb`.
    pub name: SmolStr,
    /// What pods ask for to have one, as `nvidia.com/mig-1g.10gb`.
    pub extended_resource_name: SmolStr,
    /// How much it uses of what the card has.
    pub uses: BTreeMap<SmolStr, u64>,
    /// Slices of the card at which it may begin; empty where the model has no places.
    #[serde(default)]
    pub placements: Vec<u32>,
    /// Most of it on one card; unset: as many as fit.
    #[serde(default)]
    pub max_count: Option<u32>,
}

/// A model of card and how it can be partitioned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionModel {
    /// Its name, such as `A100-80GB`.
    pub name: SmolStr,
    /// PCI device ids; empty: any of the class.
    #[serde(default)]
    pub devices: Vec<Hex16>,
    /// What a card has of each thing.
    pub capacity: BTreeMap<SmolStr, u64>,
    /// The thing whose slices have places; unset: only sums count.
    #[serde(default)]
    pub placed_by: Option<SmolStr>,
    /// The kinds of partitions.
    pub profiles: Vec<PartitionProfile>,
}

/// How partitions of a node are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PartitionStrategy {
    /// All partitions are alike and have the name of the whole card, as `nvidia.com/gpu`.
    Single = 1,
    /// Each has the name of its profile, as `nvidia.com/mig-1g.10gb`.
    #[default]
    Mixed = 2,
}

impl PartitionStrategy {
    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "Single",
            Self::Mixed => "Mixed",
        }
    }
}

/// A set of partitions by a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionLayout {
    /// Its name, such as `all-balanced`.
    pub name: SmolStr,
    /// How many of each profile every card gets.
    pub partitions: BTreeMap<SmolStr, u32>,
}

/// How the cards of a class are partitioned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePartitioning {
    /// The models; the first that means a card is its.
    pub models: Vec<PartitionModel>,
    /// Layouts beside those that every profile has by itself.
    #[serde(default)]
    pub layouts: Vec<PartitionLayout>,
    /// What of all cards is counted for a node; unset: nothing. Needs [`crate::DEVICE_RULES_LEVEL`].
    #[serde(default)]
    pub counted: Rare<DeviceCount>,
}

/// A partition as an agent reports it: the card is its `parent`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevicePartition {
    /// The profile's name.
    pub profile: SmolStr,
    /// The slice at which it begins; 0 where the model has no places.
    pub start: u32,
}

impl DevicePartitioning {
    /// The model of a card; `None` when it cannot be partitioned.
    #[must_use]
    pub fn model_of(&self, card: &DeviceTraits<'_>) -> Option<&PartitionModel> {
        let is_it =
            |model: &&PartitionModel| model.devices.is_empty() || model.devices.contains(&Hex16(card.device));
        self.models.iter().find(is_it)
    }

    /// The partitions that a layout gives each card of a model: one of those by name, `all-PROFILE`, or a sequence
    /// `PROFILE-PROFILE-…` (ACK's `gpu-partition-sequence`). `None` when the model has no such layout.
    ///
    /// # Errors
    /// Why they do not fit on one card.
    pub fn layout(&self, model: &PartitionModel, name: &str) -> Option<Result<Vec<DevicePartition>, String>> {
        if let Some(layout) = self.layouts.iter().find(|one| one.name == name) {
            let known = layout.partitions.keys().all(|profile| model.profile(profile).is_some());
            let all = layout.partitions.iter().flat_map(|(profile, count)| {
                std::iter::repeat_n(profile, (*count as usize).min(PARTITIONS_PER_CARD_MAX + 1))
            });
            return known.then(|| model.place(&all.map(SmolStr::as_str).collect::<Vec<_>>()));
        }
        if let Some(profile) = name.strip_prefix(ALL_OF).and_then(|profile| model.profile(profile)) {
            return Some(Ok(model.fill(profile)));
        }
        let sequence: Vec<&str> = name.split('-').collect();
        sequence.iter().all(|profile| model.profile(profile).is_some()).then(|| model.place(&sequence))
    }

    /// The names of its layouts, for people.
    #[must_use]
    pub fn layout_names(&self, model: &PartitionModel) -> Vec<String> {
        let named = self.layouts.iter().filter(|one| self.layout(model, &one.name).is_some());
        let all = model.profiles.iter().map(|profile| format!("{ALL_OF}{}", profile.name));
        let mut names: Vec<String> = named.map(|one| one.name.to_string()).chain(all).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl PartitionModel {
    /// A profile by name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&PartitionProfile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// How many slices a profile covers.
    fn size(&self, profile: &PartitionProfile) -> u64 {
        self.placed_by.as_ref().and_then(|slices| profile.uses.get(slices)).copied().unwrap_or(0)
    }

    /// The slices that a profile covers from a place on, a bit each.
    fn mask(&self, profile: &PartitionProfile, start: u32) -> u64 {
        let slices = (0..self.size(profile).min(64)).filter_map(|slice| start.checked_add(slice as u32));
        slices.filter_map(|slice| 1u64.checked_shl(slice)).sum()
    }

    /// Whether partitions that are there can be on one card together.
    ///
    /// # Errors
    /// Why not.
    pub fn check_placed(&self, placed: &[DevicePartition]) -> Result<(), String> {
        let mut taken = 0u64;
        let profiles = self.check_sums(placed.iter().map(|one| one.profile.as_str()))?;
        for (profile, one) in profiles.iter().zip(placed) {
            if self.placed_by.is_none() {
                continue;
            }
            let mask = self.mask(profile, one.start);
            if !profile.placements.contains(&one.start) || taken & mask != 0 {
                return Err(format!("a {} does not fit at slice {}", one.profile, one.start));
            }
            taken |= mask;
        }
        Ok(())
    }

    /// Whether a card has enough of everything for these profiles; which they are.
    fn check_sums<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<&PartitionProfile>, String> {
        let (mut sums, mut counts) = (BTreeMap::<&SmolStr, u64>::new(), BTreeMap::<&str, u32>::new());
        let mut found = Vec::new();
        for name in names {
            let profile = self.profile(name).ok_or_else(|| format!("{} has no profile {name}", self.name))?;
            for (thing, amount) in &profile.uses {
                let sum = sums.entry(thing).or_default();
                *sum = sum.saturating_add(*amount);
                let all = self.capacity.get(thing).copied().unwrap_or(0);
                if *sum > all {
                    return Err(format!("more {thing} is used than the {all} that a {} has", self.name));
                }
            }
            let count = counts.entry(&profile.name).or_default();
            *count += 1;
            if let Some(most) = profile.max_count.filter(|most| *count > *most) {
                return Err(format!("a {} has at most {most} of {name}", self.name));
            }
            found.push(profile);
            if found.len() > PARTITIONS_PER_CARD_MAX {
                return Err(format!("a card has at most {PARTITIONS_PER_CARD_MAX} partitions"));
            }
        }
        Ok(found)
    }

    /// Places for partitions of these profiles on one empty card.
    ///
    /// # Errors
    /// Why they do not fit.
    pub fn place(&self, names: &[&str]) -> Result<Vec<DevicePartition>, String> {
        let mut profiles = self.check_sums(names.iter().copied())?;
        // The largest first: they have the fewest places.
        profiles.sort_by_key(|profile| (std::cmp::Reverse(self.size(profile)), &profile.name));
        let mut starts = Vec::new();
        if self.placed_by.is_some() && !self.search(&profiles, 0, &mut starts, &mut { TRIES_MAX }) {
            return Err(format!("a {} has no places for {} together", self.name, names.join(", ")));
        }
        let start = |at: usize| starts.get(at).copied().unwrap_or(0);
        let one = |(at, profile): (usize, &&PartitionProfile)| DevicePartition {
            profile: profile.name.clone(),
            start: start(at),
        };
        Ok(profiles.iter().enumerate().map(one).collect())
    }

    fn search(&self, left: &[&PartitionProfile], taken: u64, starts: &mut Vec<u32>, tries: &mut u32) -> bool {
        let Some((profile, rest)) = left.split_first() else { return true };
        for start in &profile.placements {
            let mask = self.mask(profile, *start);
            if *tries == 0 {
                return false;
            }
            *tries -= 1;
            if taken & mask == 0 {
                starts.push(*start);
                if self.search(rest, taken | mask, starts, tries) {
                    return true;
                }
                starts.pop();
            }
        }
        false
    }

    /// As many partitions of one profile as an empty card holds.
    #[must_use]
    pub fn fill(&self, profile: &PartitionProfile) -> Vec<DevicePartition> {
        let mut best = Vec::new();
        for count in 1..=PARTITIONS_PER_CARD_MAX {
            match self.place(&vec![profile.name.as_str(); count]) {
                Ok(placed) => best = placed,
                Err(_) => break,
            }
        }
        best
    }
}

#[cfg(test)]
#[path = "device_partition_tests.rs"]
mod tests;
