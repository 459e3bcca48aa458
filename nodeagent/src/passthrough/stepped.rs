//! A machine whose changes are steps: see [`crate::steps`].

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_nodeagent_core::hardware::{Bdf, Tree, TreeError};
use bulkhead_nodeagent_core::passthrough::Machine;
use bulkhead_nodeagent_core::vf_settings::{VfLinkError, VfLinks, VfSetting, VfSettings};

use super::running::Running;
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

/// A machine of which everything that is written or told is a step, which is said to run until it has returned.
pub(super) struct Stepped {
    machine: Box<dyn Machine + Send>,
    running: Running,
}

impl Stepped {
    pub(super) fn new(machine: impl Machine + Send + 'static, running: Running) -> Self {
        Self { machine: Box::new(machine), running }
    }
}

/// The file of what is written, and whose it is: where it is one of the bus, the text says that.
fn of_device<'a>(path: &'a str, text: &'a str) -> (&'a str, &'a str) {
    let of_function = path.strip_prefix("/sys/bus/pci/devices/").and_then(|rest| rest.split_once('/'));
    match of_function {
        Some((address, name)) => (name, address),
        None => (path, text.trim()),
    }
}

impl Tree for Stepped {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.machine.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        self.machine.list(path)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        self.machine.link(path)
    }
}

impl VfLinks for Stepped {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        self.machine.vf(interface_index, vf)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        let of = format!("vf {vf} of interface {interface_index}");
        let running = self.running.begin(setting.name(), &of);
        let told = self.machine.set_vf(interface_index, vf, setting);
        drop(running);
        passed(Step::FunctionTold);
        told
    }
}

impl Machine for Stepped {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        let step = WRITES.iter().find(|(end, _)| path.ends_with(end)).map(|(_, step)| *step);
        // Whoever writes something new adds a step, and it is tested what becomes of who dies there.
        debug_assert!(step.is_some(), "{path} is written, and that is no step");
        let (name, device) = of_device(path, text);
        let running = self.running.begin(name, device);
        let written = self.machine.write(path, text);
        drop(running);
        step.into_iter().for_each(passed);
        written
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        let _running = self.running.begin("open", &format!("/dev/vfio/{group}"));
        self.machine.try_group(group)
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        self.machine.vfio_files()
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        let running = self.running.begin("VFIO_DEVICE_PCI_HOT_RESET", &address.to_string());
        let reset = self.machine.hot_reset(address, groups);
        drop(running);
        passed(Step::FunctionReset);
        reset
    }
}
