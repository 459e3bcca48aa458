//! Functions that attach pods to networks: what they are told, and back; and what somebody else on the host uses.

use bulkhead_types::NetworkAttachment;

use super::*;
use crate::vf_settings::{EOPNOTSUPP, check_link_without_functions, check_settings, tests::network};

pub(super) const VF: &str = "0000:86:00.2";
const VF_INDEX: u32 = 1;
const PORT: u32 = 7;

impl World {
    /// A NIC with two functions for guests.
    fn with_functions() -> Self {
        let mut world = Self::new();
        assert_eq!(world.apply(&guests(2)), Progress::Settled);
        world
    }

    fn join(&mut self, pod: ObjectId, attachment: &NetworkAttachment) -> Result<Vec<Planned>, BindError> {
        let networks = [(bdf(&attachment.device), attachment.clone())].into();
        let request = Request { pod, boot_id: "boot".into(), take_from: &[], networks: &networks };
        attach(&mut self.host, &mut self.notes, &request, &set(&[&attachment.device]))
    }

    /// What the function is told, as `ip link` shows it.
    pub(super) fn told(&self) -> String {
        let told = self.host.vf(PORT, VF_INDEX).unwrap();
        let each: Vec<String> = told.each().map(|one| one.to_string()).collect();
        each.join(", ")
    }
}

pub(super) const FRESH: &str = "0 qos 0, 00:00:00:00:00:00, min 0 max 0 Mbit/s, on, off, auto";
pub(super) const BLUE: &str = "100 qos 3, 02:aa:00:00:00:01, min 0 max 1000 Mbit/s, off, on, enable";

#[test]
fn the_kernel_in_memory_conforms() {
    let mut kernel = World::with_functions().host.0.kernel;
    check_settings(&mut kernel, PORT, 1, 0);
    let mut without = World::new().host.0.kernel;
    check_link_without_functions(&mut without, PORT);
}

#[test]
fn a_function_is_told_its_network_and_goes_back_after_its_reset() {
    let mut world = World::with_functions();
    let before = world.state();
    assert_eq!(world.told(), FRESH);
    world.join(POD, &network(VF)).unwrap();
    assert_eq!(world.told(), BLUE);
    let writes = world.host.writes;
    world.join(POD, &network(VF)).unwrap();
    assert_eq!(world.host.writes, writes, "what is so is not set again");
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!((world.told().as_str(), world.state()), (FRESH, before));
    assert_eq!(world.host.kernel.resets(bdf(VF)), 1);
    // What an operator told it is no part of what a pod leaves behind, but its MAC address is its own.
    for setting in [VfSetting::Mac([2, 0, 0, 0, 0, 9]), VfSetting::Trust(true)] {
        world.host.set_vf(PORT, VF_INDEX, &setting).unwrap();
    }
    world.join(POD, &network(VF)).unwrap();
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!(world.told(), FRESH.replace("00:00:00:00:00:00", "02:00:00:00:00:09"));
    // A pod that has the function without a network: it is told nothing.
    let told = world.told();
    world.attach(OTHER, &[VF]).unwrap();
    assert_eq!(world.told(), told);
}

/// Whichever step fails: it is named with the kernel's word and what helps, and the function is as it was.
#[test]
fn a_setting_that_fails_is_named_and_everything_is_as_it_was() {
    let check = |prepare: &dyn Fn(&mut World), change: &dyn Fn(&mut NetworkAttachment), expected: &str| {
        let mut world = World::with_functions();
        world.host.set_vf(PORT, VF_INDEX, &VfSetting::Trust(true)).unwrap();
        let (told, before) = (world.told(), world.state());
        prepare(&mut world);
        let mut attachment = NetworkAttachment { trust: Some(false), ..network(VF) };
        change(&mut attachment);
        let failed = world.join(POD, &attachment).unwrap_err().to_string();
        assert!(failed.contains(expected), "{failed}");
        world.host.kernel.move_interface(bdf(NIC), false);
        assert_eq!((world.told(), world.state()), (told, before), "{expected}");
        assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
    };
    for name in ["vf vlan", "vf mac", "vf rate", "vf spoofchk", "vf trust", "vf state"] {
        let no = |world: &mut World| world.host.kernel.break_setting(name, Some(EOPNOTSUPP));
        check(&no, &|_| {}, &format!("device {VF}: {name} failed: eth7 vf 1"));
        check(&no, &|_| {}, "the driver says no; the driver of eth7 cannot do that");
        let silent = |world: &mut World| world.host.kernel.break_setting(name, Some(0));
        check(&silent, &|_| {}, "the kernel took it, and tells");
    }
    // The driver is gone, busy, forbids it, or does not answer in time.
    for (errno, remedy) in [
        (19, "the NIC or its function is gone"),
        (16, "eth7 is busy with something else"),
        (1, "run the agent as root"),
        (110, "look at: ip link show eth7; dmesg"),
    ] {
        for name in ["vf vlan", "vf mac", "vf rate", "vf spoofchk", "vf trust", "vf state"] {
            let no = |world: &mut World| world.host.kernel.break_setting(name, Some(errno));
            check(&no, &|_| {}, &format!("device {VF}: {name} failed: eth7 vf 1"));
        }
        let no = |world: &mut World| world.host.kernel.break_setting("vf mac", Some(errno));
        check(&no, &|_| {}, &format!("the driver says no; {remedy}"));
    }
    let moved = |world: &mut World| world.host.kernel.move_interface(bdf(NIC), true);
    check(&moved, &|_| {}, "vf find failed: the NIC 0000:86:00.0 has no network interface here");
    let ib = |attachment: &mut NetworkAttachment| attachment.link_type = SriovLinkType::Ib;
    check(&|_| {}, &ib, "speaks Ethernet, not InfiniBand: run mstconfig -d 0000:86:00.0 set LINK_TYPE_P1=1");
    check(&|_| {}, &|attachment| attachment.mac = "x".into(), "is no MAC address");
}

