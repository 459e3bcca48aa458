//! The virtual functions of a NIC: as many as are wanted, each with its driver, and nothing else of the NIC touched.
//!
//! ```text
//!  seen + wanted ─► Check ─► RemoveFunctions ─► Autoprobe ─► CreateFunctions ─► WaitForFunctions ─► BindFunction … ─► Mtu ─► LinkUp ─► done
//!                                └────────────── a step fails: as it was before ◄──────────────┘
//! ```
//! A NIC with the wanted number of functions is never taken apart to make the same again, and none while pods or anybody else on the host
//! have any: the kernel would wait, for as long as a process has a function open, and whoever uses its interface would lose it. A function
//! that somebody uses keeps its driver, too; all others go on.
//!
//! Source: "sysfs-bus-pci" (`sriov_numvfs`, `sriov_drivers_autoprobe`) and `PCI/pci-iov-howto.rst` of Linux. The kernel takes
//! a number of functions only after 0, and some drivers answer before the functions are there.

use std::collections::BTreeMap;

use bulkhead_types::{ObjectId, SriovDeviceType, SriovInterface, SriovVfGroup};

use super::foreign::users_of;
use super::machine::{DEVICES, file, is_there, line, number};
use super::nic_links::{LinksSeen, grows, next_mtu, next_up};
use super::{Binding, Machine, Progress, Seen, VFIO_PCI};
use crate::hardware::{Bdf, DRIVERS_PROBE, Tree};
use crate::vf_settings::{port_of, speaks_otherwise};

/// More steps than a NIC of the most functions takes.
const STEPS_MAX: usize = 8 * bulkhead_types::NUM_VFS_MAX as usize;
/// How long functions may take to be there once they were asked for, in milliseconds.
pub const FUNCTIONS_WITHIN_MS: u64 = 30_000;

/// What is done next to a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicStep {
    /// It cannot be what it shall be.
    Impossible(String),
    /// It speaks something else than it shall.
    LinkType(String),
    /// It has nothing by which its functions could do RDMA.
    Rdma(String),
    /// Its functions go.
    RemoveFunctions,
    /// Whether the host's drivers take new functions at once.
    Autoprobe(bool),
    /// So many functions come.
    CreateFunctions(u32),
    /// Functions were asked for and are not there yet, or not gone yet.
    WaitForFunctions,
    /// A function's driver: only this one may have it; any, when unset.
    Override(Bdf, Option<String>),
    /// A function's driver lets go of it.
    Unbind(Bdf),
    /// The kernel looks for a function's driver.
    Probe(Bdf),
    /// The largest packet of an interface of a function, in bytes.
    Mtu(Bdf, String, u32),
    /// The NIC's own interface is switched on, with these flags: its functions' links follow its own.
    LinkUp(String, u32),
}

impl NicStep {
    /// Its name, as statuses show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Impossible(_) => "Check",
            Self::LinkType(_) => "LinkType",
            Self::Rdma(_) => "Rdma",
            Self::RemoveFunctions => "RemoveFunctions",
            Self::Autoprobe(_) => "Autoprobe",
            Self::CreateFunctions(_) => "CreateFunctions",
            Self::WaitForFunctions => "WaitForFunctions",
            Self::Override(..) | Self::Unbind(_) | Self::Probe(_) => "BindFunction",
            Self::Mtu(..) => "Mtu",
            Self::LinkUp(..) => "LinkUp",
        }
    }

    pub(super) fn write(&self, machine: &mut dyn Machine, nic: Bdf) -> Result<(), String> {
        let (path, text) = match self {
            Self::Impossible(reason) | Self::LinkType(reason) | Self::Rdma(reason) => {
                return Err(reason.clone());
            }
            Self::WaitForFunctions => return Ok(()),
            Self::RemoveFunctions => (file(nic, "sriov_numvfs"), "0\n".to_owned()),
            Self::CreateFunctions(count) => (file(nic, "sriov_numvfs"), format!("{count}\n")),
            Self::Autoprobe(on) => (file(nic, "sriov_drivers_autoprobe"), format!("{}\n", u8::from(*on))),
            Self::Override(vf, driver) => {
                (file(*vf, "driver_override"), format!("{}\n", driver.as_deref().unwrap_or_default()))
            }
            Self::Unbind(vf) => (file(*vf, "driver/unbind"), format!("{vf}\n")),
            Self::Probe(vf) => (DRIVERS_PROBE.to_owned(), format!("{vf}\n")),
            Self::Mtu(function, interface, mtu) => {
                (file(*function, &format!("net/{interface}/mtu")), format!("{mtu}\n"))
            }
            Self::LinkUp(interface, flags) => {
                (file(nic, &format!("net/{interface}/flags")), format!("{flags:#x}\n"))
            }
        };
        machine.write(&path, &text).map_err(|error| format!("{path} {error}"))
    }
}

