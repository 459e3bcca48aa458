//! Room to grow: slots for processors, and two devices by which memory comes and goes while the guest runs.
//!
//! Neither device has a driver in the guest until it is first used. `virtio-mem` begins with nothing; the balloon takes back from
//! what the guest started with.

use super::machine::{Memory, Smp};
use super::option::Opts;
use crate::Growth;

/// The `virtio-mem` device.
pub const GROWTH_DEVICE: &str = "vmem0";
/// Its memory.
const GROWTH_BACKEND: &str = "vmem0-ram";
/// The balloon.
pub const BALLOON_DEVICE: &str = "balloon0";
/// What the board aligns added memory to, in bytes.
const ALIGNMENT_BYTES: u64 = 1 << 30;
/// For guests with room to grow: there may be memory above 4 GiB one day, and for that Linux would set 64 MiB aside at once, for
/// devices that cannot reach it. No guest has such.
pub const GROWTH_KERNEL_ARG: &str = "swiotlb=noforce";

impl Growth {
    pub(super) fn smp_args(self, smp: Smp) -> [String; 2] {
        let value = Opts::keyed("cpus", smp.cpus).set("maxcpus", self.cpus_max.max(smp.cpus));
        ["-smp".to_owned(), value.finish()]
    }

    pub(super) fn memory_args(self, memory: Memory) -> [String; 2] {
        let mib = |bytes: u64| format!("{}M", bytes.div_ceil(1 << 20));
        let most = memory.size_bytes.saturating_add(self.memory_bytes).saturating_add(ALIGNMENT_BYTES);
        let value = Opts::keyed("size", mib(memory.size_bytes)).set("maxmem", mib(most));
        ["-m".to_owned(), value.finish()]
    }

    /// No memory is set aside for what nobody uses yet. With `has_expanders` the devices name the board's own bus: see
    /// [`super::Device::args`].
    pub(super) fn device_args(self, has_expanders: bool) -> Vec<String> {
        let bus = has_expanders.then_some("pcie.0");
        let backend = Opts::new("memory-backend-ram")
            .set("id", GROWTH_BACKEND)
            .set("size", format!("{}M", self.memory_bytes >> 20))
            .flag("reserve", false);
        let memory = Opts::new("virtio-mem-pci")
            .set("id", GROWTH_DEVICE)
            .set("memdev", GROWTH_BACKEND)
            .set("requested-size", 0)
            .set_if("bus", bus);
        let balloon = Opts::new("virtio-balloon-pci").set("id", BALLOON_DEVICE).set_if("bus", bus);
        let parts = [("-object", backend), ("-device", memory), ("-device", balloon)];
        parts.into_iter().flat_map(|(switch, value)| [switch.to_owned(), value.finish()]).collect()
    }
}
