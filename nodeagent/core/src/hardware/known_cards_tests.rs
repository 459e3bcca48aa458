//! Cards that are replaced, that fall ill and get well, and what the kernel says of them.

use super::super::{Ailment, MemoryTree, discover, kernel_record};
use super::*;

const A: &str = "0000:3b:00.0";
const B: &str = "0000:3c:00.0";

/// A machine with cards behind a port each: address, device id, and the configuration space.
fn machine(cards: &[(&str, &str, &[u8])]) -> Inventory {
    let mut tree = MemoryTree::default();
    for (address, device, space) in cards {
        let dir = format!("/sys/devices/pci0000:3a/0000:3a:00.0/{address}");
        tree.symlink(
            &format!("/sys/bus/pci/devices/{address}"),
            &format!("../../../devices/pci0000:3a/0000:3a:00.0/{address}"),
        );
        let files = [
            ("vendor", "10de"),
            ("device", device),
            ("subsystem_vendor", "10de"),
            ("subsystem_device", "0001"),
        ];
        for (name, id) in files.into_iter().chain([("class", "030200")]) {
            tree.file(&format!("{dir}/{name}"), format!("0x{id}\n"));
        }
        tree.file(&format!("{dir}/config"), *space);
    }
    let found = discover(&tree);
    assert_eq!((found.functions.len(), found.problems.len()), (cards.len(), 0), "{:?}", found.problems);
    found
}

/// A configuration space with a serial number.
fn serial(number: u8) -> Vec<u8> {
    let mut space = vec![0; 4096];
    space[0x100..0x104].copy_from_slice(&[3, 0, 1, 0]);
    space[0x104] = number;
    space
}

fn at(text: &str) -> Bdf {
    text.parse().expect("an address")
}

fn reading(address: &str, uuid: &str) -> CardReading {
    CardReading {
        uuid: Some(uuid.into()),
        name: Some("NVIDIA A100".into()),
        memory_bytes: Some(40 << 30),
        ..CardReading::of(at(address))
    }
}

/// What is told of each device: its id, and its health.
fn told(cards: &KnownCards, inventory: &Inventory) -> String {
    let mut devices = inventory.devices();
    cards.take_over(&mut devices);
    let health = |device: &Device| match &device.health {
        DeviceHealth::Healthy => String::new(),
        DeviceHealth::Unhealthy { code, since_ms } => format!(" {code} since {since_ms}"),
        DeviceHealth::Lost { .. } => " lost".to_owned(),
    };
    let all: Vec<_> = devices.iter().map(|device| format!("{}{}", device.id, health(device))).collect();
    all.join(", ")
}

fn look(cards: &mut KnownCards, inventory: &Inventory, readings: &[CardReading], now_ms: u64) -> String {
    let replaced = cards.look(inventory, Some(readings), now_ms);
    let replaced = replaced.iter().map(|one| format!(" [{} -> {}]", one.before, one.now));
    told(cards, inventory) + &replaced.collect::<String>()
}

fn say(cards: &mut KnownCards, sequence: u64, text: &str, now_ms: u64) -> Option<(Bdf, u32)> {
    let record = kernel_record(format!("4,{sequence},1,-;{text}").as_bytes()).expect("a record");
    cards.note_record(record, now_ms)
}

/// What the next agent knows.
fn written(cards: &KnownCards, boot_id: &str) -> KnownCards {
    let text = serde_json::to_string(cards).expect("JSON");
    serde_json::from_str::<KnownCards>(&text).expect("JSON").in_boot(boot_id)
}

#[test]
fn a_card_is_known_by_its_own_number_while_a_guest_has_it_and_after_a_boot() {
    let both = machine(&[(A, "20b5", &[]), (B, "20b5", &[])]);
    let mut cards = KnownCards::default().in_boot("first");
    assert_eq!(look(&mut cards, &both, &[], 1), "0000:3b:00.0, 0000:3c:00.0", "no library");
    let readings = [reading(A, "GPU-a"), reading(B, "GPU-b")];
    assert_eq!(look(&mut cards, &both, &readings, 2), "GPU-a, GPU-b", "the same cards, better known");
    let mut devices = both.devices();
    cards.take_over(&mut devices);
    assert_eq!((devices[0].model.as_str(), devices[0].capacity.memory_bytes), ("NVIDIA A100", 40 << 30));
    // A guest has the first: its driver does not know it.
    assert_eq!(look(&mut cards, &both, &readings[1..], 3), "GPU-a, GPU-b");
    let mut next = written(&cards, "second");
    assert_eq!(look(&mut next, &both, &[], 4), "GPU-a, GPU-b", "before the driver is loaded");
    // The ports between and other functions are found by what they are called now.
    assert_eq!(next.id_at(at(A)), "GPU-a");
    assert_eq!(next.id_at(at("0000:99:00.0")), "0000:99:00.0");
}