/// A NIC as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NicSeen {
    has_driver: bool,
    vfs_max: u32,
    /// What `sriov_numvfs` says.
    vfs_count: u32,
    /// By number, as far as they are there.
    vfs: BTreeMap<u32, (Bdf, Seen)>,
    autoprobe: bool,
}

impl NicSeen {
    fn of(machine: &(impl Tree + ?Sized), nic: Bdf) -> Result<Self, String> {
        if !is_there(machine, nic) {
            return Err(format!("{nic} is not there"));
        }
        let vfs_max = number(machine, &file(nic, "sriov_totalvfs"));
        let vfs_max = vfs_max.ok_or_else(|| {
            format!("{nic} can have no virtual functions: turn SR-IOV on in the machine's firmware and in the NIC's")
        })?;
        let names = machine.list(&format!("{DEVICES}/{nic}")).map_err(|error| format!("{nic} {error}"))?;
        let vf = |name: &String| {
            let index = name.strip_prefix("virtfn")?.parse().ok()?;
            let target = machine.link(&file(nic, name)).ok()?;
            let address: Bdf = target.rsplit('/').next()?.parse().ok()?;
            Some((index, (address, Seen::of(machine, address)?)))
        };
        Ok(Self {
            has_driver: machine.link(&file(nic, "driver")).is_ok(),
            vfs_max,
            vfs_count: number(machine, &file(nic, "sriov_numvfs")).unwrap_or_default(),
            vfs: names.iter().filter_map(vf).collect(),
            // Older kernels have no such file and always probe.
            autoprobe: line(machine, &file(nic, "sriov_drivers_autoprobe")).is_none_or(|text| text != "0"),
        })
    }

    fn is_settled(&self) -> bool {
        self.vfs.len() == self.vfs_count as usize
    }

    fn addresses(&self) -> Vec<Bdf> {
        self.vfs.values().map(|(vf, _)| *vf).collect()
    }
}

/// The pods that have functions of a NIC, by the bindings of the node.
fn holders(vfs: &BTreeMap<u32, (Bdf, Seen)>, bindings: &BTreeMap<Bdf, Binding>) -> Vec<ObjectId> {
    let mut pods: Vec<ObjectId> =
        vfs.values().filter_map(|(vf, _)| bindings.get(vf)).map(|binding| binding.pod).collect();
    pods.sort_unstable();
    pods.dedup();
    pods
}

/// The work on one NIC, from when it was begun until it is settled, blocked or has failed.
#[derive(Clone, Debug)]
pub struct NicWork {
    wanted: SriovInterface,
    /// How it was when something was changed first.
    before: Option<(NicSeen, LinksSeen)>,
    waiting_since_ms: Option<u64>,
}

impl NicWork {
    /// Work towards what is wanted.
    #[must_use]
    pub fn new(wanted: SriovInterface) -> Self {
        Self { wanted, before: None, waiting_since_ms: None }
    }

