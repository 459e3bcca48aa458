//! How functions are reset, and what is looked at afterwards.

use super::*;

const BRIDGE: &str = "0000:00:02.0";
/// A card of two functions that can be reset only together, below [`BRIDGE`].
const CARD: &str = "0000:50:00.0";
const BESIDE: &str = "0000:50:00.1";
const NO_METHOD: [(&str, &str); 2] = [("reset_method", "absent"), ("reset", "absent")];

/// A machine with that card, whose second function is of this class and has this driver; and files of the bridge.
fn world(class: &str, driver: Option<&str>, bridge: &[(&str, &str)]) -> World {
    let mut world = World::new();
    let kernel = &mut world.host.kernel;
    kernel.bridge(BRIDGE, "0000:50", bridge);
    kernel.function(CARD, "10de:2204", "030000", Some(50), None, &NO_METHOD);
    kernel.function(BESIDE, "10de:1aef", class, Some(50), driver, &NO_METHOD);
    world
}

/// What became of a pod's functions: the methods by which they were reset, and what is in quarantine, with the reason.
fn check_release(
    world: &mut World,
    wanted: &[&str],
    prepare: impl FnOnce(&mut KernelModel),
    expected: Expect,
) {
    let before = world.state();
    world.attach(POD, wanted).unwrap();
    prepare(&mut world.host.kernel);
    world.release(POD).unwrap();
    let resets = world.notes.resets.iter().map(|(at, method)| format!("{at} {method}\n"));
    let kept = world.notes.quarantined.values();
    let kept = kept.map(|one| format!("{} {}: {}\n", one.address, one.code, one.message));
    expected.assert_eq(&resets.chain(kept).collect::<String>());
    assert!(world.notes.bindings.is_empty());
    if world.notes.quarantined.is_empty() {
        assert_eq!(world.state(), before);
    }
}

#[test]
fn a_function_is_reset_by_the_kernels_first_method_for_it_alone() {
    for (methods, expected) in [
        ("flr bus\n", expect!["0000:60:00.0 flr\n"]),
        ("device_specific flr\n", expect!["0000:60:00.0 device_specific\n"]),
        ("af_flr pm\n", expect!["0000:60:00.0 af_flr\n"]),
        ("pm\n", expect!["0000:60:00.0 pm\n"]),
        ("bus\n", expect!["0000:60:00.0 bus\n"]),
    ] {
        let mut world = World::new();
        world.host.kernel.bridge(BRIDGE, "0000:60", &[]);
        let files = [("reset_method", methods)];
        world.host.kernel.function("0000:60:00.0", "8086:1234", "120000", Some(60), None, &files);
        check_release(&mut world, &["0000:60:00.0"], |_| {}, expected);
        assert_eq!(world.host.kernel.resets(bdf("0000:60:00.0")), 1);
    }
    // Older kernels do not name their methods.
    let mut world = World::new();
    let files = [("reset_method", "absent")];
    world.host.kernel.function("0000:60:00.0", "8086:1234", "120000", Some(60), None, &files);
    check_release(&mut world, &["0000:60:00.0"], |_| {}, expect!["0000:60:00.0 default\n"]);
}

