//! A machine behind something: tests fail, wait or count at some calls, and pass the others on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use super::Machine;
use crate::hardware::{Bdf, Tree, TreeError};
use crate::vf_settings::{VfLinkError, VfLinks, VfSetting, VfSettings};

/// What stands before a machine. What it does not do itself, the machine does: a new operation of [`Machine`] is passed on by all of them
/// with one line here. As a machine it is [`Wrapped`].
pub trait Before {
    /// Looks at the machine behind it.
    fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T;

    /// Does something to the machine behind it.
    fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T;

    /// [`Tree::read`].
    #[expect(clippy::missing_errors_doc, reason = "as there")]
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.look(|machine| machine.read(path))
    }

    /// [`VfLinks::set_vf`].
    #[expect(clippy::missing_errors_doc, reason = "as there")]
    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        self.act(|machine| machine.set_vf(interface_index, vf, setting))
    }

    /// [`Machine::write`].
    #[expect(clippy::missing_errors_doc, reason = "as there")]
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.act(|machine| machine.write(path, text))
    }

    /// [`Machine::hot_reset`].
    #[expect(clippy::missing_errors_doc, reason = "as there")]
    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        self.act(|machine| machine.hot_reset(address, groups))
    }
}

/// A machine with something before it.
#[derive(Clone, Debug)]
pub struct Wrapped<B>(pub B);

impl<B> Deref for Wrapped<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B> DerefMut for Wrapped<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0
    }
}

impl<B: Before> Tree for Wrapped<B> {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.0.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        self.0.look(|machine| machine.list(path))
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        self.0.look(|machine| machine.link(path))
    }
}

impl<B: Before> VfLinks for Wrapped<B> {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        self.0.look(|machine| machine.vf(interface_index, vf))
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        self.0.set_vf(interface_index, vf, setting)
    }
}

impl<B: Before> Machine for Wrapped<B> {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.0.write(path, text)
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        self.0.act(|machine| machine.try_group(group))
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        self.0.look(|machine| machine.vfio_files())
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        self.0.hot_reset(address, groups)
    }
}

#[cfg(test)]
mod tests {
    use super::super::KernelModel;
    use super::*;

    /// Does nothing itself.
    struct Nothing(KernelModel);

    impl Before for Nothing {
        fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T {
            look(&self.0)
        }

        fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
            act(&mut self.0)
        }
    }

    /// What each operation says, also of what is not there.
    fn said(machine: &mut dyn Machine) -> Vec<String> {
        let card: Bdf = "0000:3b:00.0".parse().expect("an address");
        let file = format!("/sys/bus/pci/devices/{card}/driver_override");
        vec![
            format!("{:?}", machine.write(&file, "vfio-pci\n")),
            format!("{:?}", machine.read(&file)),
            format!("{:?}", machine.list("/sys/bus/pci/devices")),
            format!("{:?}", machine.link(&format!("/sys/bus/pci/devices/{card}"))),
            format!("{:?}", machine.try_group(7)),
            format!("{:?}", machine.vfio_files()),
            format!("{:?}", machine.hot_reset(card, &BTreeSet::from([7]))),
            format!("{:?}", machine.vf(3, 0)),
            format!("{:?}", machine.set_vf(3, 0, &VfSetting::Trust(true))),
        ]
    }

    #[test]
    fn what_does_nothing_itself_is_as_the_machine_behind_it() {
        let mut kernel = KernelModel::new(&[]);
        kernel.function("0000:3b:00.0", "10de:2335", "030200", Some(7), None, &[]);
        let mut wrapped = Wrapped(Nothing(kernel.clone()));
        assert_eq!(said(&mut wrapped), said(&mut kernel));
        assert!(said(&mut kernel)[1].contains("Ok"), "it was written");
    }
}
