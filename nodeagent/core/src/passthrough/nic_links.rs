//! The interfaces of a NIC and of its functions: how large their packets may be, and that the NIC's own is up.
//!
//! Drivers hold a function to what its NIC takes: the NIC goes first when its packets become larger, and last when they become smaller.
//!
//! Source: "sysfs-class-net" (`mtu`, `flags`) of Linux.

use std::collections::BTreeMap;

use super::machine::{file, line, number};
use super::{Machine, NicStep};
use crate::hardware::{Bdf, Tree};
use crate::vf_settings::port_of;

/// `IFF_UP` of `net/INTERFACE/flags`.
const IFF_UP: u32 = 1;

fn mtu_of(machine: &(impl Tree + ?Sized), function: Bdf, interface: &str) -> Option<u32> {
    number(machine, &file(function, &format!("net/{interface}/mtu")))
}

fn flags_of(machine: &(impl Tree + ?Sized), nic: Bdf, interface: &str) -> Option<u32> {
    let flags = line(machine, &file(nic, &format!("net/{interface}/flags")))?;
    u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()
}

/// The first interface of a function that takes packets of another size.
pub(super) fn next_mtu(machine: &(impl Tree + ?Sized), function: Bdf, mtu: u32) -> Option<NicStep> {
    let interfaces = machine.list(&file(function, "net")).unwrap_or_default();
    let differs = |name: &String| mtu_of(machine, function, name) != Some(mtu);
    interfaces.into_iter().find(differs).map(|name| NicStep::Mtu(function, name, mtu))
}

/// Whether a step lets an interface take larger packets than now.
pub(super) fn grows(machine: &(impl Tree + ?Sized), step: &NicStep) -> bool {
    let NicStep::Mtu(function, interface, mtu) = step else { return false };
    mtu_of(machine, *function, interface).is_some_and(|is| is < *mtu)
}

/// The NIC's own interface is to be switched on.
pub(super) fn next_up(machine: &(impl Tree + ?Sized), nic: Bdf) -> Option<NicStep> {
    let port = port_of(machine, nic).ok()?;
    let flags = flags_of(machine, nic, &port.name)?;
    (flags & IFF_UP == 0).then_some(NicStep::LinkUp(port.name, flags | IFF_UP))
}

/// One interface as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkSeen {
    mtu: Option<u32>,
    /// Of the NIC's own only: nothing switches on those of functions.
    is_up: Option<bool>,
}

/// The interfaces of a NIC and its functions as they were, by function and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinksSeen(BTreeMap<(Bdf, String), LinkSeen>);

impl LinksSeen {
    pub(super) fn of(machine: &(impl Tree + ?Sized), nic: Bdf, vfs: &[Bdf]) -> Self {
        let mut links = BTreeMap::new();
        for function in std::iter::once(nic).chain(vfs.iter().copied()) {
            for name in machine.list(&file(function, "net")).unwrap_or_default() {
                let flags = (function == nic).then(|| flags_of(machine, nic, &name)).flatten();
                let mtu = mtu_of(machine, function, &name);
                links.insert(
                    (function, name),
                    LinkSeen { mtu, is_up: flags.map(|flags| flags & IFF_UP != 0) },
                );
            }
        }
        Self(links)
    }

    /// Puts back what is other than it was, as far as that goes.
    pub(super) fn restore(&self, machine: &mut dyn Machine, nic: Bdf) {
        // Which of a NIC and its functions has to go first depends on which way it is: who was refused is asked again.
        for _ in 0..2 {
            for ((function, name), was) in &self.0 {
                let mtu = was.mtu.filter(|mtu| mtu_of(machine, *function, name).is_some_and(|is| is != *mtu));
                if let Some(mtu) = mtu {
                    let _ = NicStep::Mtu(*function, name.clone(), mtu).write(machine, nic);
                }
            }
        }
        for ((function, name), _) in self.0.iter().filter(|(_, was)| was.is_up == Some(false)) {
            if let Some(flags) = flags_of(machine, *function, name).filter(|flags| flags & IFF_UP != 0) {
                let path = file(*function, &format!("net/{name}/flags"));
                let _ = machine.write(&path, &format!("{:#x}\n", flags & !IFF_UP));
            }
        }
    }
}
