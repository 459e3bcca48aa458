//! What every machine does that functions are bound on: the real kernel and the one in memory are held to the same.

use super::machine::{DEVICES, file, is_there, line, number};
use super::{Machine, Seen, VFIO_PCI};
use crate::hardware::{Bdf, DRIVERS_PROBE, TreeError, function_at};

/// Where no function is.
const NOWHERE: &str = "0000:ff:1f.7";

/// Checks what a machine makes of what is written for functions. `card` has a driver of the host, is alone in its IOMMU group and can be
/// reset; `nic` has a driver, can have two virtual functions or more, and has none. Afterwards both are as they were.
///
/// # Panics
/// Where the machine does otherwise.
pub fn check_machine(machine: &mut dyn Machine, card: Bdf, nic: Bdf) {
    check_files(machine, card);
    check_binding(machine, card);
    check_functions(machine, nic);
}

fn seen(machine: &dyn Machine, function: Bdf) -> (Option<String>, Option<String>) {
    let seen = Seen::of(machine, function).expect("the function is there");
    (seen.driver, seen.driver_override)
}

fn text(word: &str) -> Option<String> {
    Some(word.to_owned())
}

fn probe(machine: &mut dyn Machine, function: &str) -> Result<(), TreeError> {
    machine.write(DRIVERS_PROBE, &format!("{function}\n"))
}

fn group_of(machine: &dyn Machine, function: Bdf) -> u32 {
    let found = function_at(machine, function).expect("the function is there");
    found.iommu_group.expect("an IOMMU group")
}

/// Only files that are there are written, and only what they take.
fn check_files(machine: &mut dyn Machine, card: Bdf) {
    let before = seen(machine, card);
    assert_eq!(machine.write(&file(card, "nothing"), "1\n"), Err(TreeError::NotFound), "no file is made");
    assert_eq!(
        machine.write(&format!("{DEVICES}/{NOWHERE}/driver_override"), "\n"),
        Err(TreeError::NotFound)
    );
    assert!(machine.write(&file(card, "driver/unbind"), &format!("{NOWHERE}\n")).is_err(), "not its address");
    assert!(probe(machine, NOWHERE).is_err(), "no function is there");
    assert_eq!(seen(machine, card), before);
}

/// A function leaves its driver, goes to vfio-pci, is reset, and comes back.
fn check_binding(machine: &mut dyn Machine, card: Bdf) {
    let (driver, none) = seen(machine, card);
    let driver = driver.expect("a driver of the host");
    assert_eq!(none, None, "no override");
    let group = group_of(machine, card);
    assert_eq!(machine.try_group(group), Err(TreeError::NotFound), "vfio-pci has nothing of it");
    let told = |machine: &mut dyn Machine, name: &str, word: &str| {
        machine
            .write(&file(card, name), &format!("{word}\n"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    told(machine, "driver_override", VFIO_PCI);
    assert_eq!(seen(machine, card), (text(&driver), text(VFIO_PCI)), "an override moves nothing");
    probe(machine, &card.to_string()).expect("a function that has a driver keeps it");
    assert_eq!(seen(machine, card), (text(&driver), text(VFIO_PCI)));
    told(machine, "driver/unbind", &card.to_string());
    assert_eq!(seen(machine, card), (None, text(VFIO_PCI)));
    let again = machine.write(&file(card, "driver/unbind"), &format!("{card}\n"));
    assert_eq!(again, Err(TreeError::NotFound), "it has no driver");
    assert_eq!(machine.try_group(group), Err(TreeError::NotFound));
    probe(machine, &card.to_string()).expect("vfio-pci is loaded");
    assert_eq!(seen(machine, card), (text(VFIO_PCI), text(VFIO_PCI)));
    assert_eq!(machine.try_group(group), Ok(()));
    let open = machine.vfio_files().expect("all processes are seen");
    assert!(!open.contains_key(&format!("/dev/vfio/{group}")), "the group is closed again: {open:?}");
    told(machine, "reset", "1");
    assert!(function_at(machine, card).is_some_and(|function| function.is_answering), "after its reset");
    assert_eq!(seen(machine, card), (text(VFIO_PCI), text(VFIO_PCI)), "a reset moves nothing");
    told(machine, "driver/unbind", &card.to_string());
    assert_eq!(machine.try_group(group), Err(TreeError::NotFound), "vfio-pci has nothing of it any more");
    told(machine, "driver_override", &driver);
    probe(machine, &card.to_string()).expect("its driver is loaded");
    told(machine, "driver_override", "");
    assert_eq!(seen(machine, card), (text(&driver), None), "it is as it was");
}

/// Virtual functions come, go to vfio-pci, and go.
fn check_functions(machine: &mut dyn Machine, nic: Bdf) {
    let numvfs = file(nic, "sriov_numvfs");
    let count = |machine: &dyn Machine| number(machine, &numvfs);
    let probes =
        line(machine, &file(nic, "sriov_drivers_autoprobe")).expect("this kernel says whether it probes");
    let most = number(machine, &file(nic, "sriov_totalvfs")).expect("it can have virtual functions");
    assert_eq!(count(machine), Some(0), "it has none");
    assert!(machine.write(&numvfs, &format!("{}\n", most + 1)).is_err(), "more than it can have");
    assert!(machine.write(&numvfs, "many\n").is_err(), "no number");
    assert_eq!(count(machine), Some(0));
    machine.write(&file(nic, "sriov_drivers_autoprobe"), "0\n").expect("it does not probe");
    machine.write(&numvfs, "2\n").expect("it has two functions");
    assert_eq!(count(machine), Some(2));
    let vf = |machine: &dyn Machine, index: u32| -> Option<Bdf> {
        machine.link(&file(nic, &format!("virtfn{index}"))).ok()?.rsplit('/').next()?.parse().ok()
    };
    let (first, second) = (vf(machine, 0).expect("a function"), vf(machine, 1).expect("another one"));
    assert_eq!(vf(machine, 2), None);
    assert_eq!(
        (seen(machine, first), seen(machine, second)),
        ((None, None), (None, None)),
        "nobody has them"
    );
    machine.write(&numvfs, "2\n").expect("the same number again is nothing");
    assert!(machine.write(&numvfs, "1\n").is_err(), "another number is taken after 0 only");
    assert_eq!((count(machine), vf(machine, 1)), (Some(2), Some(second)));
    probe(machine, &first.to_string()).expect("who does not probe passes functions over");
    assert_eq!(seen(machine, first), (None, None));
    machine.write(&file(first, "driver_override"), &format!("{VFIO_PCI}\n")).expect("an override");
    probe(machine, &first.to_string()).expect("an override is for this function");
    assert_eq!(seen(machine, first), (text(VFIO_PCI), text(VFIO_PCI)));
    let group = group_of(machine, first);
    assert_eq!(machine.try_group(group), Ok(()));
    machine.write(&numvfs, "0\n").expect("they go");
    assert_eq!((count(machine), vf(machine, 0)), (Some(0), None));
    assert!(!is_there(machine, first) && !is_there(machine, second));
    assert_eq!(machine.try_group(group), Err(TreeError::NotFound));
    machine.write(&file(nic, "sriov_drivers_autoprobe"), &format!("{probes}\n")).expect("as it was");
}
