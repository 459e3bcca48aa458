//! What can be checked of NVIDIA's cards on a machine, and what could not be: `preflight --gpu`, `make gpu-check`.

use std::fmt::Write as _;

use super::{Accelerators, CardReading, Inventory, Outcome, PciFunction, Precondition, Unavailable};

/// NVIDIA's vendor id, and the classes of its cards (display and 3D controllers).
const VENDOR: u16 = 0x10de;
const CLASSES: [u16; 2] = [0x0300, 0x0302];
/// What an attachment needs; guests run without KVM, only much slower, and no figure of that says anything of the cards.
const NEEDED: [&str; 3] = ["kvm", "iommu", "vfio"];

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuCheck {
    /// A line for each check that was done, and then for each that could not be done, with why; nothing without a card.
    pub text: String,
    /// How many cards there are.
    pub cards: usize,
    /// How many checks failed. What could not be done is none of them.
    pub failed: usize,
    /// How many could not be done and are no matter of this command.
    pub undone: usize,
}

/// Checks the cards of a machine by what was found there and what their driver's library says.
#[must_use]
pub fn gpu_check(
    inventory: &Inventory,
    preconditions: &[Precondition],
    library: &mut dyn Accelerators,
) -> GpuCheck {
    let is_card = |one: &&PciFunction| one.vendor == VENDOR && CLASSES.contains(&one.class_of());
    let functions: Vec<&PciFunction> = inventory.functions.values().filter(is_card).collect();
    if functions.is_empty() {
        return GpuCheck::default();
    }
    let mut readings = Vec::new();
    let opened = library.open(&mut |cards| readings = cards.list());
    let mut report = Report::default();
    for function in &functions {
        let reading = readings.iter().find(|one| one.address == function.address);
        report.card(function, reading, opened.as_ref().err());
    }
    for one in preconditions.iter().filter(|one| NEEDED.contains(&one.name)) {
        report.precondition(one);
    }
    let undone = report.skipped.len();
    report.skipped.push(
        "attachment to a guest, reset and return: this command binds nothing; an agent's pods do".to_owned(),
    );
    GpuCheck { undone, ..report.finish(functions.len()) }
}

#[derive(Default)]
struct Report {
    text: String,
    failed: usize,
    /// What could not be checked.
    skipped: Vec<String>,
}

impl Report {
    fn line(&mut self, state: &str, words: &str) {
        let _ = writeln!(self.text, "{state:<9}{words}");
    }

    fn card(&mut self, function: &PciFunction, reading: Option<&CardReading>, error: Option<&Unavailable>) {
        let at = function.address;
        let driver = function.driver.as_deref().unwrap_or("no driver");
        self.line(
            "ok",
            &format!("{at} discovered: {:04x}:{:04x}, {driver}", function.vendor, function.device),
        );
        if !function.is_answering {
            self.fail(&format!("{at} does not answer: it has fallen off the bus"));
        }
        if function.reset_methods.is_empty() {
            self.fail(&format!("{at} cannot be reset: it cannot go to one pod after another"));
        }
        if function.iommu_group.is_none() {
            self.skipped.push(format!("{at}: isolation, for it is in no IOMMU group"));
        }
        let Some(reading) = reading else {
            let why = match error {
                Some(error) => format!("{} ({})", error.reason, error.remedy),
                None => format!("NVML does not know it; its driver is {driver}"),
            };
            self.skipped.push(format!("{at}: number, health and usage: {why}"));
            return;
        };
        self.reading(reading);
    }

    fn reading(&mut self, card: &CardReading) {
        let at = card.address;
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
        self.line("ok", &format!("{at} read: {}", texts.join(", ")));
        if card.uuid.is_none() || card.memory_bytes.is_none() {
            self.fail(&format!("{at} tells neither number nor memory as it should"));
        }
        match card.ailments.as_slice() {
            [] => self.line("ok", &format!("{at} is healthy")),
            sick => {
                let codes: Vec<_> = sick.iter().map(|one| one.code()).collect();
                self.fail(&format!("{at} is not healthy: {}", codes.join(", ")));
            }
        }
    }

    fn precondition(&mut self, one: &Precondition) {
        let words = format!("{}: {}", one.name, one.found);
        match one.outcome {
            Outcome::Met | Outcome::NotNeeded => self.line("ok", &words),
            Outcome::Missing => {
                self.skipped.push(format!("guests with cards, for want of {words} ({})", one.remedy))
            }
            Outcome::Unknown => self.skipped.push(format!("{words} ({})", one.remedy)),
        }
    }

