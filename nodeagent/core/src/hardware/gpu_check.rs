//! What can be checked of NVIDIA's cards on a machine, what the machine has for guests, and what could not be found out here:
//! `preflight --gpu`, `make gpu-check`.
//!
//! ```text
//!  Inventory ────► cards: each check passed or failed ──┐
//!  Accelerators ─► health and usage ────────────────────┼─► GpuCheck ─► lines, or JSON
//!  preconditions ► each met, not met, or undetermined ──┤
//!                  what could not be done, and why ─────┘
//! ```
//! Nothing that was not done counts as passed.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{Accelerators, Bdf, CardReading, Inventory, Outcome, PciFunction, Precondition, Unavailable};

/// NVIDIA's vendor id, and the classes of its cards (display and 3D controllers).
const VENDOR: u16 = 0x10de;
const CLASSES: [u16; 2] = [0x0300, 0x0302];
/// What an attachment needs; guests run without KVM, only much slower, and no figure of that says anything of the cards.
const NEEDED: [&str; 4] = ["kvm", "iommu", "vfio", "vfio-file"];

/// One check of a card that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CardCheck {
    /// How it ended.
    pub passed: bool,
    /// What was seen.
    pub found: String,
}

/// A card, and what was checked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedCard {
    /// Where it is.
    pub address: Bdf,
    /// The driver that has it.
    pub driver: Option<String>,
    /// What its library tells of it; unset: nothing, and [`GpuCheck::not_done`] says why.
    pub reading: Option<CardReading>,
    /// What was done, in order.
    pub checks: Vec<CardCheck>,
}

/// Something that could not be done here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotDone {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// What to do so that it can be done; empty where nothing is.
    pub remedy: String,
    /// This command never does it, on any machine.
    pub by_design: bool,
}

/// What was done, and what was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuCheck {
    /// The cards, in the order of their addresses.
    pub cards: Vec<CheckedCard>,
    /// Why the driver's library cannot be used; unset: it can.
    pub library: Option<Unavailable>,
    /// What the machine has for guests and what it lacks, in the order in which it is best mended.
    pub preconditions: Vec<Precondition>,
    /// Exactly what could not be done here.
    pub not_done: Vec<NotDone>,
}

/// Checks the cards of a machine by what was found there and what their driver's library says.
#[must_use]
pub fn gpu_check(
    inventory: &Inventory,
    preconditions: &[Precondition],
    library: &mut dyn Accelerators,
) -> GpuCheck {
    let is_card = |one: &&PciFunction| one.vendor == VENDOR && CLASSES.contains(&one.class_of());
    let mut readings = Vec::new();
    let library = library.open(&mut |cards| readings = cards.list()).err();
    let preconditions = preconditions.to_vec();
    let mut report = GpuCheck { cards: Vec::new(), library, preconditions, not_done: Vec::new() };
    for function in inventory.functions.values().filter(is_card) {
        let reading = readings.iter().find(|one| one.address == function.address);
        report.card(function, reading);
    }
    if report.cards.is_empty() {
        report.without_cards();
    }
    for problem in &inventory.problems {
        report.skip(format!("the discovery of {}", problem.name), &problem.reason.to_string(), "");
    }
    report.undetermined();
    report.not_done.push(NotDone {
        what: "attachment to a guest, reset and return".to_owned(),
        why: "this command binds nothing; an agent's pods do".to_owned(),
        remedy: String::new(),
        by_design: true,
    });
    report
}

impl CheckedCard {
    fn note(&mut self, passed: bool, found: String) {
        self.checks.push(CardCheck { passed, found });
    }

    fn found(&mut self, function: &PciFunction) {
        let driver = function.driver.as_deref().unwrap_or("no driver");
        self.note(true, format!("discovered: {:04x}:{:04x}, {driver}", function.vendor, function.device));
        if !function.is_answering {
            self.note(false, "does not answer: it has fallen off the bus".to_owned());
        }
        if function.reset_methods.is_empty() {
            self.note(false, "cannot be reset: it cannot go to one pod after another".to_owned());
        }
    }

