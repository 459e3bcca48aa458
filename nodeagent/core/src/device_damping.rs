//! Which changes of devices are told at once, and which wait: what comes and goes by itself must not fill the servers' log.
//!
//! | What changed | When it is told |
//! |---|---|
//! | anything else, or a device is new or gone | at once |
//! | network interfaces and InfiniBand devices (a link goes up or down) | at once, then after 10 s, 20 s, 40 s, … of each device, at most hourly |
//! | speed and width of PCI Express (cards that are idle save power) | at once, then hourly, of all devices together |
//!
//! A device is always told as it is at that moment, so whatever waits goes along with what does not.

use std::collections::BTreeMap;

use bulkhead_types::{Device, Rare};
use smol_str::SmolStr;

use crate::damping::{Damping, Pace};

pub(crate) type Devices = BTreeMap<SmolStr, Device>;

/// Of the interfaces of one device.
const INTERFACES: Pace = Pace { first_ms: 10_000, most_ms: 3_600_000 };
/// Of the links of all devices.
const LINKS: Pace = Pace { first_ms: 3_600_000, most_ms: 3_600_000 };

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceDamping {
    /// By device; only those that changed lately.
    interfaces: BTreeMap<SmolStr, Damping>,
    links: Option<Damping>,
    /// Devices as they are that may not be told yet, with the time from which on they may.
    waiting: BTreeMap<SmolStr, (u64, Device)>,
}

/// What of a device is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Lasting,
    Interfaces,
    Link,
    Nothing,
}

fn change(known: &Device, found: &Device) -> Change {
    let rest = |device: &Device| Device { pci: Rare::NONE, ..device.clone() };
    let Some((was, is)) = known.pci.get().zip(found.pci.get()) else {
        return if known == found { Change::Nothing } else { Change::Lasting };
    };
    let lasts = was.traits == is.traits && was.serial_number == is.serial_number;
    if !lasts || rest(known) != rest(found) {
        Change::Lasting
    } else if was.ports != is.ports {
        Change::Interfaces
    } else if was.link != is.link {
        Change::Link
    } else {
        Change::Nothing
    }
}

impl DeviceDamping {
    /// What may be told now of devices that were found, when what is `known` may have been told before.
    pub(crate) fn take(&mut self, now_ms: u64, known: &Devices, mut found: Devices) -> Devices {
        self.waiting.clear();
        self.interfaces.retain(|id, damping| found.contains_key(id) && !damping.is_over(now_ms));
        let links_due_ms = self.links.map_or(0, Damping::due_ms);
        let mut links_told = false;
        for (id, device) in &mut found {
            let Some(known) = known.get(id) else { continue };
            let due_ms = match change(known, device) {
                Change::Lasting | Change::Nothing => continue,
                Change::Interfaces => self.interfaces.get(id).map_or(0, |damping| damping.due_ms()),
                Change::Link => links_due_ms,
            };
            if now_ms < due_ms {
                let found = std::mem::replace(device, known.clone());
                self.waiting.insert(id.clone(), (due_ms, found));
            } else if change(known, device) == Change::Interfaces {
                let before = self.interfaces.get(id).copied();
                self.interfaces.insert(id.clone(), Damping::told(before, INTERFACES, now_ms));
            } else {
                links_told = true;
            }
        }
        if links_told {
            self.links = Some(Damping::told(self.links, LINKS, now_ms));
        }
        found
    }