#[test]
fn a_bus_is_reset_only_when_all_of_it_goes_back() {
    let by_sysfs = [("reset_subordinate", "")];
    check_release(
        &mut world("040300", Some("snd_hda_intel"), &by_sysfs),
        &[CARD],
        |_| {},
        expect![[r#"
            0000:50:00.0 bus
            0000:50:00.1 bus
        "#]],
    );
    check_release(
        &mut world("040300", Some("snd_hda_intel"), &[]),
        &[CARD],
        |_| {},
        expect![[r#"
            0000:50:00.0 vfio-hot-reset
            0000:50:00.1 vfio-hot-reset
        "#]],
    );
    // Two functions that a pod asked for itself are reset once, together.
    let mut both = world("120000", None, &[]);
    check_release(
        &mut both,
        &[CARD, BESIDE],
        |_| {},
        expect![[r#"
            0000:50:00.0 vfio-hot-reset
            0000:50:00.1 vfio-hot-reset
        "#]],
    );
    assert_eq!(both.host.kernel.resets(bdf(CARD)), 1);
    // One of them alone is nobody's: the other one may be somebody else's then.
    let refused = "no reset_method, and a reset of the bus below 0000:00:02.0 would reach 0000:50:00.1, which does not go with it";
    let error = world("120000", None, &by_sysfs).attach(POD, &[CARD]).unwrap_err();
    assert!(error.to_string().contains(refused), "{error}");
    // Somebody came since: nothing is touched.
    let mut later = world("040300", Some("snd_hda_intel"), &by_sysfs);
    check_release(
        &mut later,
        &[CARD],
        |kernel| _ = kernel.function("0000:50:00.2", "8086:1", "120000", Some(51), Some("nvme"), &NO_METHOD),
        expect![[r#"
            0000:50:00.0 ResetFailed: reset failed: no reset_method, and a reset of the bus below 0000:00:02.0 would reach 0000:50:00.2, which does not go with it
            0000:50:00.1 ResetFailed: reset failed: no reset_method, and a reset of the bus below 0000:00:02.0 would reach 0000:50:00.2, which does not go with it
        "#]],
    );
    assert_eq!(later.host.kernel.resets(bdf("0000:50:00.2")), 0);
}

#[test]
fn pain_30_a_reset_that_fails_is_a_quarantine_with_the_method_and_the_reason() {
    let by_sysfs = [("reset_subordinate", "")];
    check_release(
        &mut world("120000", None, &by_sysfs),
        &[CARD, BESIDE],
        |kernel| kernel.break_reset(bdf(BESIDE), true),
        expect![[r#"
            0000:50:00.0 ResetFailed: reset (bus) failed: /sys/bus/pci/devices/0000:00:02.0/reset_subordinate Inappropriate ioctl for device
            0000:50:00.1 ResetFailed: reset (bus) failed: /sys/bus/pci/devices/0000:00:02.0/reset_subordinate Inappropriate ioctl for device
        "#]],
    );
    check_release(
        &mut world("120000", None, &[]),
        &[CARD, BESIDE],
        |kernel| kernel.occupy_group(50, true),
        expect![[r#"
            0000:50:00.0 ResetFailed: reset (vfio-hot-reset) failed: VFIO_DEVICE_PCI_HOT_RESET: Device or resource busy
            0000:50:00.1 ResetFailed: reset (vfio-hot-reset) failed: VFIO_DEVICE_PCI_HOT_RESET: Device or resource busy
        "#]],
    );
    // The kernel says that it worked, and one of the two does not answer any more.
    check_release(
        &mut world("120000", None, &by_sysfs),
        &[CARD, BESIDE],
        |kernel| kernel.kill_by_reset(bdf(BESIDE)),
        expect![[r#"
            0000:50:00.0 bus
            0000:50:00.1 ResetFailed: reset (bus) failed: nothing answers at its address (its configuration space reads as ones)
        "#]],
    );
}

/// A GPU with a way of its own and its sound without one: below [`BRIDGE`], which has these files.
fn with_sound(bridge: &[(&str, &str)]) -> World {
    let mut world = World::new();
    let kernel = &mut world.host.kernel;
    kernel.bridge(BRIDGE, "0000:50", bridge);
    kernel.function(CARD, "10de:2204", "030000", Some(50), None, &[("reset_method", "flr\n")]);
    kernel.function(BESIDE, "10de:1aef", "040300", Some(50), Some("snd_hda_intel"), &NO_METHOD);
    world
}

/// A reset of one function is none of the others of its card.
#[test]
fn a_companion_is_not_reset_by_its_main_functions_own_reset() {
    let by_sysfs = [("reset_subordinate", "")];
    let both = expect![[r#"
        0000:50:00.0 bus
        0000:50:00.1 bus
    "#]];
    check_release(&mut with_sound(&by_sysfs), &[CARD], |_| {}, both);
    let both = expect![[r#"
        0000:50:00.0 vfio-hot-reset
        0000:50:00.1 vfio-hot-reset
    "#]];
    check_release(&mut with_sound(&[]), &[CARD], |_| {}, both);
    // What was pulled out is not there to be reset; the rest is.
    let mut world = with_sound(&[]);
    world.attach(POD, &[CARD]).unwrap();
    world.host.kernel.pull_out(bdf(CARD));
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!(world.notes.resets, [(bdf(BESIDE), "vfio-hot-reset".to_owned())].into());
    assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
}

/// Somebody came below the bridge, so the bus cannot be reset any more: the GPU still is by itself, and with its sound goes to nobody.
#[test]
fn a_companion_that_was_not_reset_goes_to_nobody_and_its_main_function_neither() {
    let mut world = with_sound(&[("reset_subordinate", "")]);
    let said = "no reset_method, and a reset of the bus below 0000:00:02.0 would reach 0000:50:00.2, which does not go with it";
    let somebody = |kernel: &mut KernelModel| {
        kernel.function("0000:50:00.2", "8086:1", "120000", Some(51), Some("nvme"), &NO_METHOD);
    };
    let kept = expect![[r#"
        0000:50:00.0 flr
        0000:50:00.1 ResetFailed: reset failed: no reset_method, and a reset of the bus below 0000:00:02.0 would reach 0000:50:00.2, which does not go with it
    "#]];
    check_release(&mut world, &[CARD], somebody, kept);
    let refused = world.attach(POD, &[CARD]).unwrap_err().to_string();
    assert_eq!(refused, format!("device 0000:50:00.1 is in quarantine (ResetFailed): reset failed: {said}"));
    let health = |world: &World, quarantined: bool| {
        let (inventory, none) = (discover(&world.host), BTreeMap::new());
        let quarantined = if quarantined { &world.notes.quarantined } else { &BTreeMap::new() };
        let known = Known { bindings: &BTreeMap::new(), quarantined, take_from: &[], foreign: &none };
        let devices = inventory.devices_as(known, &BTreeMap::new(), &[]);
        let card = devices.into_iter().find(|device| device.address == CARD).expect("there");
        match card.health {
            bulkhead_types::DeviceHealth::Unhealthy { code, .. } => code.to_string(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(health(&world, true), "ResetFailed", "no pod is placed on it");
    // From the start such a card is nobody's: what its guest did to the sound could not be undone.
    assert_eq!(health(&world, false), "NoReset");
    world.notes.quarantined.clear();
    let refused = world.attach(POD, &[CARD]).unwrap_err().to_string();
    assert!(refused.contains(BESIDE) && refused.contains(said), "{refused}");
    assert_eq!(health(&with_sound(&[]), false), "Healthy");
}

/// What a look at a function after its reset says whose configuration space was changed so: bytes by their place. `resource` is what
/// the kernel put where.
fn check_look(resource: &str, is_virtual: bool, bytes: &[(usize, u8)], expected: &str) {
    let mut kernel = machine();
    kernel.add_file(bdf(IDLE), "resource", resource);
    if is_virtual {
        kernel.add_link(bdf(IDLE), "physfn", &format!("../{NIC}"));
    }
    let function = discover(&kernel).functions[&bdf(IDLE)].clone();
    let mut space = kernel.read(&machine::file(bdf(IDLE), "config")).unwrap();
    for (at, byte) in bytes {
        space[*at] = *byte;
    }
    kernel.add_bytes(bdf(IDLE), "config", &space);
    let said = check_after(&kernel, &function).map_or_else(|reason| reason, |()| "well".to_owned());
    assert_eq!(said, expected, "{bytes:x?}");
}

#[test]
fn a_function_is_looked_at_after_its_reset() {
    let regions = "0x00000000e0000000 0x00000000e0ffffff 0x0000000000040200\n\
                   0x0000004000000000 0x0000004fffffffff 0x000000000014220c\n";
    let placed = [(0x13, 0xe0), (0x14, 0x0c), (0x18, 0x40)];
    check_look("", false, &[], "well");
    check_look(regions, false, &placed, "well");
    let cleared = "region 1 is at 0xc now, and the kernel put it at 0x4000000000";
    check_look(regions, false, &placed[..2], cleared);
    check_look("", false, &[(0, 0xff), (1, 0xff)], "it is ffff:3684 now, and was 1d22:3684");
    check_look("", false, &[(2, 0)], "it is 1d22:3600 now, and was 1d22:3684");
    check_look("", false, &[(0x0e, 0x81)], "its header is of type 0x81 now, and it is no bridge");
    check_look("", false, &[(0x0e, 0x80), (4, 6)], "well");
    check_look("", false, &[(4, 0xff), (5, 0xff)], "its command register is 0xffff");
    check_look(regions, false, &[(0x13, 0)], "region 0 is at 0x0 now, and the kernel put it at 0xe0000000");
    let ones: Vec<_> = (0..64).map(|at| (at, 0xff)).collect();
    check_look("", false, &ones, "nothing answers at its address (its configuration space reads as ones)");
    // A virtual function has no ids and regions of its own.
    check_look(regions, true, &[(0, 0xff), (1, 0xff), (2, 0xff), (3, 0xff)], "well");
    check_look(
        regions,
        true,
        &ones,
        "nothing answers at its address (its configuration space reads as ones)",
    );
    let mut kernel = machine();
    let function = discover(&kernel).functions[&bdf(IDLE)].clone();
    kernel.add_bytes(bdf(IDLE), "config", &[0; 16]);
    let short = check_after(&kernel, &function).unwrap_err();
    assert_eq!(short, "/sys/bus/pci/devices/0000:42:00.0/config has 16 bytes only");
}

/// An agent that dies at any step of a card that is reset with its bus begins where it was.
#[test]
fn an_agent_may_die_while_a_bus_is_reset() {
    for count in 0.. {
        let mut world = world("040300", Some("snd_hda_intel"), &[]);
        let before = world.state();
        world.attach(POD, &[CARD]).unwrap();
        world.lives_for(Some(count));
        let released = world.release(POD);
        assert_eq!(world.recover("boot", false), Ok(vec![]), "died after {count}");
        assert_eq!(world.state(), before, "died after {count}");
        assert!(world.notes.quarantined.is_empty() && world.host.kernel.resets(bdf(CARD)) >= 1);
        if released.is_ok() {
            assert!(count > 6, "{count}");
            return;
        }
    }
}

/// Whoever opens a group's file at the moment of a look is not refused: none is opened, unless processes are hidden from the agent.
#[test]
fn pain_2_a_look_opens_no_groups_file() {
    let mut world = World::new();
    let bind = |world: &mut World, at: &str, group| {
        world.host.kernel.function(at, "8086:1234", "120000", Some(group), Some(VFIO_PCI), &[]);
    };
    bind(&mut world, "0000:51:00.0", 51);
    bind(&mut world, "0000:52:00.0", 52);
    world.host.kernel.occupy_group(51, true);
    let owners = |world: &mut World| {
        let found = discover(&world.host);
        foreign_owners(&mut world.host, &found, &BTreeMap::new())
    };
    let text = "process 4711 has /dev/vfio/51 open".to_owned();
    assert_eq!(owners(&mut world), [(bdf("0000:51:00.0"), text)].into());
    assert_eq!(world.host.kernel.tried_groups(), 0);
    world.host.kernel.hide_processes(true);
    let text = "another process has /dev/vfio/51 open".to_owned();
    assert_eq!(owners(&mut world), [(bdf("0000:51:00.0"), text)].into());
    assert_eq!(world.host.kernel.tried_groups(), 2);
}
