//! SR-IOV networks: which VFs nodes shall have, what pods are attached to, and which addresses they have. Pure.
//!
//! ```text
//!  SriovNetworkNodePolicy ─┐
//!  ResourceSlice (NICs) ───┴─► desired ─► SriovNetworkNodeState ─► ledger of devices: which VF is which resource
//!
//!  pod's annotation ─► needs ─► attachments (VF, VLAN, ...) + lowest free address ─► Binding.networks
//!  SriovNetwork ──────┘                       ▲                                         │ TakenAddresses (decide)
//!                                 Addresses ──┘◄── pods that have some ◄────────────────┘
//! ```
//!
//! A pod has its addresses from its binding until it is terminal or gone: the same rule as for its VFs. What has a VF is
//! unique (`Pod::is_unique`), so an address is never given away while the guest that has it may live on a silent node.

mod addresses;
mod attach;
mod desired;
mod index;
mod needs;
mod supported;

use bulkhead_types::Pod;

use crate::State;

pub(crate) use addresses::Addresses;
pub(crate) use attach::{TakenAddresses, attachments, check_room, give};
pub(crate) use desired::{desired, holders_of, settle};
pub(crate) use index::{NetworkIndex, called_object, label};
pub(crate) use needs::{NetworkNeed, Problem, full_name, needs, needs_of};
pub(crate) use supported::supported;

/// The networks of a pod that waits.
///
/// # Errors
/// Why it cannot be attached to them now, whatever node it gets; for people.
pub(crate) fn outlook(state: &State, pod: &Pod) -> Result<Vec<NetworkNeed>, String> {
    let needs = needs(state, pod).map_err(|problem| problem.to_string())?;
    if !needs.is_empty() {
        check_room(&needs, &state.networks.addresses)?;
    }
    Ok(needs)
}