    /// When something that waits may be told.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.waiting.values().map(|(due_ms, _)| *due_ms).min()
    }

    /// What may be told now, time having passed: `None` when nothing more may.
    pub(crate) fn release(&mut self, now_ms: u64, known: &Devices) -> Option<Devices> {
        self.due_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(id, (_, device))| (id, device));
        let found = known.clone().into_iter().chain(waiting).collect();
        Some(self.take(now_ms, known, found))
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{PciFacts, PciInterface, PciLink, PciPorts, PciTraits, Shared};
    use proptest::prelude::*;

    use super::*;

    /// A network card as it is at some time: its number, its link's lanes, and whether its interface is up.
    fn card(id: &str, index: u32, lanes: u32, is_up: bool) -> Device {
        let interface = PciInterface { name: "eth0".into(), is_up, ..PciInterface::default() };
        let facts = PciFacts {
            traits: Shared::new(PciTraits::default()),
            serial_number: None,
            link: Some(PciLink { lane_megatransfers: 16_000, lanes }),
            ports: Rare::some(PciPorts { interfaces: vec![interface], infiniband: Vec::new() }),
        };
        Device { id: id.into(), index, pci: Rare::some(facts), ..Device::default() }
    }

    fn said(device: &Device) -> String {
        let facts = device.pci.get().expect("told");
        let lanes = facts.link.map_or(0, |link| link.lanes);
        let state = if facts.interfaces()[0].is_up { "up" } else { "down" };
        format!("{}{} x{lanes} {state}", device.id, device.index)
    }

    #[derive(Default)]
    struct Told {
        damping: DeviceDamping,
        known: Devices,
    }

    impl Told {
        /// What is told of devices that are found at such a time, in seconds.
        fn at(&mut self, at_s: u64, found: &[Device]) -> String {
            let found: Devices = found.iter().map(|one| (one.id.clone(), one.clone())).collect();
            let told = self.damping.take(at_s * 1000, &self.known, found);
            self.take_over(told)
        }

        fn later(&mut self, at_s: u64) -> String {
            let told = self.damping.release(at_s * 1000, &self.known);
            told.map_or_else(String::new, |told| self.take_over(told))
        }

        fn take_over(&mut self, told: Devices) -> String {
            let is_new = |one: &&Device| self.known.get(&one.id) != Some(*one);
            let news: Vec<String> = told.values().filter(is_new).map(said).collect();
            self.known = told;
            news.join(", ")
        }
    }

    #[test]
    fn an_interface_that_goes_up_and_down_is_told_less_often_and_nobody_elses_is_held_up() {
        let mut told = Told::default();
        let mut check = |at_s, found: &[Device], expected: &str| {
            let said = if found.is_empty() { told.later(at_s) } else { told.at(at_s, found) };
            assert_eq!(said, expected, "at {at_s}");
        };
        let (a, b) = (|is_up| card("a", 0, 16, is_up), |is_up| card("b", 1, 16, is_up));
        check(0, &[a(true), b(true)], "a0 x16 up, b1 x16 up");
        check(1, &[a(false), b(true)], "a0 x16 down");
        check(2, &[a(true), b(true)], "");
        check(3, &[a(true), b(false)], "b1 x16 down");
        check(10, &[], "");
        check(11, &[], "a0 x16 up");
        check(12, &[a(false), b(false)], "");
        check(13, &[a(true), b(false)], "");
        check(31, &[], "");
        // What lasts is told at once, with all that is so then.
        check(32, &[a(false), b(false)], "a0 x16 down");
        check(33, &[a(true), b(false)], "");
        check(34, &[card("a", 7, 16, true), b(false)], "a7 x16 up");
        check(100_000, &[card("a", 7, 16, false), b(true)], "a7 x16 down, b1 x16 up");
    }

    #[test]
    fn links_of_cards_that_save_power_are_told_once_an_hour_for_all() {
        let mut told = Told::default();
        let found = |first, second| [card("a", 0, first, true), card("b", 1, second, true)];
        assert_eq!(told.at(0, &found(16, 16)), "a0 x16 up, b1 x16 up");
        assert_eq!(told.at(1, &found(8, 16)), "a0 x8 up");
        assert_eq!(told.at(2, &found(16, 8)), "");
        assert_eq!(told.damping.due_ms(), Some(3_601_000));
        assert_eq!(told.later(3600), "");
        assert_eq!(told.later(3601), "a0 x16 up, b1 x8 up");
        assert_eq!((told.at(3602, &found(16, 4)), told.at(3603, &found(16, 8))), Default::default());
        assert_eq!(told.damping.due_ms(), None, "it is again as it was told");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever flaps: a device is told at most every ten seconds, its link hourly, and in the end as it is.
        #[test]
        fn what_flaps_is_told_seldom_and_in_the_end_as_it_is(
            looks in prop::collection::vec((1u64..4, 0u32..3, any::<bool>()), 1..400),
        ) {
            let (mut told, mut now_s, mut reports) = (Told::default(), 0, 0);
            let mut last = card("a", 0, 1, true);
            told.at(0, std::slice::from_ref(&last));
            for (after_s, lanes, is_up) in looks {
                now_s += after_s;
                reports += usize::from(!told.later(now_s).is_empty());
                last = card("a", 0, lanes, is_up);
                reports += usize::from(!told.at(now_s, std::slice::from_ref(&last)).is_empty());
            }
            while let Some(due_ms) = told.damping.due_ms() {
                now_s = due_ms / 1000;
                reports += usize::from(!told.later(now_s).is_empty());
            }
            prop_assert_eq!(&told.known["a"], &last);
            let most = 2 + now_s / 10 + now_s / 3600;
            prop_assert!(reports as u64 <= most, "{} in {} s", reports, now_s);
        }
    }
}