    fn read(&mut self, card: &CardReading) {
        let or = |text: Option<String>| text.unwrap_or_else(|| "not told".to_owned());
        let mib = |bytes: Option<u64>| or(bytes.map(|bytes| format!("{} MiB", bytes >> 20)));
        let texts = [
            or(card.uuid.as_ref().map(ToString::to_string)),
            or(card.name.as_ref().map(ToString::to_string)),
            format!("memory {} of {}", mib(card.memory_used_bytes), mib(card.memory_bytes)),
            format!("busy {}", or(card.utilization_percent.map(|percent| format!("{percent} %")))),
            or(card.temperature_celsius.map(|degrees| format!("{degrees} °C"))),
            format!("uncorrected memory errors {}", or(card.ecc_uncorrected.map(|count| count.to_string()))),
        ];
        self.note(true, format!("read: {}", texts.join(", ")));
        if card.uuid.is_none() || card.memory_bytes.is_none() {
            self.note(false, "tells neither number nor memory as it should".to_owned());
        }
        match card.ailments.as_slice() {
            [] => self.note(true, "is healthy".to_owned()),
            sick => {
                let codes: Vec<_> = sick.iter().map(|one| one.code()).collect();
                self.note(false, format!("is not healthy: {}", codes.join(", ")));
            }
        }
    }
}

impl GpuCheck {
    /// How many checks of cards failed. What could not be done is none of them.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.cards.iter().flat_map(|card| &card.checks).filter(|check| !check.passed).count()
    }

    /// How many things could not be done that are a matter of this command.
    #[must_use]
    pub fn undone(&self) -> usize {
        self.not_done.iter().filter(|one| !one.by_design).count()
    }

    fn skip(&mut self, what: String, why: &str, remedy: &str) {
        let (why, remedy) = (why.to_owned(), remedy.to_owned());
        self.not_done.push(NotDone { what, why, remedy, by_design: false });
    }

    fn card(&mut self, function: &PciFunction, reading: Option<&CardReading>) {
        let (address, driver) = (function.address, function.driver.clone());
        let mut card = CheckedCard { address, driver, reading: reading.cloned(), checks: Vec::new() };
        card.found(function);
        if function.iommu_group.is_none() {
            self.skip(format!("{address}: isolation"), "it is in no IOMMU group", "see iommu");
        }
        match (reading, self.library.clone()) {
            (Some(reading), _) => card.read(reading),
            (None, Some(library)) => {
                self.skip(format!("{address}: number, health and usage"), &library.reason, &library.remedy);
            }
            (None, None) => {
                let driver = function.driver.as_deref().unwrap_or("none");
                let why = format!("NVML does not know it, whose driver is {driver}");
                let remedy = "bind it to nvidia, or leave it to its guest";
                self.skip(format!("{address}: number, health and usage"), &why, remedy);
            }
        }
        self.cards.push(card);
    }

    /// What there is to say where there is nothing to check.
    fn without_cards(&mut self) {
        let remedy = "if one should be there: lspci -d 10de:, and see that it has power";
        self.skip("every check of a card".to_owned(), "this machine has no NVIDIA GPU", remedy);
        if let Some(library) = self.library.clone() {
            self.skip("what the driver's library tells".to_owned(), &library.reason, &library.remedy);
        }
    }

    /// What the machine lacks for guests with cards, and what is not known of it.
    fn undetermined(&mut self) {
        for one in self.preconditions.clone() {
            match one.outcome {
                // Cards are nothing that pods could have where no class means them: the check wants it all the same.
                Outcome::Missing | Outcome::NotNeeded
                    if NEEDED.contains(&one.name)
                        && (one.outcome == Outcome::Missing || !self.cards.is_empty()) =>
                {
                    let what = format!("guests with cards, for want of {}", one.name);
                    self.skip(what, &one.found, &one.remedy);
                }
                Outcome::Unknown => {
                    self.skip(format!("whether {} is met", one.name), &one.found, &one.remedy);
                }
                _ => {}
            }
        }
    }
}

