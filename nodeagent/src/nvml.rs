//! NVML, the library of NVIDIA's driver: loaded when it is there, and never needed.
//!
//! Source: NVIDIA's "NVML API Reference Guide"; crate `nvml-wrapper`, which loads the library at run time.

use std::time::{Duration, Instant};

use bulkhead_nodeagent_core::hardware::{
    Accelerators, Ailment, Bdf, CARDS_MAX, CardReading, Cards, FAULTS_PER_WAIT_MAX, Unavailable,
};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use smol_str::SmolStr;

/// Longest text that is taken over, in bytes.
const TEXT_BYTES_MAX: usize = 96;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct NvmlLibrary;

impl Accelerators for NvmlLibrary {
    fn open(&mut self, work: &mut dyn FnMut(&mut dyn Cards)) -> Result<(), Unavailable> {
        let nvml = Nvml::init().map_err(|error| unavailable(&error))?;
        let mut session = Session { nvml: &nvml, events: events(&nvml) };
        work(&mut session);
        if let Some(events) = session.events.take() {
            let _ = events.release_events();
        }
        Ok(())
    }
}

fn unavailable(error: &NvmlError) -> Unavailable {
    let remedy = match error {
        NvmlError::LibloadingError(_) => {
            "install the library of the driver's own version (Debian: apt-get install libnvidia-ml1); without it cards have no \
             number, memory and health of their own"
        }
        NvmlError::DriverNotLoaded => "modprobe nvidia",
        NvmlError::NoPermission => "run the agent as root, or let it use /dev/nvidiactl",
        NvmlError::LibRmVersionMismatch => {
            "library and driver are of different versions: load the driver anew, or restart the machine"
        }
        _ => "see nvidia-smi and the kernel's log",
    };
    Unavailable { reason: format!("NVML: {error}"), remedy: remedy.to_owned() }
}

/// NVML while it is in use.
struct Session<'nvml> {
    nvml: &'nvml Nvml,
    events: Option<EventSet<'nvml>>,
}

/// The set of faults of all cards that tell of any. A card that refuses ends its set, so that one is made anew without it.
fn events(nvml: &Nvml) -> Option<EventSet<'_>> {
    let count = nvml.device_count().ok()?.min(CARDS_MAX as u32);
    let xid = EventTypes::CRITICAL_XID_ERROR;
    let mut refused = Vec::new();
    for _ in 0..=count {
        let mut set = Some(nvml.create_event_set().ok()?);
        for index in (0..count).filter(|index| !refused.contains(index)).collect::<Vec<_>>() {
            let Ok(device) = nvml.device_by_index(index) else { continue };
            if !device.supported_event_types().is_ok_and(|types| types.contains(xid)) {
                continue;
            }
            set = set.and_then(|set| device.register_events(xid, set).ok());
            if set.is_none() {
                refused.push(index);
                break;
            }
        }
        if set.is_some() {
            return set;
        }
    }
    None
}

fn address(device: &nvml_wrapper::Device<'_>) -> Option<Bdf> {
    let pci = device.pci_info().ok()?;
    format!("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device).parse().ok()
}

fn text(text: Result<String, NvmlError>) -> Option<SmolStr> {
    let text: String = text.ok()?.chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then(|| SmolStr::new(text))
}

fn reading(device: &nvml_wrapper::Device<'_>, address: Bdf) -> CardReading {
    let memory = device.memory_info();
    let mut ailments = Vec::new();
    // Whichever call it is: what a card is not able to tell is another error.
    match memory.as_ref().err() {
        Some(NvmlError::GpuLost) => ailments.push(Ailment::Lost),
        Some(NvmlError::ResetRequired) => ailments.push(Ailment::ResetRequired),
        Some(NvmlError::CorruptedInfoROM) => ailments.push(Ailment::InfoRomCorrupted),
        _ => {}
    }
    if device.are_pages_pending_retired().is_ok_and(|pending| pending) {
        ailments.push(Ailment::PagesPending);
    }
    let memory = memory.ok();
    let ecc = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    CardReading {
        address,
        uuid: text(device.uuid()),
        name: text(device.name()),
        memory_bytes: memory.as_ref().map(|memory| memory.total),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used.min(memory.total)),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu.min(100)),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        power_milliwatts: device.power_usage().ok().map(u64::from),
        ecc_uncorrected: ecc.ok(),
        ailments,
    }
}

impl Cards for Session<'_> {
    fn list(&mut self) -> Vec<CardReading> {
        let count = self.nvml.device_count().unwrap_or_default().min(CARDS_MAX as u32);
        let devices = (0..count).filter_map(|index| self.nvml.device_by_index(index).ok());
        let mut all: Vec<_> =
            devices.filter_map(|device| Some(reading(&device, address(&device)?))).collect();
        all.sort_by_key(|card| card.address);
        all.dedup_by_key(|card| card.address);
        all
    }

    fn wait_for_faults(&mut self, at_most: Duration) -> Vec<(Bdf, u32)> {
        let until = Instant::now() + at_most;
        let mut found = Vec::new();
        while found.len() < FAULTS_PER_WAIT_MAX {
            let left = until.saturating_duration_since(Instant::now());
            let millis = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
            match self.events.as_ref().map(|events| events.wait(millis)) {
                Some(Ok(event)) => {
                    let code = match event.event_data {
                        Some(XidError::Value(code)) => u32::try_from(code).ok(),
                        Some(XidError::Unknown) | None => None,
                    };
                    found.extend(address(&event.device).zip(code));
                }
                Some(Err(NvmlError::Timeout)) => break,
                // It tells of nothing: the wait is the same.
                Some(Err(_)) | None => {
                    std::thread::sleep(left);
                    break;
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_nodeagent_core::hardware::{check_accelerators, has_nvidia_driver};

    use super::*;

    #[test]
    fn nvml_keeps_to_the_contract_with_and_without_a_driver() {
        let is_there = has_nvidia_driver(&crate::MachineTree::new("/"));
        assert_eq!(check_accelerators(&mut NvmlLibrary), is_there);
    }
}