#[test]
fn a_function_that_keeps_a_networks_settings_goes_to_nobody() {
    let mut world = World::with_functions();
    world.join(POD, &network(VF)).unwrap();
    world.host.kernel.break_setting("vf vlan", Some(EOPNOTSUPP));
    assert_eq!(world.release(POD), Ok(vec![bdf(VF)]));
    let kept = &world.notes.quarantined[&bdf(VF)];
    assert_eq!(kept.code, SETTINGS_NOT_RESTORED);
    assert!(kept.message.starts_with("vf vlan failed: eth7 vf 1 0 qos 0"), "{}", kept.message);
    assert!(world.join(OTHER, &network(VF)).unwrap_err().to_string().contains("is in quarantine"));
}

/// Whatever an agent has done before it died: the next one brings the function into its network, or back.
#[test]
fn an_agent_may_die_at_every_setting() {
    let (mut deaths, before) = (0, World::with_functions().state());
    for count in 0.. {
        let mut is_whole = false;
        for is_known in [true, false] {
            let mut world = World::with_functions();
            world.lives_for(Some(count));
            is_whole = world.join(POD, &network(VF)).is_ok();
            assert_eq!(world.recover("boot", is_known), Ok(vec![]), "died after {count}");
            if is_known {
                world.join(POD, &network(VF)).unwrap_or_else(|error| panic!("died after {count}: {error}"));
                assert_eq!(world.told(), BLUE, "died after {count}");
                assert_eq!(world.release(POD), Ok(vec![]), "died after {count}");
            }
            assert_eq!((world.told().as_str(), world.state()), (FRESH, before.clone()), "died after {count}");
            assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
        }
        if is_whole {
            deaths += count;
            break;
        }
    }
    for count in 0.. {
        let mut world = World::with_functions();
        world.join(POD, &network(VF)).unwrap();
        world.lives_for(Some(count));
        let is_whole = world.release(POD).is_ok_and(|lost| lost.is_empty());
        // What could not be written while the agent died is no quarantine: nobody lived to write it.
        assert!(world.notes.quarantined.is_empty(), "died after {count}");
        assert_eq!(world.recover("boot", false), Ok(vec![]), "died after {count}");
        assert_eq!((world.told().as_str(), world.state()), (FRESH, before.clone()), "died after {count}");
        assert!(world.notes.bindings.is_empty(), "died after {count}");
        assert!(world.host.kernel.resets(bdf(VF)) >= 1, "never without a reset");
        if is_whole {
            deaths += count;
            break;
        }
    }
    assert!(deaths > 18, "only {deaths} steps were tried");
}

/// What the control plane is told of a function's user, and what an attachment says.
fn check_foreign(prepare: impl FnOnce(&mut World), address: &str, owner: &str) {
    let mut world = World::with_functions();
    prepare(&mut world);
    let found: Inventory = discover(&world.host);
    let foreign = foreign_owners(&mut world.host, &found, &world.notes.bindings);
    let take_from = ["mlx5_core".to_owned(), "mlx5_core_vf".to_owned()];
    let known = Known {
        bindings: &world.notes.bindings,
        quarantined: &world.notes.quarantined,
        take_from: &take_from,
        foreign: &foreign,
    };
    let devices = found.devices_as(known, &BTreeMap::new(), &[]);
    let device = devices.iter().find(|device| device.address == address).unwrap();
    assert_eq!(device.in_use_by, owner, "it is offered to nobody");
    let networks = BTreeMap::new();
    let request = Request { pod: OTHER, boot_id: "boot".into(), take_from: &take_from, networks: &networks };
    let attached = attach(&mut world.host, &mut world.notes, &request, &set(&[address]));
    match owner {
        "" => _ = attached.unwrap(),
        owner => {
            let expected = format!("device {address} is used by somebody else on this host: {owner}");
            assert_eq!(attached.unwrap_err().to_string(), expected);
            assert!(world.notes.bindings.keys().all(|at| *at != bdf(address)));
        }
    }
}

