//! The kernel's interface of a NIC by which functions are told things.

use bulkhead_types::SriovLinkType;

use super::{VfSetting, VfSettings};
use crate::hardware::{Bdf, Tree};

/// What the kernel answers: a number of `errno(3)`, and its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VfLinkError {
    /// The number; 0 when the kernel said nothing.
    pub errno: i32,
    /// For people.
    pub message: String,
}

/// `EPERM`.
pub const EPERM: i32 = 1;
/// `EACCES`.
const EACCES: i32 = 13;
/// `EBUSY`.
const EBUSY: i32 = 16;
/// `ENODEV`.
pub const ENODEV: i32 = 19;
/// `EINVAL`.
pub const EINVAL: i32 = 22;
/// `ERANGE`.
const ERANGE: i32 = 34;
/// `EOPNOTSUPP`.
pub const EOPNOTSUPP: i32 = 95;

impl VfLinkError {
    /// What helps against it.
    #[must_use]
    pub fn remedy(&self, interface: &str) -> String {
        match self.errno {
            EPERM | EACCES => "run the agent as root (CAP_NET_ADMIN)".to_owned(),
            EOPNOTSUPP => format!(
                "the driver of {interface} cannot do that (ethtool -i {interface}): take it out of the network, or use another driver"
            ),
            EINVAL | ERANGE => format!("the driver of {interface} refuses this value: dmesg says why"),
            EBUSY => format!("{interface} is busy with something else: dmesg says with what"),
            ENODEV => "the NIC or its function is gone: see bulkhead get sriovnetworknodestates".to_owned(),
            _ => format!("look at: ip link show {interface}; dmesg"),
        }
    }
}

/// How functions of NICs are looked at and told things: `RTM_GETLINK` and `RTM_SETLINK` of the kernel.
pub trait VfLinks {
    /// What a function of an interface is told now.
    ///
    /// # Errors
    /// What the kernel says; [`ENODEV`] when there is no such function.
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError>;

    /// Tells a function one thing. The kernel did it when this returns, or refused.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError>;
}

impl<T: VfLinks + ?Sized> VfLinks for Box<T> {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        (**self).vf(interface_index, vf)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        (**self).set_vf(interface_index, vf, setting)
    }
}

/// The interface of a physical function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number, which stays when it is renamed.
    pub index: u32,
    /// What it speaks; `None` for neither Ethernet nor InfiniBand.
    pub link_type: Option<SriovLinkType>,
}

/// `ARPHRD_ETHER`, `ARPHRD_INFINIBAND`: what `net/NAME/type` has.
const ETHERNET: &str = "1";
const INFINIBAND: &str = "32";

/// The interface of a physical function: the first by name that stands for the NIC itself. Where the NIC is switched by the host
/// (switchdev) interfaces of its functions are beside it; their ports are called `pf0vf3`.
///
/// # Errors
/// That there is none.
pub fn port_of(tree: &(impl Tree + ?Sized), physical: Bdf) -> Result<Port, String> {
    let dir = format!("/sys/bus/pci/devices/{physical}/net");
    let text = |name: &str, file: &str| {
        let bytes = tree.read(&format!("{dir}/{name}/{file}")).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let names = tree.list(&dir).unwrap_or_default();
    let is_own = |name: &String| {
        text(name, "phys_port_name").is_none_or(|port| !(port.starts_with("pf") && port.contains("vf")))
    };
    let name = names.into_iter().find(is_own).ok_or_else(|| {
        format!("the NIC {physical} has no network interface here: bind its driver, or bring its interface back from another network namespace")
    })?;
    let index = text(&name, "ifindex").and_then(|text| text.parse().ok());
    let index = index.ok_or_else(|| format!("{dir}/{name}/ifindex is no number"))?;
    let link_type = match text(&name, "type").as_deref() {
        Some(ETHERNET) => Some(SriovLinkType::Eth),
        Some(INFINIBAND) => Some(SriovLinkType::Ib),
        _ => None,
    };
    Ok(Port { name, index, link_type })
}

/// Why a port cannot speak what is wanted of it, if it does not, and what to run: what Mellanox' NICs speak is said by their
/// firmware, which is not changed under anybody here.
#[must_use]
pub fn speaks_otherwise(physical: Bdf, port: &Port, wanted: SriovLinkType) -> Option<String> {
    if port.link_type == Some(wanted) {
        return None;
    }
    let name = |link_type: SriovLinkType| match link_type {
        SriovLinkType::Eth => ("Ethernet", 2),
        SriovLinkType::Ib => ("InfiniBand", 1),
    };
    let is = port.link_type.map_or("neither Ethernet nor InfiniBand", |is| name(is).0);
    let (wanted, value) = name(wanted);
    let (number, of_port) = (physical.function() + 1, &port.name);
    Some(format!(
        "{physical} ({of_port}) speaks {is}, not {wanted}: run mstconfig -d {physical} set LINK_TYPE_P{number}={value}, and start the machine anew"
    ))
}
