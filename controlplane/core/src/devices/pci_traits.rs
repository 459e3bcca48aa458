//! What functions of different nodes have alike is one in memory.

use std::collections::BTreeMap;

use bulkhead_types::{PciTraits, Shared};

use crate::State;

/// Nodes that are looked at for it: most machines of a cluster are like its first.
const NODES_LOOKED_AT: usize = 2;

/// What the functions of some nodes are, by digest, for [`bulkhead_types::share_pci_traits`]. What is found here changes how much
/// memory a State takes, and nothing that it says.
pub(crate) fn known_pci_traits(state: &State) -> BTreeMap<u128, Shared<PciTraits>> {
    let slices = state.resource_slices.iter().take(NODES_LOOKED_AT);
    let facts = slices.flat_map(|slice| &slice.devices).filter_map(|device| device.pci.get());
    facts.map(|facts| (facts.traits.digest(), facts.traits.clone())).collect()
}
