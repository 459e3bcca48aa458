//! Network cards and what is behind them (`-netdev`).

use super::option::Opts;
use super::{Device, QemuCommand};

/// A tap of the host, as a descriptor that QEMU inherits: it can open none itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// Its name for devices.
    pub id: String,
    /// The descriptor's number.
    pub fd: i32,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioNetPci {
    /// Its name.
    pub id: String,
    /// Which backend.
    pub netdev: String,
    /// Its MAC address, by which the guest finds it.
    pub mac: String,
}

impl Netdev {
    pub(super) fn args(&self) -> [String; 2] {
        let value = Opts::new("tap").set("id", &self.id).set("fd", self.fd);
        ["-netdev".to_owned(), value.finish()]
    }
}

impl VirtioNetPci {
    /// Without a ROM: a guest boots from nothing but its kernel.
    pub(super) fn opts(&self) -> Opts {
        Opts::new("virtio-net-pci")
            .set("id", &self.id)
            .set("netdev", &self.netdev)
            .set("mac", &self.mac)
            .set("romfile", "")
    }
}

impl QemuCommand {
    /// Adds a network card on a tap that QEMU inherits as this descriptor.
    pub fn connect(&mut self, fd: i32, mac: &str) {
        let n = self.netdevs.len();
        let netdev = format!("net{n}");
        self.netdevs.push(Netdev { id: netdev.clone(), fd });
        let card = VirtioNetPci { id: format!("nic{n}"), netdev, mac: mac.to_owned() };
        self.devices.push(Device::VirtioNetPci(card));
    }
}