/// A line for each: what was checked of cards, each precondition with its remedy, and last what could not be done.
impl fmt::Display for GpuCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |state: &str, words: String, remedy: &str| {
            write!(f, "{state:<13}{words}")?;
            if !remedy.is_empty() {
                write!(f, " ({remedy})")?;
            }
            f.write_char('\n')
        };
        for card in &self.cards {
            for check in &card.checks {
                let state = if check.passed { "ok" } else { "FAILED" };
                line(state, format!("{} {}", card.address, check.found), "")?;
            }
        }
        for one in &self.preconditions {
            let state = match one.outcome {
                Outcome::Met => "met",
                Outcome::Missing => "not met",
                Outcome::Unknown => "undetermined",
                Outcome::NotNeeded => "not needed",
            };
            line(state, format!("{}: {}", one.name, one.found), &one.remedy)?;
        }
        for one in &self.not_done {
            line("NOT DONE", format!("{}: {}", one.what, one.why), &one.remedy)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ailment, FakeAccelerators, MemoryTree, Need, discover};
    use expect_test::{Expect, expect};

    use super::*;

    fn machine(addresses: &[&str]) -> Inventory {
        let mut tree = MemoryTree::default();
        for address in addresses {
            let dir = format!("/sys/devices/pci0000:3a/{address}");
            let link = format!("../../../devices/pci0000:3a/{address}");
            tree.symlink(&format!("/sys/bus/pci/devices/{address}"), &link);
            for (name, content) in [
                ("vendor", "0x10de"),
                ("device", "0x2335"),
                ("subsystem_vendor", "0x10de"),
                ("subsystem_device", "0x1"),
                ("class", "0x030200"),
                ("reset_method", "flr"),
            ] {
                tree.file(&format!("{dir}/{name}"), content);
            }
        }
        discover(&tree)
    }

    fn precondition(name: &'static str, outcome: Outcome) -> Precondition {
        let remedy = if outcome.wants_remedy() { "mend it".to_owned() } else { String::new() };
        Precondition { name, need: Need::Devices, outcome, found: format!("{outcome:?}"), remedy }
    }

    fn check_on(addresses: &[&str], library: &mut FakeAccelerators) -> GpuCheck {
        let found = [
            precondition("kvm", Outcome::Missing),
            precondition("huge-pages", Outcome::Missing),
            precondition("iommu", Outcome::NotNeeded),
            precondition("vfio", Outcome::Met),
            precondition("network-bridge", Outcome::Unknown),
        ];
        gpu_check(&machine(addresses), &found, library)
    }

    fn run_on(addresses: &[&str], library: &mut FakeAccelerators, expected: Expect) {
        let done = check_on(addresses, library);
        let counts =
            format!("{} cards, {} failed, {} not done", done.cards.len(), done.failed(), done.undone());
        expected.assert_eq(&format!("{done}{counts}\n"));
    }

    fn well() -> CardReading {
        CardReading {
            uuid: Some("GPU-a".into()),
            name: Some("NVIDIA H200".into()),
            memory_bytes: Some(141 << 30),
            memory_used_bytes: Some(1 << 30),
            utilization_percent: Some(7),
            temperature_celsius: Some(31),
            ecc_uncorrected: Some(0),
            ..CardReading::of("0000:3b:00.0".parse().expect("an address"))
        }
    }

    #[test]
    fn two_cards_of_which_one_is_sick() {
        let address = "0000:3c:00.0".parse().expect("an address");
        let sick = CardReading {
            uuid: Some("GPU-b".into()),
            ailments: vec![Ailment::Lost],
            memory_bytes: None,
            address,
            ..well()
        };
        let mut library = FakeAccelerators { cards: vec![well(), sick], ..FakeAccelerators::default() };
        run_on(
            &["0000:3b:00.0", "0000:3c:00.0"],
            &mut library,
            expect![[r#"
            ok           0000:3b:00.0 discovered: 10de:2335, no driver
            ok           0000:3b:00.0 read: GPU-a, NVIDIA H200, memory 1024 MiB of 144384 MiB, busy 7 %, 31 °C, uncorrected memory errors 0
            ok           0000:3b:00.0 is healthy
            ok           0000:3c:00.0 discovered: 10de:2335, no driver
            ok           0000:3c:00.0 read: GPU-b, NVIDIA H200, memory 1024 MiB of not told, busy 7 %, 31 °C, uncorrected memory errors 0
            FAILED       0000:3c:00.0 tells neither number nor memory as it should
            FAILED       0000:3c:00.0 is not healthy: GpuLost
            not met      kvm: Missing (mend it)
            not met      huge-pages: Missing (mend it)
            not needed   iommu: NotNeeded
            met          vfio: Met
            undetermined network-bridge: Unknown (mend it)
            NOT DONE     0000:3b:00.0: isolation: it is in no IOMMU group (see iommu)
            NOT DONE     0000:3c:00.0: isolation: it is in no IOMMU group (see iommu)
            NOT DONE     guests with cards, for want of kvm: Missing (mend it)
            NOT DONE     guests with cards, for want of iommu: NotNeeded
            NOT DONE     whether network-bridge is met: Unknown (mend it)
            NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            2 cards, 2 failed, 5 not done
        "#]],
        );
    }

    #[test]
    fn a_card_that_the_library_does_not_know_is_not_checked() {
        let mut library = FakeAccelerators { cards: vec![well()], ..FakeAccelerators::default() };
        run_on(
            &["0000:3b:00.0", "0000:3c:00.0"],
            &mut library,
            expect![[r#"
                ok           0000:3b:00.0 discovered: 10de:2335, no driver
                ok           0000:3b:00.0 read: GPU-a, NVIDIA H200, memory 1024 MiB of 144384 MiB, busy 7 %, 31 °C, uncorrected memory errors 0
                ok           0000:3b:00.0 is healthy
                ok           0000:3c:00.0 discovered: 10de:2335, no driver
                not met      kvm: Missing (mend it)
                not met      huge-pages: Missing (mend it)
                not needed   iommu: NotNeeded
                met          vfio: Met
                undetermined network-bridge: Unknown (mend it)
                NOT DONE     0000:3b:00.0: isolation: it is in no IOMMU group (see iommu)
                NOT DONE     0000:3c:00.0: isolation: it is in no IOMMU group (see iommu)
                NOT DONE     0000:3c:00.0: number, health and usage: NVML does not know it, whose driver is none (bind it to nvidia, or leave it to its guest)
                NOT DONE     guests with cards, for want of kvm: Missing (mend it)
                NOT DONE     guests with cards, for want of iommu: NotNeeded
                NOT DONE     whether network-bridge is met: Unknown (mend it)
                NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
                2 cards, 0 failed, 6 not done
            "#]],
        );
    }

    #[test]
    fn without_the_library_its_checks_are_not_done() {
        let unavailable = Unavailable { reason: "NVML: no library".into(), remedy: "install it".into() };
        let mut library = FakeAccelerators { unavailable: Some(unavailable), ..FakeAccelerators::default() };
        run_on(
            &["0000:3b:00.0"],
            &mut library,
            expect![[r#"
            ok           0000:3b:00.0 discovered: 10de:2335, no driver
            not met      kvm: Missing (mend it)
            not met      huge-pages: Missing (mend it)
            not needed   iommu: NotNeeded
            met          vfio: Met
            undetermined network-bridge: Unknown (mend it)
            NOT DONE     0000:3b:00.0: isolation: it is in no IOMMU group (see iommu)
            NOT DONE     0000:3b:00.0: number, health and usage: NVML: no library (install it)
            NOT DONE     guests with cards, for want of kvm: Missing (mend it)
            NOT DONE     guests with cards, for want of iommu: NotNeeded
            NOT DONE     whether network-bridge is met: Unknown (mend it)
            NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            1 cards, 0 failed, 5 not done
        "#]],
        );
        run_on(
            &[],
            &mut library,
            expect![[r#"
            not met      kvm: Missing (mend it)
            not met      huge-pages: Missing (mend it)
            not needed   iommu: NotNeeded
            met          vfio: Met
            undetermined network-bridge: Unknown (mend it)
            NOT DONE     every check of a card: this machine has no NVIDIA GPU (if one should be there: lspci -d 10de:, and see that it has power)
            NOT DONE     what the driver's library tells: NVML: no library (install it)
            NOT DONE     guests with cards, for want of kvm: Missing (mend it)
            NOT DONE     whether network-bridge is met: Unknown (mend it)
            NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            0 cards, 0 failed, 4 not done
        "#]],
        );
    }

    #[test]
    fn the_same_is_there_as_data() {
        let mut library = FakeAccelerators { cards: vec![well()], ..FakeAccelerators::default() };
        let done = serde_json::to_value(check_on(&["0000:3b:00.0"], &mut library)).expect("JSON");
        let card = &done["cards"][0];
        assert_eq!((&card["address"], &card["checks"][2]["passed"]), (&"0000:3b:00.0".into(), &true.into()));
        assert_eq!(card["reading"]["memory_bytes"], 141_u64 << 30);
        assert_eq!(
            (&done["library"], &done["preconditions"][0]["name"]),
            (&serde_json::Value::Null, &"kvm".into())
        );
        let last = done["not_done"].as_array().expect("a list").last().expect("one");
        assert_eq!(last["by_design"], true);
    }
}