#[test]
fn pain_02_what_somebody_else_on_the_host_uses_is_neither_offered_nor_attached() {
    check_foreign(|_| {}, VF, "");
    // A machine of somebody else: QEMU has the group's file open.
    check_foreign(
        |world| world.host.kernel.occupy_group(101, true),
        VF,
        "process 4711 has /dev/vfio/101 open",
    );
    // A guest of this node has its own open: that is nobody else.
    check_foreign(
        |world| {
            world.attach(POD, &["0000:86:00.1"]).unwrap();
            world.host.kernel.occupy_group(100, true);
        },
        VF,
        "",
    );
    let netdevices = |world: &mut World| {
        let wanted = nic(2, None, vec![group(0, 1, SriovDeviceType::Netdevice)]);
        assert_eq!(world.apply(&wanted), Progress::Settled);
        world.host.kernel.add_file(bdf(VF), "net/eth9/mtu", "1500\n");
    };
    check_foreign(netdevices, VF, "");
    check_foreign(
        |world| {
            netdevices(world);
            world.host.kernel.move_interface(bdf(VF), true);
        },
        VF,
        "its interface is in another network namespace",
    );
    check_foreign(
        |world| {
            netdevices(world);
            world.host.kernel.add_link(bdf(VF), "net/eth9/master", "../../../../virtual/net/br0");
        },
        VF,
        "its interface eth9 belongs to br0",
    );
}

/// A change of a NIC that somebody else on the host is in the way of: nothing of theirs is touched, who it is is told, and once they have
/// gone the NIC is what it shall be.
fn check_waits(
    is: &SriovInterface,
    begin: &dyn Fn(&mut World),
    wanted: &SriovInterface,
    owner: &str,
    expected: &str,
    end: &dyn Fn(&mut World),
) {
    let mut world = World::new();
    assert_eq!(world.apply(is), Progress::Settled);
    begin(&mut world);
    let blocked = Progress::Blocked { pods: vec![], foreign: [(bdf(VF), owner.to_owned())].into() };
    for _ in 0..2 {
        assert_eq!(world.apply(wanted), blocked, "{owner}");
        assert_eq!(world.functions(), expected, "{owner}");
    }
    let report = NicReport::from(&blocked);
    assert_eq!((report.step.as_str(), report.sync_error), ("Draining", format!("{VF}: {owner}").into()));
    end(&mut world);
    assert_eq!(world.apply(wanted), Progress::Settled, "{owner}");
}

/// Two functions of drivers of the host.
fn of_host(num_vfs: u32) -> SriovInterface {
    nic(num_vfs, None, vec![group(0, num_vfs - 1, SriovDeviceType::Netdevice)])
}

const PROCESS: &str = "process 4711 has /dev/vfio/101 open";

/// The kernel would wait until the process has let go of the function, and with it everybody who has devices.
#[test]
fn pain_02_functions_that_somebody_else_uses_are_not_removed() {
    let occupy = |is_busy| move |world: &mut World| world.host.kernel.occupy_group(101, is_busy);
    let is = "vfio-pci vfio-pci";
    check_waits(&guests(2), &occupy(true), &guests(4), PROCESS, is, &occupy(false));
    check_waits(&guests(2), &occupy(true), &nic(0, None, vec![]), PROCESS, is, &occupy(false));
    // Not all processes can be looked at: the group's file tells that somebody has it.
    let hidden = |world: &mut World| {
        world.host.kernel.hide_processes(true);
        world.host.kernel.occupy_group(101, true);
    };
    check_waits(
        &guests(2),
        &hidden,
        &guests(4),
        "another process has /dev/vfio/101 open",
        is,
        &occupy(false),
    );
    // A container of the host's has the interface, a bridge, or the host itself.
    let moved = |is_moved| {
        move |world: &mut World| {
            world.host.kernel.add_file(bdf(VF), "net/eth9/mtu", "1500\n");
            world.host.kernel.move_interface(bdf(VF), is_moved);
        }
    };
    let is = "mlx5_core_vf mlx5_core_vf";
    let elsewhere = "its interface is in another network namespace";
    check_waits(&of_host(2), &moved(true), &of_host(4), elsewhere, is, &moved(false));
    let up = |state: &'static str| {
        move |world: &mut World| world.host.kernel.add_file(bdf(VF), "net/eth9/operstate", state)
    };
    let host = "its interface eth9 is up on this host";
    check_waits(&of_host(2), &up("up\n"), &of_host(4), host, is, &up("down\n"));
    // What is as it shall be is nobody's business.
    let mut world = World::with_functions();
    world.host.kernel.occupy_group(101, true);
    let writes = world.host.writes;
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    assert_eq!(world.host.writes, writes);
    // With a pod's, both are told; the pod's own open files are nobody else.
    world.attach(POD, &["0000:86:00.1"]).unwrap();
    world.host.kernel.occupy_group(100, true);
    let both = Progress::Blocked { pods: vec![POD], foreign: [(bdf(VF), PROCESS.to_owned())].into() };
    assert_eq!(world.apply(&guests(4)), both);
}

