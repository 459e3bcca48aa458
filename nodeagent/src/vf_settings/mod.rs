//! What functions of NICs are told, by the kernel's route netlink.
//!
//! ```text
//!  VfLinks (core) ─► message.rs: RTM_GETLINK, RTM_SETLINK as bytes ─► socket.rs: one request, one answer ─► network::netlink ─► kernel
//! ```
//! Each request has a socket of its own, so nothing waits in one. What is to be set, in which
//! order, and what to go back to is decided in `bulkhead_nodeagent_core::vf_settings`.
//!
//! Source: `rtnetlink(7)`, `netlink(7)`; `rtnl_setlink` and `rtnl_fill_vfinfo` of Linux' `net/core/rtnetlink.c`.

mod message;
mod socket;

use std::path::Path;

use bulkhead_nodeagent_core::vf_settings::{ENODEV, VfLinkError, VfLinks, VfSetting, VfSettings};

use crate::machine::MachineTree;

impl VfLinks for MachineTree {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        self.check_own()?;
        let answer = socket::request(&message::get(interface_index))?;
        let found = message::settings_of(&answer, vf).map_err(|message| VfLinkError { errno: 0, message })?;
        found.ok_or_else(|| VfLinkError {
            errno: ENODEV,
            message: format!("the interface has no function {vf}"),
        })
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        self.check_own()?;
        socket::request(&message::set(interface_index, vf, setting)).map(drop)
    }
}

impl MachineTree {
    /// A copy of another machine's files has no interfaces of that machine.
    fn check_own(&self) -> Result<(), VfLinkError> {
        if self.root() == Path::new("/") {
            return Ok(());
        }
        let message =
            format!("{} is a copy of a machine's files, and has no interfaces", self.root().display());
        Err(VfLinkError { errno: ENODEV, message })
    }
}

/// Whether interfaces can be asked about functions here, by asking the loopback interface.
pub(crate) fn is_usable() -> bool {
    const LOOPBACK: u32 = 1;
    let asked = socket::request(&message::get(LOOPBACK));
    asked.is_ok_and(|answer| message::settings_of(&answer, 0) == Ok(None))
}

#[cfg(test)]
mod tests;