    fn fail(&mut self, words: &str) {
        self.line("FAILED", words);
        self.failed += 1;
    }

    fn finish(mut self, cards: usize) -> GpuCheck {
        for words in std::mem::take(&mut self.skipped) {
            self.line("NOT DONE", &words);
        }
        GpuCheck { text: self.text, cards, failed: self.failed, undone: 0 }
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
        let (found, remedy) = (format!("{outcome:?}"), "mend it".to_owned());
        Precondition { name, need: Need::Devices, outcome, found, remedy }
    }

    fn run_on(addresses: &[&str], library: &mut FakeAccelerators, expected: Expect) {
        let found = [precondition("kvm", Outcome::Missing), precondition("vfio", Outcome::Met)];
        let GpuCheck { text, cards, failed, undone } = gpu_check(&machine(addresses), &found, library);
        expected.assert_eq(&format!("{text}{cards} cards, {failed} failed, {undone} not done\n"));
    }

    #[test]
    fn what_was_done_and_what_was_not_is_said() {
        let well = CardReading {
            uuid: Some("GPU-a".into()),
            name: Some("NVIDIA H200".into()),
            memory_bytes: Some(141 << 30),
            memory_used_bytes: Some(1 << 30),
            utilization_percent: Some(7),
            temperature_celsius: Some(31),
            ecc_uncorrected: Some(0),
            ..CardReading::of("0000:3b:00.0".parse().expect("an address"))
        };
        let mut library = FakeAccelerators { cards: vec![well.clone()], ..FakeAccelerators::default() };
        run_on(
            &["0000:3b:00.0", "0000:3c:00.0"],
            &mut library,
            expect![[r#"
            ok       0000:3b:00.0 discovered: 10de:2335, no driver
            ok       0000:3b:00.0 read: GPU-a, NVIDIA H200, memory 1024 MiB of 144384 MiB, busy 7 %, 31 °C, uncorrected memory errors 0
            ok       0000:3b:00.0 is healthy
            ok       0000:3c:00.0 discovered: 10de:2335, no driver
            ok       vfio: Met
            NOT DONE 0000:3b:00.0: isolation, for it is in no IOMMU group
            NOT DONE 0000:3c:00.0: isolation, for it is in no IOMMU group
            NOT DONE 0000:3c:00.0: number, health and usage: NVML does not know it; its driver is no driver
            NOT DONE guests with cards, for want of kvm: Missing (mend it)
            NOT DONE attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            2 cards, 0 failed, 4 not done
        "#]],
        );
        library.cards = vec![CardReading { ailments: vec![Ailment::Lost], ..well }];
        run_on(
            &["0000:3b:00.0"],
            &mut library,
            expect![[r#"
            ok       0000:3b:00.0 discovered: 10de:2335, no driver
            ok       0000:3b:00.0 read: GPU-a, NVIDIA H200, memory 1024 MiB of 144384 MiB, busy 7 %, 31 °C, uncorrected memory errors 0
            FAILED   0000:3b:00.0 is not healthy: GpuLost
            ok       vfio: Met
            NOT DONE 0000:3b:00.0: isolation, for it is in no IOMMU group
            NOT DONE guests with cards, for want of kvm: Missing (mend it)
            NOT DONE attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            1 cards, 1 failed, 2 not done
        "#]],
        );
        let unavailable = Unavailable { reason: "no library".into(), remedy: "install it".into() };
        library.unavailable = Some(unavailable);
        run_on(
            &["0000:3b:00.0"],
            &mut library,
            expect![[r#"
            ok       0000:3b:00.0 discovered: 10de:2335, no driver
            ok       vfio: Met
            NOT DONE 0000:3b:00.0: isolation, for it is in no IOMMU group
            NOT DONE 0000:3b:00.0: number, health and usage: no library (install it)
            NOT DONE guests with cards, for want of kvm: Missing (mend it)
            NOT DONE attachment to a guest, reset and return: this command binds nothing; an agent's pods do
            1 cards, 0 failed, 3 not done
        "#]],
        );
        run_on(
            &[],
            &mut library,
            expect![[r#"
            0 cards, 0 failed, 0 not done
        "#]],
        );
    }
}
