//! What is done to a machine for its functions, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::hardware::{Bdf, Tree, TreeError};
use crate::vf_settings::VfLinks;

/// The folder of all functions.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";
/// The driver that gives functions to guests.
pub const VFIO_PCI: &str = "vfio-pci";

/// A machine whose functions can be bound: its files, some of which are written, and what its NICs tell their functions.
pub trait Machine: Tree + VfLinks {
    /// Writes a text into a file that is there, in one call: the kernel acts on it before this returns, or refuses.
    ///
    /// # Errors
    /// When the file is not there, or what the kernel says.
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError>;

    /// Opens the device file of an IOMMU group and lets go of it again: only one process may have it at a time.
    ///
    /// # Errors
    /// When it is not there, or somebody has it.
    fn try_group(&mut self, group: u32) -> Result<(), TreeError>;

    /// The files below `/dev/vfio` that processes have open, by their path, each with one of those processes. Opens none of them: whoever
    /// opens one at that moment would be refused.
    ///
    /// # Errors
    /// When not all processes can be looked at.
    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError>;

    /// Resets a function with everything below its bridge by VFIO: `groups` are the IOMMU groups of all of that, which are with vfio-pci
    /// and which nobody has open.
    ///
    /// # Errors
    /// When it cannot, or what the kernel says.
    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError>;
}

impl<T: Machine + ?Sized> Machine for Box<T> {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        (**self).write(path, text)
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        (**self).try_group(group)
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        (**self).vfio_files()
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        (**self).hot_reset(address, groups)
    }
}

/// A file of a function.
pub(super) fn file(address: Bdf, name: &str) -> String {
    format!("{DEVICES}/{address}/{name}")
}

/// A file's first line, without what is around it; `None` when it cannot be read.
pub(super) fn line(machine: &(impl Tree + ?Sized), path: &str) -> Option<String> {
    let bytes = machine.read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// A number in a file.
pub(super) fn number(machine: &(impl Tree + ?Sized), path: &str) -> Option<u32> {
    line(machine, path)?.parse().ok()
}

/// Whether a function is there.
pub(super) fn is_there(machine: &(impl Tree + ?Sized), address: Bdf) -> bool {
    machine.read(&file(address, "vendor")).is_ok()
}