#[test]
fn pain_02_functions_that_somebody_else_uses_keep_their_driver() {
    // The other function goes on; a process has this one.
    let occupy = |is_busy| move |world: &mut World| world.host.kernel.occupy_group(101, is_busy);
    check_waits(&guests(2), &occupy(true), &of_host(2), PROCESS, "mlx5_core_vf vfio-pci", &occupy(false));
    // And the host's own interface is not made a guest's.
    let up = |state: &'static str| {
        move |world: &mut World| world.host.kernel.add_file(bdf(VF), "net/eth9/operstate", state)
    };
    let host = "its interface eth9 is up on this host";
    check_waits(&of_host(2), &up("up\n"), &guests(2), host, "vfio-pci mlx5_core_vf", &up("down\n"));
    // Somebody took one while functions were awaited, and a later step fails: what is undone is nothing of theirs.
    let mut world = World::new();
    world.host.kernel.slow_functions(1);
    world.host.kernel.break_file("net/eth7/flags", Some("Input/output error"));
    let mut work = NicWork::new(guests(2));
    assert_eq!(work.advance(&mut world.host, &world.notes.bindings, 0), Progress::Waiting);
    (0..3).for_each(|_| world.host.kernel.pass_time());
    world.host.kernel.occupy_group(101, true);
    let failed = work.advance(&mut world.host, &world.notes.bindings, 1000);
    assert!(matches!(failed, Progress::Failed { step: "LinkUp", .. }), "{failed:?}");
    assert_eq!(world.functions(), "vfio-pci vfio-pci", "they are there still");
}

/// Many users are one line of a bounded length.
#[test]
fn a_report_names_the_first_user_and_how_many_more_there_are() {
    let check = |count: u8, expected: &str| {
        let vf = |n: u8| bdf(&format!("0000:86:01.{n}"));
        let foreign = (0..count).map(|n| (vf(n), PROCESS.to_owned())).collect();
        let report = NicReport::from(&Progress::Blocked { pods: vec![POD], foreign });
        assert_eq!((report.step.as_str(), report.sync_error.as_str()), ("Draining", expected));
    };
    check(0, "");
    check(1, "0000:86:01.0: process 4711 has /dev/vfio/101 open");
    check(2, "0000:86:01.0: process 4711 has /dev/vfio/101 open, and 1 more");
    check(8, "0000:86:01.0: process 4711 has /dev/vfio/101 open, and 7 more");
}

#[test]
fn a_nics_packets_grow_before_its_functions_and_shrink_after_them() {
    let mut world = World::new();
    world.apply_with_mtu(9000);
    assert_eq!(world.links(), "eth7 9000 0x1003\neth9 9000 \n");
    assert_eq!(world.apply(&with_mtu(1500)), Progress::Settled);
    assert_eq!(world.links(), "eth7 1500 0x1003\neth9 1500 \n");
}

/// Whatever was told of interfaces goes back: both ways, and a NIC that was switched on is off again.
#[test]
fn interfaces_go_back_to_what_was_seen_of_them() {
    for (was, is) in [(1500, 9000), (9000, 1500)] {
        let mut world = World::new();
        world.apply_with_mtu(was);
        world.host.kernel.add_file(bdf(NIC), "net/eth7/flags", "0x1002\n");
        let before = world.links();
        let seen = nic_links::LinksSeen::of(&world.host, bdf(NIC), &[bdf(VF)]);
        assert_eq!(world.apply(&with_mtu(is)), Progress::Settled);
        assert!(world.links().contains("0x1003"), "{}", world.links());
        seen.restore(&mut world.host, bdf(NIC));
        assert_eq!(world.links(), before);
        let writes = world.host.writes;
        seen.restore(&mut world.host, bdf(NIC));
        assert_eq!(world.host.writes, writes, "what is so is not told again");
    }
}