#[test]
fn a_replaced_card_is_another_device_and_the_others_stay_what_they_are() {
    let before = machine(&[(A, "20b5", &[]), (B, "20b5", &[])]);
    let mut cards = KnownCards::default().in_boot("first");
    look(&mut cards, &before, &[reading(A, "GPU-a"), reading(B, "GPU-b")], 1);
    say(&mut cards, 1, "vfio-pci 0000:3b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=x", 1);
    // The driver says so.
    let mut same_model = written(&cards, "second");
    let readings = [reading(A, "GPU-c"), reading(B, "GPU-b")];
    assert_eq!(look(&mut same_model, &before, &readings, 2), "GPU-c, GPU-b [GPU-a -> GPU-c]");
    assert_eq!(look(&mut same_model, &before, &readings, 3), "GPU-c, GPU-b", "said once");
    // Another model, while no driver knows it: nothing that was said of the old one holds.
    let other = machine(&[(A, "2330", &[]), (B, "20b5", &[])]);
    let mut other_model = written(&cards, "first");
    assert_eq!(look(&mut other_model, &other, &[], 2), "0000:3b:00.0, GPU-b [GPU-a -> 0000:3b:00.0]");
    // It went, and came again: as far as anybody can tell it is another one.
    let one = machine(&[(B, "20b5", &[])]);
    let mut pulled = written(&cards, "second");
    assert_eq!(look(&mut pulled, &one, &[], 2), "GPU-b");
    assert_eq!(look(&mut pulled, &before, &[], 3), "0000:3b:00.0, GPU-b");
}

#[test]
fn a_serial_number_tells_cards_of_one_model_apart_without_their_driver() {
    let (first, second) = (serial(1), serial(2));
    let before = machine(&[(A, "20b5", &first)]);
    let mut cards = KnownCards::default().in_boot("first");
    look(&mut cards, &before, &[reading(A, "GPU-a")], 1);
    let silent = machine(&[(A, "20b5", &[])]);
    assert_eq!(look(&mut cards, &silent, &[], 2), "GPU-a", "what cannot be read speaks against nothing");
    let mut next = written(&cards, "second");
    assert_eq!(look(&mut next, &before, &[], 3), "GPU-a");
    let after = machine(&[(A, "20b5", &second)]);
    assert_eq!(look(&mut next, &after, &[], 4), "0000:3b:00.0 [GPU-a -> 0000:3b:00.0]");
}

#[test]
fn pain_15_a_card_that_is_well_again_is_healthy_and_a_sick_one_is_not() {
    let inventory = machine(&[(A, "20b5", &[]), (B, "20b5", &[])]);
    let mut cards = KnownCards::default().in_boot("boot");
    let well = [reading(A, "GPU-a"), reading(B, "GPU-b")];
    let ill = |ailment| [CardReading { ailments: vec![ailment], ..well[0].clone() }, well[1].clone()];
    assert_eq!(look(&mut cards, &inventory, &well, 1), "GPU-a, GPU-b");
    // One error of an application, or errors of memory that the card got over, make no card sick.
    assert_eq!(say(&mut cards, 1, "NVRM: Xid (PCI:0000:3b:00): 31, pid=7", 2), Some((at(A), 31)));
    let mended = [CardReading { ecc_uncorrected: Some(3), ..well[0].clone() }, well[1].clone()];
    assert_eq!(look(&mut cards, &inventory, &mended, 3), "GPU-a, GPU-b");
    // A moment tells nothing; what is so twice does.
    assert_eq!(look(&mut cards, &inventory, &ill(Ailment::PagesPending), 4), "GPU-a, GPU-b");
    assert!(cards.is_in_doubt());
    assert_eq!(look(&mut cards, &inventory, &well, 5), "GPU-a, GPU-b");
    look(&mut cards, &inventory, &ill(Ailment::PagesPending), 6);
    let sick = look(&mut cards, &inventory, &ill(Ailment::PagesPending), 7);
    assert_eq!(sick, "GPU-a PagesPendingRetirement since 6, GPU-b");
    assert!(!cards.is_in_doubt());
    let worse = look(&mut cards, &inventory, &ill(Ailment::Lost), 8);
    assert_eq!(worse, "GPU-a GpuLost since 6, GPU-b", "since it was sick first");
    // Somebody reset it: that is seen, and nobody has to say so.
    assert_eq!(look(&mut cards, &inventory, &well, 9), "GPU-a, GPU-b");
}

