//! What a virtual function is told through its NIC before a guest has it: MAC, VLAN, rates, spoof check, trust, link state, GUIDs.
//!
//! ```text
//!  NetworkAttachment ─► wanted ─┐
//!  VfLinks::vf ───────► seen ───┴─► next_setting ─► VfLinks::set_vf ─► looked at again, until the kernel tells what is wanted
//!                        └─► what was there, noted durably before anything is set; given back after the guest's reset
//! ```
//! The order is that of `sriov-cni`: VLAN, MAC, rates, spoof check, trust, link state. What a driver does not tell (spoof check and
//! trust of some) is set once and taken as the kernel's word.
//!
//! Source: `rtnetlink(7)`, `ip-link(8)` (`vf NUM`), and `do_setvfinfo`, `rtnl_fill_vfinfo` of Linux' `net/core/rtnetlink.c`.

mod conformance;
mod link;
mod setting;
mod work;

pub use conformance::{check_link_without_functions, check_settings};
pub use link::*;
pub use setting::*;
pub use work::*;

#[cfg(test)]
pub(crate) mod tests;
