//! A machine whose changes are steps: see [`crate::steps`].

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_nodeagent_core::hardware::{Bdf, Tree, TreeError};
use bulkhead_nodeagent_core::passthrough::Machine;
use bulkhead_nodeagent_core::vf_settings::{VfLinkError, VfLinks, VfSetting, VfSettings};

use crate::steps::{Step, passed};

/// How the paths end that are written, and which step that is.
const WRITES: [(&str, Step); 9] = [
    ("/driver_override", Step::OverrideSet),
    ("/driver/unbind", Step::FunctionUnbound),
    ("/drivers_probe", Step::FunctionProbed),
    ("/reset", Step::FunctionReset),
    ("/reset_subordinate", Step::FunctionReset),
    ("/sriov_numvfs", Step::FunctionsCounted),
    ("/sriov_drivers_autoprobe", Step::AutoprobeSet),
    ("/mtu", Step::MtuSet),
    ("/flags", Step::NicUp),
];

/// A machine of which everything that is written or told is a step.
pub(super) struct Stepped(Box<dyn Machine + Send>);

impl Stepped {
    pub(super) fn new(machine: impl Machine + Send + 'static) -> Self {
        Self(Box::new(machine))
    }
}

impl Tree for Stepped {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.0.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        self.0.list(path)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        self.0.link(path)
    }
}

impl VfLinks for Stepped {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        self.0.vf(interface_index, vf)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        let told = self.0.set_vf(interface_index, vf, setting);
        passed(Step::FunctionTold);
        told
    }
}

impl Machine for Stepped {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        let step = WRITES.iter().find(|(end, _)| path.ends_with(end)).map(|(_, step)| *step);
        // Whoever writes something new adds a step, and it is tested what becomes of who dies there.
        debug_assert!(step.is_some(), "{path} is written, and that is no step");
        let written = self.0.write(path, text);
        step.into_iter().for_each(passed);
        written
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        self.0.try_group(group)
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        self.0.vfio_files()
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        let reset = self.0.hot_reset(address, groups);
        passed(Step::FunctionReset);
        reset
    }
}
