//! Requests as bytes, answers of a real kernel, and what interfaces without functions say.

use bulkhead_nodeagent_core::hardware::discover;
use bulkhead_nodeagent_core::vf_settings::{EPERM, VfRate, VfVlan, check_link_without_functions, port_of};
use bulkhead_types::VfLinkState;
use nix::sched::{CloneFlags, unshare};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(4)
        .map(|part| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + " ")
        .collect()
}

/// What `ip link set` sends, as strace shows it, behind the header (length, RTM_SETLINK, REQUEST|ACK), function 1 of interface 7.
fn check(setting: VfSetting, expected: &str) {
    let bytes = message::set(7, 1, &setting);
    let (header, rest) = bytes.split_at(16);
    let length = u32::try_from(bytes.len()).expect("short").to_le_bytes();
    assert_eq!(header, [&length[..], &[19, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat());
    // struct ifinfomsg: AF_UNSPEC, the interface.
    let (link, rest) = rest.split_at(16);
    assert_eq!(link, [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(hex(rest).trim_end(), expected, "{setting:?}");
}

#[test]
fn settings_have_the_bytes_of_the_kernels_structures() {
    // IFLA_VFINFO_LIST (22), IFLA_VF_INFO (1), the attribute; each with its length.
    let mac = VfSetting::Mac([2, 0xaa, 0, 0, 0, 1]);
    check(
        mac,
        "30001600 2c000100 28000100 01000000 02aa0000 00010000 00000000 00000000 00000000 00000000 00000000 00000000",
    );
    let vlan = VfVlan { id: 100, qos: 3, ..VfVlan::NONE };
    check(VfSetting::Vlan(vlan), "18001600 14000100 10000200 01000000 64000000 03000000");
    let service = VfVlan { protocol: 0x88a8, ..vlan };
    check(
        VfSetting::Vlan(service),
        "20001600 1c000100 18000c00 14000100 01000000 64000000 03000000 88a80000",
    );
    let rate = VfRate { min_mbps: 10, max_mbps: 1000 };
    check(VfSetting::Rate(rate), "18001600 14000100 10000600 01000000 0a000000 e8030000");
    check(VfSetting::SpoofCheck(false), "14001600 10000100 0c000400 01000000 00000000");
    check(VfSetting::Trust(true), "14001600 10000100 0c000900 01000000 01000000");
    check(VfSetting::LinkState(VfLinkState::Auto), "14001600 10000100 0c000500 01000000 00000000");
    check(VfSetting::LinkState(VfLinkState::Disable), "14001600 10000100 0c000500 01000000 02000000");
    let guid = 0x02aa_00ff_fe00_0001;
    check(VfSetting::NodeGuid(guid), "1c001600 18000100 14000a00 01000000 00000000 010000fe ff00aa02");
    check(VfSetting::PortGuid(guid), "1c001600 18000100 14000b00 01000000 00000000 010000fe ff00aa02");
    // RTM_GETLINK with IFLA_EXT_MASK (29): RTEXT_FILTER_VF and RTEXT_FILTER_SKIP_STATS.
    let get = message::get(7);
    assert_eq!(
        hex(&get).trim_end(),
        "28000000 12000100 01000000 00000000 00000000 07000000 00000000 00000000 08001d00 09000000"
    );
}

/// An answer of the kernel: an interface's name, the number of its functions, and these attributes of functions.
fn answer(functions: &[&[(u16, &[u8])]]) -> Vec<u8> {
    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
    let of_one = |attributes: &&[(u16, &[u8])]| {
        nla(1, &attributes.iter().flat_map(|(kind, value)| nla(*kind, value)).collect::<Vec<u8>>())
    };
    let list: Vec<u8> = functions.iter().flat_map(of_one).collect();
    let mut bytes = vec![0; 32];
    bytes.extend(nla(3, b"eth7\0"));
    bytes.extend(nla(21, &2u32.to_ne_bytes()));
    bytes.extend(nla(22, &list));
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn answers_are_read_as_the_kernel_writes_them() {
    let mut mac = words(&[1]);
    mac.extend([2, 0xaa, 0, 0, 0, 1]);
    mac.resize(36, 0);
    let none = words(&[0, u32::MAX]);
    let mut tag = words(&[1, 100, 3]);
    tag.extend([0x88, 0xa8, 0, 0]);
    let mut tags = vec![20, 0, 1, 0];
    tags.extend(&tag);
    let (rate, plain) = (words(&[1, 10, 1000]), words(&[1, 100, 3]));
    let (off, up, zero) = (words(&[1, 0]), words(&[1, 1]), words(&[0; 9]));
    let guid = [words(&[1, 0]), 5u64.to_ne_bytes().to_vec()].concat();
    let no_tag = [vec![20, 0, 1, 0], words(&[0; 4])].concat();
    let first: &[(u16, &[u8])] = &[(1, &zero), (4, &none), (9, &none), (5, &none), (12, &no_tag)];
    let second: &[(u16, &[u8])] = &[
        (1, &mac),
        (13, &zero[..32]),
        (2, &plain),
        (6, &rate),
        (3, &off),
        (4, &off),
        (5, &up),
        (7, &none),
        (9, &up),
        (12, &tags),
        (10, &guid),
        (11, &guid),
    ];
    let bytes = answer(&[first, second]);
    let expected = VfSettings {
        vlan: Some(VfVlan { id: 100, qos: 3, protocol: 0x88a8 }),
        mac: Some([2, 0xaa, 0, 0, 0, 1]),
        rate: Some(VfRate { min_mbps: 10, max_mbps: 1000 }),
        spoof_check: Some(false),
        trust: Some(true),
        link_state: Some(VfLinkState::Enable),
        node_guid: Some(5),
        port_guid: Some(5),
    };
    assert_eq!(message::settings_of(&bytes, 1), Ok(Some(expected)));
    let unsaid = VfSettings { mac: Some([0; 6]), vlan: Some(VfVlan::NONE), ..VfSettings::default() };
    assert_eq!(message::settings_of(&bytes, 0), Ok(Some(unsaid)), "what a driver does not say is no \"off\"");
    assert_eq!(message::settings_of(&bytes, 2), Ok(None));
    for cut in 0..bytes.len() {
        let _ = message::settings_of(&bytes[..cut], 1);
    }
    assert!(message::settings_of(&bytes[..bytes.len() - 8], 1).is_err(), "cut off");
}

/// The kernel of this machine, in a network namespace of its own where the test may have one: interfaces without functions.
#[test]
fn the_kernel_refuses_functions_that_are_not_there() {
    assert!(is_usable());
    let done = std::thread::spawn(|| {
        let mut machine = MachineTree::new("/");
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            let refused = machine.set_vf(1, 0, &VfSetting::Trust(true)).expect_err("only root may");
            return assert_eq!(refused.errno, EPERM, "{refused}");
        }
        // The loopback interface, and a pair that ends with the namespace.
        let mut ip = std::process::Command::new("ip");
        let made = ip.args("link add a0 type veth peer name a1".split(' ')).status();
        let pair = made.is_ok_and(|status| status.success()).then(|| nix::net::if_::if_nametoindex("a0"));
        let pair = pair.map(|index| index.expect("it was just made"));
        for index in std::iter::once(1).chain(pair) {
            check_link_without_functions(&mut machine, index);
        }
    });
    done.join().expect("it conforms");
    let copy = MachineTree::new("/tmp").vf(1, 0).expect_err("a copy");
    assert!(copy.message.contains("is a copy"), "{copy}");
}

#[test]
fn interfaces_of_this_machines_nics_are_found() {
    let machine = MachineTree::new("/");
    for function in discover(&machine).functions.values().filter(|function| !function.interfaces.is_empty()) {
        let port = port_of(&machine, function.address).expect("it has an interface");
        let index = nix::net::if_::if_nametoindex(port.name.as_str()).expect("the kernel knows it");
        assert_eq!(port.index, index, "{port:?}");
    }
}
