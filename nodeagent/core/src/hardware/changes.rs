//! What came, went or changed between two looks.

use serde::{Deserialize, Serialize};

use super::{Bdf, Inventory, PciFunction};

/// One difference between two inventories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InventoryChange {
    /// A function came.
    Added(Box<PciFunction>),
    /// A function is not as it was.
    Changed(Box<PciFunction>),
    /// A function went. One that cannot be read any more counts as gone: nobody may rely on it.
    Removed(Bdf),
}

impl Inventory {
    /// What makes this one of an earlier one, by address.
    #[must_use]
    pub fn changes_since(&self, former: &Self) -> Vec<InventoryChange> {
        let gone = former.functions.keys().filter(|address| !self.functions.contains_key(address));
        let gone = gone.map(|address| (*address, InventoryChange::Removed(*address)));
        let here = self.functions.iter().filter_map(|(address, function)| {
            let change = match former.functions.get(address) {
                Some(same) if same == function => return None,
                Some(_) => InventoryChange::Changed(Box::new(function.clone())),
                None => InventoryChange::Added(Box::new(function.clone())),
            };
            Some((*address, change))
        });
        let mut changes: Vec<_> = gone.chain(here).collect();
        changes.sort_by_key(|(address, _)| *address);
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// Makes the changes.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = InventoryChange>) {
        for change in changes {
            match change {
                InventoryChange::Added(function) | InventoryChange::Changed(function) => {
                    self.functions.insert(function.address, *function);
                }
                InventoryChange::Removed(address) => _ = self.functions.remove(&address),
            }
        }
    }
}
