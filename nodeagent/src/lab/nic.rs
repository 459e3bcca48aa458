//! A network card with functions, where the lab's machine has one: QEMU's model of Intel's 82576 (`igb`, from QEMU 8.0).
//!
//! Its driver is that of the real card, and so is what it makes of MAC, VLAN, spoof check, trust and rates.

use bulkhead_nodeagent_core::hardware::{Bdf, Sriov, Tree as _, discover};
use bulkhead_nodeagent_core::vf_settings::{EOPNOTSUPP, VfLinks, VfRate, VfSetting, VfVlan};
use bulkhead_types::VfLinkState;

use super::{Lab, Outcome, expect, functions, said, settle};
use crate::MachineTree;

/// The driver of the card.
const IGB: &str = "igb";
/// How often its link is looked for, once a second.
const LINK_LOOKS: u32 = 60;

/// A card of this driver that can have functions.
pub(super) fn find() -> Option<Bdf> {
    let mut functions = discover(&MachineTree::new("/")).functions.into_values();
    let nic = functions.find(|one| {
        one.driver.as_deref() == Some(IGB)
            && matches!(one.sriov, Sriov::Physical { vfs_max, .. } if vfs_max >= 2)
    });
    nic.map(|nic| nic.address)
}

impl Lab {
    /// Makes two functions of the card, tells the second one what a network may want, and returns it.
    pub(super) async fn a_nics_functions_are_told_things(&self, nic: Bdf) -> Outcome<Bdf> {
        settle(&self.agent()?, &functions(&nic.to_string(), 2)).await?;
        let mut machine = MachineTree::new("/");
        let found = discover(&machine);
        let Some(Sriov::Physical { vfs, .. }) = found.functions.get(&nic).map(|nic| &nic.sriov) else {
            return Err("the card is gone".to_owned());
        };
        let vf = *vfs.get(1).ok_or("it has no second function")?;
        let index = interface(&machine, nic).await?;
        let look = |machine: &MachineTree, vf| machine.vf(index, vf).map_err(|error| error.message);
        let (before, neighbour) = (look(&machine, 1)?, look(&machine, 0)?);
        let settings = [
            VfSetting::Mac([2, 0xaa, 0, 0, 0, 7]),
            VfSetting::Vlan(VfVlan { id: 100, qos: 3, ..VfVlan::NONE }),
            VfSetting::SpoofCheck(before.spoof_check != Some(true)),
            VfSetting::Trust(before.trust != Some(true)),
            VfSetting::Rate(VfRate { min_mbps: 0, max_mbps: 100 }),
            VfSetting::LinkState(VfLinkState::Enable),
        ];
        let (mut expected, mut refused) = (before, Vec::new());
        for setting in &settings {
            match machine.set_vf(index, 1, setting) {
                Ok(()) => {
                    expected = expected.with(setting);
                    expect(&format!("{vf} after {setting:?}"), &look(&machine, 1)?, &expected)?;
                }
                Err(error) if error.errno == EOPNOTSUPP => refused.push(format!("{setting:?}")),
                Err(error) => return Err(format!("{setting:?}: {}", error.message)),
            }
        }
        expect("its neighbour", &look(&machine, 0)?, &neighbour)?;
        for setting in &settings[1..5] {
            let back =
                before.each().find(|one| std::mem::discriminant(one) == std::mem::discriminant(setting));
            if let Some(back) = back {
                machine.set_vf(index, 1, &back).map_err(|error| format!("{back:?}: {}", error.message))?;
            }
        }
        said(&format!(
            "{vf}, a function of a network card, is told MAC, VLAN and the like, and tells each; its driver has no {}",
            if refused.is_empty() { "refusal".to_owned() } else { refused.join(", ") }
        ));
        Ok(vf)
    }
}

/// The index of the card's interface, once it has a link: rates are parts of its speed.
async fn interface(machine: &MachineTree, nic: Bdf) -> Outcome<u32> {
    let net = format!("/sys/bus/pci/devices/{nic}/net");
    let failed = |error| format!("{net}: {error}");
    let name = machine.list(&net).map_err(failed)?.into_iter().next().ok_or("the card has no interface")?;
    let text = |file: &str| {
        let bytes = machine.read(&format!("{net}/{name}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    for _ in 0..LINK_LOOKS {
        if text("carrier") == "1" {
            return text("ifindex").parse().map_err(|_| "an interface without a number".to_owned());
        }
        // The file `carrier` tells nobody when it changes.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Err(format!("{name} has no link"))
}
