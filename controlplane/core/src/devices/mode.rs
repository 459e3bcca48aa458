//! What the mode of a node's cards lets each device be given as.

use std::sync::Arc;

use bulkhead_types::{
    Device, DeviceHealth, DevicePartition, GPU_MODE_SHARED, GPU_MODE_WHOLE, NodeGpu, PartitionStrategy,
    ResourceSlice,
};
use smol_str::SmolStr;

use super::Classes;
use super::classes::Offer;

/// What a device may be given as, as far as its node's mode goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// As a whole.
    pub whole: bool,
    /// In shares.
    pub shares: bool,
    /// As its partitions under its own name: it does not count beside them.
    pub uncounted: bool,
}

impl Offered {
    pub(super) const ALL: Self = Self { whole: true, shares: true, uncounted: false };
    const NONE: Self = Self { whole: false, shares: false, uncounted: false };
}

/// The mode that counts for what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode<'a> {
    /// None in particular: cards are given as they are, whole or in shares.
    Any,
    /// The cards are not in the mode that they shall be in.
    Reconfiguring,
    Whole,
    Shared,
    /// Cards that have such a layout have its partitions.
    Layout(&'a SmolStr, PartitionStrategy),
}

impl<'a> Mode<'a> {
    /// What counts, by what is wanted and what the agent says.
    pub(super) fn of(gpu: Option<&'a NodeGpu>, observed: Option<&SmolStr>) -> Self {
        let Some(gpu) = gpu else { return Self::Any };
        if observed != Some(&gpu.mode) {
            return Self::Reconfiguring;
        }
        match gpu.mode.as_str() {
            GPU_MODE_WHOLE => Self::Whole,
            GPU_MODE_SHARED => Self::Shared,
            _ => Self::Layout(&gpu.mode, gpu.strategy),
        }
    }

    /// What a device is offered as.
    pub(super) fn offer(
        self,
        slice: &ResourceSlice,
        device: &Device,
        is_split: bool,
        classes: &Classes,
    ) -> (Option<Arc<Offer>>, Offered) {
        if let Some(partition) = device.partition.get() {
            return self.partition(slice, device, partition, classes);
        }
        let Some(offer) = classes.offer_of(device) else { return (None, Offered::NONE) };
        let offered =
            if offer.has_modes { self.card(device, is_split, offer, classes) } else { Offered::ALL };
        (Some(Arc::clone(offer)), offered)
    }

    fn card(self, device: &Device, is_split: bool, offer: &Offer, classes: &Classes) -> Offered {
        match self {
            Self::Any => Offered::ALL,
            Self::Reconfiguring => Offered::NONE,
            Self::Whole => Offered { shares: false, ..Offered::ALL },
            Self::Shared => Offered { whole: offer.sharing.is_none(), ..Offered::ALL },
            Self::Layout(name, strategy) => {
                let is_partitioned = layout(classes, device, name).is_some();
                let uncounted = is_split && is_partitioned && strategy == PartitionStrategy::Single;
                Offered { whole: !is_partitioned, shares: false, uncounted }
            }
        }
    }

    /// A partition is offered where its card works and nobody keeps that back, and where all that are there fit on it.
    fn partition(
        self,
        slice: &ResourceSlice,
        device: &Device,
        partition: &DevicePartition,
        classes: &Classes,
    ) -> (Option<Arc<Offer>>, Offered) {
        let strategy = match self {
            Self::Layout(_, strategy) => strategy,
            _ => PartitionStrategy::Mixed,
        };
        let card = device.parent.as_ref().and_then(|id| slice.device(id));
        let Some(card) = card.filter(|card| card.partition.get().is_none()) else {
            return (None, Offered::NONE);
        };
        let offer = classes.partition_offer(card, partition, strategy);
        let is_there = |other: &&Device| other.parent.as_ref() == Some(&card.id) && !other.is_lost();
        let placed = slice.devices.iter().filter(is_there).filter_map(|other| other.partition.get().cloned());
        let placed: Vec<DevicePartition> = placed.collect();
        let fits = classes.model_of(card).is_some_and(|model| model.check_placed(&placed).is_ok());
        let works = card.health == DeviceHealth::Healthy
            && !slice.is_cordoned(&card.id)
            && slice.fence(&card.id).is_none();
        let in_mode = matches!(self, Self::Any | Self::Layout(..));
        (offer, Offered { whole: fits && works && in_mode, ..Offered::NONE })
    }
}

/// The partitions that a card has in a layout; `None` when it has no such layout, or one that does not fit.
pub(crate) fn layout(classes: &Classes, card: &Device, name: &str) -> Option<Vec<DevicePartition>> {
    let model = classes.model_of(card)?;
    classes.spec_of(card)?.partitioning.get()?.layout(model, name)?.ok()
}