    /// Does what can be done now; `now_ms` on a clock that never goes back.
    pub fn advance(
        &mut self,
        machine: &mut dyn Machine,
        bindings: &BTreeMap<Bdf, Binding>,
        now_ms: u64,
    ) -> Progress {
        let failed = |step, reason| Progress::Failed { step, reason };
        let Ok(nic) = self.wanted.pci_address.parse::<Bdf>() else {
            return failed("Check", format!("{:?} is no PCI address", self.wanted.pci_address));
        };
        let (mut last, mut held) = (None, BTreeMap::new());
        for _ in 0..STEPS_MAX {
            let seen = match NicSeen::of(machine, nic) {
                Ok(seen) => seen,
                Err(reason) => return failed("Check", reason),
            };
            let is_left = |vf: &Bdf| bindings.contains_key(vf) || held.contains_key(vf);
            let Some(step) = next_step(machine, nic, &self.wanted, &seen, &is_left) else {
                return match held.is_empty() {
                    true => Progress::Settled,
                    false => Progress::Blocked { pods: Vec::new(), foreign: held },
                };
            };
            match &step {
                NicStep::WaitForFunctions if !self.is_late(now_ms) => return Progress::Waiting,
                NicStep::RemoveFunctions => {
                    let pods = holders(&seen.vfs, bindings);
                    let foreign = users_of(machine, &seen.addresses(), bindings);
                    if !pods.is_empty() || !foreign.is_empty() {
                        return Progress::Blocked { pods, foreign };
                    }
                }
                NicStep::Override(vf, _) | NicStep::Unbind(vf) => {
                    let foreign = users_of(machine, &[*vf], bindings);
                    if !foreign.is_empty() {
                        held.extend(foreign);
                        continue;
                    }
                }
                _ => {}
            }
            let outcome = match &step {
                NicStep::WaitForFunctions => Err(format!(
                    "{} of {} are there after {} s",
                    seen.vfs.len(),
                    seen.vfs_count,
                    FUNCTIONS_WITHIN_MS / 1000
                )),
                step if last.as_ref() == Some(step) => Err("it had no effect".to_owned()),
                step => {
                    if !matches!(step, NicStep::Impossible(_) | NicStep::LinkType(_) | NicStep::Rdma(_)) {
                        let links = || LinksSeen::of(machine, nic, &seen.addresses());
                        self.before.get_or_insert_with(|| (seen.clone(), links()));
                    }
                    step.write(machine, nic)
                }
            };
            if let Err(reason) = outcome {
                self.roll_back(machine, nic, bindings);
                return failed(step.name(), reason);
            }
            last = Some(step);
        }
        failed("BindFunction", "it takes no end".to_owned())
    }

    fn is_late(&mut self, now_ms: u64) -> bool {
        now_ms.saturating_sub(*self.waiting_since_ms.get_or_insert(now_ms)) >= FUNCTIONS_WITHIN_MS
    }

    /// Puts the NIC back as it was before this work, as far as that goes: the number of functions, their drivers, and its interfaces. What
    /// somebody uses by now stays.
    fn roll_back(&mut self, machine: &mut dyn Machine, nic: Bdf, bindings: &BTreeMap<Bdf, Binding>) {
        let (Some((before, links)), Ok(now)) = (self.before.take(), NicSeen::of(machine, nic)) else {
            return;
        };
        let is_free = holders(&now.vfs, bindings).is_empty()
            && users_of(machine, &now.addresses(), bindings).is_empty();
        if now.vfs_count != before.vfs_count && is_free {
            if now.vfs_count > 0 {
                let _ = NicStep::RemoveFunctions.write(machine, nic);
            }
            let _ = NicStep::Autoprobe(before.autoprobe).write(machine, nic);
            if before.vfs_count > 0 {
                let _ = NicStep::CreateFunctions(before.vfs_count).write(machine, nic);
            }
        }
        for (vf, was) in before.vfs.values().filter(|(vf, _)| !bindings.contains_key(vf)) {
            let Some(is) = Seen::of(machine, *vf) else { continue };
            if is == *was || !users_of(machine, &[*vf], bindings).is_empty() {
                continue;
            }
            if is.driver != was.driver && is.driver.is_some() {
                let _ = NicStep::Unbind(*vf).write(machine, nic);
            }
            if is.driver_override != was.driver_override {
                let _ = NicStep::Override(*vf, was.driver_override.clone()).write(machine, nic);
            }
            if is.driver != was.driver && was.driver.is_some() {
                let _ = NicStep::Probe(*vf).write(machine, nic);
            }
        }
        let _ = NicStep::Autoprobe(before.autoprobe).write(machine, nic);
        links.restore(machine, nic);
    }
}

