//! The command line of a guest.

use std::path::Path;

use bulkhead_guest_protocol::PORT_NAME;
use bulkhead_nodeagent_core::qemu::*;
use bulkhead_nodeagent_core::{Growth, GuestSize};
use uuid::Uuid;

use super::console::CONSOLE_SOCKET;
use super::process::PID_FILE;
use crate::boot::{BootAssets, KERNEL_ARGS};

/// The control socket, in the instance's folder.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The guest channel, in the instance's folder.
pub(crate) const GUEST_SOCKET: &str = "guest.sock";

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// File name in the instance's folder, or an absolute path.
    pub(crate) file: String,
    /// Whether it outlives its guest.
    pub(crate) is_kept: bool,
    /// What the file holds.
    pub(crate) driver: BlockDriver,
    /// What the guest finds it by.
    pub(crate) serial: String,
}

impl Disk {
    /// How the host caches it. Where it ends with its guest, what that flushes need not reach the host's disk.
    ///
    /// The host's page cache takes for a block device what a thin pool has no room for, and says so when it is flushed and lost already
    /// (fsync(2)): QEMU would have to fail every flush from then on. Around the cache the write itself fails, and QEMU keeps it and tries
    /// again.
    pub(crate) fn cache(&self) -> Cache {
        Cache { direct: self.driver == BlockDriver::HostDevice, no_flush: !self.is_kept }
    }
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub(crate) struct Machinery<'a> {
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
    pub(crate) accel: Accel,
    pub(crate) size: GuestSize,
    pub(crate) boot: &'a BootAssets,
    pub(crate) disks: Vec<Disk>,
    /// Devices of the host.
    pub(crate) devices: Vec<HostDevice>,
    /// The instance's folder; QEMU runs in it.
    pub(crate) dir: &'a Path,
    /// Where its memory is.
    pub(crate) ram: Ram,
    /// Whether the host's kernel may merge its pages with those of others.
    pub(crate) mem_merge: bool,
    pub(crate) sandbox: bool,
    /// It may get other sizes while it runs.
    pub(crate) grows: bool,
}

/// The guest's channel and its disks.
fn devices(disks: &[Disk]) -> Vec<Device> {
    let disks = disks.iter().enumerate().map(|(index, disk)| {
        Device::VirtioBlkPci(VirtioBlkPci {
            id: format!("disk{index}"),
            drive: format!("file{index}"),
            serial: disk.serial.clone(),
        })
    });
    let channel = [
        Device::VirtioSerialPci(VirtioSerialPci { id: "serial0".to_owned() }),
        Device::VirtserialPort(VirtserialPort {
            bus: "serial0.0".to_owned(),
            chardev: "guest".to_owned(),
            name: PORT_NAME.to_owned(),
        }),
    ];
    channel.into_iter().chain(disks).collect()
}

/// The command line of a guest: q35, no network card yet, one serial console, one guest channel, one disk a
/// container and volume.
pub(crate) fn build(parts: &Machinery<'_>) -> QemuCommand {
    let listening = |id: &str, path: &str| Chardev {
        id: id.to_owned(),
        backend: ChardevBackend::Socket { path: path.to_owned(), server: true, wait: false },
    };
    let blockdevs = parts.disks.iter().enumerate().map(|(index, disk)| Blockdev {
        node_name: format!("file{index}"),
        driver: disk.driver,
        filename: disk.file.clone(),
        read_only: false,
        discard: Discard::Unmap,
        cache: disk.cache(),
    });
    // Memory that devices of the host see stays where it is, and NUMA nodes as large as they are.
    let may_grow = parts.grows && parts.devices.is_empty() && parts.ram == Ram::Board;
    let growth = may_grow.then(|| Growth::of(parts.size));
    let mut command = QemuCommand {
        name: Name { guest: parts.name.clone(), debug_threads: true },
        uuid: MachineUuid(parts.uuid),
        machine: Machine {
            machine_type: MachineType::Q35,
            usb: false,
            dump_guest_core: false,
            mem_merge: parts.mem_merge,
        },
        accel: parts.accel,
        cpu: Cpu::Max,
        smp: Smp { cpus: parts.size.cpus },
        memory: Memory { size_bytes: parts.size.memory_bytes },
        ram: parts.ram.clone(),
        kernel: Kernel {
            kernel: parts.boot.kernel.display().to_string(),
            initrd: parts.boot.initramfs.display().to_string(),
            append: KERNEL_ARGS
                .split(' ')
                .chain(growth.map(|_| GROWTH_KERNEL_ARG))
                .map(str::to_owned)
                .collect(),
        },
        incoming: false,
        chardevs: vec![
            listening("qmp", QMP_SOCKET),
            listening("guest", GUEST_SOCKET),
            listening("console", CONSOLE_SOCKET),
        ],
        serial: Some(Serial { chardev: "console".to_owned() }),
        qmp: Some(Qmp { chardev: "qmp".to_owned() }),
        blockdevs: blockdevs.collect(),
        netdevs: Vec::new(),
        devices: devices(&parts.disks),
        pci_hole64_bytes: None,
        growth,
        sandbox: parts.sandbox.then_some(Sandbox::STRICT),
        pidfile: Some(parts.dir.join(PID_FILE).display().to_string()),
    };
    if !parts.devices.is_empty() {
        command.pass_through(&parts.devices);
    }
    // Disks go before room to grow; its network card is still to come.
    if command.growth.is_some() && command.places_needed() + 1 > BOARD_PLACES {
        command.growth = None;
        command.kernel.append.retain(|word| word != GROWTH_KERNEL_ARG);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_go_around_the_page_cache_and_only_what_is_kept_is_flushed() {
        let check = |driver, is_kept, direct, no_flush| {
            let disk = Disk { file: "x".to_owned(), is_kept, driver, serial: "x".to_owned() };
            assert_eq!(disk.cache(), Cache { direct, no_flush });
        };
        check(BlockDriver::HostDevice, true, true, false);
        check(BlockDriver::Raw, true, false, false);
        check(BlockDriver::Qcow2, false, false, true);
    }

    #[test]
    fn who_has_many_disks_has_no_room_to_grow() {
        let boot = BootAssets { kernel: "/k".into(), initramfs: "/i".into(), digest: String::new() };
        let check = |disks: usize, grows: bool| {
            let disk = |n| Disk {
                file: format!("{n}.img"),
                is_kept: false,
                driver: BlockDriver::Raw,
                serial: format!("c{n}"),
            };
            let command = build(&Machinery {
                name: "web".to_owned(),
                uuid: Uuid::nil(),
                accel: Accel::Kvm,
                size: GuestSize { cpus: 1, memory_bytes: 128 << 20 },
                boot: &boot,
                disks: (0..disks).map(disk).collect(),
                devices: Vec::new(),
                dir: Path::new("/d"),
                ram: Ram::Board,
                mem_merge: false,
                sandbox: false,
                grows: true,
            });
            assert_eq!(command.growth.is_some(), grows, "{disks}");
            assert_eq!(command.kernel.append.iter().any(|word| word == GROWTH_KERNEL_ARG), grows);
            assert_eq!(command.check_places(), Ok(()));
        };
        check(1, true);
        check(26, true);
        check(27, false);
        check(28, false);
    }
}
