//! Settings as values.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use bulkhead_types::{NetworkAttachment, SriovLinkType, VfLinkState};

use super::*;

pub(crate) fn network(device: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: "default/blue".into(),
        interface: "net1".into(),
        device: device.into(),
        address: Some("10.9.0.2".parse().unwrap()),
        prefix: 16,
        gateway: None,
        mac: "02:aa:00:00:00:01".into(),
        vlan: 100,
        vlan_qos: 3,
        spoof_chk: Some(false),
        trust: Some(true),
        min_tx_rate: None,
        max_tx_rate: Some(1000),
        link_state: VfLinkState::Enable,
        link_type: SriovLinkType::Eth,
        mtu: None,
        routes: Default::default(),
    }
}

/// What `seen` makes of the attachment: the settings in order, as `ip link set` would be told them.
fn check(change: impl FnOnce(&mut NetworkAttachment), seen: VfSettings, expected: &[&str]) {
    let mut attachment = network("0000:86:00.2");
    change(&mut attachment);
    let wanted = VfSettings::wanted(&attachment, &seen).unwrap();
    let (mut seen, mut done, mut steps) = (seen, BTreeSet::new(), Vec::new());
    while let NextSetting::Set(setting) = next_setting(&wanted, &seen, &done) {
        steps.push(format!("{} {setting}", setting.name()));
        done.insert(setting.name());
        seen = seen.with(&setting);
    }
    assert_eq!(next_setting(&wanted, &seen, &done), NextSetting::Done);
    assert_eq!(steps, expected);
}

fn fresh() -> VfSettings {
    VfSettings {
        vlan: Some(VfVlan::NONE),
        mac: Some([0; 6]),
        rate: Some(VfRate::default()),
        spoof_check: Some(true),
        trust: Some(false),
        link_state: Some(VfLinkState::Auto),
        ..VfSettings::default()
    }
}

#[test]
fn what_differs_is_set_in_order_and_nothing_else() {
    let all = [
        "vf vlan 100 qos 3",
        "vf mac 02:aa:00:00:00:01",
        "vf rate min 0 max 1000 Mbit/s",
        "vf spoofchk off",
        "vf trust on",
        "vf state enable",
    ];
    check(|_| {}, fresh(), &all);
    check(|_| {}, VfSettings::default(), &all);
    let plain = |attachment: &mut NetworkAttachment| {
        (attachment.spoof_chk, attachment.trust, attachment.max_tx_rate) = (None, None, None);
        (attachment.vlan, attachment.vlan_qos, attachment.link_state) = (0, 0, VfLinkState::Auto);
    };
    check(plain, fresh(), &["vf mac 02:aa:00:00:00:01"]);
    // What an earlier owner left is set right, other kinds of VLANs too.
    let left = VfSettings { vlan: Some(VfVlan { id: 0, qos: 0, protocol: 0x88a8 }), ..fresh() };
    check(plain, left, &["vf vlan 0 qos 0", "vf mac 02:aa:00:00:00:01"]);
    let rated = VfSettings { rate: Some(VfRate { min_mbps: 10, max_mbps: 20 }), ..fresh() };
    let rates = ["vf mac 02:aa:00:00:00:01", "vf rate min 10 max 1000 Mbit/s"];
    check(
        |one| {
            plain(one);
            one.max_tx_rate = Some(1000)
        },
        rated,
        &rates,
    );
    let ib = |attachment: &mut NetworkAttachment| attachment.link_type = SriovLinkType::Ib;
    check(
        ib,
        fresh(),
        &["vf state enable", "vf node_guid 02aa00fffe000001", "vf port_guid 02aa00fffe000001"],
    );
}

#[test]
fn what_a_driver_takes_and_does_not_do_is_found() {
    let wanted = VfSettings::wanted(&network("0000:86:00.2"), &fresh()).unwrap();
    let done: BTreeSet<_> = ["vf vlan"].into();
    let expected = VfSetting::Vlan(VfVlan { id: 100, qos: 3, ..VfVlan::NONE });
    assert_eq!(next_setting(&wanted, &fresh(), &done), NextSetting::NoEffect(expected));
    let silent = VfSettings { vlan: None, ..fresh() };
    assert!(matches!(next_setting(&wanted, &silent, &done), NextSetting::Set(VfSetting::Mac(_))));
}

#[test]
fn after_a_guest_nothing_of_a_network_is_left() {
    let seen = VfSettings {
        vlan: Some(VfVlan { id: 7, qos: 1, ..VfVlan::NONE }),
        mac: Some([2, 0, 0, 0, 0, 9]),
        spoof_check: Some(false),
        trust: Some(true),
        ..fresh()
    };
    let wanted = VfSettings::wanted(&network("0000:86:00.2"), &seen).unwrap();
    let before = VfSettings::before(&wanted, &seen);
    assert_eq!(before, seen, "what failed goes back to exactly what was there");
    let neutral = before.neutral();
    assert_eq!(neutral, VfSettings { mac: seen.mac, spoof_check: Some(false), ..fresh() });
    let untouched = VfSettings { trust: None, ..wanted };
    assert_eq!(VfSettings::before(&untouched, &seen).trust, None, "what is not set is not set back");
    let ib = NetworkAttachment { link_type: SriovLinkType::Ib, ..network("0000:86:00.2") };
    let wanted = VfSettings::wanted(&ib, &seen).unwrap();
    let guids = VfSettings { node_guid: Some(0), port_guid: Some(5), ..seen };
    let back = VfSettings::before(&wanted, &guids);
    assert_eq!((back.node_guid, back.port_guid, back.mac), (Some(u64::MAX), Some(5), None));
    let only = VfSettings { node_guid: back.node_guid, ..VfSettings::default() };
    let done: BTreeSet<_> = ["vf node_guid"].into();
    assert_eq!(next_setting(&only, &guids, &done), NextSetting::Done, "who chooses may choose anything");
}

#[test]
fn mac_addresses() {
    for (text, expected) in [
        ("02:aa:00:00:00:01", Some([2, 0xaa, 0, 0, 0, 1])),
        ("02:aa:00:00:00", None),
        ("02:aa:00:00:00:01:02", None),
        ("2:aa:00:00:00:01", None),
        ("", None),
    ] {
        assert_eq!(parse_mac(text), expected, "{text}");
    }
    assert_eq!(mac_text(&[2, 0xaa, 0, 0, 0, 1]), "02:aa:00:00:00:01");
}