/// What is next; `None` when the NIC is what it shall be, but for the functions that are left as they are.
fn next_step(
    machine: &dyn Machine,
    nic: Bdf,
    wanted: &SriovInterface,
    seen: &NicSeen,
    is_left: &dyn Fn(&Bdf) -> bool,
) -> Option<NicStep> {
    if wanted.num_vfs > seen.vfs_max {
        let reason = format!("{nic} can have {} virtual functions, not {}", seen.vfs_max, wanted.num_vfs);
        return Some(NicStep::Impossible(reason));
    }
    if wanted.num_vfs > 0 && !seen.has_driver {
        let reason = format!("{nic} has no driver of the host, which makes its virtual functions");
        return Some(NicStep::Impossible(reason));
    }
    if wanted.num_vfs > 0
        && let Some(refused) = speaks_what_is_wanted(machine, nic, wanted)
    {
        return Some(refused);
    }
    if seen.vfs_count != wanted.num_vfs {
        return Some(match seen.vfs_count {
            // Guests get them, so no driver of the host should begin with them.
            0 if !seen.is_settled() => NicStep::WaitForFunctions,
            0 if seen.autoprobe => NicStep::Autoprobe(false),
            0 => NicStep::CreateFunctions(wanted.num_vfs),
            _ => NicStep::RemoveFunctions,
        });
    }
    if !seen.is_settled() {
        return Some(NicStep::WaitForFunctions);
    }
    let group_of =
        |index: u32| wanted.vf_groups.iter().find(|group| (group.first..=group.last).contains(&index));
    let mut of_vfs = seen.vfs.iter().filter(|(_, (vf, _))| !is_left(vf));
    let of_vf =
        of_vfs.find_map(|(index, (vf, is))| next_of_function(machine, *vf, is, seen, group_of(*index)?));
    let of_nic = wanted.mtu.and_then(|mtu| next_mtu(machine, nic, mtu));
    let (first, second) = match &of_nic {
        Some(step) if grows(machine, step) => (of_nic, of_vf),
        _ => (of_vf, of_nic),
    };
    // At last, so that nothing that fails later has to switch it off again.
    let up = || (wanted.num_vfs > 0).then(|| next_up(machine, nic))?;
    first.or(second).or_else(up)
}

/// Why a NIC cannot speak what is wanted of it: that is said by its firmware, or by a driver that is not there.
fn speaks_what_is_wanted(machine: &dyn Machine, nic: Bdf, wanted: &SriovInterface) -> Option<NicStep> {
    if let Some(link_type) = wanted.link_type {
        let refused = match port_of(machine, nic) {
            Ok(port) => speaks_otherwise(nic, &port, link_type),
            Err(reason) => Some(reason),
        };
        if let Some(reason) = refused {
            return Some(NicStep::LinkType(reason));
        }
    }
    let wants_rdma = wanted.vf_groups.iter().any(|group| group.is_rdma);
    let has_rdma = !machine.list(&file(nic, "infiniband")).unwrap_or_default().is_empty();
    (wants_rdma && !has_rdma).then(|| {
        NicStep::Rdma(format!(
            "{nic} has no RDMA device: run modprobe mlx5_ib (the RDMA module of the NIC's driver), or leave isRdma out of the policy"
        ))
    })
}

/// What is next for a function of a group.
fn next_of_function(
    machine: &dyn Machine,
    vf: Bdf,
    is: &Seen,
    nic: &NicSeen,
    group: &SriovVfGroup,
) -> Option<NicStep> {
    match group.device_type {
        SriovDeviceType::VfioPci if is.driver_override.as_deref() != Some(VFIO_PCI) => {
            Some(NicStep::Override(vf, Some(VFIO_PCI.to_owned())))
        }
        SriovDeviceType::VfioPci => match is.driver.as_deref() {
            Some(VFIO_PCI) => None,
            Some(_) => Some(NicStep::Unbind(vf)),
            None => Some(NicStep::Probe(vf)),
        },
        SriovDeviceType::Netdevice if is.driver_override.as_deref() == Some(VFIO_PCI) => {
            Some(NicStep::Override(vf, None))
        }
        SriovDeviceType::Netdevice => match is.driver.as_deref() {
            Some(VFIO_PCI) => Some(NicStep::Unbind(vf)),
            // The kernel passes over functions of a NIC that does not probe.
            None if !nic.autoprobe => Some(NicStep::Autoprobe(true)),
            None => Some(NicStep::Probe(vf)),
            Some(_) => group.mtu.and_then(|mtu| next_mtu(machine, vf, mtu)),
        },
    }
}