#[test]
fn pain_16_a_card_in_a_guest_that_falls_off_the_bus_is_sick_though_no_driver_says_so() {
    let well = machine(&[(A, "20b5", &[0; 64]), (B, "20b5", &[0; 64])]);
    let gone = machine(&[(A, "20b5", &[0xff; 64]), (B, "20b5", &[0; 64])]);
    let mut cards = KnownCards::default().in_boot("boot");
    look(&mut cards, &well, &[reading(A, "GPU-a"), reading(B, "GPU-b")], 1);
    assert_eq!(look(&mut cards, &gone, &[], 2), "GPU-a, GPU-b", "it may be in the middle of a reset");
    assert_eq!(look(&mut cards, &gone, &[], 3), "GPU-a NotAnswering since 2, GPU-b");
    assert_eq!(look(&mut cards, &well, &[], 4), "GPU-a, GPU-b");
}

#[test]
fn fatal_errors_of_the_link_hold_until_they_are_mended() {
    let inventory = machine(&[(A, "20b5", &[]), (B, "20b5", &[])]);
    let mut cards = KnownCards::default().in_boot("boot");
    let port = "pcieport 0000:3a:00.0: AER: ";
    let fatal = format!("{port}Uncorrected (Fatal) error received: 0000:3b:00.0");
    let sick = "0000:3b:00.0 AerFatal since 10, 0000:3c:00.0";
    look(&mut cards, &inventory, &[], 1);
    assert_eq!(say(&mut cards, 5, &fatal, 10), None);
    assert_eq!(look(&mut cards, &inventory, &[], 11), sick);
    let mut next = written(&cards, "boot");
    assert_eq!(look(&mut next, &inventory, &[], 12), sick, "the next agent knows it");
    say(&mut next, 6, &format!("{port}device recovery failed"), 13);
    assert_eq!(look(&mut next, &inventory, &[], 13), sick);
    say(&mut next, 7, &format!("{port}device recovery successful"), 14);
    assert_eq!(look(&mut next, &inventory, &[], 14), "0000:3b:00.0, 0000:3c:00.0");
    // The agent reads the log from its beginning again: what it did is not done anew.
    say(&mut next, 5, &fatal, 15);
    assert_eq!(look(&mut next, &inventory, &[], 15), "0000:3b:00.0, 0000:3c:00.0");
    // Another boot begins with another log.
    let mut rebooted = written(&cards, "other");
    assert_eq!(look(&mut rebooted, &inventory, &[], 16), "0000:3b:00.0, 0000:3c:00.0");
    say(
        &mut rebooted,
        1,
        &format!("{port}Uncorrectable (Fatal) error message received from 0000:3a:00.0"),
        17,
    );
    let behind = "0000:3b:00.0 AerFatal since 17, 0000:3c:00.0 AerFatal since 17";
    assert_eq!(look(&mut rebooted, &inventory, &[], 18), behind, "everything behind the port");
    rebooted.note_reset(at(A), "flr", 9);
    assert_eq!(rebooted.last_reset(at(A)).map(|last| (last.method.as_str(), last.at_ms)), Some(("flr", 9)));
    assert_eq!(
        look(&mut rebooted, &inventory, &[], 19),
        "0000:3b:00.0, 0000:3c:00.0",
        "a reset came through"
    );
}

#[test]
fn a_storm_of_faults_is_told_in_short() {
    let mut cards = KnownCards::default().in_boot("boot");
    let mut tell = |sequence, code: u32, now_ms| {
        say(&mut cards, sequence, &format!("NVRM: Xid (PCI:0000:3b:00): {code}, x"), now_ms)
    };
    assert_eq!(tell(1, 79, 1000), Some((at(A), 79)));
    assert!((2..500).all(|sequence| tell(sequence, 79, 1000 + sequence).is_none()), "the same again");
    assert_eq!(tell(500, 48, 1500), Some((at(A), 48)));
    assert_eq!(tell(501, 79, 6000), Some((at(A), 79)), "it goes on");
    assert_eq!(tell(501, 13, 99_000), None, "it was read before");
    let told = (0..1000).filter(|code| tell(600 + u64::from(*code), *code, 100_000).is_some()).count();
    assert_eq!(told, FAULTS_RECENT_MAX, "bounded");
}
