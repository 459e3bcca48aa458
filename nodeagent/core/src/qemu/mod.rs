//! QEMU's command line as data: one struct per switch, fields named as QEMU names them.
//!
//! Source: the invocation chapter of QEMU's system emulation manual. Nothing here looks at the host.

mod chardev;
mod device;
mod growth;
mod machine;
mod network;
mod option;
mod pages;
mod passthrough;
mod ports;
mod ram;

pub use chardev::*;
pub use device::*;
pub use growth::*;
pub use machine::*;
pub use network::*;
pub use pages::*;
pub use passthrough::*;
pub use ports::*;
pub use ram::*;

/// A whole command line, without the program's name.
///
/// No default devices, no user configuration, no graphics, no reboot: what is not said here is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCommand {
    /// `-name`
    pub name: Name,
    /// `-uuid`
    pub uuid: MachineUuid,
    /// `-machine`
    pub machine: Machine,
    /// `-accel`
    pub accel: Accel,
    /// `-cpu`
    pub cpu: Cpu,
    /// `-smp`
    pub smp: Smp,
    /// `-m`
    pub memory: Memory,
    /// `-object memory-backend-ram`, `-machine memory-backend`, `-numa`
    pub ram: Ram,
    /// `-kernel`, `-initrd`, `-append`
    pub kernel: Kernel,
    /// `-incoming defer`: the machine begins in a state that it is given, in which its kernel runs already and needs no file.
    pub incoming: bool,
    /// `-chardev`, in order.
    pub chardevs: Vec<Chardev>,
    /// `-serial`
    pub serial: Option<Serial>,
    /// `-mon`
    pub qmp: Option<Qmp>,
    /// `-blockdev`, in order.
    pub blockdevs: Vec<Blockdev>,
    /// `-netdev`, in order.
    pub netdevs: Vec<Netdev>,
    /// `-device`, in order.
    pub devices: Vec<Device>,
    /// `-global q35-pcihost.pci-hole64-size`: room above memory for what devices map, in bytes; the board's own when unset.
    pub pci_hole64_bytes: Option<u64>,
    /// Room to grow, beside board memory that is in no NUMA node.
    pub growth: Option<crate::Growth>,
    /// `-sandbox`
    pub sandbox: Option<Sandbox>,
    /// `-pidfile`
    pub pidfile: Option<String>,
}

impl QemuCommand {
    /// The arguments, in a fixed order.
    ///
    /// # Panics
    /// When a disk's serial is too long.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let mut args: Vec<String> =
            ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"].map(str::to_owned).into();
        args.extend(self.name.args());
        args.extend(self.uuid.args());
        args.extend(self.machine.args());
        args.extend(self.accel.args());
        args.extend(self.cpu.args());
        match self.growth {
            Some(growth) => {
                args.extend(growth.smp_args(self.smp));
                args.extend(growth.memory_args(self.memory));
            }
            None => {
                args.extend(self.ram.smp_args(self.smp));
                args.extend(self.memory.args());
            }
        }
        args.extend(self.ram.args());
        match self.incoming {
            true => args.extend(["-incoming", "defer"].map(str::to_owned)),
            false => args.extend(self.kernel.args()),
        }
        args.extend(self.chardevs.iter().flat_map(Chardev::args));
        args.extend(self.serial.iter().flat_map(Serial::args));
        args.extend(self.qmp.iter().flat_map(Qmp::args));
        if let Some(bytes) = self.pci_hole64_bytes {
            args.extend(["-global".to_owned(), format!("q35-pcihost.pci-hole64-size={bytes}")]);
        }
        args.extend(self.blockdevs.iter().flat_map(Blockdev::args));
        args.extend(self.netdevs.iter().flat_map(Netdev::args));
        // Else QEMU puts what names no bus on the expander that it finds first.
        let has_expanders = self.devices.iter().any(|device| matches!(device, Device::PxbPcie(_)));
        args.extend(self.devices.iter().flat_map(|device| device.args(has_expanders)));
        args.extend(self.growth.iter().flat_map(|growth| growth.device_args(has_expanders)));
        args.extend(self.sandbox.iter().flat_map(|sandbox| sandbox.to_args()));
        args.extend(self.pidfile.iter().flat_map(|path| ["-pidfile".to_owned(), path.clone()]));
        args
    }
}
